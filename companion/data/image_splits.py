"""Splits of images in which no copy of an image stands in two parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from companion.data.images import ImageSet, Skipped


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
    skipped: Sequence[Skipped] = (),
    **about: Any,
) -> SplitImages:
    """Split by content, so that no copy of an image stands in two parts.

    A test image is taken out of the tuning and the training images, a tuning image out of the training
    images, and test images of which copies have different labels are taken out altogether. A fifth of the
    distinct training images is for validation, a fifth of the test images of either label for development.
    ``about`` are the other fields of the result.
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
        train=train.take(~held_out), validation=train.take(held_out), tuning=tuning,
        development=test.take(chosen), test=test.take(~chosen), skipped=tuple(out), **about,
    )  # fmt: skip
