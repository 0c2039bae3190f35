"""One module an experiment; every chapter's training goes through one."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from companion.experiments.base import Experiment

NAMES = (
    "block_order",
    "casting",
    "casting_ablation",
    "casting_size",
    "classifier",
    "degradation",
    "event_detection",
    "event_sequences",
    "gradients",
    "identity",
    "learning_rates",
    "lesion",
    "recipe",
    "self_supervised",
    "ssl_ablation",
    "tab_transformer",
    "table_cost",
    "table_depth",
    "tables",
    "waveforms",
    "web_detection",
)


def get_experiment(name: str) -> Experiment[Any]:
    """The experiment registered under ``name``; its module is imported only now.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in NAMES:
        raise ValueError(f"there is no experiment {name!r}; there are: {', '.join(NAMES)}")
    module = import_module(f"companion.experiments.{name}")
    experiment: Experiment[Any] = getattr(module, name.upper())
    return experiment
