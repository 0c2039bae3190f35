"""Residual blocks and their shortcuts.

Sources: K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016
(basic block, bottleneck, shortcuts A, B and C), and, by the same authors, "Identity Mappings in Deep
Residual Networks", ECCV 2016 (pre-activation).

Every block is made as ``Block(in_channels, width, stride)`` and gives ``width * expansion`` channels. Layers
have torchvision's names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shortcut = Literal["A", "B", "C"]
Norm = Callable[[int], nn.Module]  # makes a norm layer for a number of channels


def conv3x3(channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution; no bias, for a norm follows."""
    return nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False)


def conv1x1(channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """One linear layer over the channels, at every position; no bias."""
    kind = SubsampledConv if stride > 1 and channels < 16 else nn.Conv2d
    return kind(channels, out_channels, 1, stride, bias=False)


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
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        assert out_channels >= in_channels, "zeros can add channels, not take any"
        self.new_channels, self.stride = out_channels - in_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]  # (N, C, H/s, W/s)
        # the padding is (left, right) of the last axis first: W, H, then C, zeros behind the channels
        return F.pad(x, (0, 0, 0, 0, 0, self.new_channels))  # (N, C', H/s, W/s)


class ChannelBias(nn.Module):
    """One learned number added to each channel of (N, C, H, W): a norm layer without the norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.view(-1, 1, 1)


def make_shortcut(
    option: Shortcut | None, in_channels: int, out_channels: int, stride: int, norm: Norm | None
) -> nn.Module | None:
    """The shortcut around a block (He et al. 2016, section 3.3).

    "A": the identity, with zeros for new channels; no weights. "B": a projection (1x1 convolution) where the
    shape changes, else the identity. "C": projections everywhere. ``None``: no shortcut, a plain block.
    """
    assert option in ("A", "B", "C", None), option
    if option is None:
        return None
    if option != "C" and in_channels == out_channels and stride == 1:
        return nn.Identity()
    if option == "A":
        return ZeroPadShortcut(in_channels, out_channels, stride)
    projection = conv1x1(in_channels, out_channels, stride)
    return projection if norm is None else nn.Sequential(projection, norm(out_channels))


class BasicResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, figure 2).

    ``relu(F(x) + shortcut(x))``, F = ``norm(conv(relu(norm(conv(x)))))``; a plain block is ``relu(F(x))``.

    Args:
        width: channels of both convolutions, and of the output.
        stride: of the first convolution; 2 halves height and width.
        shortcut: "A", "B", "C", or ``None`` for a plain block.
        norm: makes the layer behind each convolution.
    """

    expansion, num_convolutions, preactivated = 1, 2, False

    def __init__(
        self, in_channels: int, width: int, stride: int = 1,
        shortcut: Shortcut | None = "B", norm: Norm = nn.BatchNorm2d,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1 = conv3x3(in_channels, width, stride)
        self.bn1 = norm(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = norm(width)
        self.shortcut = make_shortcut(shortcut, in_channels, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        out = F.relu(self.bn1(self.conv1(x)))  # (N, C', H/s, W/s)
        out = self.bn2(self.conv2(out))  # (N, C', H/s, W/s)
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        return F.relu(out)


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 convolutions: reduce, compute, expand (figure 5).

    ``width`` is that of the 3x3 convolution; the output has four times as many channels.

    Difference from the paper: the stride sits on the 3x3 convolution, as in torchvision's "V1.5"; the paper
    puts it on the first 1x1 convolution, which then skips three positions in four.
    """

    expansion, num_convolutions, preactivated = 4, 3, False

    def __init__(
        self, in_channels: int, width: int, stride: int = 1,
        shortcut: Shortcut | None = "B", norm: Norm = nn.BatchNorm2d,
    ) -> None:  # fmt: skip
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = conv1x1(in_channels, width)
        self.bn1 = norm(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = norm(width)
        self.conv3 = conv1x1(width, out_channels)
        self.bn3 = norm(out_channels)
        self.shortcut = make_shortcut(shortcut, in_channels, out_channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        out = F.relu(self.bn1(self.conv1(x)))  # (N, width, H, W)
        out = F.relu(self.bn2(self.conv2(out)))  # (N, width, H/s, W/s)
        out = self.bn3(self.conv3(out))  # (N, 4 width, H/s, W/s)
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        return F.relu(out)


class PreActResidualBlock(nn.Module):
    """Norm and ReLU before each convolution (He et al. 2016b, figure 1b).

    ``x + conv(relu(norm(conv(relu(norm(x))))))``, and nothing after the addition. Where the shape changes,
    the projection, without a norm, starts from the activated input, as in the authors' code. A net of these
    blocks needs one more norm and ReLU at its end.
    """

    expansion, num_convolutions, preactivated = 1, 2, True

    def __init__(
        self, in_channels: int, width: int, stride: int = 1,
        shortcut: Shortcut | None = "B", norm: Norm = nn.BatchNorm2d,
    ) -> None:  # fmt: skip
        super().__init__()
        self.bn1 = norm(in_channels)
        self.conv1 = conv3x3(in_channels, width, stride)
        self.bn2 = norm(width)
        self.conv2 = conv3x3(width, width)
        self.shortcut = make_shortcut(shortcut, in_channels, width, stride, norm=None)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        active = F.relu(self.bn1(x))  # (N, C, H, W)
        out: Tensor = self.conv1(active)  # (N, C', H/s, W/s)
        out = self.conv2(F.relu(self.bn2(out)))  # (N, C', H/s, W/s)
        if self.shortcut is not None:
            projecting = isinstance(self.shortcut, nn.Conv2d)
            out = out + self.shortcut(active if projecting else x)
        return out


Block = BasicResidualBlock | BottleneckBlock | PreActResidualBlock


@torch.no_grad()
def zero_residual(block: Block) -> None:
    """Make F(x) = 0, so that the block starts as its shortcut (Goyal et al. 2017, section 5.1).

    The weights of the branch's last layer are set to zero: a norm's scale, or a convolution.
    """
    layers = [layer for name, layer in block.named_children() if name != "shortcut"]
    last = [layer for layer in layers if hasattr(layer, "weight")][-1]
    nn.init.zeros_(last.weight)  # type: ignore[arg-type]  # a parameter
