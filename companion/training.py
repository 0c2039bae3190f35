"""The training loop, to be read in one sitting from top to bottom.

Every random draw of step ``t`` comes from the seed and ``t`` alone. So the loop needs no memory of its
generators, and a run that was killed at any moment continues from its last checkpoint to the same
final weights, bit for bit where the hardware computes the same (one CPU with the same threads).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from tqdm import tqdm

from companion.compute import Compute
from companion.files import StateError, fingerprint, load_state, save_state
from companion.objectives.classification import Batch, Objective
from companion.processes import agreed, is_first, sharing

FLUSH_EVERY = 50  # steps between looks at the loss, each of which makes a GPU wait

Evaluation = Callable[[nn.Module], dict[str, float]]


class FitConfig(BaseModel):
    """The hyperparameters of a training run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_steps: int = Field(ge=1)  #: optimizer steps
    batch_size: int = Field(default=128, ge=1)  #: examples in a step
    lr: float = Field(default=0.1, gt=0)  #: the highest learning rate
    optimizer: Literal["sgd", "adamw", "adam"] = "sgd"  #: SGD with momentum, or Adam in its two forms
    momentum: float = Field(default=0.9, ge=0, lt=1)  #: of SGD
    nesterov: bool = False  #: Nesterov's form of it
    #: on every parameter; with SGD and Adam an L2 penalty, which Adam divides by the gradient's size, with
    #: AdamW all weights shrink by the same share
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup_steps: int = Field(default=0, ge=0)  #: in which the learning rate climbs from 0 in a straight line
    #: what follows: ``"step"`` is divided by 10 at each milestone, ``"linear"`` and ``"cosine"`` end at 0
    schedule: Literal["constant", "step", "linear", "cosine"] = "constant"
    milestones: tuple[float, ...] = ()  #: for ``"step"``: rising shares of ``num_steps``
    eval_every: int | None = Field(default=None, ge=1)  #: steps between evaluations; ``None``: one at the end
    checkpoint_every: int = Field(default=500, ge=1)  #: steps between checkpoints, if there is a file
    #: stop after so many evaluations without a new best ``monitor``, and restore the weights of the best
    patience: int | None = Field(default=None, ge=1)
    monitor: str = "loss"  #: the evaluated metric that early stopping watches; lower is better

    @model_validator(mode="after")
    def _consistent(self) -> FitConfig:
        if any(a >= b for a, b in pairwise((0, *self.milestones, 1))):
            raise ValueError(f"milestones must rise strictly between 0 and 1, not {self.milestones}")
        if bool(self.milestones) != (self.schedule == "step"):
            raise ValueError("the schedule 'step' needs milestones, and no other schedule takes them")
        return self


def learning_rate(config: FitConfig, step: int) -> float:
    """The learning rate of ``step``, counted from 0."""
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


def make_optimizer(model: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    """The optimizer of ``config`` over all parameters of ``model``."""
    weights, lr, decay = model.parameters(), config.lr, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(weights, lr, config.momentum, weight_decay=decay, nesterov=config.nesterov)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(weights, lr, weight_decay=decay)


def step_seed(seed: int, kind: str, count: int) -> int:
    """A seed of 63 bits for the ``count``-th draw of a ``kind``, different for each combination."""
    digest = hashlib.blake2b(f"{seed}/{kind}/{count}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@lru_cache(maxsize=2)  # the same order serves a whole epoch
def _epoch_order(num_examples: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(step_seed(seed, "epoch", epoch))
    return torch.randperm(num_examples, generator=generator).to(device)


def batch_indices(
    num_examples: int, batch_size: int, seed: int, step: int, device: torch.device | None = None
) -> Tensor:
    """The examples of ``step``: each epoch is a new random order, without its incomplete last batch."""
    batch_size = min(batch_size, num_examples)
    epoch, position = divmod(step, num_examples // batch_size)
    order = _epoch_order(num_examples, seed, epoch, device or torch.device("cpu"))
    return order[position * batch_size : (position + 1) * batch_size]


@torch.inference_mode()
def evaluate(
    model: nn.Module, data: Batch, objective: Objective, compute: Compute, batch_size: int = 1000
) -> dict[str, float]:
    """Means of the objective's scalars over ``data``; the model in evaluation mode, nothing augmented.

    The model must be on the device of ``compute``, and is left in the mode in which it came. The result does
    not depend on ``batch_size``, but for rounding.
    """
    was_training, objective = model.training, compute.resident(objective)
    model.eval()
    means: dict[str, list[Tensor]] = {}  # of each batch, on the device, which is not waited for
    starts = range(0, len(data[0]), batch_size)
    for start in starts:
        batch = tuple(t[start : start + batch_size].to(compute.device) for t in data)
        with compute.autocast():
            scalars = objective(model, batch, None)
        for name, value in scalars.items():
            means.setdefault(name, []).append(value)
    model.train(was_training)
    sizes = [min(batch_size, len(data[0]) - start) for start in starts]
    totals = {name: zip(torch.stack(values).tolist(), sizes, strict=True) for name, values in means.items()}
    return {name: sum(mean * n for mean, n in total) / len(data[0]) for name, total in totals.items()}


@dataclass
class History:
    """What was measured while training."""

    train: dict[str, list[float]] = field(default_factory=dict)  #: the objective's scalars, one a step
    eval_steps: list[int] = field(default_factory=list)  #: how many steps were done at each evaluation
    eval_seconds: list[float] = field(default_factory=list)  #: the time until each evaluation had ended
    evaluations: dict[str, list[float]] = field(default_factory=dict)  #: its numbers, one at each of these
    seconds: float = 0.0  #: over all sessions of a resumed run, evaluations included


class TrainingRun:
    """A net between two steps of its training: what a checkpoint holds, and how the next step is made."""

    def __init__(
        self, model: nn.Module, data: Batch, objective: Objective, config: FitConfig,
        compute: Compute, seed: int,
    ) -> None:  # fmt: skip
        self.model, self.config, self.compute, self.seed = model, config, compute, seed
        self.data, self.objective = compute.resident(data), compute.resident(objective)
        self.optimizer = make_optimizer(model, config)
        self.history = History()
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self.best_value, self.stale = float("inf"), 0  # and how many evaluations there were since
        self.pending: list[dict[str, Tensor]] = []  # scalars of the last steps, still on the device
        drawn_there = getattr(objective, "draws_on_device", False)
        self.generator = torch.Generator(compute.device if drawn_there else "cpu")

    @property
    def stopped(self) -> bool:
        """Whether early stopping has ended the run."""
        return self.config.patience is not None and self.stale >= self.config.patience

    def train_step(self) -> None:
        """One step; its randomness is a function of the seed and the step."""
        config, data, seed, step = self.config, self.data, self.seed, self.step
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        chosen = batch_indices(len(data[0]), config.batch_size, seed, step, data[0].device)
        batch = tuple(t.index_select(0, chosen).to(self.compute.device) for t in data)
        self.generator.manual_seed(step_seed(seed, "augment", step))
        torch.manual_seed(step_seed(seed, "dropout", step))
        with self.compute.autocast():
            scalars = self.objective(self.model, batch, self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        scalars["loss"].backward()
        self.optimizer.step()
        self.pending.append({k: v.detach() for k, v in scalars.items()})
        self.step += 1

    def flush(self) -> None:
        """Move the pending scalars into the history, and stop at a loss that is not finite."""
        for name in self.pending[0] if self.pending else ():
            values = torch.stack([scalars[name] for scalars in self.pending]).tolist()
            self.history.train.setdefault(name, []).extend(values)
        done, self.pending = len(self.pending), []
        for step in range(self.step - done, self.step):
            if not math.isfinite(loss := self.history.train["loss"][step]):
                raise ArithmeticError(
                    f"the loss became {loss} at step {step}; try a lower lr than {self.config.lr}, "
                    "more warmup_steps, and look for NaN in the data"
                )

    def record_evaluation(self, numbers: dict[str, float], seconds: float) -> None:
        """Keep the numbers of an evaluation, and the weights if they are the best so far."""
        self.history.eval_steps.append(self.step)
        self.history.eval_seconds.append(seconds)
        for name, value in numbers.items():
            self.history.evaluations.setdefault(name, []).append(value)
        self.stale += 1
        if self.config.patience is not None and numbers[self.config.monitor] < self.best_value:
            self.best_value, self.stale = numbers[self.config.monitor], 0
            self.best = {name: t.detach().clone() for name, t in self.model.state_dict().items()}

    def identity(self) -> dict[str, str]:
        """What must be equal for another process to continue this run."""
        device, precision = self.compute.device.type, self.compute.autocast_dtype or torch.float32
        shapes = [(name, tuple(t.shape)) for name, t in self.model.state_dict().items()]
        return {
            "config": self.config.model_dump_json(),
            "seed": str(self.seed),
            "model": f"{type(self.model).__name__} {fingerprint(f'{self.model} {shapes}'.encode())}",
            "objective": fingerprint(self.objective),
            "data": fingerprint(self.data),
            "device or precision": f"{device} {precision} {self.compute.memory_format}",
            "number of threads": str(torch.get_num_threads() if device == "cpu" else None),
        }

    def save(self, path: Path, identity: dict[str, str]) -> None:
        """Write a checkpoint in one piece: a kill leaves the old file or the new one."""
        save_state(
            path, "checkpoint 2", identity=identity, step=self.step, model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(), history=asdict(self.history),
            best=self.best, best_value=self.best_value, stale=self.stale,
        )  # fmt: skip

    def resume(self, path: Path, identity: dict[str, str]) -> None:
        """Continue from the checkpoint at ``path``, or say why that cannot be."""
        saved = load_state(path, "checkpoint 2")
        found = saved["identity"]
        if other := [name for name in identity if found.get(name) != identity[name]]:
            told = "".join(f"\n  {n}: {found.get(n)} there, {identity[n]} here" for n in other)
            raise StateError(
                f"{path} belongs to a run with another {', another '.join(other)}; "
                f"delete it to start over, or resume with what it began with{told}"
            )
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.history, self.step = History(**saved["history"]), saved["step"]
        self.best, self.best_value, self.stale = saved["best"], saved["best_value"], saved["stale"]


def fit(
    model: nn.Module, data: Batch, objective: Objective, config: FitConfig,
    *, compute: Compute, seed: int = 0, evaluation: Evaluation | None = None,
    checkpoint: Path | None = None, progress: str | None = None, stop_after: int | None = None,
) -> History:  # fmt: skip
    """Train ``model`` in place, on the device of ``compute``, where it is left.

    ``data`` are tensors with the same first axis, one entry an example, at least two. ``seed`` decides the
    order, the augmentation and dropout, but not the initial weights: those come first. ``evaluation`` is
    called with the model every ``config.eval_every`` steps and after the last one. Checkpoints go to the file
    ``checkpoint``; if it is there already, the run continues from it, and another run's is an error
    (a ``StateError``). ``progress`` labels a progress bar, if there is to be one. ``stop_after`` so
    many steps the run is left, to look at its start only.
    """
    assert {len(t) for t in data} == {max(2, len(data[0]))}, [tuple(t.shape) for t in data]
    end = config.num_steps if stop_after is None else min(config.num_steps, stop_after)
    run = TrainingRun(compute.model(model).train(), data, objective, config, compute, seed)
    identity = run.identity() if checkpoint is not None else {}
    if checkpoint is not None and checkpoint.exists():
        run.resume(checkpoint, identity)
    bar = tqdm(total=config.num_steps, initial=run.step, desc=progress, disable=progress is None, unit="step")
    drawing = torch.random.fork_rng([compute.device] if compute.device.type == "cuda" else [])
    with bar, drawing, sharing(run):  # under torchrun, each process takes its part of every batch
        began = time.perf_counter() - run.history.seconds
        while run.step < end and not run.stopped:
            run.train_step()
            last = run.step == end
            evaluating = last or (config.eval_every is not None and run.step % config.eval_every == 0)
            saving = checkpoint is not None and (last or run.step % config.checkpoint_every == 0)
            if evaluating or saving or run.step % FLUSH_EVERY == 0:
                run.flush()
                bar.set_postfix(loss=f"{run.history.train['loss'][-1]:.3f}", refresh=False)
            if evaluating and evaluation is not None:
                run.record_evaluation(agreed(evaluation(run.model)), time.perf_counter() - began)
                run.model.train()
            run.history.seconds = time.perf_counter() - began
            if checkpoint is not None and (saving or run.stopped) and is_first():
                run.save(checkpoint, identity)
            bar.update()
    if run.best:
        run.model.load_state_dict(run.best)
    return run.history
