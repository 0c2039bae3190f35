"""The report on scored images: a table of all scores, and a page that shows the most unusual images.

The page is one file that asks for no other, in light and dark and at the width of a phone.
"""

from __future__ import annotations

import base64
import heapq
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image
from scipy.stats import binomtest

from companion.data.images import ImageSet, Skipped, decode_thumbnail
from companion.data.sources import DataError

TABLE, PAGE = "scores.csv", "index.html"
COLUMNS = ("file", "score", "flagged", "error")
"""Of the table."""
MARK = '<meta name="generator" content="companion score images">'
"""What tells a page of this module from others."""
LISTED = 100
"""How many of the files that cannot be read the page names."""
_LONGEST = 256  # pixels of a picture's longer side in the page
_CLIPPED = 0.01  # the share of the shown maps' pixels that may lie above the colour scale
_BINS = 40


def shown_name(path: Path | str, folder: Path | None = None) -> str:
    r"""How a file is named: relative to ``folder``, and what cannot be printed is escaped.

    Example:
        >>> shown_name(Path("photos/a b.png"), Path("photos")), shown_name("two\nlines.png")
        ('a b.png', 'two\\nlines.png')
    """
    name = Path(path).relative_to(folder).as_posix() if folder is not None else str(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def check_report_folder(folder: Path) -> None:
    """Find out whether a report may be written to ``folder``, where it replaces what is there.

    Raises:
        FileExistsError: if there is anything but an older report and nothing beside it, or an empty folder.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; name a folder for the report")
    inside = sorted(path.name for path in folder.iterdir())
    other = [name for name in inside if name not in (TABLE, PAGE)]
    if other:
        raise FileExistsError(
            f"{folder} holds {shown_name(other[0])}, which is no part of a report; name a new folder"
        )
    if inside:
        page, start = folder / PAGE, ""
        if page.is_file():
            with page.open(encoding="utf8", errors="replace") as file:
                start = file.read(2000)
        if MARK not in start:
            raise FileExistsError(f"{folder} holds a {inside[0]} of another kind; name a new folder")


# ---------------------------------------------------------------- collecting


@dataclass(frozen=True)
class WorstImage:
    """An image that is shown.

    Attributes:
        name: as the report names it.
        path: of the file.
        score: its score.
        image: uint8 (C, H, W), as the model takes it.
        error: float32 (H, W), its error map.
    """

    name: str
    path: Path
    score: float
    image: np.ndarray
    error: np.ndarray


@dataclass
class Findings:
    """What is known of the images so far: all scores, but pictures and maps of the worst only.

    Attributes:
        folder: that the files are named relative to.
        threshold: images with a higher score are flagged; ``None`` for no verdict.
        keep: how many of the worst are kept.
        promised_fpr: the share of normal images that the threshold may flag, if it is known.
        scores: of the images that could be read.
        flagged: how many of them are.
        unread: how many files could not be read.
        listed: the first of those.
    """

    folder: Path
    threshold: float | None
    keep: int
    promised_fpr: float | None = None
    scores: list[float] = field(init=False, default_factory=list)
    flagged: int = field(init=False, default=0)
    unread: int = field(init=False, default=0)
    listed: list[Skipped] = field(init=False, default_factory=list)
    _heap: list[tuple[float, int, WorstImage]] = field(init=False, default_factory=list)

    @property
    def warning(self) -> str:
        """What to think of it if much more is flagged than the threshold promised; else ``""``."""
        count = len(self.scores)
        if self.promised_fpr is None or self.flagged < 2 * self.promised_fpr * count:
            return ""
        if binomtest(self.flagged, count, self.promised_fpr, alternative="greater").pvalue >= 0.001:
            return ""
        return (
            f"{100 * self.flagged / count:.3g} % of these images are flagged, and of normal ones it should "
            f"be {100 * self.promised_fpr:.3g} %: either many are unusual, or camera, light or what is shown "
            "have changed since the model was fitted, or few images chose the threshold; look at some, and "
            "if they are fine, fit anew on images like these"
        )

    def add(
        self,
        paths: Sequence[Path],
        images: ImageSet,
        scores: np.ndarray,
        maps: np.ndarray,
        unread: Sequence[Skipped],
    ) -> Iterator[tuple[str, str, str, str]]:
        """Take in a batch.

        Args:
            paths: of its files.
            images: those that could be read.
            scores: (N,) of ``images``.
            maps: (N, H, W), likewise.
            unread: the others.

        Yields:
            A row of the table for each of ``paths``, in their order.
        """
        reasons = {each.name: each.reason for each in unread}
        places = {name: place for place, name in enumerate(images.names)}
        for path in paths:
            name = shown_name(path, self.folder)
            if str(path) in reasons:
                self.unread += 1
                if len(self.listed) < LISTED:
                    self.listed.append(Skipped(name, reasons[str(path)]))
                yield name, "", "", reasons[str(path)]
                continue
            place = places[str(path)]
            score = float(scores[place])
            verdict = "" if self.threshold is None else str(int(score > self.threshold))
            self.flagged += verdict == "1"
            self._offer(name, path, score, images, maps, place)
            self.scores.append(score)
            yield name, repr(score), verdict, ""

    def _offer(
        self, name: str, path: Path, score: float, images: ImageSet, maps: np.ndarray, place: int
    ) -> None:
        if self.keep == 0 or (len(self._heap) == self.keep and score <= self._heap[0][0]):
            return
        # copies, or the whole batch would stay in memory
        worst = WorstImage(name, path, score, images.images[place].numpy().copy(), maps[place].copy())
        put = heapq.heappush if len(self._heap) < self.keep else heapq.heapreplace
        put(self._heap, (score, -len(self.scores), worst))

    @property
    def worst(self) -> list[WorstImage]:
        """Those that are kept, the worst first, and of equal ones the first."""
        return [each for _, _, each in sorted(self._heap, key=lambda item: item[:2], reverse=True)]


# ---------------------------------------------------------------- pictures


@cache
def _palette() -> np.ndarray:
    """The colours of the error maps, uint8 (256, 3)."""
    colors: np.ndarray = mpl.colormaps["inferno"](np.arange(256), bytes=True)
    return np.ascontiguousarray(colors[:, :3])


def _data_uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def map_uri(error: np.ndarray, top: float) -> str:
    """An error map as a PNG in a ``data:`` address.

    Args:
        error: (H, W), not negative.
        top: what gets the brightest colour, and what lies above it as well.
    """
    levels = (255 * np.clip(error / top, 0, 1) if top > 0 else 0 * error).round().astype(np.uint8)
    picture = Image.fromarray(levels)
    picture.putpalette(_palette().tobytes())
    return _data_uri(picture)


def picture_uri(worst: WorstImage) -> tuple[str, tuple[int, int]]:
    """The image file as a PNG in a ``data:`` address, no longer than 256 pixels, with its width and height.

    If the file is gone or damaged by now, the image is shown as the model took it.
    """
    try:
        pixels = decode_thumbnail(worst.path.read_bytes(), _LONGEST)
    except (DataError, OSError):
        pixels = worst.image if len(worst.image) == 3 else np.repeat(worst.image, 3, axis=0)
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return _data_uri(picture), picture.size


# ---------------------------------------------------------------- the page

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1b1b; --quiet: #555; --line: #ccc;
  --usual: #0072b2; --over: #b34a00; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #16181b; --text: #e8e8e8; --quiet: #b0b6bc; --line: #444a50;
    --usual: #56b4e9; --over: #ff9a55; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--ground); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1, h2 { line-height: 1.2; }
.quiet { color: var(--quiet); }
.over { color: var(--over); font-weight: bold; }
svg { width: 100%; max-width: 40rem; height: auto; display: block; }
svg text { fill: var(--text); font-size: 11px; }
svg .usual { fill: var(--usual); } svg .flag { fill: var(--over); }
svg .axis { stroke: var(--quiet); } svg .threshold { stroke: var(--text); stroke-dasharray: 4 3; }
.scale { display: flex; gap: .5rem; align-items: center; max-width: 24rem; }
.scale img { flex: 1; min-width: 4rem; height: 1rem; border: 1px solid var(--line); }
.worst { list-style: none; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
.worst li { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem; align-items: start; }
.pair img { display: block; }
figure { margin: 0; } figcaption { margin-top: .4rem; }
"""


def _number(value: float) -> str:
    return f"{value:.4g}"


def histogram_svg(scores: np.ndarray, threshold: float | None) -> str:
    """A histogram of scores (N,), N > 0, with the threshold, as an SVG element."""
    ends = [*(() if threshold is None else (threshold,)), scores.min(), scores.max()]
    low, high = float(min(ends)), float(max(ends))
    high = high if high > low else low + max(1e-6, 0.1 * abs(low))
    flagged = np.zeros(len(scores), dtype=bool) if threshold is None else scores > threshold
    parts = [np.histogram(scores[chosen], _BINS, (low, high))[0] for chosen in (~flagged, flagged)]
    width, height, floor, left = 360, 170, 140, 8
    step, most = (width - 2 * left) / _BINS, int((parts[0] + parts[1]).max())
    words = f"Histogram of {len(scores):,} scores from {_number(scores.min())} to {_number(scores.max())}"
    if threshold is not None:
        words += f"; the threshold is {_number(threshold)}, and {int(flagged.sum()):,} are above it"
    lines = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{words}">']
    for place in range(_BINS):
        bottom = float(floor)
        for count, kind in zip((int(part[place]) for part in parts), ("usual", "flag"), strict=True):
            if count:
                tall = max(1.5, 110 * count / most)  # a single image can still be seen
                bottom -= tall
                lines.append(
                    f'<rect class="{kind}" x="{left + place * step:.1f}" y="{bottom:.1f}" '
                    f'width="{step - 0.8:.1f}" height="{tall:.1f}"/>'
                )
    lines.append(f'<line class="axis" x1="{left}" x2="{width - left}" y1="{floor}" y2="{floor}"/>')
    lines.append(f'<text x="{left}" y="{floor + 16}">{_number(low)}</text>')
    lines.append(f'<text x="{width - left}" y="{floor + 16}" text-anchor="end">{_number(high)}</text>')
    middle = f"score; the highest bar: {most:,} images"
    lines.append(f'<text x="{width / 2:.0f}" y="{floor + 16}" text-anchor="middle">{middle}</text>')
    if threshold is not None:
        x = left + (width - 2 * left) * (threshold - low) / (high - low)
        anchor = "end" if x > width / 2 else "start"
        lines.append(f'<line class="threshold" x1="{x:.1f}" x2="{x:.1f}" y1="18" y2="{floor}"/>')
        lines.append(f'<text x="{x:.1f}" y="12" text-anchor="{anchor}">threshold {_number(threshold)}</text>')
    return "\n".join([*lines, "</svg>"])


def _verdict(score: float, threshold: float | None) -> str:
    if threshold is None:
        return ""
    return ', <strong class="over">flagged</strong>' if score > threshold else ", not flagged"


def _worst_section(worst: Sequence[WorstImage], threshold: float | None) -> Iterator[str]:
    top = float(np.quantile(np.concatenate([each.error.ravel() for each in worst]), 1 - _CLIPPED))
    yield f"<h2>The {len(worst):,} most unusual</h2>"
    yield (
        "<p>Beside each image is its error map, stretched to the image's shape: place by place, how far the "
        "model's reconstruction is from the image, in pixel values between 0 and 1. All maps have one colour "
        f"scale, so they can be compared. It ends at {_number(top)}; {100 * _CLIPPED:g} % of all pixels of "
        "these maps lie above and have its last colour.</p>"
    )
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    ramp.putpalette(_palette().tobytes())
    yield (
        f'<p class="scale"><span>0</span><img src="{_data_uri(ramp)}" alt="from black over red to pale '
        f'yellow"><span>{_number(top)}</span></p>'
    )
    yield '<ol class="worst">'
    for place, each in enumerate(worst, start=1):
        picture, (width, height) = picture_uri(each)
        name = escape(each.name)
        box = f'style="aspect-ratio:{width}/{height};width:min(100%,{20 * width / height:.2f}rem)"'
        yield (
            f'<li><figure><div class="pair"><img src="{picture}" alt="The image {name}" {box}>'
            f'<img src="{map_uri(each.error, top)}" alt="Error map of {name}" {box}></div>'
            f"<figcaption>{place}. {name}<br>score {_number(each.score)}{_verdict(each.score, threshold)}"
            "</figcaption></figure></li>"
        )
    yield "</ol>"


def _sections(found: Findings, model: str) -> Iterator[str]:
    count, threshold = len(found.scores), found.threshold
    yield f"<h1>Unusual images in {escape(shown_name(found.folder))}</h1>"
    yield (
        f"<p>{count:,} images scored with {escape(model)}; the higher the score, the more unusual the image. "
        f"All scores are in {TABLE}.</p>\n<ul>"
    )
    if threshold is None:
        yield "<li>The model has no threshold, so nothing is flagged.</li>"
    else:
        share = f" ({100 * found.flagged / count:.3g} %)" if count else ""
        yield f"<li>{found.flagged:,} flagged{share}: their score is above {_number(threshold)}.</li>"
    if found.warning:
        yield f"<li>{escape(found.warning)}.</li>"
    yield f"<li>{found.unread:,} files could not be read.</li>\n</ul>"
    if count:
        yield "<h2>Scores</h2>"
        yield histogram_svg(np.array(found.scores), threshold)
    if found.worst:
        yield from _worst_section(found.worst, threshold)
    if found.unread:
        yield "<h2>Files that could not be read</h2>\n<ul>"
        for each in found.listed:
            yield f'<li>{escape(each.name)}: <span class="quiet">{escape(each.reason)}</span></li>'
        if found.unread > len(found.listed):
            yield f"<li>and {found.unread - len(found.listed):,} more, in {TABLE}</li>"
        yield "</ul>"


def write_page(path: Path, found: Findings, model: str) -> None:
    """Write the page.

    Args:
        path: of the page.
        found: what it shows; the files of the worst images are read once more.
        model: its name, in words.
    """
    with path.open("w", encoding="utf8", newline="\n") as file:
        file.write(
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'{MARK}\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
            '<link rel="icon" href="data:,">\n'
            f"<title>Unusual images in {escape(shown_name(found.folder))}</title>\n"
            f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        )
        file.writelines(f"{section}\n" for section in _sections(found, model))
        file.write("</main>\n</body>\n</html>\n")
