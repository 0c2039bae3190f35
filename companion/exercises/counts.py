"""Checks of counts by hand: the weights of nets and blocks, the widths of a bottleneck, its stride."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import nn

from companion.exercises.base import Case, Check, Exercise, NotYet, compare, kind, number, told, values
from companion.models.blocks import BottleneckBlock
from companion.models.cost import multiply_adds, stage_costs
from companion.models.resnet import CifarResNet, ResNet, count_parameters, resnet50
from companion.models.tabular import PreNormTabularBlock


def _is_whole(answer: Any, *args: int) -> None:
    found = number(answer, *args)
    if found < 0 or not found.is_integer():
        raise NotYet(f"it gives {found:g}, and weights are counted in whole numbers")


# ---------------------------------------------------------------- the convolutions of a CIFAR net


def _conv_weights(depth: int) -> tuple[int, dict[str, float]]:
    """The weights of all convolutions, and what likely mistakes count."""
    with torch.device("meta"):
        net = CifarResNet(depth)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    wanted = sum(conv.weight.numel() for conv in convs)
    outputs = sum(conv.out_channels for conv in convs)
    head, blocks = 64 * 10, (depth - 2) // 6
    stage = 9 * (16**2 + 32**2 + 64**2)
    return wanted, {
        "you count the biases; a convolution in front of a norm has none": wanted + outputs,
        "you count the norms, too; the question is about convolutions": wanted + 2 * outputs,
        "you count the linear layer at the end, too": wanted + head,
        "you count the linear layer at the end, too, with its biases": wanted + head + 10,
        "that is the whole net, with norms and the linear layer": count_parameters(net),
        "the first convolution is missing: it goes from 3 channels to 16": wanted - 9 * 3 * 16,
        "the first convolution of a stage has as many input channels as the stage before": (
            9 * 3 * 16 + 2 * blocks * stage
        ),
        "a kernel has 9 weights for each pair of an input and an output channel": wanted / 9,
        "each block has two convolutions, and a stage has (depth - 2) / 6 blocks": wanted - blocks * stage,
    }


def _conv_weights_checks() -> tuple[Check, ...]:
    def case(answer: Any, depth: int) -> Case:
        found, (wanted, mistakes) = number(answer, depth), _conv_weights(depth)
        return found, wanted, mistakes, f"for {depth} layers it gives {told(found)}, not {told(wanted)}"

    return (
        ("it gives a whole number", lambda answer: _is_whole(answer, 20)),
        ("it counts right for 20 layers", lambda answer: compare(case(answer, 20))),
        ("and for other depths", lambda answer: compare(*(case(answer, depth) for depth in (8, 32, 110)))),
    )


# ---------------------------------------------------------------- how narrow a bottleneck


def _widths_checks() -> tuple[Check, ...]:
    sizes = (288, 100)

    def root(under: int, over: int, c: int) -> float:
        return (math.sqrt(under) - 1) / over * c

    def gives_two(answer: Any) -> None:
        for width in values(answer, (2,), sizes[0]).tolist():
            if width <= 0:
                raise NotYet(f"a width of {width:.1f} makes no block; a square has two roots, take the other")

    def balanced(answer: Any) -> None:
        cases = []
        for c in sizes:
            w = values(answer, (2,), c).tolist()[0]
            mistakes = {
                "there are two 1x1 convolutions, one at each end": c / 9,
                "that is the answer to the second question; this one comes first": root(163, 9, c),
                "that is the usual quarter; the question is where both are equal": c / 4,
                "rounded: give the width as it is, whole or not": round(2 * c / 9),
            }
            both = f"the 3x3 convolution has {9 * w * w:,.0f} weights, the others have {2 * c * w:,.0f}"
            cases.append((w, 2 * c / 9, mistakes, f"with C = {c} and w = {w:.1f} {both}"))
        compare(*cases)

    def as_dear(answer: Any) -> None:
        cases = []
        for c in sizes:
            w = values(answer, (2,), c).tolist()[1]
            mistakes = {
                "a basic block has two 3x3 convolutions over C channels, not one": root(82, 9, c),
                "both 1x1 convolutions count": root(649, 18, c),
                "the 1x1 convolutions are part of the bottleneck and cost something, too": math.sqrt(2) * c,
                "rounded: give the width as it is, whole or not": round(root(163, 9, c)),
            }
            has = f"the bottleneck has {9 * w * w + 2 * c * w:,.0f} weights, not {18 * c * c:,}"
            cases.append((w, root(163, 9, c), mistakes, f"with C = {c} and w = {w:.1f} {has}"))
        compare(*cases)

    return (
        ("it gives two widths", gives_two),
        ("at the first the 3x3 convolution has as many weights as the two others together", balanced),
        ("at the second the bottleneck has as many weights as a basic block", as_dear),
    )


# ---------------------------------------------------------------- where to put the stride

_IMAGES = (1, 3, 224, 224)


def _strides(net: nn.Module) -> list[tuple[int, ...]]:
    """The strides of the three convolutions of every block, in order."""
    blocks = (module for module in net.modules() if isinstance(module, BottleneckBlock))
    strides = ([conv.stride for conv in (b.conv1, b.conv2, b.conv3)] for b in blocks)
    return [tuple(int(np.ravel(s)[0]) for s in three) for three in strides]  # a reader may write 2 for (2, 2)


def _stride_checks() -> tuple[Check, ...]:
    with torch.device("meta"):
        ours = resnet50()
    paper = copy.deepcopy(ours)
    for stage in paper.blocks()[1:]:
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)

    def changed(answer: Any) -> ResNet:
        net = copy.deepcopy(ours)
        given = answer(net)
        net = net if given is None else given  # changed in place, or another one made
        if not isinstance(net, ResNet):
            raise NotYet(f"it gives {kind(net)}; change the ResNet that it is given, and return that")
        return net

    def keeps_sizes(answer: Any) -> None:
        net = changed(answer)
        if count_parameters(net) != count_parameters(ours):
            raise NotYet("the weights have other shapes than before; only strides should change")
        try:
            found = _maps(net)
        except RuntimeError:
            raise NotYet(
                "in a block, branch and shortcut give maps of different sizes; has it a stride of 2 twice, "
                "or none, or one where nothing is halved, as in the first stage?"
            ) from None
        if found != _maps(ours):
            raise NotYet(f"the stages give maps of {found}, not {_maps(ours)}")

    def moves_stride(answer: Any) -> None:
        found, wanted = _strides(changed(answer)), _strides(paper)
        if found == wanted:
            return
        if found == _strides(ours):
            raise NotYet("nothing has changed: the stride of 2 is still in the 3x3 convolution")
        if any(third == 2 for _, _, third in found):
            raise NotYet("the stride of 2 is in the last convolution; it belongs into the first")
        late = sum(first == 2 for first, _, _ in found)
        raise NotYet(f"{late} blocks have the stride of 2 in their first convolution, and 3 stages halve")

    def costs(answer: Any) -> None:
        found, wanted = _cost(changed(answer)), _cost(paper)
        if found != wanted:
            raise NotYet(f"multiply-adds and field are {found}, not {wanted}; what else has changed?")

    return (
        ("it gives a net whose maps have the sizes that they had", keeps_sizes),
        ("the stride of 2 is in the first 1x1 convolution of the stages that halve", moves_stride),
        ("multiply-adds and receptive field are those of the paper's net", costs),
    )


def _cost(net: ResNet) -> tuple[int, int | None]:
    """Multiply-adds, and the receptive field of the last maps."""
    return multiply_adds(net, _IMAGES), stage_costs(net, _IMAGES)[-2].receptive_field


def _maps(net: ResNet) -> list[tuple[int, ...]]:
    """The shapes of what the stages give."""
    return [cost.output_shape for cost in stage_costs(net, _IMAGES)[1:-1]]


# ---------------------------------------------------------------- a block for tables


def _block_weights(d: int, h: int) -> tuple[int, dict[str, float]]:
    """The weights of a pre-norm block, and what likely mistakes count."""
    wanted = count_parameters(PreNormTabularBlock(d, h))
    return wanted, {
        "the linear layers have biases, too": wanted - d - h,
        "the first linear layer has a bias, too, with h numbers": wanted - h,
        "d are missing: the layer norm has a scale and a shift, the second linear layer a bias": wanted - d,
        "each bias has as many numbers as its layer has outputs: h and d": wanted + h - d,
        "the layer norm has weights, too": wanted - 2 * d,
        "the norm comes first, so it is over the d features outside": wanted + 2 * (h - d),
        "a pre-norm block has one norm, not two": wanted + 2 * h,
        "there are two linear layers": wanted - d * h - d,
    }


def _block_weights_checks() -> tuple[Check, ...]:
    def counts(answer: Any) -> None:
        cases = []
        for d, h in ((128, 256), (100, 37), (64, 64)):
            found, (wanted, mistakes) = number(answer, d, h), _block_weights(d, h)
            said = f"for d = {d} and h = {h} it gives {told(found)}, not {told(wanted)}"
            cases.append((found, wanted, mistakes, said))
        compare(*cases)

    return (
        ("it gives a whole number", lambda answer: _is_whole(answer, 128, 256)),
        ("it counts right for d = 128 and h = 256, and for others", counts),
    )


COUNTS: dict[str, Exercise] = {
    "conv-weights": Exercise("weights(depth)", _conv_weights_checks),
    "bottleneck-widths": Exercise("widths(channels)", _widths_checks),
    "paper-stride": Exercise("paper_stride(net)", _stride_checks),
    "block-weights": Exercise("block_weights(d, h)", _block_weights_checks),
}
"""The exercises on counts, by name."""
