"""Residual blocks and their shortcuts.

Sources: K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016
(basic block, bottleneck, shortcuts A, B and C), and, by the same authors, "Identity Mappings in Deep
Residual Networks", ECCV 2016 (pre-activation).

Every block is made as ``Block(in_channels, width, stride)`` and gives ``width * expansion`` channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ShortcutOption = Literal["A", "B", "C"]
Norm = Callable[[int], nn.Module]


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size (or divides it by ``stride``); no bias, a norm follows."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution: one linear layer over the channels, the same at every position; no bias.

    With a stride and few channels it is a ``SubsampledConv``, which computes the same.
    """
    kind = SubsampledConv if stride > 1 and in_channels < 16 else nn.Conv2d
    return kind(in_channels, out_channels, 1, stride=stride, bias=False)


class SubsampledConv(nn.Conv2d):
    """A strided 1x1 convolution that drops the positions between the strides first: the same numbers.

    With fewer than 16 channels, float32, channels_last and maps of 64x64 and more, the CPU kernel that
    PyTorch 2.14 takes for the backward pass of the strided form writes outside its memory.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride[0], :: self.stride[1]]  # (N, C, H/s, W/s)
        return F.conv2d(x, self.weight, self.bias)


class ZeroPadShortcut(nn.Module):
    """The parameter-free shortcut "A" of section 3.3: subsample, and pad new channels with zeros.

    Shapes: (N, ``in_channels``, H, W) to (N, ``out_channels``, ceil(H/``stride``), ceil(W/``stride``)).

    Raises:
        ValueError: if there are fewer channels after it than before.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        if out_channels < in_channels:
            raise ValueError(f"zeros can add channels, not take any: {in_channels} to {out_channels}")
        self.new_channels = out_channels - in_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]  # (N, C, H/s, W/s)
        # the padding is (left, right) of the last axis first: W, H, then C, zeros behind the channels
        return F.pad(x, (0, 0, 0, 0, 0, self.new_channels))  # (N, C', H/s, W/s)


class ChannelBias(nn.Module):
    """One learned number added to each channel: what is left of a norm layer without the norm.

    Shapes: (N, ``channels``, H, W) to the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.view(-1, 1, 1)


def make_shortcut(
    option: ShortcutOption | None, in_channels: int, out_channels: int, stride: int, norm: Norm | None
) -> nn.Module | None:
    """The shortcut around a block (He et al. 2016, section 3.3).

    Args:
        option: ``"A"``: the identity, with zeros for new channels; no weights. ``"B"``: a projection (1x1
            convolution) where the shape changes, else the identity. ``"C"``: projections
            everywhere. ``None``: no shortcut, which makes the block plain.
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the block.
        norm: makes the norm that follows a projection; ``None`` for none.

    Raises:
        ValueError: for another option.
    """
    if option is None:
        return None
    if option not in ("A", "B", "C"):
        raise ValueError(f"the shortcut is 'A', 'B', 'C' or None, not {option!r}")
    if option != "C" and in_channels == out_channels and stride == 1:
        return nn.Identity()
    if option == "A":
        return ZeroPadShortcut(in_channels, out_channels, stride)
    projection = conv1x1(in_channels, out_channels, stride)
    return nn.Sequential(projection, norm(out_channels)) if norm else projection


class BasicResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them (He et al. 2016, figure 2).

    ``relu(F(x) + shortcut(x))`` with ``F = norm(conv(relu(norm(conv(x)))))``; without a shortcut
    ``relu(F(x))``, the plain block.

    Args:
        in_channels: channels of the input.
        width: channels of both convolutions, and of the output.
        stride: of the first convolution; 2 halves the height and the width.
        shortcut: see :func:`make_shortcut`.
        norm: makes the layer that follows each convolution, from a number of channels.
    """

    expansion: ClassVar[int] = 1
    num_convolutions: ClassVar[int] = 2
    preactivated: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        shortcut: ShortcutOption | None = "B",
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, width, stride)
        self.norm1 = norm(width)
        self.conv2 = conv3x3(width, width)
        self.norm2 = norm(width)
        self.shortcut = make_shortcut(shortcut, in_channels, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        out = F.relu(self.norm1(self.conv1(x)))  # (N, C', H/s, W/s)
        out = self.norm2(self.conv2(out))  # (N, C', H/s, W/s)
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        return F.relu(out)


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions: reduce, compute, expand (He et al. 2016, figure 5).

    Args:
        in_channels: channels of the input.
        width: channels inside; the output has four times as many.
        stride: of the 3x3 convolution.
        shortcut: see :func:`make_shortcut`.
        norm: makes the layer that follows each convolution, from a number of channels.

    Differences from the paper: the stride sits on the 3x3 convolution, as in torchvision's "V1.5" and in
    most later code; the paper puts it on the first 1x1 convolution, which then skips three
    positions in four.
    """

    expansion: ClassVar[int] = 4
    num_convolutions: ClassVar[int] = 3
    preactivated: ClassVar[bool] = False

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        shortcut: ShortcutOption | None = "B",
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = conv1x1(in_channels, width)
        self.norm1 = norm(width)
        self.conv2 = conv3x3(width, width, stride)
        self.norm2 = norm(width)
        self.conv3 = conv1x1(width, out_channels)
        self.norm3 = norm(out_channels)
        self.shortcut = make_shortcut(shortcut, in_channels, out_channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        out = F.relu(self.norm1(self.conv1(x)))  # (N, width, H, W)
        out = F.relu(self.norm2(self.conv2(out)))  # (N, width, H/s, W/s)
        out = self.norm3(self.conv3(out))  # (N, 4 width, H/s, W/s)
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        return F.relu(out)


class PreActResidualBlock(nn.Module):
    """Norm and ReLU before each convolution, and nothing after the addition (He et al. 2016b, figure 1b).

    ``x + conv(relu(norm(conv(relu(norm(x))))))``. Where the shape changes, the projection starts from the
    activated input, as in the authors' code. A net of these blocks needs one more norm and ReLU at
    its end.

    Args:
        in_channels: channels of the input.
        width: channels of both convolutions, and of the output.
        stride: of the first convolution; 2 halves the height and the width.
        shortcut: see :func:`make_shortcut`; projections have no norm here.
        norm: makes the layer in front of each convolution, from a number of channels.
    """

    expansion: ClassVar[int] = 1
    num_convolutions: ClassVar[int] = 2
    preactivated: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        shortcut: ShortcutOption | None = "B",
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.norm1 = norm(in_channels)
        self.conv1 = conv3x3(in_channels, width, stride)
        self.norm2 = norm(width)
        self.conv2 = conv3x3(width, width)
        self.shortcut = make_shortcut(shortcut, in_channels, width, stride, norm=None)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        active = F.relu(self.norm1(x))  # (N, C, H, W)
        out: Tensor = self.conv1(active)  # (N, C', H/s, W/s)
        out = self.conv2(F.relu(self.norm2(out)))  # (N, C', H/s, W/s)
        if self.shortcut is not None:
            out = out + self.shortcut(active if isinstance(self.shortcut, nn.Conv2d) else x)
        return out


Block = BasicResidualBlock | BottleneckBlock | PreActResidualBlock


@torch.no_grad()
def zero_residual(block: Block) -> None:
    """Make F(x) = 0, so that the block starts as its shortcut (Goyal et al. 2017, section 5.1).

    The scale of the last norm is set to zero; where a convolution comes last, or no norm has a scale, the
    weights of the last convolution.
    """
    names = {BasicResidualBlock: ("norm2", "conv2"), BottleneckBlock: ("norm3", "conv3")}
    norm, conv = names.get(type(block), ("", "conv2"))
    last = getattr(block, norm) if norm and hasattr(getattr(block, norm), "weight") else getattr(block, conv)
    nn.init.zeros_(last.weight)
