"""Checkpoints: one safetensors file with the weights and everything else that a resumed run needs.

No pickle is read or written. Tensors are stored under ``model.``, ``best.``, ``optimizer.`` and
``history.``; numbers and the identity of the run stand in the file's metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from companion.files import atomic_path


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
