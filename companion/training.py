"""The training loop, to be read in one sitting.

Every random draw of step ``t`` comes from the seed and ``t`` alone. So the loop needs no memory of its
generators, and a run that was killed at any moment continues from its last checkpoint to the same
final weights, bit for bit where the hardware computes the same (one CPU with the same threads).

How a training run is described: a frozen config, and the learning rate as a function of the step.

Checkpoints: one safetensors file with the weights and everything else that a resumed run needs.

No pickle is read or written. Tensors are stored under ``model.``, ``best.``, ``optimizer.`` and
``history.``; numbers and the identity of the run stand in the file's metadata.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
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
from companion.files import atomic_path
from companion.objectives.classification import Batch, Objective

FLUSH_EVERY = 50
"""Steps between looks at the loss, each of which makes a GPU wait."""

Evaluation = Callable[[nn.Module], dict[str, float]]


class DivergedError(ArithmeticError):
    """The loss is not a finite number any more; the message says at which step."""


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


def make_optimizer(model: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    """The optimizer of ``config`` over all parameters of ``model``."""
    if config.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    if config.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )


@torch.inference_mode()
def evaluate(
    model: nn.Module, data: Batch, objective: Objective, compute: Compute, batch_size: int = 1000
) -> dict[str, float]:
    """Means of the objective's scalars over ``data``, with the model in evaluation mode.

    Args:
        model: on the device of ``compute``; left in the mode in which it came.
        data: tensors with the same first axis, at least one example.
        objective: called without a generator, so nothing is augmented.
        compute: device and precision.
        batch_size: examples in one forward pass; the result does not depend on it, but for rounding.

    Raises:
        ValueError: if there are no examples.
    """
    num_examples = len(data[0])
    if num_examples == 0:
        raise ValueError("there are no examples to evaluate on")
    was_training = model.training
    model.eval()
    totals: dict[str, float] = {}
    for start in range(0, num_examples, batch_size):
        batch = tuple(t[start : start + batch_size].to(compute.device) for t in data)
        with compute.autocast():
            scalars = objective(model, batch, None)
        for name, value in scalars.items():
            totals[name] = totals.get(name, 0.0) + value.item() * len(batch[0])
    model.train(was_training)
    return {name: total / num_examples for name, total in totals.items()}


class _Run:
    """The state of one training run: what a checkpoint holds."""

    def __init__(self, model: nn.Module, config: FitConfig) -> None:
        self.model, self.config = model, config
        self.optimizer = make_optimizer(model, config)
        self.history = History()
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self.best_value = float("inf")
        self.stale = 0  # evaluations since the best
        self.pending: list[dict[str, Tensor]] = []  # scalars of the last steps, still on the device

    def train_step(self, data: Batch, objective: Objective, compute: Compute, seed: int) -> None:
        indices = batch_indices(len(data[0]), self.config.batch_size, seed, self.step).to(data[0].device)
        batch = tuple(t.index_select(0, indices).to(compute.device) for t in data)
        generator = torch.Generator().manual_seed(step_seed(seed, "augment", self.step))
        torch.manual_seed(step_seed(seed, "dropout", self.step))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        with compute.autocast():
            scalars = objective(self.model, batch, generator)
        self.optimizer.zero_grad(set_to_none=True)
        scalars["loss"].backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.pending.append({name: value.detach() for name, value in scalars.items()})
        self.step += 1

    def flush(self) -> None:
        """Move the pending scalars into the history, and stop at a loss that is not finite."""
        for name in self.pending[0] if self.pending else ():
            values = torch.stack([scalars[name] for scalars in self.pending]).tolist()
            self.history.train.setdefault(name, []).extend(values)
        done, self.pending = len(self.pending), []
        for step, loss in enumerate(self.history.train["loss"][self.step - done :], self.step - done):
            if loss != loss or abs(loss) == float("inf"):
                raise DivergedError(
                    f"the loss became {loss} at step {step}; try a lower lr than {self.config.lr}, "
                    "more warmup_steps, and look for NaN in the data"
                )

    def record_evaluation(self, numbers: dict[str, float], seconds: float) -> bool:
        """Keep the numbers of an evaluation; ``True`` if training should stop early."""
        self.history.eval_steps.append(self.step)
        self.history.eval_seconds.append(seconds)
        for name, value in numbers.items():
            self.history.evaluations.setdefault(name, []).append(value)
        if self.config.patience is None:
            return False
        if self.config.monitor not in numbers:
            raise ValueError(f"monitor {self.config.monitor!r} is not among the evaluated {sorted(numbers)}")
        if numbers[self.config.monitor] < self.best_value:
            self.best_value, self.stale = numbers[self.config.monitor], 0
            self.best = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        else:
            self.stale += 1
        return self.stale >= self.config.patience

    def save(self, path: Path, identity: str, stopped: bool) -> None:
        history = {f"train.{name}": values for name, values in self.history.train.items()}
        history |= {f"eval.{name}": values for name, values in self.history.evaluations.items()}
        tensors = prefixed("model.", self.model.state_dict()) | prefixed("best.", self.best)
        tensors |= prefixed("optimizer.", optimizer_tensors(self.optimizer))
        tensors |= {
            f"history.{name}": torch.tensor(values, dtype=torch.float64) for name, values in history.items()
        }
        numbers = {
            "eval_steps": self.history.eval_steps,
            "eval_seconds": self.history.eval_seconds,
            "seconds": self.history.seconds,
            "best_value": self.best_value,
            "stale": self.stale,
            "stopped": stopped,
        }
        save_checkpoint(path, Checkpoint(self.step, identity, tensors, numbers))

    def load(self, path: Path, identity: str) -> bool:
        """Continue from ``path``; ``True`` if early stopping had ended the run."""
        saved = load_checkpoint(path, identity)
        self.model.load_state_dict(saved.part("model."))
        restore_optimizer(self.optimizer, saved.part("optimizer."))
        self.step, self.best = saved.step, saved.part("best.")
        self.best_value, self.stale = saved.numbers["best_value"], saved.numbers["stale"]
        self.history = History(
            {name: values.tolist() for name, values in saved.part("history.train.").items()},
            saved.numbers["eval_steps"],
            saved.numbers["eval_seconds"],
            {name: values.tolist() for name, values in saved.part("history.eval.").items()},
            saved.numbers["seconds"],
        )
        return bool(saved.numbers["stopped"])


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
    identity: str = "",
    progress: str | None = None,
    stop_after: int | None = None,
) -> History:
    """Train ``model`` in place.

    Args:
        model: any module, anywhere; it is moved to the device of ``compute`` and left there.
        data: tensors with the same first axis, one entry an example.
        objective: what to minimise, see :mod:`companion.objectives.classification`.
        config: the hyperparameters.
        compute: device and precision.
        seed: decides the order of the examples, the augmentation and dropout, but not the model's
            initial weights: seed before making it.
        evaluation: called with the model every ``config.eval_every`` steps and after the last one.
        checkpoint: a file to write checkpoints to. If it is there already, the run continues from it.
        identity: more that must be equal for a run to continue, such as the digest of the data.
        progress: the label of a progress bar; ``None`` for no bar.
        stop_after: leave after this many steps of the run, to look at its start only.

    Returns:
        What was measured on the way.

    Raises:
        ValueError: if there are fewer than two examples, or the tensors' lengths differ.
        DivergedError: if the loss becomes NaN or infinite.
        CheckpointError: if the checkpoint is damaged or belongs to another run.
    """
    lengths = {len(tensor) for tensor in data}
    if len(lengths) != 1 or min(lengths) < 2:
        raise ValueError(f"need tensors of one common length of 2 or more, not of {sorted(lengths)}")
    identity = f"{config.model_dump_json()} {seed=} {len(data[0])} {compute.autocast_dtype} {identity}"
    model = compute.model(model).train()
    run = _Run(model, config)
    stopped = run.load(checkpoint, identity) if checkpoint is not None and checkpoint.exists() else False
    devices = [compute.device] if compute.device.type == "cuda" else []
    end = min(config.num_steps, stop_after or config.num_steps)
    bar = tqdm(total=config.num_steps, initial=run.step, desc=progress, disable=progress is None, unit="step")
    with bar, torch.random.fork_rng(devices):
        clock = time.perf_counter()
        while run.step < end and not stopped:
            run.train_step(data, objective, compute, seed)
            last = run.step == end
            evaluating = last or (config.eval_every is not None and run.step % config.eval_every == 0)
            saving = checkpoint is not None and (last or run.step % config.checkpoint_every == 0)
            if evaluating or saving or run.step % FLUSH_EVERY == 0:
                run.flush()
                bar.set_postfix(loss=f"{run.history.train['loss'][-1]:.3f}", refresh=False)
            if evaluating and evaluation is not None:
                numbers = evaluation(model)
                seconds = run.history.seconds + time.perf_counter() - clock
                stopped = run.record_evaluation(numbers, seconds)
                model.train()
            now = time.perf_counter()
            run.history.seconds += now - clock
            clock = now
            if checkpoint is not None and (saving or stopped):
                run.save(checkpoint, identity, stopped)
            bar.update()
    if run.best:
        model.load_state_dict(run.best)
    return run.history


class FitConfig(BaseModel):
    """The hyperparameters of :func:`companion.training.fit`.

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


class CheckpointError(RuntimeError):
    """A weight file or checkpoint that cannot be used; the message says what to do."""


@dataclass
class Checkpoint:
    """The state of a training run between two steps.

    Attributes:
        step: steps done.
        identity: what must be equal for a resumed run: the config, the seed, the data.
        tensors: parameters, buffers, optimizer state and histories by prefixed name.
        numbers: everything else that is small, as JSON values.
    """

    step: int
    identity: str
    tensors: dict[str, Tensor]
    numbers: dict[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix``, with the prefix taken off."""
        return {name[len(prefix) :]: t for name, t in self.tensors.items() if name.startswith(prefix)}


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under ``prefix``."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # safetensors wants dense row-major tensors that share no memory
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``path`` in one piece: a kill leaves the old file or the new one."""
    metadata = {
        "step": str(checkpoint.step),
        "identity": checkpoint.identity,
        "numbers": json.dumps(checkpoint.numbers),
    }
    with atomic_path(path) as part:
        save_file(_storable(checkpoint.tensors), part, metadata=metadata)


def load_checkpoint(path: Path, identity: str) -> Checkpoint:
    """Read a checkpoint of the run ``identity``.

    Raises:
        CheckpointError: if the file is not a whole checkpoint, or belongs to another run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        step, found, numbers = int(metadata["step"]), metadata["identity"], json.loads(metadata["numbers"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a readable checkpoint ({error}); delete it to start over"
        ) from error
    if found != identity:
        raise CheckpointError(
            f"{path} belongs to a run with another config, seed or data set; "
            "delete it to start over, or resume with the old settings\n"
            f"  found:    {found}\n  expected: {identity}"
        )
    return Checkpoint(step, found, tensors, numbers)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state (momentum buffers and the like) by ``"<parameter index>.<name>"``."""
    return {
        f"{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave, in the memory layout of the parameters.

    The layout matters for equality to the last bit: PyTorch may round differently where the strides
    of a parameter and of its momentum differ.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        like = parameters[int(index)]
        if tensor.shape == like.shape:
            tensor = torch.empty_like(like).copy_(tensor)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


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
