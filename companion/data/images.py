"""Images from files and folders, decoded and brought to one size; what is left out is listed."""

import hashlib
import io
import os
import re
import tomllib
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image, ImageOps, features
from torch import Tensor

from companion.data.download import DataError, Origin

_TOLD = tomllib.loads(Path(__file__).with_name("images.toml").read_text("utf8"))
#: files with these endings, in capitals or not, are read
SUFFIXES = (*_TOLD["read"], *((".avif",) if features.check("avif") else ()))
LARGEST_PICTURE = 50_000_000  # pixels: what is larger is shrunk, or refused

Item = tuple[str, int, Callable[[], bytes]]  # name and label of an image, and what gives its file's content
Size = tuple[int, int]  # height and width
Range = tuple[float, float]


class Skipped(NamedTuple):
    """Something that was left out: its name, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class ImageSet:
    """Images of one size with their labels."""

    images: Tensor  #: uint8 (N, C, H, W), C is 1 for grey and 3 for colour
    labels: Tensor  #: int64 (N,), 0 for normal, 1 for anomalous
    names: tuple[str, ...]  #: of the files
    hashes: tuple[str, ...]  #: SHA-256 of the files' content: equal for copies, whatever their names

    def __len__(self) -> int:
        return len(self.names)

    def take(self, keep: np.ndarray) -> Self:
        """The images for which ``keep``, bool (N,), is true."""
        places = np.flatnonzero(keep)
        chosen = torch.from_numpy(places)
        names, hashes = (tuple(of[i] for i in places) for of in (self.names, self.hashes))
        return type(self)(self.images[chosen], self.labels[chosen], names, hashes)

    def distinct(self) -> Self:
        """The first of each group of copies."""
        return self.take(np.isin(np.arange(len(self)), np.unique(self.hashes, return_index=True)[1]))


Read = tuple[ImageSet, tuple[Skipped, ...]]  # what could be read, and what was left out


def decode(
    content: bytes, size: Size, color: bool, value_range: Range | None = None
) -> tuple[Image.Image, int]:
    """An image as a viewer shows it, in the mode RGB or L, and the number of pages or frames in the file.

    The orientation that a camera noted is applied, and transparent pixels become black. A huge JPEG is shrunk
    while it is read, but not below twice ``size``. ``value_range`` are the values that become 0 and 255 in
    images deeper than 8 bits. No image, a damaged one or a deep one without a range is a DataError.
    """
    if not content:
        raise DataError("cannot be read as an image (the file is empty)")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as opened:
            if opened.width * opened.height > LARGEST_PICTURE:
                opened.draft(None, (2 * size[1], 2 * size[0]))
            if opened.width * opened.height > LARGEST_PICTURE:
                raise ValueError(f"{opened.width} x {opened.height} pixels are too many")
            if re.search("'(RGBA?|RGBX|LA|CMYK);16", str(opened.tile)):
                raise ValueError("16 bits in each colour, of which 8 would be lost; convert it to 8")
            pages = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
            picture = ImageOps.exif_transpose(opened)
            picture.load()
        return _eight_bits(picture, color, value_range), pages
    except Exception as error:  # whatever a damaged file makes of the decoders; out of memory as well
        reason = str(error).split(" <_io.")[0]  # without Pillow's "<_io.BytesIO object at 0x7f...>"
        raise DataError(f"cannot be read as an image ({type(error).__name__}: {reason})") from error


def _eight_bits(picture: Image.Image, color: bool, value_range: Range | None) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        values = np.asarray(picture)
        if not np.isfinite(values).all():
            raise ValueError("some pixels are no finite numbers")
        if value_range is None:
            low, high = values.min(), values.max()
            raise ValueError(f"{values.dtype} pixels from {low:g} to {high:g}: fit on such, or save 8 bits")
        low, high = value_range
        scaled = (values.astype(np.float64) - low) * (255 / (high - low) if high > low else 0.0)
        picture = Image.fromarray(np.rint(scaled).clip(0, 255).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        opaque = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(opaque, picture.convert("RGBA"))
    return picture.convert("RGB" if color else "L")


def deep_range(paths: Iterable[Path]) -> Range | None:
    """The lowest and the highest value in all images deeper than 8 bits; ``None`` if there is none.

    Of training images it is the range to decode all later ones with; what lies outside is clipped.
    """
    found: list[float] = []
    for path in paths:  # what cannot be read is told when it is decoded
        with suppress(Exception), warnings.catch_warnings(action="ignore"), Image.open(path) as opened:
            if opened.mode.startswith(("I", "F")) and opened.width * opened.height <= LARGEST_PICTURE:
                values = np.asarray(opened)
                if np.isfinite(values).all():
                    found += [float(values.min()), float(values.max())]
    return (min(found), max(found)) if found else None


def read_images(
    items: Iterable[Item], size: Size = (64, 64), color: bool = False, value_range: Range | None = None
) -> Read:
    """Images in the order of ``items``, brought to one size, and what was left out, further pages as well."""
    pixels, labels, names, hashes = [], [], [], []
    skipped: list[Skipped] = []
    for name, label, content_of in items:
        try:
            content = content_of()
            picture, pages = decode(content, size, color, value_range)
        except (DataError, OSError, MemoryError) as error:
            skipped.append(Skipped(name, str(error) or "out of memory"))
            continue
        if pages > 1:
            skipped.append(Skipped(f"{name}, pages 2 to {pages}", "the first page of a file is read"))
        picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)  # over all that a pixel covers
        pixels.append(np.ascontiguousarray(np.atleast_3d(np.asarray(picture)).transpose(2, 0, 1)))
        labels.append(label)
        names.append(name)
        hashes.append(hashlib.sha256(content).hexdigest())
    images = np.stack(pixels) if pixels else np.empty((0, 3 if color else 1, *size), dtype=np.uint8)
    tensors = torch.from_numpy(images), torch.tensor(labels, dtype=torch.int64)
    return ImageSet(*tensors, tuple(names), tuple(hashes)), tuple(skipped)


def find_images(folder: Path) -> tuple[list[Path], tuple[Skipped, ...]]:
    """The image files below ``folder``, sorted by path, and what was left out; hidden ones do not count."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder")
    found, left_out = [], []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(place, name) for name in folders):
            if path.is_symlink():
                count = sum(Path(name).suffix.lower() in SUFFIXES for *_, n in os.walk(path) for name in n)
                left_out.append(Skipped(str(path), f"a link to a folder, with {count:,} image files"))
        for path in (Path(place, name) for name in files if not name.startswith(".")):
            suffix = path.suffix.lower()
            if suffix in SUFFIXES and path.is_file():
                found.append(path)
            elif suffix in SUFFIXES:
                left_out.append(Skipped(str(path), "no file, or a link to one that is gone"))
            elif suffix in _TOLD["not_read"]:
                left_out.append(Skipped(str(path), f"images that end in {suffix} are not read"))
    if not found:
        raise DataError(f"{folder} holds no images; known are {', '.join(SUFFIXES)}")
    return sorted(found), tuple(sorted(left_out))


def read_paths(paths: Iterable[Path], size: Size, color: bool, value_range: Range | None) -> Read:
    """What :func:`read_images` returns for files, which all have the label 0."""
    return read_images(((str(path), 0, partial(_content, path)) for path in paths), size, color, value_range)


def _content(path: Path) -> bytes:
    if (size := path.stat().st_size) > 2**28:
        raise DataError(f"a file of {size / 1e6:,.0f} MB; at most 268 MB are read")
    return path.read_bytes()


def _verdicts(names: Sequence[str]) -> dict[str, bool | None]:
    """Whether folders beside each other hold faults; beside one for normal images ("good") all others do."""
    found: dict[str, bool | None] = {}
    for name in names:
        words = set(re.findall(r"[a-z]+", name.lower()))
        is_good, is_bad = not words.isdisjoint(_TOLD["good"]), not words.isdisjoint(_TOLD["bad"])
        if not words.isdisjoint(_TOLD["negations"]):
            is_good, is_bad = is_bad, is_good
        found[name] = True if is_bad else False if is_good else None
    others = True if False in found.values() else None
    return {name: others if told is None else told for name, told in found.items()}


def check_not_sorted(folder: Path) -> None:
    """Refuse a folder in which images are sorted by verdict: all below it would be learned as normal.

    Names tell, at any depth: "NG", "defects_2024", "test", or any name beside one for normal images ("good").
    """
    for place, folders, _ in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        told = _verdicts(folders)
        others = [name for name in folders if told[name] or name.lower() == "test"]
        good = [name for name in folders if told[name] is False]
        if others:
            raise ValueError(
                f"all below {folder} would be learned as normal, also {Path(place, others[0])}; name the "
                f"folder of normal images{f', such as {Path(place, good[0])}' if good else ''}"
            )


def sorted_images(folder: Path) -> dict[Path, int]:
    """Image files below a folder, and their labels, 0 normal and 1 faulty, by the innermost telling name."""
    verdict: dict[Path, bool | None] = {folder: None}
    for place, folders, _ in os.walk(folder):
        for name, told in _verdicts(folders).items():
            verdict[Path(place, name)] = verdict[Path(place)] if told is None else told
    found = {path: verdict[path.parent] for path in find_images(folder)[0]}
    if untold := [path for path, told in found.items() if told is None]:
        raise ValueError(f"whether {untold[0]} is normal no folder tells: sort into normal and fault")
    return {path: int(bool(told)) for path, told in found.items()}


@dataclass(frozen=True)
class SplitImages(Origin):
    """Images for one-class learning, split; copies of an image always stand in the same part."""

    name: str  #: of the data set
    train: ImageSet  #: normal images, to learn from
    validation: ImageSet  #: normal images held out of the training folder, for early stopping and thresholds
    tuning: ImageSet  #: known anomalies, for choices; none if there are none
    development: ImageSet  #: a share of the test images, for choices between recipes
    test: ImageSet  #: the others, to be touched once


def share_by_hash(
    hashes: Sequence[str], share: float, labels: Sequence[int] | None = None, salt: str = ""
) -> np.ndarray:
    """Choose a share of the distinct images of each label, by content and ``salt`` alone: bool (N,)."""
    chosen: set[str] = set()
    kinds = labels or [0] * len(hashes)
    for kind in sorted(set(kinds)):
        distinct = {value for value, own in zip(hashes, kinds, strict=True) if own == kind}
        order = sorted(distinct, key=lambda value: hashlib.sha256((salt + value).encode()).digest())
        chosen.update(order[: round(share * len(order))])
    return np.array([value in chosen for value in hashes], dtype=bool)


def split_images(train: ImageSet, tuning: ImageSet, test: ImageSet, **about: Any) -> SplitImages:
    """Split by content, so that no copy of an image stands in two parts.

    A test image is taken out of the tuning and the training images, a tuning image out of the training
    images, and test images of which copies have different labels are taken out altogether. A fifth of the
    distinct training images is for validation, a fifth of the test images of either label for development.
    ``about`` are the other fields of the result.
    """

    def without(images: ImageSet, hashes: set[str]) -> ImageSet:
        return images.take(np.array([value not in hashes for value in images.hashes], dtype=bool))

    normal, anomalous = (set(test.take(test.labels.numpy() == label).hashes) for label in (0, 1))
    test = without(test, normal & anomalous)
    tuning = without(tuning, set(test.hashes))
    train = without(train, {*test.hashes, *tuning.hashes})
    held_out = share_by_hash(train.hashes, 0.2, salt="validation")
    chosen = share_by_hash(test.hashes, 0.2, test.labels.tolist(), salt="development")
    return SplitImages(
        train=train.take(~held_out), validation=train.take(held_out), tuning=tuning,
        development=test.take(chosen), test=test.take(~chosen), **about,
    )  # fmt: skip
