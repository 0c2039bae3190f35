"""The objective of autoencoders for waveforms, with augmentation in batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from companion.learning.objectives import Batch

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
