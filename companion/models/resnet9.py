"""A short, wide residual net that learns CIFAR-10 in minutes: ResNet-9.

Source: D. Page, "How to Train Your ResNet", parts 3 and 4, 2018: the net of his DAWNBench entry.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from companion.models.blocks import conv3x3


class ConvNormReLU(nn.Sequential):
    """A 3x3 convolution, batch norm, ReLU, and a max-pool that halves the size if ``pool``."""

    def __init__(self, in_channels: int, out_channels: int, pool: bool = False) -> None:
        layers = [conv3x3(in_channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU()]
        super().__init__(*layers, *([nn.MaxPool2d(2)] if pool else []))


class Residual(nn.Module):
    """``x + F(x)`` with two :class:`ConvNormReLU` as F; nothing follows the addition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(ConvNormReLU(channels, channels), ConvNormReLU(channels, channels))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        out: Tensor = x + self.branch(x)
        return out


class ResNet9(nn.Module):
    """Eight 3x3 convolutions and one linear layer, two of the four stages residual.

    Args:
        width: channels of the first layer; the last has eight times as many.
        num_classes: number of outputs.
        in_channels: channels of the images.

    Differences from the source: weights keep PyTorch's initial values, the head has a bias, inputs are not
    whitened.

    Example:
        >>> import torch
        >>> net = ResNet9()
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> sum(p.numel() for p in net.parameters())
        6573130
    """

    def __init__(self, width: int = 64, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            ConvNormReLU(in_channels, width),  # (N, w, H, W)
            nn.Sequential(
                ConvNormReLU(width, 2 * width, pool=True), Residual(2 * width)
            ),  # (N, 2w, H/2, W/2)
            ConvNormReLU(2 * width, 4 * width, pool=True),  # (N, 4w, H/4, W/4)
            nn.Sequential(
                ConvNormReLU(4 * width, 8 * width, pool=True), Residual(8 * width)
            ),  # (N, 8w, H/8, W/8)
        )
        self.head = nn.Linear(8 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, ``num_classes``) of images (N, ``in_channels``, H, W), any H and W of 8 or more."""
        x = F.adaptive_max_pool2d(self.stages(images), 1).flatten(1)  # (N, 8w)
        logits: Tensor = self.head(x) / 8  # small at first, so that the softmax starts undecided
        return logits
