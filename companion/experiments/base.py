"""What an experiment is: a function of a frozen config and a seed, at three named scales."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict
from torch import nn

from companion.compute import Compute, pick_compute
from companion.runs import DataInfo, SeedResult
from companion.training import save_weights

SCALE_VARIABLE = "COMPANION_SCALE"
SCALES = ("smoke", "live", "full")
"""Seconds, for tests; at most a minute and a half on two CPU cores; what the claim needs."""


class Config(BaseModel):
    """The base of every experiment's config: frozen, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class Context:
    """What surrounds a run and must not change its numbers.

    Attributes:
        compute: device and precision.
        checkpoints: a folder for checkpoints, or ``None`` to keep none.
        progress: whether to show progress bars.
        weights: a folder for trained weights that are worth keeping, or ``None`` to keep none.
    """

    compute: Compute
    checkpoints: Path | None = None
    progress: bool = True
    weights: Path | None = None

    def checkpoint(self, name: str) -> Path | None:
        """The checkpoint file of the part ``name``."""
        return None if self.checkpoints is None else self.checkpoints / f"{name}.ckpt"

    def keep_weights(self, name: str, model: nn.Module, **metadata: str) -> None:
        """Write the weights of the part ``name`` in half precision, if they are to be kept."""
        if self.weights is not None:
            save_weights(self.weights / f"{name}.safetensors", model, half=True, **metadata)


@dataclass(frozen=True)
class Experiment(Generic[C]):
    """A named experiment.

    Attributes:
        name: what ``companion run`` calls it.
        question: what it answers, in one sentence.
        config_type: the class of its configs.
        scales: configs by scale. ``"live-cuda"`` and ``"full-cuda"`` replace ``"live"`` and ``"full"``
            on a GPU, where they exist.
        run: trains and measures with one seed.
        data: loads the data (again, from memory or cache) and tells what they are.
        replay: repeats the first steps of one seed and returns curves that ``run`` returned too, to be
            compared with a recorded run.
        float32: whether it computes in float32 whatever the device can do; recorded runs then say so.
    """

    name: str
    question: str
    config_type: type[C]
    scales: Mapping[str, C]
    run: Callable[[C, int, Context], SeedResult]
    data: Callable[[], DataInfo]
    replay: Callable[[C, int, Context], dict[str, list[float]]] | None = None
    float32: bool = False

    def config(self, scale: str, device_type: str = "cpu") -> C:
        """The config of a scale on a kind of device."""
        return self.scales.get(f"{check_scale(scale)}-{device_type}", self.scales[scale])


def check_scale(scale: str) -> str:
    """``scale`` itself.

    Raises:
        ValueError: if it is not one of :data:`SCALES`.
    """
    if scale not in SCALES:
        raise ValueError(f"the scale must be one of {', '.join(SCALES)}, not {scale!r}")
    return scale


def current_scale() -> str:
    """The scale at which chapters run: ``COMPANION_SCALE``, or ``"live"``."""
    return check_scale(os.environ.get(SCALE_VARIABLE) or "live")


def chapter_context(progress: bool = True) -> Context:
    """The context of a chapter's cells: the best device at hand, no checkpoints."""
    return Context(pick_compute(), progress=progress)


def window_means(values: list[float], points: int) -> list[float]:
    """A series averaged over ``points`` windows of equal length (fewer for a short series).

    Example:
        >>> window_means([1.0, 2.0, 3.0, 4.0], points=2)
        [1.5, 3.5]
    """
    windows = np.array_split(np.asarray(values), min(points, len(values)))
    return [round(float(window.mean()), 6) for window in windows]
