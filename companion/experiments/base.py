"""What an experiment is: a function of a frozen config and a seed, at three named scales."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict
from torch import nn

from companion.compute import Compute, pick_compute
from companion.files import save_weights
from companion.objectives.classification import Batch, Objective
from companion.runs import DataInfo, SeedResult
from companion.training import Evaluation, FitConfig, History, fit

# seconds, for tests; at most a minute and a half on two CPU cores; what the claim needs
SCALES = ("smoke", "live", "full")
REPLAY_STEPS = 3
TABLE: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("scales.yaml").read_text("utf8"))
NAMES = tuple(sorted(TABLE))


def get_experiment(name: str) -> Experiment[Any]:
    """The experiment called ``name``; its module is imported only now."""
    if name not in NAMES:
        raise ValueError(f"there is no experiment {name!r}; there are: {', '.join(NAMES)}")
    module = import_module(f"companion.experiments.{TABLE[name]['module']}")
    experiment: Experiment[Any] = getattr(module, name.upper())
    return experiment


class Config(BaseModel):
    """The base of every experiment's config: frozen, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


C = TypeVar("C", bound=Config)
E = TypeVar("E")


@dataclass(frozen=True)
class Context:
    """What surrounds a run and must not change its numbers."""

    compute: Compute  #: device and precision
    checkpoints: Path | None = None  #: a folder for checkpoints, or ``None`` to keep none
    progress: bool = True  #: whether to show progress bars
    weights: Path | None = None  #: a folder for trained weights that are worth keeping, or ``None``

    def fit(
        self, name: str, model: nn.Module, data: Batch, objective: Objective, config: FitConfig, seed: int,
        *, evaluation: Evaluation | None = None, result: SeedResult | None = None,
    ) -> History:  # fmt: skip
        """Train the net ``name``; ``result`` takes its seconds and the curve ``"<name>.first_loss"``."""
        history = fit(model, data, objective, config, seed=seed, evaluation=evaluation, **self._around(name))
        if result is not None:
            result.curves[f"{name}.first_loss"] = history.train["loss"][:REPLAY_STEPS]
            result.seconds[name] = round(history.seconds, 2)
        return history

    def fit_estimator(self, name: str, estimator: E, *data: Any, **options: Any) -> E:
        """The same for a detector of ``companion.estimators``, which keeps its history."""
        estimator.fit(*data, **options, **self._around(name))  # type: ignore[attr-defined]
        return estimator

    def _around(self, name: str) -> dict[str, Any]:
        checkpoint = None if self.checkpoints is None else self.checkpoints / f"{name}.ckpt"
        progress = name if self.progress else None
        return {"compute": self.compute, "checkpoint": checkpoint, "progress": progress}

    def keep_weights(self, name: str, model: nn.Module, **metadata: str) -> None:
        """Write the weights of the part ``name`` in half precision, if they are to be kept."""
        if self.weights is not None:
            save_weights(self.weights / f"{name}.safetensors", model.state_dict(), half=True, **metadata)


@dataclass(frozen=True)
class Experiment(Generic[C]):
    """A named experiment."""

    name: str  #: what ``companion run`` calls it
    question: str  #: what it answers, in one sentence
    scales: Mapping[str, C]  #: configs by scale; on a GPU ``"live-cuda"`` and ``"full-cuda"``, if they exist
    run: Callable[[C, int, Context], SeedResult]  #: trains and measures with one seed
    data: Callable[[], DataInfo]  #: loads the data (again, from memory or cache) and tells what they are
    float32: bool = False  #: whether it computes in float32 whatever the device can do

    def config(self, scale: str, device_type: str = "cpu") -> C:
        """The config of a scale on a kind of device."""
        return self.scales.get(f"{check_scale(scale)}-{device_type}", self.scales[scale])

    def compute(self, compute: Compute) -> Compute:
        """``compute``, or the same in float32 for an experiment that wants it."""
        return Compute(compute.device, None) if self.float32 else compute


def from_table(
    name: str, config: type[C], run: Callable[[C, int, Context], SeedResult], data: Callable[[], DataInfo],
    *, float32: bool = False,
) -> Experiment[C]:  # fmt: skip
    """The experiment ``name``; its question and its configs by scale are in ``scales.yaml``, beside this."""
    scales = {scale: config(**own) for scale, own in TABLE[name]["scales"].items()}
    return Experiment(name, TABLE[name]["question"], scales, run, data, float32)


def check_scale(scale: str) -> str:
    """``scale`` itself, if it is one of ``SCALES``."""
    if scale not in SCALES:
        raise ValueError(f"the scale must be one of {', '.join(SCALES)}, not {scale!r}")
    return scale


def current_scale() -> str:
    """The scale at which chapters run: ``COMPANION_SCALE``, or ``"live"``."""
    return check_scale(os.environ.get("COMPANION_SCALE") or "live")


def chapter_context() -> Context:
    """The context of a chapter's cells: the best device at hand, no checkpoints."""
    return Context(pick_compute())


def window_means(values: list[float], points: int) -> list[float]:
    """A series averaged over ``points`` windows of equal length (fewer for a short series)."""
    windows = np.array_split(np.asarray(values), min(points, len(values)))
    return [round(float(window.mean()), 6) for window in windows]


def data_info(*loaded: Any, name: str | None = None) -> DataInfo:
    """What loaded data sets are, taken as one; synthetic if one of them is."""
    name = name or " and ".join(data.name for data in loaded)
    source = " and ".join(data.source for data in loaded)
    digest, synthetic = " ".join(data.digest for data in loaded), any(data.synthetic for data in loaded)
    return DataInfo(name=name, source=source, digest=digest, synthetic=synthetic)
