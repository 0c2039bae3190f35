"""The residual network: a stem, stages of equal blocks, a mean over the positions, one linear layer.

Source: K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016: table 1
for ImageNet, section 4.2 for CIFAR and for plain twins, section 1 for the solution by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
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
    Shortcut,
    conv3x3,
    zero_residual,
)


class ResNet(nn.Module):
    """A residual network of any depth (He et al. 2016, section 3.3).

    The first stage has ``width`` channels inside its blocks. Each further
    stage doubles them, and halves the height and the width of the maps.

    Args:
        layers: how many blocks each stage has.
        stem: "imagenet": a 7x7 convolution and a max-pool, each of stride 2. "cifar": one 3x3 convolution,
            which keeps the size.
        width: channels of the stem and inside the first stage.
        shortcut: of the blocks; ``None`` for the plain twin.

    Shapes: images (N, 3, H, W) of any size to logits (N, ``num_classes``). Parameters have torchvision's
    names, but for ``shortcut``, which is ``downsample`` there.

    Difference from the paper, which does not say which fan: convolutions are drawn from He's normal
    distribution over the fan-out, as in torchvision.
    """

    def __init__(
        self, block: type[Block], layers: Sequence[int], num_classes: int = 1000,
        *, stem: Literal["imagenet", "cifar"] = "imagenet", width: int = 64,
        shortcut: Shortcut | None = "B", norm: Norm = nn.BatchNorm2d,
    ) -> None:  # fmt: skip
        super().__init__()
        self.block, self.num_stages = block, len(layers)
        self.depth = 2 + block.num_convolutions * sum(layers)
        widths = [width * 2**stage for stage in range(len(layers))]
        features = widths[-1] * block.expansion
        self.conv1 = conv3x3(3, width)
        self.maxpool: nn.Module = nn.Identity()
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        # pre-activated blocks begin with a norm; this one is then the last
        self.bn1 = norm(features if block.preactivated else width)
        channels = width
        for stage, inside in enumerate(widths):
            blocks: list[nn.Module] = []
            for index in range(layers[stage]):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(channels, inside, stride, shortcut, norm))
                channels = inside * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(features, num_classes)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_normal_(conv.weight, 0, "fan_out", "relu")

    @property
    def stages(self) -> list[nn.Sequential]:
        """``layer1``, ``layer2`` and so on."""
        return [getattr(self, f"layer{i + 1}") for i in range(self.num_stages)]

    def blocks(self) -> list[list[Block]]:
        """The blocks of each stage, without what took the place of one."""
        return [[b for b in s if isinstance(b, Block)] for s in self.stages]

    def features(self, images: Tensor) -> Tensor:
        """The last maps, (N, C', H', W'), of images (N, 3, H, W)."""
        x: Tensor = self.conv1(images)  # (N, width, H, W), or half of H and W
        if not self.block.preactivated:
            x = F.relu(self.bn1(x))
        x = self.maxpool(x)
        for stage in self.stages:
            x = stage(x)  # (N, C, H, W), then (N, 2C, H/2, W/2), ...
        return F.relu(self.bn1(x)) if self.block.preactivated else x

    def maps(self, images: Tensor) -> Tensor:
        """Logits at each place, whose means are the logits: (N, num_classes, H', W')."""
        return F.conv2d(self.features(images), self.fc.weight[:, :, None, None], self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(images).mean(dim=(2, 3)))
        return logits


FAMILY = {  # table 1: by depth, the block and how many of them each stage has
    18: partial(ResNet, BasicResidualBlock, (2, 2, 2, 2)),
    34: partial(ResNet, BasicResidualBlock, (3, 4, 6, 3)),
    50: partial(ResNet, BottleneckBlock, (3, 4, 6, 3)),
    101: partial(ResNet, BottleneckBlock, (3, 4, 23, 3)),
    152: partial(ResNet, BottleneckBlock, (3, 8, 36, 3)),
}
resnet18, resnet34, resnet50, resnet101, resnet152 = FAMILY.values()


def count_parameters(model: nn.Module) -> int:
    """The number of trainable scalars of ``model``."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


class CifarResNet(ResNet):
    """A CIFAR ResNet of 6n + 2 weighted layers, or its plain twin (He et al. 2016, section 4.2).

    One 3x3 convolution, three stages of n blocks with 16, 32 and 64 channels, the mean over the positions,
    and one linear layer. Depths 20, 32, 44, 56 and 110 have 0.27, 0.46, 0.66, 0.85 and 1.7 million parameters
    (table 6). The plain twin has the same layers in the same order with the same initial weights: shortcuts
    "A" have no weights, and only the addition is left out.

    ``norm=False`` leaves batch normalisation out (for the study of gradients only).
    """

    def __init__(
        self, depth: int, *, block: type[BasicResidualBlock | PreActResidualBlock] = BasicResidualBlock,
        residual: bool = True, norm: bool = True, num_classes: int = 10,
    ) -> None:  # fmt: skip
        num_blocks, remainder = divmod(depth - 2, 6)
        if remainder or num_blocks < 1:
            raise ValueError(f"depth must be 6n + 2 with n >= 1 (8, 14, 20, 32, 44, 56, 110), not {depth}")
        super().__init__(
            block, (num_blocks,) * 3, num_classes, stem="cifar", width=16,
            shortcut="A" if residual else None, norm=nn.BatchNorm2d if norm else ChannelBias,
        )  # fmt: skip
        self.residual = residual


@torch.no_grad()
def make_identity(block: BasicResidualBlock) -> None:
    """Set the weights of ``block`` so that it returns its input unchanged.

    In evaluation mode, and for an input that is not negative, as what leaves a ReLU is. A residual block
    gets F = 0, by a last norm scale of zero. A plain block needs F(x) = x: each convolution passes its
    channels on (a one in the middle of its kernel, zeros elsewhere), and each norm does nothing.
    """
    assert block.conv1.in_channels == block.conv2.out_channels, "wider"
    assert block.conv1.stride == (1, 1), "smaller"
    for conv, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_parameters()  # scale 1, shift 0, mean 0, variance 1
            if norm.running_var is not None:
                norm.running_var -= norm.eps  # it divides by sqrt(var + eps)
        if block.shortcut is None:
            nn.init.dirac_(conv.weight)
    if block.shortcut is not None:
        zero_residual(block)


@torch.no_grad()
def deepen(model: CifarResNet, depth: int, images: Tensor) -> CifarResNet:
    """A deeper plain net that computes what a plain net computes: the solution by construction (section 1).

    Identity blocks (:func:`make_identity`) are put behind each stage of a copy of ``model``. In training mode
    batch norm would change what they pass on. So each new norm gets the scale and shift that undo this for a
    batch like ``images`` (N, 3, H, W), normalised.
    """
    assert not model.residual, "a residual block needs no such thing"
    deeper = CifarResNet(depth, residual=False).to(images.device)
    deeper.load_state_dict(model.state_dict(), strict=False)  # the old blocks keep their names
    pairs = zip(model.blocks(), deeper.blocks(), strict=True)
    every = (block for old, new in pairs for block in new[len(old) :])
    added = [block for block in every if isinstance(block, BasicResidualBlock)]
    for block in added:
        make_identity(block)
    norms = [layer for block in added for layer in (block.bn1, block.bn2)]
    hooks = [layer.register_forward_pre_hook(_undo_norm) for layer in norms]
    deeper.train()(images)
    for hook, layer in zip(hooks, norms, strict=True):
        hook.remove()
        own = layer.state_dict()
        own |= {"running_mean": own["bias"], "running_var": own["weight"] ** 2 - 1e-5}
        layer.load_state_dict(own)
    deeper.load_state_dict(model.state_dict(), strict=False)  # with the old statistics
    return deeper.train(model.training)


def _undo_norm(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3), correction=0)  # (C,)
    norm.load_state_dict({"weight": (variance + 1e-5).sqrt(), "bias": mean}, strict=False)
