"""The CIFAR residual networks of He et al. 2016, section 4.2, and their plain twins.

Source: K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.
A plain net is the same class with ``residual=False``: the same layers in the same order with the same
initial weights, and only the addition is left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGE_WIDTHS = (16, 32, 64)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size (or divides it by ``stride``); no bias, a norm follows."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


class ZeroPadShortcut(nn.Module):
    """The parameter-free shortcut "A" of section 3.3: subsample, and pad new channels with zeros.

    Shapes: (N, ``in_channels``, H, W) to (N, ``out_channels``, ceil(H/``stride``), ceil(W/``stride``)).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
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


class CifarBlock(nn.Module):
    """Two 3x3 convolutions, with or without a shortcut around them (figure 2 of the paper).

    ``relu(F(x) + shortcut(x))`` if ``residual``, else ``relu(F(x))``, where
    ``F = norm(conv(relu(norm(conv(x)))))``.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution; 2 halves the height and the width.
        residual: whether the input is added.
        norm: whether batch normalisation follows each convolution. The paper always has it; without
            it the convolutions get a bias.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, residual: bool = True, norm: bool = True
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.norm1 = nn.BatchNorm2d(out_channels) if norm else ChannelBias(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels) if norm else ChannelBias(out_channels)
        self.shortcut: nn.Module | None = None
        if residual:
            same = in_channels == out_channels and stride == 1
            self.shortcut = nn.Identity() if same else ZeroPadShortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        out = F.relu(self.norm1(self.conv1(x)))  # (N, C', H/s, W/s)
        out = self.norm2(self.conv2(out))  # (N, C', H/s, W/s)
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        return F.relu(out)


class CifarResNet(nn.Module):
    """A CIFAR ResNet of 6n + 2 weighted layers, or its plain twin (section 4.2).

    One 3x3 convolution, three stages of n blocks with 16, 32 and 64 channels, the mean over the
    positions, and one linear layer. The first blocks of the second and third stage halve the size.
    Depths 20, 32, 44, 56 and 110 have 0.27, 0.46, 0.66, 0.85 and 1.7 million parameters (table 6).
    Plain and residual nets have the same parameters, because shortcuts "A" have none.

    Args:
        depth: number of weighted layers, 6n + 2 with n >= 1.
        residual: ``False`` for the plain twin.
        norm: ``False`` leaves batch normalisation out (for the study of gradients only).
        num_classes: number of outputs.
        in_channels: channels of the images.

    Raises:
        ValueError: if the depth is not 6n + 2.

    Differences from the paper: none known in the architecture. Weights of convolutions are drawn from
    He's normal distribution over the fan-out, as torchvision does; the paper does not name the fan.

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
        residual: bool = True,
        norm: bool = True,
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        num_blocks, remainder = divmod(depth - 2, 6)
        if remainder or num_blocks < 1:
            raise ValueError(f"depth must be 6n + 2 with n >= 1 (8, 14, 20, 32, 44, 56, 110), not {depth}")
        self.depth, self.residual = depth, residual
        width = STAGE_WIDTHS[0]
        self.conv = conv3x3(in_channels, width)
        self.norm = nn.BatchNorm2d(width) if norm else ChannelBias(width)
        stages = []
        for out_width in STAGE_WIDTHS:
            blocks = []
            for _ in range(num_blocks):
                stride = 1 if out_width == width else 2
                blocks.append(CifarBlock(width, out_width, stride, residual, norm))
                width = out_width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def blocks(self) -> list[list[CifarBlock]]:
        """The blocks of each of the three stages."""
        return [
            [block for block in stage.modules() if isinstance(block, CifarBlock)] for stage in self.stages
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, ``num_classes``) of images (N, ``in_channels``, H, W), any H and W of 4 or more."""
        x = F.relu(self.norm(self.conv(images)))  # (N, 16, H, W)
        x = self.stages(x)  # (N, 64, H/4, W/4)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))  # (N, num_classes)
        return logits


def count_parameters(model: nn.Module) -> int:
    """The number of trainable scalars of ``model``."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@torch.no_grad()
def make_identity(block: CifarBlock) -> None:
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
        last = block.norm2 if isinstance(block.norm2, nn.BatchNorm2d) else block.conv2
        nn.init.zeros_(last.weight)


def deepen(model: CifarResNet, depth: int) -> CifarResNet:
    """A deeper net that computes what ``model`` computes: the solution by construction (section 1).

    Identity blocks (:func:`make_identity`) are put behind each stage of a copy of ``model``.

    Args:
        model: a net of 6n + 2 layers.
        depth: of the new net, 6m + 2 with m > n.

    Raises:
        ValueError: if ``depth`` is not greater than the net's or not 6m + 2.
    """
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
            make_identity(block)
    return deeper.train(model.training)
