"""The residual network: a stem, stages of equal blocks, a mean over the positions, one linear layer.

Source: K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
section 3.3, table 1 and section 4.2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from companion.models.blocks import (
    BasicResidualBlock,
    Block,
    BottleneckBlock,
    Norm,
    ShortcutOption,
    conv3x3,
    zero_residual,
)

Stem = Literal["imagenet", "cifar"]


class ResNet(nn.Module):
    """A residual network of any depth.

    The first stage has ``width`` channels inside its blocks; each further stage doubles them and halves
    the height and the width of the maps.

    Args:
        block: the class of the blocks.
        layers: how many blocks each stage has.
        num_classes: number of outputs.
        stem: ``"imagenet"``: a 7x7 convolution and a max-pool, each of stride 2. ``"cifar"``: one 3x3
            convolution, which keeps the size.
        width: channels of the stem and inside the first stage.
        in_channels: channels of the images.
        shortcut: see :func:`companion.models.blocks.make_shortcut`; ``None`` for the plain twin.
        norm: makes a norm layer from a number of channels.
        zero_init: whether every block starts as its shortcut, see
            :func:`companion.models.blocks.zero_residual`.

    Raises:
        ValueError: for another stem, or if a stage has no block.

    Differences from the paper: weights of convolutions are drawn from He's normal distribution over the
    fan-out, as torchvision does; the paper does not name the fan. For the bottleneck's stride see
    :class:`companion.models.blocks.BottleneckBlock`.

    Example:
        >>> import torch
        >>> net = ResNet(BasicResidualBlock, (1, 1), num_classes=5, stem="cifar", width=8)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        block: type[Block],
        layers: Sequence[int],
        num_classes: int = 1000,
        *,
        stem: Stem = "imagenet",
        width: int = 64,
        in_channels: int = 3,
        shortcut: ShortcutOption | None = "B",
        norm: Norm = nn.BatchNorm2d,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        if stem not in ("imagenet", "cifar"):
            raise ValueError(f"the stem is 'imagenet' or 'cifar', not {stem!r}")
        if not layers or min(layers) < 1:
            raise ValueError(f"every stage needs a block, at least; got {tuple(layers)}")
        self.block, self.depth = block, 2 + block.num_convolutions * sum(layers)
        channels = width * 2 ** (len(layers) - 1) * block.expansion  # what the head sees
        self.conv = conv3x3(in_channels, width)
        self.pool: nn.Module = nn.Identity()
        if stem == "imagenet":
            self.conv = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        # behind the stem, or behind the last block where blocks begin with their norm
        self.norm = norm(channels if block.preactivated else width)
        stages, before = [], width
        for stage, num_blocks in enumerate(layers):
            inside = width * 2**stage
            blocks: list[nn.Module] = []
            for index in range(num_blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(before, inside, stride, shortcut, norm))
                before = inside * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_init:
            for each in self.modules():
                if isinstance(each, Block):
                    zero_residual(each)

    def blocks(self) -> list[list[Block]]:
        """The blocks of each stage."""
        return [[block for block in stage.modules() if isinstance(block, Block)] for stage in self.stages]

    def features(self, images: Tensor) -> Tensor:
        """The last maps, (N, C', H', W'), of images (N, ``in_channels``, H, W)."""
        x = self.conv(images)  # (N, width, H/2, W/2), or (N, width, H, W) with the CIFAR stem
        if not self.block.preactivated:
            x = F.relu(self.norm(x))
        x = self.stages(self.pool(x))  # (N, C', H', W')
        return F.relu(self.norm(x)) if self.block.preactivated else x

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, ``num_classes``) of images (N, ``in_channels``, H, W), of any size."""
        logits: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits


def resnet18(num_classes: int = 1000, stem: Stem = "imagenet") -> ResNet:
    """ResNet-18: two basic blocks in each of four stages."""
    return ResNet(BasicResidualBlock, (2, 2, 2, 2), num_classes, stem=stem)


def resnet34(num_classes: int = 1000, stem: Stem = "imagenet") -> ResNet:
    """ResNet-34: 3, 4, 6 and 3 basic blocks."""
    return ResNet(BasicResidualBlock, (3, 4, 6, 3), num_classes, stem=stem)


def resnet50(num_classes: int = 1000, stem: Stem = "imagenet") -> ResNet:
    """ResNet-50: 3, 4, 6 and 3 bottlenecks."""
    return ResNet(BottleneckBlock, (3, 4, 6, 3), num_classes, stem=stem)


def resnet101(num_classes: int = 1000, stem: Stem = "imagenet") -> ResNet:
    """ResNet-101: 3, 4, 23 and 3 bottlenecks."""
    return ResNet(BottleneckBlock, (3, 4, 23, 3), num_classes, stem=stem)


def resnet152(num_classes: int = 1000, stem: Stem = "imagenet") -> ResNet:
    """ResNet-152: 3, 8, 36 and 3 bottlenecks."""
    return ResNet(BottleneckBlock, (3, 8, 36, 3), num_classes, stem=stem)


FAMILY = {18: resnet18, 34: resnet34, 50: resnet50, 101: resnet101, 152: resnet152}
"""The makers of table 1's nets, by depth."""

_OURS_TO_THEIRS = (
    (r"^conv\.", "conv1."),
    (r"^norm\.", "bn1."),
    (r"\.norm(\d)\.", r".bn\1."),
    (r"\.shortcut\.", ".downsample."),
    (r"^head\.", "fc."),
)
_THEIRS_TO_OURS = (
    (r"^conv1\.", "conv."),
    (r"^bn1\.", "norm."),
    (r"\.bn(\d)\.", r".norm\1."),
    (r"\.downsample\.", ".shortcut."),
    (r"^fc\.", "head."),
)


def _renamed(state: Mapping[str, Tensor], rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def to_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a net of :data:`FAMILY` with the stem ``"imagenet"``, named as torchvision does.

    Example:
        >>> sorted(to_torchvision(resnet18().state_dict()))[:2]
        ['bn1.bias', 'bn1.num_batches_tracked']
    """
    counted = {
        re.sub(r"^stages\.(\d+)\.", lambda m: f"layer{int(m[1]) + 1}.", name): tensor
        for name, tensor in state.items()
    }
    return _renamed(counted, _OURS_TO_THEIRS)


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`to_torchvision`: torchvision's published weights, for the nets here."""
    counted = {
        re.sub(r"^layer(\d+)\.", lambda m: f"stages.{int(m[1]) - 1}.", name): tensor
        for name, tensor in state.items()
    }
    return _renamed(counted, _THEIRS_TO_OURS)


def count_parameters(model: nn.Module) -> int:
    """The number of trainable scalars of ``model``."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
