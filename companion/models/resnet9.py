"""A short, wide residual net that learns CIFAR-10 in minutes: ResNet-9.

Source: D. Page, "How to Train Your ResNet", parts 3 and 4, 2018: the net of his DAWNBench entry.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.models.blocks import conv3x3


class ConvNormReLU(nn.Sequential):
    """A 3x3 convolution, batch norm, ReLU; ``pool`` halves the size."""

    def __init__(self, channels: int, width: int, pool: bool = False) -> None:
        layers = [conv3x3(channels, width), nn.BatchNorm2d(width), nn.ReLU()]
        super().__init__(*layers, *([nn.MaxPool2d(2)] if pool else []))


class Residual(nn.Module):
    """``x + F(x)`` with two ``ConvNormReLU`` as F; nothing follows the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*(ConvNormReLU(channels, channels) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        out: Tensor = x + self.branch(x)
        return out


class ResNet9(nn.Module):
    """Eight 3x3 convolutions and one linear layer; two stages are residual.

    The first layer has ``width`` channels, the last eight times as many.

    Shapes: images (N, 3, H, W), H and W of 8 or more, to logits (N, ``num_classes``).

    Differences from the source: PyTorch's initial weights, a bias in the head, inputs that are not whitened.

    Example:
        >>> sum(p.numel() for p in ResNet9().parameters())
        6573130
    """

    def __init__(self, width: int = 64, num_classes: int = 10) -> None:
        super().__init__()
        a, b, c, d = width, 2 * width, 4 * width, 8 * width
        self.stages = nn.Sequential(
            ConvNormReLU(3, a),  # (N, a, H, W)
            nn.Sequential(ConvNormReLU(a, b, pool=True), Residual(b)),
            ConvNormReLU(b, c, pool=True),  # (N, c, H/4, W/4)
            nn.Sequential(ConvNormReLU(c, d, pool=True), Residual(d)),
        )
        self.head = nn.Linear(d, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stages(images)  # (N, d, H/8, W/8)
        x = F.adaptive_max_pool2d(maps, 1).flatten(1)  # (N, d)
        logits: Tensor = self.head(x) / 8  # small at first: undecided
        return logits


@torch.inference_mode()
def patch_features(net: ResNet9, images: Tensor, stages: Sequence[int], grid: tuple[int, int]) -> Tensor:
    """The maps behind some stages of ``net``, smoothed, brought to one grid and put side by side.

    Smoothing over 3x3 positions makes each vector one of a larger patch (Roth et al. 2022, section 3.1).
    ``images`` are float (N, 3, H, W), prepared as in training; ``stages`` are counted from 0. Gives float32
    (N, h, w, channels of all those stages).
    """
    parts, maps = [], images
    for number, stage in enumerate(net.eval().stages):
        maps = stage(maps)
        if number in stages:
            smooth = F.avg_pool2d(maps.float(), 3, stride=1, padding=1, count_include_pad=False)
            parts.append(F.interpolate(smooth, size=grid, mode="bilinear", align_corners=False))
    return torch.cat(parts, dim=1).permute(0, 2, 3, 1).contiguous()
