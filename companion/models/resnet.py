"""The residual network: a stem, stages of equal blocks, a mean over the positions, one linear layer.

Source: K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
section 3.3, table 1 and section 4.2.

The CIFAR residual networks of He et al. 2016, section 4.2, and their plain twins.

Source: K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.
A plain net is the same class with ``residual=False``: the same layers in the same order with the same
initial weights, and only the addition is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.models.blocks import (
    BasicResidualBlock,
    Block,
    BottleneckBlock,
    ChannelBias,
    Norm,
    PreActResidualBlock,
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


class CifarResNet(ResNet):
    """A CIFAR ResNet of 6n + 2 weighted layers, or its plain twin (section 4.2).

    One 3x3 convolution, three stages of n blocks with 16, 32 and 64 channels, the mean over the
    positions, and one linear layer. The first blocks of the second and third stage halve the size.
    Depths 20, 32, 44, 56 and 110 have 0.27, 0.46, 0.66, 0.85 and 1.7 million parameters (table 6).
    Plain and residual nets have the same parameters, because shortcuts "A" have none.

    Args:
        depth: number of weighted layers, 6n + 2 with n >= 1.
        block: the paper's, or the pre-activated one.
        residual: ``False`` for the plain twin.
        norm: ``False`` leaves batch normalisation out (for the study of gradients only).
        num_classes: number of outputs.
        in_channels: channels of the images.

    Raises:
        ValueError: if the depth is not 6n + 2.

    Differences from the paper: none known, but for the initial weights, see
    :class:`companion.models.resnet.ResNet`.

    Example:
        >>> net = CifarResNet(20)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> sum(p.numel() for p in net.parameters())
        269722
    """

    def __init__(
        self,
        depth: int,
        *,
        block: type[BasicResidualBlock] | type[PreActResidualBlock] = BasicResidualBlock,
        residual: bool = True,
        norm: bool = True,
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        num_blocks, remainder = divmod(depth - 2, 6)
        if remainder or num_blocks < 1:
            raise ValueError(f"depth must be 6n + 2 with n >= 1 (8, 14, 20, 32, 44, 56, 110), not {depth}")
        super().__init__(
            block,
            (num_blocks,) * 3,
            num_classes,
            stem="cifar",
            width=16,
            in_channels=in_channels,
            shortcut="A" if residual else None,
            norm=nn.BatchNorm2d if norm else ChannelBias,
        )
        self.residual = residual


@torch.no_grad()
def make_identity(block: BasicResidualBlock) -> None:
    """Set the weights of ``block`` so that, in evaluation mode, it returns its input unchanged.

    The input must be non-negative, as what leaves a ReLU is. A residual block gets F = 0, by a last
    norm scale of zero. A plain block needs F(x) = x: each convolution passes its channels on (a one in
    the middle of its kernel, zeros elsewhere) and each norm does nothing.

    Raises:
        ValueError: if the block changes the number of channels or the size.
    """
    if block.conv1.in_channels != block.conv2.out_channels or block.conv1.stride != (1, 1):
        raise ValueError("a block that changes the shape cannot be the identity")
    for conv, norm in ((block.conv1, block.norm1), (block.conv2, block.norm2)):
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_parameters()  # scale 1, shift 0, running mean 0, running variance 1
            if norm.running_var is not None:
                norm.running_var -= norm.eps  # the norm divides by sqrt(variance + eps), which is now 1
        if block.shortcut is None:
            nn.init.dirac_(conv.weight)
    if block.shortcut is not None:
        zero_residual(block)


def deepen(model: CifarResNet, depth: int) -> CifarResNet:
    """A deeper net that computes what ``model`` computes: the solution by construction (section 1).

    Identity blocks (:func:`make_identity`) are put behind each stage of a copy of ``model``.

    Args:
        model: a net of 6n + 2 layers.
        depth: of the new net, 6m + 2 with m > n.

    Raises:
        ValueError: if ``depth`` is not greater than the net's or not 6m + 2, or if the blocks are
            pre-activated.
    """
    if model.block is not BasicResidualBlock:
        raise ValueError(f"only nets of BasicResidualBlock can be deepened, not of {model.block.__name__}")
    if depth <= model.depth:
        raise ValueError(f"the new depth must be greater than {model.depth}, not {depth}")
    deeper = CifarResNet(
        depth,
        residual=model.residual,
        norm=isinstance(model.norm, nn.BatchNorm2d),
        num_classes=model.head.out_features,
        in_channels=model.conv.in_channels,
    ).to(model.head.weight.device)
    deeper.load_state_dict(model.state_dict(), strict=False)  # the old blocks keep their names
    for old, new in zip(model.blocks(), deeper.blocks(), strict=True):
        for block in new[len(old) :]:
            make_identity(block)  # type: ignore[arg-type]  # a BasicResidualBlock, as checked
    return deeper.train(model.training)
