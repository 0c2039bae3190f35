"""The CIFAR residual networks of He et al. 2016, section 4.2, and their plain twins.

Source: K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.
A plain net is the same class with ``residual=False``: the same layers in the same order with the same
initial weights, and only the addition is left out.
"""

from __future__ import annotations

import torch
from torch import nn

from companion.models.blocks import BasicResidualBlock, ChannelBias, PreActResidualBlock, zero_residual
from companion.models.resnet import ResNet


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
