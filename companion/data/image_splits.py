"""Labels of images from an annotation, and splits in which no copy of an image stands in two parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from companion.data.download import DataError
from companion.data.images import ImageSet, Item, Skipped


@dataclass(frozen=True)
class SplitImages:
    """Images for one-class learning, split; copies of an image always stand in the same part."""

    name: str  #: of the data set
    train: ImageSet  #: normal images, to learn from
    validation: ImageSet  #: normal images held out of the training folder, for early stopping and thresholds
    tuning: ImageSet  #: known anomalies, for choices; none if there are none
    development: ImageSet  #: a share of the test images, for choices between recipes
    test: ImageSet  #: the others, to be touched once
    skipped: tuple[Skipped, ...]  #: what was left out, and why
    source: str  #: where the images came from
    digest: str  #: SHA-256 over names and contents
    synthetic: bool  #: whether they were generated

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


def parse_annotation(text: str) -> dict[str, int]:
    r"""Labels by file name, from lines ``name label`` with label 0 or 1; empty lines do not count.

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
    """Items of the files that an annotation labels, and the names that only one of the two knows."""
    items = [(name, labels[name], contents[name]) for name in sorted(contents) if name in labels]
    lost = [
        Skipped(name, "the annotation names it, and it is not there") for name in labels.keys() - contents
    ]
    lost += [Skipped(name, "the annotation does not name it") for name in contents.keys() - labels]
    return items, sorted(lost, key=lambda each: each.name)


def share_by_hash(
    hashes: Sequence[str], share: float, labels: Sequence[int] | None = None, salt: str = ""
) -> np.ndarray:
    """Choose a share of the distinct images, the same whatever their names and their order.

    Copies are chosen together, the share (rounded) is taken of each label by itself, and another ``salt``
    chooses others. Gives bool (N,).
    """
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
) -> SplitImages:
    """Split by content, so that no copy of an image stands in two parts.

    A test image is taken out of the tuning and the training images, a tuning image out of the training
    images, and test images of which copies have different labels are taken out altogether. A fifth of the
    distinct training images is for validation, a fifth of the test images of either label for development.
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
    held_out = share_by_hash(train.hashes, 0.2, salt="validation")
    chosen = share_by_hash(test.hashes, 0.2, test.labels.tolist(), salt="development")
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
