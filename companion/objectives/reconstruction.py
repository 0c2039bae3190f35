"""Objectives of autoencoders: reconstruct normal images, or normal windows of a waveform."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from companion.objectives.classification import Batch
from companion.objectives.synthetic_anomalies import STILL, CameraJitter, as_floats

Loss = Literal["l1", "l2"]


@dataclass(frozen=True)
class ImageReconstruction:
    """Reconstruct images, moved and lit anew while training."""

    loss: Literal["l1", "mse"] = "mse"  #: mean absolute (``"l1"``) or squared (``"mse"``) error
    low: float = -1.0  #: the value of black: -1 for nets that end in tanh, 0 for those that end in a sigmoid
    camera: CameraJitter = STILL  #: the augmentation

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss`` of a batch whose first tensor is uint8 images (N, C, H, W)."""
        floats = as_floats(batch[0])
        if generator is not None:
            floats = self.camera(floats, generator)
        floats = floats * (1 - self.low) + self.low  # from low to 1
        difference = model(floats)[0].float() - floats
        return {"loss": (difference.abs() if self.loss == "l1" else difference.square()).mean()}


@dataclass(frozen=True)
class WaveformReconstruction:
    """Reconstruct standardised windows, augmented while training.

    Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising Autoencoders", section 2:
    the net is given a window with noise, and must return it without. Unknown samples do not count.
    """

    loss: Loss = "l1"  #: mean absolute residual, ``"l1"``, or mean squared residual, ``"l2"``
    jitter: float = 0.0  #: standard deviation of the noise on the input

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss`` of (windows float32 (N, C, L), known bool (N, C, L))."""
        windows, known = batch
        given = windows
        if generator is not None and self.jitter:
            noise = torch.randn(windows.shape, generator=generator)
            given = windows + self.jitter * noise.to(windows.device)
        residual = (model(given)[0].float() - windows).masked_fill(~known, 0)
        cost = residual.abs() if self.loss == "l1" else residual.square()
        samples = known.flatten(1).sum(dim=1).clamp(min=1)  # (N,)
        return {"loss": (cost.flatten(1).sum(dim=1) / samples).mean()}
