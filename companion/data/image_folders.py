"""Folders of images with their labels: normal images, and anomalies and a test set where there are some.

The layout of the casting images is one of those understood: ``train/`` (normal), ``proliv/`` (known
anomalies) and ``test/`` with an annotation file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from companion.data.download import DataError
from companion.data.images import (
    ImageSet,
    Item,
    Skipped,
    SplitImages,
    find_images,
    read_images,
    split_images,
)

NORMAL_FOLDERS = ("normal", "good", "ok")
"""What a folder of normal images in a test folder may be called."""
ANOMALOUS_FOLDERS = ("proliv", "anomalous", "anomalies", "defects")
"""What a folder of known anomalies beside ``train/`` may be called."""


def parse_annotation(text: str) -> dict[str, int]:
    r"""Labels by file name, from lines ``name label`` with label 0 or 1.

    Lines may end as on any system, and empty ones do not count.

    Raises:
        DataError: for a line that is not like this, or a file with both labels.

    Example:
        >>> parse_annotation("a.jpg 0\r\nb c.jpg 1\r\n")
        {'a.jpg': 0, 'b c.jpg': 1}
    """
    labels: dict[str, int] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or label not in ("0", "1"):
            raise DataError(f"line {number} of the annotation is not `name 0` or `name 1`: {line!r}")
        if labels.setdefault(name.strip(), int(label)) != int(label):
            raise DataError(f"line {number} of the annotation: {name} has both labels")
    return labels


def annotated(
    contents: Mapping[str, Callable[[], bytes]], labels: Mapping[str, int]
) -> tuple[list[Item], list[Skipped]]:
    """Put the files and the lines of an annotation together.

    Args:
        contents: by file name.
        labels: by file name.

    Returns:
        Items, and the names that only one of the two knows.
    """
    items = [(name, labels[name], contents[name]) for name in sorted(contents) if name in labels]
    lost = [
        Skipped(name, "the annotation names it, and it is not there") for name in labels.keys() - contents
    ]
    lost += [Skipped(name, "the annotation does not name it") for name in contents.keys() - labels]
    return items, sorted(lost, key=lambda each: each.name)


def _test_items(folder: Path) -> tuple[list[Item], list[Skipped]]:
    """A test folder with an annotation file, or with a folder for each kind."""
    images = find_images(folder)
    annotations = sorted(folder.glob("*annotation*.txt"))
    if annotations:
        contents = {path.name: path.read_bytes for path in images}
        return annotated(contents, parse_annotation(annotations[0].read_text("utf8")))
    kinds = [path.relative_to(folder).parts[0].lower() for path in images]
    if not any(kind in NORMAL_FOLDERS for kind in kinds):
        raise DataError(
            f"the images of {folder} have no labels: put test_annotation.txt there, with lines `name 0` "
            f"(normal) or `name 1`, or a folder 'normal' beside folders of anomalies"
        )
    return [
        (str(path.relative_to(folder)), int(kind not in NORMAL_FOLDERS), path.read_bytes)
        for path, kind in zip(images, kinds, strict=True)
    ], []


def load_image_folder(
    folder: Path,
    anomalous: Path | None = None,
    test: Path | None = None,
    *,
    size: tuple[int, int] = (64, 64),
    color: bool = False,
    validation_share: float = 0.2,
    development_share: float = 0.2,
) -> SplitImages:
    """Read a folder of normal images, and anomalies and test images where there are some.

    Args:
        folder: with normal images, at any depth; or with a folder ``train`` of them, and then perhaps with
            one of :data:`ANOMALOUS_FOLDERS`, and ``test``.
        anomalous: a folder of known anomalies.
        test: a folder of normal and anomalous images: with an annotation file (``*annotation*.txt``, lines
            ``name 0`` or ``name 1``), or with a folder of normal images (one of :data:`NORMAL_FOLDERS`)
            beside others, which hold anomalies.
        size: height and width that every image is brought to.
        color: whether images get three channels or one.
        validation_share: see :func:`companion.data.images.split_images`.
        development_share: likewise.

    Returns:
        The images. Files that cannot be read are listed in ``skipped``.

    Raises:
        DataError: if a folder is missing or holds no image that can be read, or test images have no labels.
        ValueError: if a share or the size is out of range.
    """
    folder, normal = Path(folder), Path(folder)
    if (folder / "train").is_dir():
        normal = folder / "train"
        beside = [folder / name for name in ANOMALOUS_FOLDERS if (folder / name).is_dir()]
        anomalous = anomalous or next(iter(beside), None)
        test = test or (folder / "test" if (folder / "test").is_dir() else None)
    skipped: list[Skipped] = []

    def read(items: list[Item], where: Path) -> ImageSet:
        images, unread = read_images(items, size, color)
        skipped.extend(unread)
        if len(images) == 0:
            raise DataError(f"none of the images in {where} can be read; the first: {unread[0].reason}")
        return images

    def all_of(where: Path, label: int) -> ImageSet:
        return read([(str(p.relative_to(where)), label, p.read_bytes) for p in find_images(where)], where)

    none = read_images([], size, color)[0]
    train = all_of(normal, 0)
    tuning = none if anomalous is None else all_of(Path(anomalous), 1)
    tested = none
    if test is not None:
        items, lost = _test_items(Path(test))
        skipped.extend(lost)
        if not items:
            raise DataError(f"the annotation in {test} names none of the images there")
        tested = read(items, Path(test))
    parts = {"train": train, "anomalous": tuning, "test": tested}
    lines = [
        f"{part} {label} {value}"
        for part, images in parts.items()
        for value, label in sorted(zip(images.hashes, images.labels.tolist(), strict=True))
    ]
    return split_images(
        train,
        tuning,
        tested,
        name=folder.name,
        source=str(folder),
        digest=hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        skipped=skipped,
        validation_share=validation_share,
        development_share=development_share,
    )
