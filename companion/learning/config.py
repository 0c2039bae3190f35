"""How a training run is described: a frozen config, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class FitConfig(BaseModel):
    """The hyperparameters of :func:`companion.learning.loop.fit`.

    Attributes:
        num_steps: optimizer steps.
        batch_size: examples in a step.
        lr: the highest learning rate.
        optimizer: ``"sgd"`` with momentum, ``"adamw"``, or ``"adam"``.
        momentum: of SGD.
        nesterov: Nesterov's form of it.
        weight_decay: on every parameter. With SGD and Adam an L2 penalty: the decay is added to the
            gradient, and Adam then divides it by the gradient's size, so that weights with large
            gradients hardly decay. With AdamW all weights shrink by the same share.
        warmup_steps: steps in which the learning rate climbs from 0 in a straight line.
        schedule: what follows: ``"constant"``, ``"step"`` (divided by 10 at each milestone),
            ``"linear"`` or ``"cosine"`` (down to 0 at the last step).
        milestones: for ``"step"``: shares of ``num_steps``, rising, each between 0 and 1.
        eval_every: steps between evaluations; ``None`` for one at the end.
        checkpoint_every: steps between checkpoints, where a checkpoint file is given.
        patience: stop after this many evaluations without a new best ``monitor``; ``None`` for never.
            The weights of the best evaluation are then restored.
        monitor: the evaluated metric that early stopping watches; lower is better.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_steps: int = Field(ge=1)
    batch_size: int = Field(default=128, ge=1)
    lr: float = Field(default=0.1, gt=0)
    optimizer: Literal["sgd", "adamw", "adam"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    schedule: Literal["constant", "step", "linear", "cosine"] = "constant"
    milestones: tuple[float, ...] = ()
    eval_every: int | None = Field(default=None, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    patience: int | None = Field(default=None, ge=1)
    monitor: str = "loss"

    @model_validator(mode="after")
    def _consistent(self) -> FitConfig:
        inside = all(0 < share < 1 for share in self.milestones)
        if not inside or any(a >= b for a, b in pairwise(self.milestones)):
            raise ValueError(f"milestones must rise strictly between 0 and 1, not {self.milestones}")
        if bool(self.milestones) != (self.schedule == "step"):
            raise ValueError("the schedule 'step' needs milestones, and no other schedule takes them")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum")
        return self


def learning_rate(config: FitConfig, step: int) -> float:
    """The learning rate of ``step``, counted from 0.

    Example:
        >>> config = FitConfig(num_steps=100, lr=0.4, warmup_steps=10, schedule="linear")
        >>> [round(learning_rate(config, step), 3) for step in (0, 4, 9, 10, 55, 99)]
        [0.04, 0.2, 0.4, 0.4, 0.2, 0.004]
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "step":
        passed = sum(step >= share * config.num_steps for share in config.milestones)
        return config.lr * 0.1**passed
    progress = (step - config.warmup_steps) / max(1, config.num_steps - config.warmup_steps)  # 0 <= p < 1
    if config.schedule == "linear":
        return config.lr * (1 - progress)
    if config.schedule == "cosine":
        return config.lr * (1 + math.cos(math.pi * progress)) / 2
    return config.lr
