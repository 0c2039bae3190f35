"""Objectives: what a batch costs, and what else is measured on it; here for classes of images.

A whole batch is augmented at once: image by image, that would cost more than the step of a small net.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

Batch = tuple[Tensor, ...]


class Objective(Protocol):
    """Anything that can be minimised: ``"loss"`` is differentiable, other scalars are only measured."""

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """Scalars of one batch by name; with a generator it trains (and may augment), else it evaluates."""


@dataclass(frozen=True)
class ImageClassification:
    """Cross-entropy on uint8 images, with augmentation while training."""

    draws_on_device = True  # takes a generator of any device

    mean: Tensor  #: (C,) of the training pixels scaled to [0, 1]
    std: Tensor  #: (C,), likewise
    max_shift: int = 0  #: the largest shift in pixels while training
    flip: bool = False  #: whether half of the images are mirrored while training
    cutout: int = 0  #: side of a square that is taken out of each image while training; 0 for none
    mirrored_views: bool = False  #: whether an evaluation averages over an image and its mirror image
    label_smoothing: float = 0.0  #: share of the target spread evenly over all classes, while training only

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """float32 (N, num_classes) of uint8 images (N, C, H, W), without any augmentation."""
        pixels = normalize(images, self.mean, self.std)  # (N, C, H, W)
        logits: Tensor = model(pixels).float()
        return (logits + model(pixels.flip(3)).float()) / 2 if self.mirrored_views else logits

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss`` (nats) and ``error`` (share of wrong answers) of (images uint8 NCHW, labels int64 N)."""
        images, labels = batch
        if generator is None:
            logits, smoothing = self.logits(model, images), 0.0  # (N, num_classes)
        else:
            if self.max_shift or self.flip:
                images = random_shift_flip(images, self.max_shift, self.flip, generator)
            pixels = normalize(images, self.mean, self.std)  # (N, C, H, W)
            if self.cutout:
                pixels = random_cutout(pixels, size=self.cutout, generator=generator)
            logits, smoothing = model(pixels).float(), self.label_smoothing  # (N, num_classes)
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        error = (logits.detach().argmax(dim=1) != labels).float().mean()
        return {"loss": loss, "error": error}


def random_shift_flip(
    images: Tensor, max_shift: int = 4, flip: bool = True, generator: Generator | None = None
) -> Tensor:
    """Shift every image by its own random offset, and mirror half of them left to right.

    The same as padding with ``max_shift`` black pixels on each side and taking a random crop of the original
    size (He et al. 2016, section 4.2). Images (N, C, H, W) of any dtype, on any device, give a new tensor.
    Draws come from ``generator``, on any device, or from the global CPU generator.
    """
    batch, _, height, width = images.shape
    device = None if generator is None else generator.device
    shifts = torch.randint(0, 2 * max_shift + 1, (2, batch), generator=generator, device=device)
    top, left = shifts.to(images.device)
    source = torch.arange(batch, device=images.device)
    if flip:  # a mirrored crop is a crop of the mirrored image, taken from the other side
        mirrored = (torch.rand(batch, 1, generator=generator, device=device) < 0.5)[:, 0].to(images.device)
        images = torch.cat([images, images.flip(3)])  # (2N, C, H, W)
        source, left = source + batch * mirrored, torch.where(mirrored, 2 * max_shift - left, left)
    padded = F.pad(images, (max_shift,) * 4)  # (2N, C, H+2s, W+2s)
    # a view of every crop of every image, which copies nothing: (2N, C, 2s+1, 2s+1, H, W)
    crops = padded.unfold(2, height, 1).unfold(3, width, 1)
    return crops[source, :, top, left]  # (N, C, H, W)


def random_cutout(images: Tensor, *, size: int, generator: Generator | None = None) -> Tensor:
    """Set a square of every image to zero, at a random place (DeVries and Taylor 2017).

    The centre of the square of ``size`` x ``size`` pixels may lie anywhere, so it may stick out. After
    :func:`normalize`, zero is the mean colour. Takes floating-point (N, C, H, W), gives a new tensor.
    """
    batch, _, height, width = images.shape
    device = None if generator is None else generator.device

    def outside(length: int) -> Tensor:  # (N, length): True where the square does not reach
        start = torch.randint(0, length, (batch, 1), generator=generator, device=device) - size // 2
        place = torch.arange(length, device=start.device)
        return ((place < start) | (place >= start + size)).to(images.device)

    return images * (outside(height)[:, None, :, None] | outside(width)[:, None, None, :])


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(images / 255 - mean) / std`` per channel (C,): uint8 (N, C, H, W) to float32."""
    assert images.dtype == torch.uint8, images.dtype  # scaled twice, they would train badly and silently
    scale = (1 / (255 * std)).to(images.device).view(1, -1, 1, 1)
    shift = (mean / std).to(images.device).view(1, -1, 1, 1)
    return images.to(torch.float32).mul_(scale).sub_(shift)
