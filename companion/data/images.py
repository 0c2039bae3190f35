"""Images from folders: decoded, labelled, and split so that no image stands on two sides.

Any size, grey or colour, any mode that Pillow reads. What cannot be read is skipped and listed.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from companion.data.download import DataError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Files with these endings, in capitals or not, count as images."""
Item = tuple[str, int, Callable[[], bytes]]  # name and label of an image, and what gives its file's content
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class Skipped:
    """An image that was left out.

    Attributes:
        name: of the file, as the set would have named it.
        reason: why.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class ImageSet:
    """Images of one size with their labels.

    Attributes:
        images: uint8 (N, C, H, W), C is 1 for grey and 3 for colour.
        labels: int64 (N,), 0 for normal, 1 for anomalous.
        names: of the files.
        hashes: SHA-256 of the files' content: equal for copies of a file, whatever their names.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    hashes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.labels) == len(self.names) == len(self.hashes):
            raise ValueError("images, labels, names and hashes must be equally many")

    def __len__(self) -> int:
        return len(self.names)

    def take(self, keep: np.ndarray) -> ImageSet:
        """The images for which ``keep``, bool (N,), is true."""
        places = np.flatnonzero(keep)
        return ImageSet(
            self.images[torch.from_numpy(places)],
            self.labels[torch.from_numpy(places)],
            tuple(self.names[i] for i in places),
            tuple(self.hashes[i] for i in places),
        )

    def distinct(self) -> ImageSet:
        """The first of each group of copies."""
        first = {value: place for place, value in reversed(list(enumerate(self.hashes)))}
        return self.take(np.isin(np.arange(len(self)), list(first.values())))


@dataclass(frozen=True)
class SplitImages:
    """Images for one-class learning, split; copies of an image always stand in the same part.

    Attributes:
        name: of the data set.
        train: normal images, to learn from.
        validation: normal images held out of the training folder, for early stopping and thresholds.
        tuning: known anomalies, for choices; none if there are none.
        development: a share of the test images, for choices between recipes.
        test: the others, to be touched once.
        skipped: what was left out, and why.
        source: where the images came from.
        digest: SHA-256 over names and contents.
        synthetic: whether they were generated.
    """

    name: str
    train: ImageSet
    validation: ImageSet
    tuning: ImageSet
    development: ImageSet
    test: ImageSet
    skipped: tuple[Skipped, ...]
    source: str
    digest: str
    synthetic: bool

    @property
    def whole_test(self) -> ImageSet:
        """The development and the test images together, for comparison with what others measured on all."""
        parts = self.development, self.test
        return ImageSet(
            torch.cat([part.images for part in parts]),
            torch.cat([part.labels for part in parts]),
            self.development.names + self.test.names,
            self.development.hashes + self.test.hashes,
        )


# ---------------------------------------------------------------- reading


def decode_image(content: bytes, size: tuple[int, int], color: bool = False) -> np.ndarray:
    """Decode an image file and bring it to ``size``.

    The orientation that a camera noted is applied, transparent pixels become black, 16 bits become 8, and the
    size is changed by linear interpolation (over all pixels that an output pixel covers, where it shrinks).

    Args:
        content: of the file.
        size: height and width.
        color: whether the result has three channels or one.

    Returns:
        uint8 (C, H, W).

    Raises:
        DataError: if it is no image, is cut off or damaged, or has floating-point pixels.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            picture = ImageOps.exif_transpose(opened)
            picture.load()
            picture = _eight_bits(picture, color)
            height, width = size
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(picture)
    except _BROKEN as error:
        raise _unreadable(content, error) from error
    return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))


def decode_thumbnail(content: bytes, longest: int) -> np.ndarray:
    """Decode an image file in colour and in its own proportions.

    Args:
        content: of the file.
        longest: what the longer side is brought down to, if it is longer.

    Returns:
        uint8 (3, H, W).

    Raises:
        DataError: see :func:`decode_image`.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            width, height = ImageOps.exif_transpose(opened).size
    except _BROKEN as error:
        raise _unreadable(content, error) from error
    shrink = min(1, longest / max(width, height))
    return decode_image(content, (max(1, round(shrink * height)), max(1, round(shrink * width))), color=True)


def _unreadable(content: bytes, error: Exception) -> DataError:
    """The same words for the same file, so without Pillow's "<_io.BytesIO object at 0x7f...>"."""
    if not content:
        return DataError("cannot be read as an image (the file is empty)")
    reason = str(error).split(" <_io.")[0]
    return DataError(f"cannot be read as an image ({type(error).__name__}: {reason})")


def _eight_bits(picture: Image.Image, color: bool) -> Image.Image:
    """The picture in mode ``"RGB"`` or ``"L"``."""
    if picture.mode == "F":
        raise ValueError("has floating-point pixels; their range is not known")
    if picture.mode.startswith("I"):  # 16 bits, which Pillow may hold in 32
        picture = Image.fromarray((np.asarray(picture).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        opaque = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(opaque, picture.convert("RGBA"))
    return picture.convert("RGB" if color else "L")


def read_images(
    items: Iterable[Item], size: tuple[int, int] = (64, 64), color: bool = False
) -> tuple[ImageSet, tuple[Skipped, ...]]:
    """Read images of any size into one set.

    Args:
        items: name, label and content of each.
        size: height and width that they are brought to.
        color: whether they get three channels or one.

    Returns:
        The set, in the order of ``items``, and what could not be read.

    Raises:
        ValueError: for a size that is not positive.
    """
    if min(size) < 1:
        raise ValueError(f"height and width must be positive, not {size}")
    channels = 3 if color else 1
    pixels, labels, names, hashes, skipped = [], [], [], [], []
    for name, label, content_of in items:
        try:
            content = content_of()
            pixels.append(decode_image(content, size, color))
        except (DataError, OSError) as error:
            skipped.append(Skipped(name, str(error)))
        else:
            labels.append(label)
            names.append(name)
            hashes.append(hashlib.sha256(content).hexdigest())
    images = np.stack(pixels) if pixels else np.empty((0, channels, *size), dtype=np.uint8)
    tensors = torch.from_numpy(images), torch.tensor(labels, dtype=torch.int64)
    return ImageSet(*tensors, tuple(names), tuple(hashes)), tuple(skipped)


def find_images(folder: Path) -> list[Path]:
    """The image files below ``folder``, at any depth, sorted by path; hidden ones do not count.

    Raises:
        DataError: if there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    found = [p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    if not found:
        raise DataError(f"{folder} holds no images; known are {', '.join(SUFFIXES)}")
    return found


def image_batches(
    paths: Sequence[Path], size: tuple[int, int] = (64, 64), color: bool = False, batch_size: int = 256
) -> Iterator[tuple[ImageSet, tuple[Skipped, ...]]]:
    """Read images batch by batch, so that a folder of any size needs little memory.

    Args:
        paths: of the files.
        size: see :func:`read_images`.
        color: likewise.
        batch_size: files in a batch.

    Yields:
        What :func:`read_images` returns, labelled 0; a batch of files that cannot be read is an empty set.

    Raises:
        ValueError: if ``batch_size`` or the size is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, not {batch_size}")
    files = iter(paths)
    while batch := list(islice(files, batch_size)):
        yield read_images(((str(p), 0, p.read_bytes) for p in batch), size, color)


# ---------------------------------------------------------------- splitting


def share_by_hash(
    hashes: Sequence[str], share: float, labels: Sequence[int] | None = None, salt: str = ""
) -> np.ndarray:
    """Choose a share of the distinct images, the same whatever their names and their order.

    Args:
        hashes: SHA-256 of each image; copies are chosen together.
        share: from 0 to 1, of the distinct images, rounded.
        labels: the share is taken of each label by itself.
        salt: another one chooses others.

    Returns:
        bool (N,).

    Raises:
        ValueError: if ``share`` is no share.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, not {share}")
    chosen: set[str] = set()
    kinds = [0] * len(hashes) if labels is None else [int(label) for label in labels]
    for kind in sorted(set(kinds)):
        distinct = {value for value, own in zip(hashes, kinds, strict=True) if own == kind}
        order = sorted(distinct, key=lambda value: hashlib.sha256((salt + value).encode()).digest())
        chosen.update(order[: round(share * len(order))])
    return np.array([value in chosen for value in hashes], dtype=bool)


def split_images(
    train: ImageSet,
    tuning: ImageSet,
    test: ImageSet,
    *,
    name: str,
    source: str,
    digest: str,
    skipped: Sequence[Skipped] = (),
    synthetic: bool = False,
    validation_share: float = 0.2,
    development_share: float = 0.2,
) -> SplitImages:
    """Split by content, so that no copy of an image stands in two parts.

    A test image is taken out of the tuning and the training images, a tuning image out of the training
    images, and test images of which copies have different labels are taken out altogether.

    Args:
        train: normal images.
        tuning: known anomalies, perhaps none.
        test: normal and anomalous images, perhaps none.
        name: see :class:`SplitImages`.
        source: likewise.
        digest: likewise.
        skipped: what has been left out so far.
        synthetic: see :class:`SplitImages`.
        validation_share: of the distinct training images.
        development_share: of the distinct test images of either label.

    Raises:
        DataError: if no training image is left.
        ValueError: if a share is none.
    """
    out = list(skipped)

    def without(images: ImageSet, hashes: set[str], reason: str) -> ImageSet:
        keep = np.array([value not in hashes for value in images.hashes], dtype=bool)
        out.extend(Skipped(images.names[i], reason) for i in np.flatnonzero(~keep))
        return images.take(keep)

    kinds: dict[str, set[int]] = {}
    for value, label in zip(test.hashes, test.labels.tolist(), strict=True):
        kinds.setdefault(value, set()).add(label)
    test = without(test, {v for v, both in kinds.items() if len(both) > 1}, "its copies have both labels")
    tuning = without(tuning, set(test.hashes), "a copy of a test image")
    train = without(train, set(test.hashes), "a copy of a test image")
    train = without(train, set(tuning.hashes), "a copy of a known anomaly")
    held_out = share_by_hash(train.hashes, validation_share, salt="validation")
    if held_out.all():
        raise DataError("there is no normal image left to learn from")
    chosen = share_by_hash(test.hashes, development_share, test.labels.tolist(), salt="development")
    return SplitImages(
        name=name,
        train=train.take(~held_out),
        validation=train.take(held_out),
        tuning=tuning,
        development=test.take(chosen),
        test=test.take(~chosen),
        skipped=tuple(out),
        source=source,
        digest=digest,
        synthetic=synthetic,
    )
