"""Objectives that find faults in images: reconstruct the normal, or tell it from faults that were painted in.

Both take uint8 images and augment while training: :class:`Camera` moves and lights them, and
:mod:`companion.objectives.synthetic_anomalies` puts obstacles and faults there.

The objective of autoencoders for waveforms, with augmentation in batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from companion.objectives.classification import Batch
from companion.objectives.synthetic_anomalies import (
    Painted,
    arms,
    camera_jitter,
    cut_paste,
    emptied,
    haze,
    spill,
)

FaultKind = Literal["known", "spill", "empty", "cut"]
FAULTS: tuple[FaultKind, ...] = ("known", "spill", "empty", "cut")
"""Known anomalies, and those that :mod:`companion.objectives.synthetic_anomalies` paints."""
_PAINTERS: dict[FaultKind, Callable[..., Painted]] = {"spill": spill, "empty": emptied, "cut": cut_paste}


def as_floats(images: Tensor) -> Tensor:
    """uint8 images (N, C, H, W) as float32 in [0, 1].

    Raises:
        TypeError: if they are not uint8.
        ValueError: if they have not four axes.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8 in 0..255, not {images.dtype}")
    if images.ndim != 4:
        raise ValueError(f"need images (N, C, H, W), not {tuple(images.shape)}")
    return images.float() / 255


@dataclass(frozen=True)
class Camera:
    """How far a camera may move and how much the light may change, see ``camera_jitter``.

    Attributes:
        max_shift: see :func:`companion.objectives.synthetic_anomalies.camera_jitter`, like all others.
        max_zoom: likewise.
        flip: likewise.
        brightness: likewise.
        contrast: likewise.
        tint: likewise.
    """

    max_shift: float = 0.2
    max_zoom: float = 0.25
    flip: bool = True
    brightness: float = 0.12
    contrast: float = 0.25
    tint: float = 0.03

    def __call__(self, images: Tensor, generator: Generator | None) -> Tensor:
        """Float images (N, C, H, W), jittered."""
        return camera_jitter(images, **self.__dict__, generator=generator)


STILL = Camera(0.0, 0.0, False, 0.0, 0.0, 0.0)
"""A camera that does not move, in a light that does not change."""


@dataclass(frozen=True)
class ImageReconstruction:
    """Reconstruct images, moved and lit anew while training.

    Attributes:
        loss: mean absolute (``"l1"``) or squared (``"mse"``) error.
        low: the value of black: -1 for nets that end in tanh, 0 for those that end in a sigmoid.
        camera: the augmentation.
        obstacles: the share of images that get an obstacle, see ``synthetic_anomalies.arms``,
            which the net then learns to reconstruct as well.

    Raises:
        ValueError: for another loss or value of black, or an ``obstacles`` that is no share.
    """

    loss: Literal["l1", "mse"] = "mse"
    low: float = -1.0
    camera: Camera = STILL
    obstacles: float = 0.0

    def __post_init__(self) -> None:
        if self.loss not in ("l1", "mse") or self.low not in (-1.0, 0.0) or not 0 <= self.obstacles <= 1:
            raise ValueError(f"the loss is 'l1' or 'mse', low is -1 or 0, and obstacles a share: {self}")

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 images (N, C, H, W) as the net takes them, float32 from ``low`` to 1."""
        return as_floats(images) * (1 - self.low) + self.low

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss`` of a batch whose first tensor is uint8 images (N, C, H, W)."""
        floats = as_floats(batch[0])
        if generator is not None:
            floats = some(arms, self.camera(floats, generator), self.obstacles, generator)
        floats = floats * (1 - self.low) + self.low
        difference = model(floats)[0].float() - floats
        cost = difference.abs() if self.loss == "l1" else difference.square()
        return {"loss": cost.mean()}

    @torch.inference_mode()
    def reconstruct(
        self, model: nn.Module, images: Tensor, batch_size: int = 500
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the net makes of images.

        Args:
            model: returns reconstructions and codes.
            images: uint8 (N, C, H, W).
            batch_size: images in a forward pass.

        Returns:
            The images and the reconstructions, both float32 (N, C, H, W) in [0, 1], and the codes; all on
            the CPU.
        """
        device = next(model.parameters()).device
        model.eval()
        parts = []
        for start in range(0, max(1, len(images)), batch_size):
            x_hat, code = model(self.prepare(images[start : start + batch_size]).to(device))
            parts.append((((x_hat.float() - self.low) / (1 - self.low)).cpu(), code.float().cpu()))
        return as_floats(images), torch.cat([x for x, _ in parts]), torch.cat([z for _, z in parts])


@dataclass(frozen=True)
class FaultDiscrimination:
    """Tell normal images from anomalies: known ones, and normal ones into which faults were painted.

    While training, half of a batch is made anomalous, as many of each kind as of any other. Then the camera
    moves, and a share of all images, normal or not, gets an obstacle: what stands in the way tells nothing.
    The net has one output, the logit of a fault.

    Sources: Hendrycks et al. 2019, "Deep Anomaly Detection with Outlier Exposure", for the use of other
    anomalies than those looked for; Li et al. 2021, "CutPaste", and Zavrtanik et al. 2021, "DRAEM", for
    painting them.

    Attributes:
        mean: (C,) of the pixels scaled to [0, 1], for normalising.
        std: (C,), likewise.
        known: uint8 (K, C, H, W), known anomalies for training; ``None`` if there are none.
        kinds: which of :data:`FAULTS` are used.
        camera: the augmentation.
        obstacles: the share of images that get one.
        hazes: the share of normal images that are seen through haze.
        smoothing: how far the targets lie from 0 and 1, which keeps logits apart that would saturate.

    Raises:
        ValueError: for no kind or another, kind ``"known"`` without known anomalies, or a share that is none.
    """

    mean: Tensor
    std: Tensor
    known: Tensor | None = None
    kinds: tuple[FaultKind, ...] = ("known", "spill", "empty")
    camera: Camera = field(default_factory=Camera)
    obstacles: float = 0.4
    hazes: float = 0.15
    smoothing: float = 0.01

    def __post_init__(self) -> None:
        if not self.kinds or set(self.kinds) - set(FAULTS):
            raise ValueError(f"kinds are some of {', '.join(FAULTS)}, not {self.kinds}")
        if "known" in self.kinds and (self.known is None or len(self.known) == 0):
            raise ValueError("there are no known anomalies; leave 'known' out of the kinds")
        if not 0 <= self.obstacles <= 1 or not 0 <= self.hazes <= 1 or not 0 <= self.smoothing < 0.5:
            raise ValueError(
                f"obstacles and hazes are shares, and smoothing below one half, "
                f"not {self.obstacles}, {self.hazes}, {self.smoothing}"
            )

    def logits(self, model: nn.Module, floats: Tensor) -> Tensor:
        """Float32 (N,) of float images (N, C, H, W) in [0, 1]."""
        mean, std = (each.to(floats).view(1, -1, 1, 1) for each in (self.mean, self.std))
        answer: Tensor = model((floats - mean) / std).float()
        if answer.ndim != 2 or answer.shape[1] != 1:
            raise ValueError(f"the net must have one output, not {tuple(answer.shape[1:])}")
        return answer[:, 0]

    def training_batch(self, images: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Turn half of the normal images into anomalies and augment all.

        Args:
            images: uint8 (N, C, H, W), normal.
            generator: that the draws come from.

        Returns:
            Float images (N, C, H, W), and float labels (N,), 0 for the first half and 1 for the others.
        """
        floats = as_floats(images)
        half = len(floats) // 2
        parts = [some(haze, floats[:half], self.hazes, generator)]
        for kind, normal in zip(self.kinds, floats[half:].tensor_split(len(self.kinds)), strict=True):
            if kind == "known" and self.known is not None:
                rows = torch.randint(len(self.known), (len(normal),), generator=generator)
                parts.append(as_floats(self.known[rows.to(self.known.device)]).to(floats))
            elif len(normal):
                parts.append(_PAINTERS[kind](normal, generator=generator)[0])
        moved = self.camera(torch.cat(parts), generator)
        labels = (torch.arange(len(floats), device=floats.device) >= half).float()
        return some(arms, moved, self.obstacles, generator), labels

    def disturbed(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        """Normal images as training shows them: through haze, by a camera that moves, behind obstacles.

        A threshold chosen on the scores of such images allows for a shift that held-out images do not have.

        Args:
            images: uint8 (N, C, H, W).
            generator: that the draws come from.

        Returns:
            Of the same shape and type.
        """
        floats = self.camera(some(haze, as_floats(images), self.hazes, generator), generator)
        return (255 * some(arms, floats, self.obstacles, generator)).round().to(torch.uint8)

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss`` (nats) and ``error`` (share on the wrong side of 0).

        With a generator the batch is uint8 images (N, C, H, W), all normal, whatever follows them; without
        one it is images and labels int64 (N,).
        """
        if generator is None:
            floats, labels = as_floats(batch[0]), batch[1].float()
        else:
            floats, labels = self.training_batch(batch[0], generator)
        logits = self.logits(model, floats)
        targets = labels * (1 - 2 * self.smoothing) + self.smoothing
        loss = F.binary_cross_entropy_with_logits(logits, targets)
        return {"loss": loss, "error": ((logits.detach() > 0) != (labels > 0.5)).float().mean()}

    @torch.inference_mode()
    def scores(self, model: nn.Module, images: Tensor, batch_size: int = 500) -> np.ndarray:
        """The mean logit of each image and its mirror image, float64 (N,).

        Args:
            model: with one output.
            images: uint8 (N, C, H, W).
            batch_size: images in a forward pass.
        """
        device = next(model.parameters()).device
        model.eval()
        parts = [np.empty(0)]
        for start in range(0, len(images), batch_size):
            floats = as_floats(images[start : start + batch_size]).to(device)
            both = self.logits(model, floats) + self.logits(model, floats.flip(3))
            parts.append((both / 2).double().cpu().numpy())
        return np.concatenate(parts)


def some(paint: Callable[..., Painted], images: Tensor, share: float, generator: Generator | None) -> Tensor:
    """Apply ``paint`` to each image with probability ``share``."""
    if share == 0:
        return images
    chosen = (torch.rand(len(images), generator=generator) < share).to(images.device)
    if not chosen.any():
        return images
    images = images.clone()
    images[chosen] = paint(images[chosen], generator=generator)[0]
    return images


Loss = Literal["l1", "l2"]


def reconstruction_error(reconstruction: Tensor, target: Tensor, known: Tensor, loss: Loss) -> Tensor:
    """Mean absolute (``"l1"``) or squared (``"l2"``) residual of each window over its known samples.

    Args:
        reconstruction: (N, C, L).
        target: (N, C, L).
        known: bool (N, C, L); what is not known does not count.
        loss: which of the two.

    Returns:
        float32 (N,). 0 for a window of which nothing is known.
    """
    residual = (reconstruction.float() - target).masked_fill(~known, 0)
    cost = residual.abs() if loss == "l1" else residual.square()
    return cost.flatten(1).sum(dim=1) / known.flatten(1).sum(dim=1).clamp(min=1)


def random_shift(
    windows: Tensor, known: Tensor, *, max_shift: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Shift every window in time by its own random number of samples; the ends repeat the outermost sample.

    Args:
        windows: (N, C, L), on any device.
        known: bool (N, C, L), which moves along.
        max_shift: the largest shift, to the left and to the right.
        generator: a CPU generator that the draws come from.

    Returns:
        Two new tensors. Repeated samples count as not known.
    """
    length = windows.shape[2]
    shift = torch.randint(-max_shift, max_shift + 1, (len(windows), 1, 1), generator=generator)
    place = torch.arange(length).view(1, 1, -1) - shift  # (N, 1, L)
    inside = ((place >= 0) & (place < length)).to(windows.device)
    place = place.clamp(0, length - 1).expand(windows.shape).to(windows.device)
    return windows.gather(2, place), known.gather(2, place) & inside


@dataclass(frozen=True)
class WaveformReconstruction:
    """Reconstruct standardised windows, augmented while training.

    Attributes:
        loss: mean absolute residual, ``"l1"``, or mean squared residual, ``"l2"``.
        jitter: standard deviation of the noise on the input. The net must return the window
            without it, as a denoising autoencoder (Vincent et al. 2008).
        max_shift: the largest random shift in time, in samples.
        amplitude: windows are multiplied with a factor between 1 - ``amplitude`` and 1 + ``amplitude``.

    Raises:
        ValueError: if the loss is another, or a number is negative.
    """

    loss: Loss = "l1"
    jitter: float = 0.0
    max_shift: int = 0
    amplitude: float = 0.0

    def __post_init__(self) -> None:
        if self.loss not in ("l1", "l2") or min(self.jitter, self.max_shift, self.amplitude) < 0:
            raise ValueError(f"the loss is 'l1' or 'l2', and the augmentation not negative: {self}")

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss`` of (windows float32 (N, C, L), known bool (N, C, L))."""
        windows, known = batch
        given = windows
        if generator is not None:
            if self.max_shift:
                windows, known = random_shift(windows, known, max_shift=self.max_shift, generator=generator)
            if self.amplitude:
                draw = 2 * torch.rand(len(windows), 1, 1, generator=generator) - 1
                windows = windows * (1 + self.amplitude * draw).to(windows.device)
            given = windows
            if self.jitter:
                noise = torch.randn(windows.shape, generator=generator)
                given = windows + self.jitter * noise.to(windows.device)
        reconstruction, _ = model(given)
        return {"loss": reconstruction_error(reconstruction, windows, known, self.loss).mean()}
