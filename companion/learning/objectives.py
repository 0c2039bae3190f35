"""Objectives: what a batch costs, and what else is measured on it.

An objective is called as ``objective(model, batch, generator)`` and returns scalars by name, ``"loss"``
among them. With a generator it trains (and may augment); with ``None`` it evaluates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from companion.learning.augment import normalise, random_cutout, random_shift_flip

Batch = tuple[Tensor, ...]


class Objective(Protocol):
    """Anything that :func:`companion.learning.loop.fit` can minimise."""

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """Scalars of one batch by name; ``"loss"`` is differentiable, the others are not looked through."""
        ...


@dataclass(frozen=True)
class ImageClassification:
    """Cross-entropy on uint8 images, with augmentation while training.

    Attributes:
        mean: (C,) of the training pixels scaled to [0, 1].
        std: (C,), likewise.
        max_shift: see :func:`companion.learning.augment.random_shift_flip`.
        flip: likewise.
        cutout: side of a square that is taken out of each image while training; 0 for none.
        mirrored_views: whether an evaluation averages the logits of each image and its mirror image.
        label_smoothing: the share of the target spread evenly over all classes, while training only.
    """

    mean: Tensor
    std: Tensor
    max_shift: int = 0
    flip: bool = False
    cutout: int = 0
    mirrored_views: bool = False
    label_smoothing: float = 0.0

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """float32 (N, num_classes) of uint8 images (N, C, H, W), without any augmentation."""
        pixels = normalise(images, self.mean, self.std)  # (N, C, H, W)
        logits: Tensor = model(pixels).float()
        return (logits + model(pixels.flip(3)).float()) / 2 if self.mirrored_views else logits

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss`` (nats) and ``error`` (share of wrong answers) of (images uint8 NCHW, labels int64 N)."""
        images, labels = batch
        smoothing = 0.0
        if generator is not None:
            smoothing = self.label_smoothing
            if self.max_shift or self.flip:
                images = random_shift_flip(
                    images, max_shift=self.max_shift, flip=self.flip, generator=generator
                )
        if generator is None:
            logits = self.logits(model, images)  # (N, num_classes)
        else:
            pixels = normalise(images, self.mean, self.std)  # (N, C, H, W)
            if self.cutout:
                pixels = random_cutout(pixels, size=self.cutout, generator=generator)
            logits = model(pixels).float()  # (N, num_classes)
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        error = (logits.detach().argmax(dim=1) != labels).float().mean()
        return {"loss": loss, "error": error}
