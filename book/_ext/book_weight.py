"""Keeps pages light: what the first view of a page does not need is not fetched for it.

Images wait until they come near. Icons come in fonts of the icons that are used. The search index is
fetched by the search page alone. (Formulas and diagrams wait as well; ``book/_static/book.js`` sees to it.)
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from fontTools import subset
from PIL import Image
from sphinx.application import Sphinx

STYLES = Path("_static/styles/pydata-sphinx-theme.css")
FONTS = Path("_static/vendor/fontawesome/webfonts")
SEARCH = re.compile(r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js"></script>')
IMAGE = re.compile(r'<img (?![^>]*\bloading=)(?P<rest>[^>]*\bsrc="(?P<src>[^"]+)"[^>]*?)(?P<end>\s*/?>)')
SIZE = re.compile(r'style="[^"]*\bwidth: (\d+)px; height: (\d+)px')
ICON_RULE = re.compile(r'((?:\.fa-[\w-]+:before,?)+)\{content:"\\([0-9a-f]+)"\}')
FONT_SOURCE = re.compile(r"url\((?P<path>[^()]*fontawesome/webfonts/(?P<name>[\w-]+))\.woff2\)[^;}]*")


def with_waiting_images(page: str, folder: Path) -> str:
    """``page`` with images that keep their place, and are fetched when they come near.

    Example:
        >>> with_waiting_images('<article><img src="a.png" style="width: 8px; height: 6px;" />', Path())
        '<article><img src="a.png" style="width: 8px; height: 6px;" width="8" height="6" loading="lazy" />'
    """

    def waiting(match: re.Match[str]) -> str:
        size = SIZE.search(match[0])
        width, height = size.groups() if size else (None, None)
        if not size and (folder / match["src"]).suffix in (".png", ".jpg", ".jpeg"):
            with Image.open(folder / match["src"]) as picture:
                width, height = picture.size
        place = f' width="{width}" height="{height}"' if width and "width=" not in match["rest"] else ""
        return f'<img {match["rest"]}{place} loading="lazy"{match["end"]}'

    head, article, rest = page.partition("<article")
    return head + article + IMAGE.sub(waiting, rest)


def when_built(app: Sphinx, step: Callable[[Sphinx], None], priority: int) -> None:
    """Have a step done after each build of the pages that did not fail."""

    def checked(app: Sphinx, error: Exception | None) -> None:
        if not error and app.builder.format == "html":
            step(app)

    app.connect("build-finished", checked, priority=priority)


def icons(styles: str) -> dict[str, str]:
    r"""The letter that stands for each icon.

    Example:
        >>> icons('.fa-xmark:before{content:"\\f00d"}') == {"fa-xmark": chr(0xF00D)}
        True
    """
    return {
        name: chr(int(letter, 16))
        for rule, letter in ICON_RULE.findall(styles)
        for name in re.findall(r"fa-[\w-]+", rule)
    }


def letters(known: dict[str, str], texts: Iterable[str]) -> str:
    r"""The letters of all icons that pages, scripts and other styles name, or write themselves.

    Example:
        >>> letters({"fa-a": "A", "fa-b": "B"}, ['<i class="fa-solid fa-b">', 'x {content: "\\f303"}'])
        'B\uf303'
    """
    found = set()
    for text in texts:
        found |= {known[name] for name in re.findall(r"\bfa-[\w-]+", text) if name in known}
        found |= {chr(int(code, 16)) for code in re.findall(r'"\\u?([ef][0-9a-f]{3})"', text)}
        found |= set(re.findall("[\ue000-\uf8ff]", text))
    return "".join(sorted(found))


def _lighten_icons(app: Sphinx) -> None:
    if not (app.outdir / STYLES).is_file():
        return
    out = Path(app.outdir)
    styles = (out / STYLES).read_text("utf8")
    kinds = ("*.html", "_static/*.css", "_static/styles/sphinx-book-theme.css", "_static/scripts/*theme.js")
    texts = [path.read_text("utf8") for kind in kinds for path in out.rglob(kind)]
    used = letters(icons(styles), [*texts, ICON_RULE.sub("", styles)])
    for source in (out / FONTS).glob("*.woff2"):
        options, plain = subset.Options(flavor="woff", notdef_outline=True), source.with_suffix(".ttf")
        font = subset.load_font(str(plain if plain.exists() else source), options)  # newer themes have one
        pruner = subset.Subsetter(options)
        known = font.getBestCmap()
        pruner.populate(unicodes=[code for code in map(ord, used) if code in known] or [min(known)])
        pruner.subset(font)
        subset.save_font(font, str(source.with_suffix(".woff")), options)
    light = ICON_RULE.sub(lambda rule: rule[0] if chr(int(rule[2], 16)) in used else "", styles)
    (out / STYLES).write_text(FONT_SOURCE.sub(r'url(\g<path>.woff) format("woff")', light), "utf8")


def setup(app: Sphinx) -> None:
    """Connect the step, after those that finish the pages."""
    when_built(app, _lighten_icons, priority=930)
