"""The training loop, to be read in one sitting from top to bottom.

Every random draw of step ``t`` comes from the seed and ``t`` alone. So the loop needs no memory of its
generators, and a run that was killed at any moment continues from its last checkpoint to the same
final weights, bit for bit where the hardware computes the same (one CPU with the same threads).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from companion.compute import Compute
from companion.files import StateError, atomic_path, load_state, save_state
from companion.objectives.classification import Batch, Objective

FLUSH_EVERY = 50
"""Steps between looks at the loss, each of which makes a GPU wait."""

Evaluation = Callable[[nn.Module], dict[str, float]]


class DivergedError(ArithmeticError):
    """The loss is not a finite number any more; the message says at which step."""


class CheckpointError(StateError):
    """A weight file or checkpoint that cannot be used; the message says what to do."""


class FitConfig(BaseModel):
    """The hyperparameters of a training run.

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


def make_optimizer(model: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    """The optimizer of ``config`` over all parameters of ``model``."""
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), config.lr, config.momentum,
            weight_decay=config.weight_decay, nesterov=config.nesterov,
        )  # fmt: skip
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(model.parameters(), config.lr, weight_decay=config.weight_decay)


def step_seed(seed: int, kind: str, count: int) -> int:
    """A seed of 63 bits for the ``count``-th draw of a ``kind``, different for each combination."""
    digest = hashlib.blake2b(f"{seed}/{kind}/{count}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@lru_cache(maxsize=2)  # the same order serves a whole epoch
def _epoch_order(num_examples: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(step_seed(seed, "epoch", epoch))
    return torch.randperm(num_examples, generator=generator)


def batch_indices(num_examples: int, batch_size: int, seed: int, step: int) -> Tensor:
    """The examples of ``step``: each epoch is a new random order, and its incomplete last batch is left out.

    Fewer examples than ``batch_size`` make one batch of them all.
    """
    batch_size = min(batch_size, num_examples)
    epoch, position = divmod(step, num_examples // batch_size)
    order = _epoch_order(num_examples, seed, epoch)
    return order[position * batch_size : (position + 1) * batch_size]


@torch.inference_mode()
def evaluate(
    model: nn.Module, data: Batch, objective: Objective, compute: Compute, batch_size: int = 1000
) -> dict[str, float]:
    """Means of the objective's scalars over ``data``; the model in evaluation mode, nothing augmented.

    Args:
        model: on the device of ``compute``; left in the mode in which it came.
        data: tensors with the same first axis, at least one example.
        objective: names the scalars.
        compute: device and precision.
        batch_size: examples in one forward pass; the result does not depend on it, but for rounding.
    """
    was_training = model.training
    model.eval()
    totals: dict[str, float] = {}
    for start in range(0, len(data[0]), batch_size):
        batch = tuple(t[start : start + batch_size].to(compute.device) for t in data)
        with compute.autocast():
            scalars = objective(model, batch, None)
        for name, value in scalars.items():
            totals[name] = totals.get(name, 0.0) + value.item() * len(batch[0])
    model.train(was_training)
    return {name: total / len(data[0]) for name, total in totals.items()}


@dataclass
class History:
    """What was measured while training.

    Attributes:
        train: each of the objective's scalars, one value a step.
        eval_steps: how many steps were done at each evaluation.
        eval_seconds: the time spent until each evaluation had ended.
        evaluations: each of the evaluation's numbers, one value for each of ``eval_steps``.
        seconds: time spent training, over all sessions of a resumed run, evaluations included.
    """

    train: dict[str, list[float]] = field(default_factory=dict)
    eval_steps: list[int] = field(default_factory=list)
    eval_seconds: list[float] = field(default_factory=list)
    evaluations: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0


class TrainingRun:
    """A net between two steps of its training: what a checkpoint holds, and how the next step is made."""

    def __init__(
        self,
        model: nn.Module,
        data: Batch,
        objective: Objective,
        config: FitConfig,
        compute: Compute,
        seed: int,
    ) -> None:
        self.model, self.data, self.objective = model, data, objective
        self.config, self.compute, self.seed = config, compute, seed
        self.optimizer = make_optimizer(model, config)
        self.history = History()
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self.best_value = float("inf")
        self.stale = 0  # evaluations since the best
        self.pending: list[dict[str, Tensor]] = []  # scalars of the last steps, still on the device

    @property
    def stopped(self) -> bool:
        """Whether early stopping has ended the run."""
        return self.config.patience is not None and self.stale >= self.config.patience

    def train_step(self) -> None:
        """One step; its randomness is a function of the seed and the step."""
        config, data, seed, step = self.config, self.data, self.seed, self.step
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        chosen = batch_indices(len(data[0]), config.batch_size, seed, step)
        chosen, device = chosen.to(data[0].device), self.compute.device
        batch = tuple(t.index_select(0, chosen).to(device) for t in data)
        augment = step_seed(seed, "augment", step)
        generator = torch.Generator().manual_seed(augment)
        torch.manual_seed(step_seed(seed, "dropout", step))
        with self.compute.autocast():
            scalars = self.objective(self.model, batch, generator)
        self.optimizer.zero_grad(set_to_none=True)
        scalars["loss"].backward()  # type: ignore[no-untyped-call]
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
                raise DivergedError(
                    f"the loss became {loss} at step {step}; try a lower lr than {self.config.lr}, "
                    "more warmup_steps, and look for NaN in the data"
                )

    def record_evaluation(self, numbers: dict[str, float], seconds: float) -> None:
        """Keep the numbers of an evaluation, and the weights if they are the best so far."""
        self.history.eval_steps.append(self.step)
        self.history.eval_seconds.append(seconds)
        for name, value in numbers.items():
            self.history.evaluations.setdefault(name, []).append(value)
        if self.config.patience is None:
            return
        self.stale += 1
        if numbers[self.config.monitor] < self.best_value:
            self.best_value, self.stale = numbers[self.config.monitor], 0
            self.best = {name: t.detach().clone() for name, t in self.model.state_dict().items()}

    def identity(self) -> dict[str, str]:
        """What must be equal for another process to continue this run."""
        compute = f"{self.compute.device.type} {self.compute.autocast_dtype}"
        threads = f" {torch.get_num_threads()} threads" if self.compute.device.type == "cpu" else ""
        shapes = {name: tuple(t.shape) for name, t in self.model.state_dict().items()}
        return {
            "config": self.config.model_dump_json(),
            "seed": str(self.seed),
            "model": _told((str(self.model), str(shapes))),
            "objective": _told(self.objective),
            "data": _told(self.data),
            "device, precision and threads": compute + threads,
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
        try:
            saved = load_state(path, "checkpoint 2")
        except StateError as error:
            raise CheckpointError(f"{error}; delete it to start over") from error
        found = saved["identity"]
        if other := [name for name in identity if found.get(name) != identity[name]]:
            told = "".join(f"\n  {n}: {found.get(n)} there, {identity[n]} here" for n in other)
            raise CheckpointError(
                f"{path} belongs to a run with another {', another '.join(other)}; "
                f"delete it to start over, or resume with what it began with{told}"
            )
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.history, self.step = History(**saved["history"]), saved["step"]
        self.best, self.best_value, self.stale = saved["best"], saved["best_value"], saved["stale"]


def _told(value: object) -> str:
    """A text that differs where values differ: tensors are told by their bytes, all else by its repr."""
    if isinstance(value, Tensor):
        octets = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return f"{tuple(value.shape)} {value.dtype} {hashlib.sha256(octets.data).hexdigest()[:16]}"
    if isinstance(value, tuple):
        return f"({', '.join(_told(part) for part in value)})"
    if is_dataclass(value):
        return f"{type(value).__name__}({', '.join(f'{k}={_told(v)}' for k, v in vars(value).items())})"
    return re.sub(r" at 0x\w+", "", repr(value))  # a function's address is another in each process


def fit(
    model: nn.Module,
    data: Batch,
    objective: Objective,
    config: FitConfig,
    *,
    compute: Compute,
    seed: int = 0,
    evaluation: Evaluation | None = None,
    checkpoint: Path | None = None,
    progress: str | None = None,
    stop_after: int | None = None,
) -> History:
    """Train ``model`` in place.

    Args:
        model: any module, anywhere; it is moved to the device of ``compute`` and left there.
        data: tensors with the same first axis, one entry an example, at least two.
        objective: what to minimise.
        config: the hyperparameters.
        compute: device and precision.
        seed: decides the order of the examples, the augmentation and dropout, but not the model's
            initial weights: seed before making it.
        evaluation: called with the model every ``config.eval_every`` steps and after the last one.
        checkpoint: a file to write checkpoints to. If it is there already, the run continues from it;
            another run's is an error (:class:`CheckpointError`).
        progress: the label of a progress bar; ``None`` for no bar.
        stop_after: leave after this many steps of the run, to look at its start only.

    Returns:
        What was measured on the way.
    """
    assert {len(t) for t in data} == {max(2, len(data[0]))}, [tuple(t.shape) for t in data]
    if stop_after is not None and stop_after < 0:
        raise ValueError(f"stop_after is a number of steps, not {stop_after}")
    end = config.num_steps if stop_after is None else min(config.num_steps, stop_after)
    run = TrainingRun(compute.model(model).train(), data, objective, config, compute, seed)
    identity = run.identity() if checkpoint is not None else {}
    if checkpoint is not None and checkpoint.exists():
        run.resume(checkpoint, identity)
    devices = [compute.device] if compute.device.type == "cuda" else []
    bar = tqdm(total=config.num_steps, initial=run.step, desc=progress, disable=progress is None, unit="step")
    with bar, torch.random.fork_rng(devices):
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
                numbers = evaluation(run.model)
                run.record_evaluation(numbers, time.perf_counter() - began)
                run.model.train()
            run.history.seconds = time.perf_counter() - began
            if checkpoint is not None and (saving or run.stopped):
                run.save(checkpoint, identity)
            bar.update()
    if run.best:
        run.model.load_state_dict(run.best)
    return run.history


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under ``prefix``."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # safetensors wants dense row-major tensors that share no memory
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def save_weights(path: Path, model: nn.Module, *, half: bool = False, **metadata: str) -> None:
    """Write the weights and buffers of ``model`` as safetensors, with strings as metadata.

    With ``half``, floating-point numbers are rounded to float16, which halves the file.
    """
    state = model.state_dict()
    if half:
        state = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    with atomic_path(path) as part:
        save_file(_storable(state), part, metadata=metadata)


def weights_metadata(path: Path) -> dict[str, str]:
    """The strings that :func:`save_weights` wrote beside the weights.

    Raises:
        CheckpointError: if the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a readable weight file ({error})") from error


def load_weights(path: Path, model: nn.Module) -> None:
    """Read the weights of ``model`` from a file that :func:`save_weights` wrote.

    Raises:
        CheckpointError: if the file is missing or damaged, or its weights do not fit the model.
    """
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a readable weight file ({error})") from error
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit this model: {error}") from error


def save_parts(path: Path, kind: str, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a model of several parts as one safetensors file: named tensors, and everything else as JSON.

    Args:
        path: of the file, which appears in one piece.
        kind: what the file holds, with its version.
        about: values that JSON can hold.
        tensors: any; name those that belong together with :func:`prefixed`.
    """
    with atomic_path(path) as part:
        save_file(_storable(tensors), part, metadata={"kind": kind, "about": json.dumps(about)})


def load_parts(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what :func:`save_parts` wrote.

    Raises:
        CheckpointError: if the file is missing, damaged, or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            found = metadata.get("kind", "something else")
            if found != kind:
                raise CheckpointError(f"{path} holds {found}, not {kind}")
            return json.loads(metadata["about"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is not a model that can be read: {error}") from error
