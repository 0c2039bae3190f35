"""What a net costs: multiply-adds, activation memory, memory traffic, receptive field, and time.

All but the time is counted on a copy on PyTorch's "meta" device, without numbers. Shapes are of a batch.

Sources: S. Williams, A. Waterman and D. Patterson, "Roofline", Communications of the ACM 2009; A. Araujo,
W. Norris and J. Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019.
"""

import copy
import math
import statistics
import timeit
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from companion.compute import Compute
from companion.models.resnet import ResNet, count_parameters

Key = TypeVar("Key", bound=Hashable)
TIMING_SECONDS = 0.05  # one timing takes at least so long; a quick model runs several times in it


def _outline(model: nn.Module) -> nn.Module:
    """A copy of ``model`` that has shapes and no numbers."""
    return copy.deepcopy(model).to("meta")


@torch.no_grad()
def multiply_adds(model: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-adds, of two operations each, in a forward pass's convolutions and matrix products alone."""
    images = torch.empty(*input_shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        _outline(model).eval().requires_grad_(False)(images)
    return int(counter.get_total_flops()) // 2


@torch.enable_grad()
def activation_bytes(model: nn.Module, input_shape: Sequence[int]) -> int:
    """The bytes that autograd keeps from the forward for the backward pass, in the model's own precision.

    Each storage counts once, that of the input where a layer keeps it, parameters and buffers not at all.
    """
    outline, kept = _outline(model).train(), []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage())  # held: no other gets its place
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        outline(torch.empty(*input_shape, device="meta"))
    sizes = {storage._cdata: storage.nbytes() for storage in kept}
    for weight in chain(outline.parameters(), outline.buffers()):
        sizes.pop(weight.untyped_storage()._cdata, None)
    return sum(sizes.values())


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the numbers in the inputs and outputs of operations."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            leaves = tree_leaves((args, kwargs, out))
            self.numbers += sum(leaf.numel() for leaf in leaves if isinstance(leaf, Tensor))
        return out


@torch.no_grad()
def numbers_moved(model: nn.Module, input_shape: Sequence[int]) -> int:
    """The numbers that one forward pass reads from memory and writes to it, in every operation each once.

    Caches make the true traffic smaller, second readings larger.
    """
    outline, images = _outline(model).eval(), torch.empty(*input_shape, device="meta")
    with _Traffic() as traffic:  # type: ignore[no-untyped-call]
        outline(images)
    return int(traffic.numbers)


class StageCost(NamedTuple):
    """What one part of a ResNet costs in one forward pass of a batch."""

    name: str  # "stem", "stage 1" and so on, "head"
    output_shape: tuple[int, ...]  # (N, C, H, W), or (N, classes)
    parameters: int
    multiply_adds: int
    receptive_field: int | None  # its side in pixels, were the image without borders; the head sees all of it


@torch.no_grad()
def stage_costs(net: ResNet, input_shape: Sequence[int]) -> list[StageCost]:
    """The cost of a ResNet part by part: stem, stages, head, for images of the shape (N, C, H, W).

    A layer of kernel size k behind layers whose strides multiply to s sees (k - 1) s pixels more.
    """
    net = copy.deepcopy(net).to("meta").eval()
    parts: dict[str, list[nn.Module]] = {"stem": [net.conv1, net.bn1, net.maxpool]}
    parts |= {f"stage {number}": [stage] for number, stage in enumerate(net.stages, start=1)}
    parts["head"] = [net.fc]
    if net.block.preactivated:  # then the norm is behind the last stage
        parts |= {"stem": [net.conv1, net.maxpool], "head": [net.bn1, net.fc]}
    costs, maps = list[StageCost](), torch.empty(*input_shape, device="meta")
    side, step = 1, 1  # of what an output position sees, in pixels, and from it to the next
    for name, modules in parts.items():
        parameters, macs = sum(count_parameters(module) for module in modules), 0
        for module in modules:
            for place, layer in module.named_modules():
                if hasattr(layer, "kernel_size") and "shortcut" not in place:
                    side += (int(np.max(layer.kernel_size)) - 1) * step  # a pool has one number for both
                    step *= int(np.max(layer.stride))
            maps = maps.mean(dim=(2, 3)) if module is net.fc else maps
            macs, maps = macs + multiply_adds(module, maps.shape), module(maps)
        costs.append(StageCost(name, tuple(maps.shape), parameters, macs, None if name == "head" else side))
    return costs


class Timing(NamedTuple):
    """Seconds: the median over the rounds, and the fastest and the slowest round."""

    median: float
    fastest: float
    slowest: float


def interleaved(functions: Mapping[Key, Callable[[], object]], rounds: int = 7) -> dict[Key, Timing]:
    """Seconds of a call. Each round times every function: a change of the machine's speed meets all alike."""
    timers = {name: timeit.Timer(function) for name, function in functions.items()}
    calls, samples = dict[Key, int](), dict[Key, list[float]]()
    for name, timer in timers.items():
        timer.timeit(1)  # warms up
        calls[name], samples[name] = math.ceil(TIMING_SECONDS / timer.timeit(1)) or 1, []
    for _ in range(rounds):
        for name, timer in timers.items():
            samples[name].append(timer.timeit(calls[name]) / calls[name])
    return {name: Timing(statistics.median(each), min(each), max(each)) for name, each in samples.items()}


def time_models(
    jobs: Mapping[Key, tuple[nn.Module, Sequence[int]]], compute: Compute,
    *, backward: bool = False, rounds: int = 7,
) -> dict[Key, Timing]:  # fmt: skip
    """Seconds per example of models, each with the shape of its batch, interleaved; inputs are random.

    With ``backward`` a forward pass in training mode is followed by a backward pass; without, the models are
    in evaluation mode and keep nothing. They are moved to the device.
    """

    def step(model: nn.Module, inputs: Tensor) -> None:
        with compute.autocast() if backward else nullcontext():
            output = model(inputs)
        if backward:
            output.float().square().mean().backward()
            model.zero_grad(set_to_none=True)
        if compute.device.type != "cpu":
            torch.accelerator.synchronize(compute.device)

    steps, dtype = {}, None if backward else compute.autocast_dtype
    with torch.inference_mode(not backward), nullcontext() if backward else compute.autocast():
        # one context where nothing is learned: it converts the weights once
        for name, (model, shape) in jobs.items():
            inputs = torch.rand(*shape, device=compute.device, dtype=dtype)
            inputs = inputs.to(memory_format=compute.memory_format) if inputs.ndim == 4 else inputs
            steps[name] = partial(step, compute.model(model).train(backward), inputs)
        seconds = interleaved(steps, rounds)
    return {name: Timing(*(s / shape[0] for s in seconds[name])) for name, (_, shape) in jobs.items()}
