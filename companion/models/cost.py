"""What a net costs: multiply-adds, activation memory, memory traffic, reach, and time.

All but the time is counted on a copy on PyTorch's "meta" device, whose tensors have a shape and no
numbers: counting computes nothing and leaves the model as it was. :func:`count_parameters
<companion.models.resnet.count_parameters>` counts the parameters.

Sources: S. Williams, A. Waterman and D. Patterson, "Roofline", Communications of the ACM 2009 (arithmetic
intensity); A. Araujo, W. Norris and J. Sim, "Computing Receptive Fields of Convolutional Neural
Networks", Distill 2019.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from companion.compute import Compute
from companion.models.resnet import ResNet, count_parameters

PRODUCT = "matrix product"
"""What :func:`throughput` compares with."""


def _outline(model: nn.Module) -> nn.Module:
    """A copy of ``model`` that has shapes and no numbers."""
    return copy.deepcopy(model).to("meta")


@torch.no_grad()
def multiply_adds(model: nn.Module, input_shape: Sequence[int]) -> int:
    """The multiply-adds of one forward pass, in convolutions and matrix products.

    Norms, activations and additions are not counted, as is usual. One multiply-add is two floating-point
    operations.

    Args:
        model: any module with one input.
        input_shape: of the whole batch, such as (N, C, H, W).

    Example:
        >>> multiply_adds(nn.Conv2d(256, 64, 1), (1, 256, 14, 14)) == 256 * 64 * 14 * 14
        True
    """
    with FlopCounterMode(display=False) as counter:
        _outline(model).eval().requires_grad_(False)(torch.empty(*input_shape, device="meta"))
    return int(counter.get_total_flops()) // 2


@torch.enable_grad()
def activation_bytes(model: nn.Module, input_shape: Sequence[int]) -> int:
    """The bytes that autograd keeps from the forward for the backward pass, in the model's own precision.

    Each storage is counted once, however many layers keep it; the input counts where a layer keeps it.
    Parameters and buffers are not counted: they are there anyway.

    Args:
        model: any module with one input.
        input_shape: of the whole batch.
    """
    outline, kept = _outline(model).train(), []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage())  # while it is held, no other storage gets its address
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        outline(torch.empty(*input_shape, device="meta"))
    own = {t.untyped_storage()._cdata for t in chain(outline.parameters(), outline.buffers())}
    sizes = {storage._cdata: storage.nbytes() for storage in kept if storage._cdata not in own}
    return sum(sizes.values())


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the numbers in the inputs and outputs of operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            leaves = tree_leaves((args, kwargs, out))
            self.numbers += sum(leaf.numel() for leaf in leaves if isinstance(leaf, Tensor))
        return out


@torch.no_grad()
def numbers_moved(model: nn.Module, input_shape: Sequence[int]) -> int:
    """The numbers that one forward pass reads from memory and writes to it.

    Every operation (convolution, norm, activation, addition) is taken to read its inputs and weights once
    and to write its output once, as PyTorch executes them one by one. Caches make the true traffic
    smaller; kernels that read something twice make it larger.

    Args:
        model: any module with one input.
        input_shape: of the whole batch.
    """
    outline, traffic = _outline(model).eval(), _Traffic()
    images = torch.empty(*input_shape, device="meta")
    with traffic:
        outline(images)
    return traffic.numbers


def receptive_field(layers: Iterable[tuple[int, int]], start: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """How far one output position of a chain of convolutions and pools sees.

    A layer of kernel size k behind layers whose strides multiply to s adds (k - 1) s pixels.

    Args:
        layers: kernel size and stride of each layer, from the input.
        start: the result for the layers in front of these.

    Returns:
        The field's side, and the step between neighbouring positions; both in pixels of the input.

    Example:
        >>> receptive_field([(3, 1), (3, 1)])  # two 3x3 convolutions see as far as one of 5x5
        (5, 1)
    """
    side, step = start
    for kernel, stride in layers:
        side, step = side + (kernel - 1) * step, step * stride
    return side, step


def _kernels(module: nn.Module) -> list[tuple[int, int]]:
    """Kernel size and stride of the convolutions and pools in ``module``, shortcuts left out."""
    layers = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) and "shortcut" not in name:
            pairs = (layer.kernel_size, layer.stride)
            kernel, stride = (each if isinstance(each, int) else each[0] for each in pairs)
            layers.append((kernel, stride))
    return layers


@dataclass(frozen=True)
class StageCost:
    """What one part of a ResNet costs.

    Attributes:
        name: ``"stem"``, ``"stage 1"`` and so on, ``"head"``.
        output_shape: (N, C, H, W), or (N, classes) for the head.
        parameters: trainable scalars.
        multiply_adds: of one forward pass of the batch.
        receptive_field: the side, in pixels, of what one output position sees, were the image without
            borders; ``None`` for the head, which sees all of it.
    """

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    receptive_field: int | None


@torch.no_grad()
def stage_costs(net: ResNet, input_shape: Sequence[int]) -> list[StageCost]:
    """The cost of a ResNet part by part: stem, stages, head.

    Args:
        net: the net, on any device.
        input_shape: of the images, (N, C, H, W).
    """
    net = copy.deepcopy(net).to("meta").eval()
    stages: dict[str, list[nn.Module]] = {
        f"stage {number}": [stage] for number, stage in enumerate(net.stages, start=1)
    }
    parts: dict[str, list[nn.Module]] = {
        "stem": [net.conv1, net.bn1, net.maxpool],
        **stages,
        "head": [net.fc],
    }
    if net.block.preactivated:  # then the norm is behind the last stage
        parts |= {"stem": [net.conv1, net.maxpool], "head": [net.bn1, net.fc]}
    shapes: dict[nn.Module, tuple[torch.Size, torch.Size]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shapes[module] = inputs[0].shape, output.shape

    for module in chain(*parts.values()):
        module.register_forward_hook(note)
    net(torch.empty(*input_shape, device="meta"))
    costs: list[StageCost] = []
    field = 1, 1
    for name, modules in parts.items():
        field = receptive_field(chain(*(_kernels(module) for module in modules)), field)
        parameters = sum(count_parameters(module) for module in modules)
        macs = sum(multiply_adds(module, shapes[module][0]) for module in modules)
        output_shape = tuple(shapes[modules[-1]][1])
        costs.append(StageCost(name, output_shape, parameters, macs, None if name == "head" else field[0]))
    return costs


@dataclass(frozen=True)
class Timing:
    """Seconds per example: the median over the rounds, and the fastest and the slowest round."""

    median: float
    fastest: float
    slowest: float


def growth_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of ``log(values)`` over ``log(sizes)`` by least squares: 1 for a line, 2 for a square.

    Raises:
        ValueError: with fewer than two different sizes, or a number that is not positive.

    Example:
        >>> round(growth_exponent([1, 2, 4], [3, 12, 48]), 6)
        2.0
    """
    if len(set(sizes)) < 2 or len(sizes) != len(values) or min(*sizes, *values) <= 0:
        raise ValueError("need positive values for at least two different sizes")
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def time_in_turns(
    jobs: Mapping[str, tuple[nn.Module, Sequence[int]]],
    compute: Compute,
    *,
    backward: bool = False,
    rounds: int = 7,
    min_seconds: float = 0.05,
) -> dict[str, Timing]:
    """Time several models in turns.

    Each round times every model once, so that a change of the machine's speed meets all of them alike.

    Args:
        jobs: by name, a model and the shape of its input batch. The models are moved to the device.
        compute: device and precision; inputs are random numbers.
        backward: whether a forward pass in training mode is followed by a backward pass; without it the
            models are in evaluation mode and keep nothing.
        rounds: how many times each model is timed, after it has been warmed up.
        min_seconds: how long one timing takes, at least; a quick model runs several times in it.

    Returns:
        Seconds per example, by name.

    Raises:
        ValueError: without a round.
    """
    if rounds < 1:
        raise ValueError(f"at least one round is needed, not {rounds}")

    def work(model: nn.Module, inputs: Tensor) -> None:
        if not backward:
            model(inputs)
            return
        with compute.autocast():
            output = model(inputs)
        output.float().square().mean().backward()
        model.zero_grad(set_to_none=True)

    def seconds(model: nn.Module, inputs: Tensor) -> float:
        start, runs, elapsed = time.perf_counter(), 0, 0.0
        while not runs or elapsed < min_seconds:
            work(model, inputs)
            if compute.device.type != "cpu":
                torch.accelerator.synchronize(compute.device)
            runs, elapsed = runs + 1, time.perf_counter() - start
        return elapsed / runs

    ready = {}
    samples: dict[str, list[float]] = {name: [] for name in jobs}
    mode = nullcontext() if backward else torch.inference_mode()
    around = nullcontext() if backward else compute.autocast()  # one context: it converts the weights once
    with mode, around:
        for name, (model, shape) in jobs.items():
            inputs = torch.rand(*shape, device=compute.device)
            if not backward:
                inputs = inputs.to(compute.autocast_dtype or torch.float32)
            if inputs.ndim == 4:
                inputs = compute.images(inputs)
            ready[name] = compute.model(model).train(backward), inputs
            seconds(*ready[name])  # warms up
        for _ in range(rounds):
            for name, job in ready.items():
                samples[name].append(seconds(*job) / jobs[name][1][0])
    return {name: Timing(statistics.median(s), min(s), max(s)) for name, s in samples.items()}


@dataclass(frozen=True)
class Throughput:
    """How quick a model is, beside a matrix product.

    Attributes:
        per_second: examples in a second.
        multiply_adds: of one example.
        share: of the multiply-adds a second that the matrix product reached.
    """

    per_second: float
    multiply_adds: int
    share: float

    @property
    def rate(self) -> float:
        """Multiply-adds a second."""
        return self.per_second * self.multiply_adds


def throughput(
    jobs: Mapping[str, tuple[nn.Module, Sequence[int]]],
    compute: Compute,
    *,
    rounds: int = 7,
    size: int = 2048,
) -> dict[str, Throughput]:
    """Time models in turns with a matrix product in the same precision, a bound for what they can reach.

    What is not counted as a multiply-add (norms, activations, memory traffic) lowers the share, and so do
    small batches and channels.

    Args:
        jobs: see :func:`time_in_turns`.
        compute: device and precision.
        rounds: see :func:`time_in_turns`.
        size: of the product's two square matrices.

    Returns:
        By name, and the product itself under :data:`PRODUCT`.

    Raises:
        ValueError: without a round, or if a job has the product's name.
    """
    if PRODUCT in jobs:
        raise ValueError(f"no job may be called {PRODUCT!r}")
    every = {**jobs, PRODUCT: (nn.Linear(size, size, bias=False), (size, size))}
    cost = {name: multiply_adds(model, (1, *shape[1:])) for name, (model, shape) in every.items()}
    seconds = time_in_turns(every, compute, rounds=rounds)
    bound = cost[PRODUCT] / seconds[PRODUCT].median
    return {
        name: Throughput(1 / timing.median, cost[name], cost[name] / timing.median / bound)
        for name, timing in seconds.items()
    }
