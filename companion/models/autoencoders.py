"""Autoencoders for images: a small convolutional one, and a deep residual one.

Each has ``encode``, ``decode`` and a ``forward`` that returns the reconstruction and the code. The residual
one is made of the pre-activated blocks of He et al. 2016b ("Identity Mappings in Deep Residual Networks",
figure 1b).

A residual autoencoder for waveforms: a 1-D encoder, a latent vector, and a mirrored decoder.

The blocks carry the pre-activated block of He et al. 2016b ("Identity Mappings in Deep Residual Networks",
figure 1b) over to one dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from companion.models.blocks import PreActResidualBlock, conv1x1, conv3x3


def count_parameters(module: nn.Module) -> int:
    """How many numbers ``module`` learns."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _checked_images(images: Tensor, channels: int, factor: int) -> Tensor:
    """The images as they are.

    Raises:
        ValueError: if they are not (N, ``channels``, H, W) with sides that ``factor`` divides.
    """
    if images.ndim != 4 or images.shape[1] != channels or any(side % factor for side in images.shape[2:]):
        raise ValueError(
            f"this net takes images (N, {channels}, H, W) with sides that {factor} divides, "
            f"not {tuple(images.shape)}"
        )
    return images


class ConvAutoencoder(nn.Module):
    """Strided convolutions down to a vector, and transposed ones back.

    Down: 3x3 convolutions of stride 2, each with a norm and a ReLU, then one linear layer. Back: a linear
    layer, then 4x4 transposed convolutions of stride 2, with norms and ReLUs between them, and tanh at the
    end.

    Args:
        channels: of the images.
        size: height and width; each convolution halves them, so ``2 ** len(widths)`` must divide both.
        latent: numbers in the code.
        widths: channels behind each convolution.

    Shapes: (N, ``channels``, H, W) in [-1, 1] to the same, and codes (N, ``latent``).

    Raises:
        ValueError: if a number is not positive, or the size does not fit; in use, for images of another size.

    Example:
        >>> import torch
        >>> net = ConvAutoencoder()
        >>> x_hat, z = net(torch.zeros(2, 1, 64, 64))
        >>> x_hat.shape, z.shape, net.count_parameters()
        (torch.Size([2, 1, 64, 64]), torch.Size([2, 512]), 8654753)
    """

    def __init__(
        self,
        channels: int = 1,
        size: tuple[int, int] = (64, 64),
        latent: int = 512,
        widths: Sequence[int] = (32, 64, 128),
    ) -> None:
        super().__init__()
        factor = 2 ** len(widths)
        if min(channels, latent, *size, *widths, len(widths)) < 1 or any(side % factor for side in size):
            raise ValueError(
                f"need positive numbers, a convolution at least, and sides that {factor} divides, "
                f"not {channels=}, {size=}, {latent=}, widths={tuple(widths)}"
            )
        self.channels, self.size, self.latent = channels, tuple(size), latent
        down: list[nn.Module] = []
        for before, width in zip((channels, *widths), widths, strict=False):
            down += [conv3x3(before, width, stride=2), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.down = nn.Sequential(*down)
        self.inner = (widths[-1], size[0] // factor, size[1] // factor)
        self.to_latent = nn.Linear(math.prod(self.inner), latent)
        self.from_latent = nn.Linear(latent, math.prod(self.inner))
        up: list[nn.Module] = []
        back = [*reversed(widths), channels]
        for index, (before, width) in enumerate(pairwise(back)):
            last = index == len(widths) - 1
            up.append(nn.ConvTranspose2d(before, width, 4, stride=2, padding=1, bias=last))
            up += [nn.Tanh()] if last else [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.up = nn.Sequential(*up)

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, channels, H, W) to codes (N, latent).

        Raises:
            ValueError: for images of another shape.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != (self.channels, *self.size):
            height, width = self.size
            raise ValueError(
                f"this net takes images (N, {self.channels}, {height}, {width}), not {tuple(images.shape)}"
            )
        code: Tensor = self.to_latent(self.down(images).flatten(1))  # (N, latent)
        return code

    def decode(self, code: Tensor) -> Tensor:
        """Codes (N, latent) to images (N, channels, H, W) in [-1, 1]."""
        maps = F.relu(self.from_latent(code)).view(-1, *self.inner)  # (N, C, h, w)
        images: Tensor = self.up(maps)  # (N, channels, H, W)
        return images

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # (N, channels, H, W)
        code = self.encode(images)
        return self.decode(code), code

    def count_parameters(self) -> int:
        """How many numbers the net learns."""
        return count_parameters(self)

    def get_latent_size(self) -> tuple[int, ...]:
        """The shape of one image's code."""
        return (self.latent,)

    def get_compression_ratio(self) -> float:
        """Numbers in an image for each number in its code."""
        return self.channels * math.prod(self.size) / self.latent


class PreActResidualEncoder(nn.Module):
    """A 7x7 stem with a norm and a ReLU, then stages of pre-activated blocks that halve the sides.

    No convolution has a bias, the projections of the shortcuts have no norm, and none follows the last block.

    Args:
        channels: of the images.
        widths: channels behind the stem, and behind each stage but the last.
        latent_channels: channels behind the last stage.
        blocks: in each stage; the first has stride 2.

    Shapes: (N, ``channels``, H, W) to (N, ``latent_channels``, H / 2**s, W / 2**s), with s stages, as many as
    there are ``widths``.

    Raises:
        ValueError: if a number is not positive; in use, for images that cannot be halved so often.
    """

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (64, 128, 256, 512),
        latent_channels: int = 16,
        blocks: int = 2,
    ) -> None:
        super().__init__()
        _check_sizes(channels, widths, latent_channels, blocks)
        self.channels, self.factor = channels, 2 ** len(widths)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 7, padding=3, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        stages, ways = [], (*widths, latent_channels)
        for before, width in pairwise(ways):
            first = PreActResidualBlock(before, width, stride=2)
            rest = (PreActResidualBlock(width, width) for _ in range(blocks - 1))
            stages.append(nn.Sequential(first, *rest))
        self.stages = nn.Sequential(*stages)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(_checked_images(images, self.channels, self.factor))  # (N, widths[0], H, W)
        code: Tensor = self.stages(maps)  # (N, latent_channels, H / 2**s, W / 2**s)
        return code


class _UpStage(nn.Module):
    """1x1 convolution, bilinear upsampling, norm, and blocks: twice the sides, other channels.

    The convolution comes first. It and the interpolation commute, and this way round it costs a quarter.
    """

    def __init__(self, before: int, width: int, blocks: int) -> None:
        super().__init__()
        self.conv, self.norm = conv1x1(before, width), nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(PreActResidualBlock(width, width) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:  # (N, before, H, W)
        x = F.interpolate(self.conv(x), scale_factor=2, mode="bilinear", align_corners=False)
        out: Tensor = self.blocks(self.norm(x))  # (N, width, 2H, 2W)
        return out


class PreActResidualDecoder(nn.Module):
    """The way back of :class:`PreActResidualEncoder`; a 7x7 convolution with bias and a sigmoid at the end.

    Args:
        channels: of the images.
        widths: as in the encoder, in the encoder's order.
        latent_channels: channels of the code.
        blocks: in each stage.

    Shapes: (N, ``latent_channels``, h, w) to (N, ``channels``, h * 2**s, w * 2**s) in [0, 1].

    Raises:
        ValueError: if a number is not positive; in use, for a code with other channels.
    """

    def __init__(
        self,
        channels: int = 1,
        widths: Sequence[int] = (64, 128, 256, 512),
        latent_channels: int = 16,
        blocks: int = 2,
    ) -> None:
        super().__init__()
        _check_sizes(channels, widths, latent_channels, blocks)
        self.latent_channels = latent_channels
        ways = (latent_channels, *reversed(widths))
        self.stages = nn.Sequential(*(_UpStage(a, b, blocks) for a, b in pairwise(ways)))
        self.out = nn.Conv2d(widths[0], channels, 7, padding=3)

    def forward(self, code: Tensor) -> Tensor:
        maps = self.stages(_checked_images(code, self.latent_channels, 1))  # (N, widths[0], H, W)
        images: Tensor = self.out(maps).sigmoid()  # (N, channels, H, W)
        return images


class ResidualAutoencoder(nn.Module):
    """:class:`PreActResidualEncoder` and :class:`PreActResidualDecoder`, end to end.

    Args:
        channels: of the images.
        size: height and width, for :meth:`get_latent_size`; the net takes any that can be halved so often.
        widths: see :class:`PreActResidualEncoder`; fewer and smaller ones make small nets.
        latent_channels: likewise.
        blocks: likewise.

    Shapes: (N, ``channels``, H, W) in [0, 1] to the same, and codes (N, ``latent_channels``, H / 2**s,
    W / 2**s).

    Raises:
        ValueError: if a number is not positive, or the size cannot be halved so often.

    Example:
        >>> net = ResidualAutoencoder()
        >>> net.count_parameters(), net.get_latent_size(), net.get_compression_ratio()
        (23836257, (16, 16, 16), 16.0)
    """

    def __init__(
        self,
        channels: int = 1,
        size: tuple[int, int] = (256, 256),
        widths: Sequence[int] = (64, 128, 256, 512),
        latent_channels: int = 16,
        blocks: int = 2,
    ) -> None:
        super().__init__()
        self.encoder = PreActResidualEncoder(channels, widths, latent_channels, blocks)
        self.decoder = PreActResidualDecoder(channels, widths, latent_channels, blocks)
        factor = self.encoder.factor
        if min(size) < 1 or any(side % factor for side in size):
            raise ValueError(f"{len(widths)} stages need sides that {factor} divides, not {tuple(size)}")
        self.channels, self.size, self.latent_channels = channels, tuple(size), latent_channels

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, channels, H, W) to codes (N, latent_channels, h, w)."""
        code: Tensor = self.encoder(images)
        return code

    def decode(self, code: Tensor) -> Tensor:
        """Codes (N, latent_channels, h, w) to images (N, channels, H, W) in [0, 1]."""
        images: Tensor = self.decoder(code)
        return images

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # (N, channels, H, W)
        code = self.encode(images)
        return self.decode(code), code

    def count_parameters(self) -> int:
        """How many numbers the net learns."""
        return count_parameters(self)

    def get_latent_size(self) -> tuple[int, ...]:
        """The shape of one image's code."""
        return (self.latent_channels, *(side // self.encoder.factor for side in self.size))

    def get_compression_ratio(self) -> float:
        """Numbers in an image for each number in its code."""
        return self.channels * math.prod(self.size) / math.prod(self.get_latent_size())


def _check_sizes(channels: int, widths: Sequence[int], latent_channels: int, blocks: int) -> None:
    if not widths or min(channels, latent_channels, blocks, *widths) < 1:
        raise ValueError(
            f"need positive numbers and at least one stage, not {channels=}, widths={tuple(widths)}, "
            f"{latent_channels=}, {blocks=}"
        )


NormKind = Literal["batch", "group"]


def make_norm(kind: NormKind, channels: int) -> nn.Module:
    """A norm over feature maps (N, ``channels``, L).

    ``"batch"`` is batch normalisation. ``"group"`` normalises each window by itself, in up to eight groups of
    channels, and so does not care how many windows stand in a batch.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in ("batch", "group"):
        raise ValueError(f"the norm is 'batch' or 'group', not {kind!r}")
    if kind == "batch":
        return nn.BatchNorm1d(channels)
    groups = next(g for g in range(min(8, channels), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


class WaveBlock(nn.Module):
    """``shortcut(x) + conv(dropout(relu(norm(conv(relu(norm(x)))))))`` over time.

    Args:
        in_channels: channels of the input.
        width: channels of both convolutions, and of the output.
        stride: of the first convolution and of the shortcut; 2 halves the length, rounded up.
        kernel_size: of both convolutions; odd.
        dropout: share of the inner features that are dropped while training.
        norm: see :func:`make_norm`.

    Shapes: (N, ``in_channels``, L) to (N, ``width``, ceil(L / ``stride``)).
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        kernel_size: int = 5,
        dropout: float = 0.0,
        norm: NormKind = "batch",
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.norm1 = make_norm(norm, in_channels)
        self.conv1 = nn.Conv1d(in_channels, width, kernel_size, stride, padding, bias=False)
        self.norm2 = make_norm(norm, width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv1d(width, width, kernel_size, padding=padding, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != width:
            self.shortcut = nn.Conv1d(in_channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, L)
        out: Tensor = self.conv1(F.relu(self.norm1(x)))  # (N, C', L/s)
        out = self.conv2(self.dropout(F.relu(self.norm2(out))))  # (N, C', L/s)
        out = out + self.shortcut(x)
        return out


class WaveAutoencoder(nn.Module):
    """Windows of one length to a latent vector and back.

    The encoder halves the length ``depth`` times and doubles the channels, up to eight times ``width``; the
    decoder goes the same way back, interpolating to exactly the lengths that the encoder passed. So any
    length will do, not only multiples of ``2**depth``.

    Args:
        channels: of the waveform.
        length: samples in a window.
        depth: how often the length is halved.
        bottleneck: numbers in the latent vector.
        width: channels behind the first convolution.
        kernel_size: of the convolutions; odd.
        dropout: inside the blocks.
        norm: see :func:`make_norm`.

    Raises:
        ValueError: if a size is not positive, the kernel is even, the dropout is no share, or the window is
            shorter than ``2**depth`` samples.

    Example:
        >>> import torch
        >>> net = WaveAutoencoder(channels=2, length=37, depth=3, bottleneck=6, width=4)
        >>> reconstruction, latent = net(torch.zeros(5, 2, 37))
        >>> reconstruction.shape, latent.shape
        (torch.Size([5, 2, 37]), torch.Size([5, 6]))
    """

    def __init__(
        self,
        channels: int,
        length: int,
        depth: int = 4,
        bottleneck: int = 128,
        width: int = 16,
        kernel_size: int = 5,
        dropout: float = 0.0,
        norm: NormKind = "batch",
    ) -> None:
        super().__init__()
        sizes = {"channels": channels, "depth": depth, "bottleneck": bottleneck, "width": width}
        if min(sizes.values()) < 1 or kernel_size < 1 or kernel_size % 2 == 0 or not 0 <= dropout < 1:
            raise ValueError(
                f"need sizes of at least 1, an odd kernel and a dropout from 0 to below 1, "
                f"not {sizes}, {kernel_size=}, {dropout=}"
            )
        if length < 2**depth:
            raise ValueError(
                f"windows of {length} samples cannot be halved {depth} times; "
                f"take windows of at least {2**depth} samples, or depth={max(1, length.bit_length() - 1)}"
            )
        self.lengths = [length]
        for _ in range(depth):
            self.lengths.append((self.lengths[-1] + 1) // 2)
        widths = [width * 2 ** min(i, 3) for i in range(depth + 1)]
        shared = {"kernel_size": kernel_size, "dropout": dropout, "norm": norm}
        self.stem = nn.Conv1d(channels, widths[0], kernel_size, padding=kernel_size // 2, bias=False)
        self.down = nn.ModuleList(
            WaveBlock(widths[i], widths[i + 1], stride=2, **shared)  # type: ignore[arg-type]
            for i in range(depth)
        )
        self.encoder_norm = make_norm(norm, widths[-1])
        self.inner = (widths[-1], self.lengths[-1])
        self.to_latent = nn.Linear(self.inner[0] * self.inner[1], bottleneck)
        self.from_latent = nn.Linear(bottleneck, self.inner[0] * self.inner[1])
        self.up = nn.ModuleList(
            WaveBlock(widths[i + 1], widths[i], **shared)  # type: ignore[arg-type]
            for i in reversed(range(depth))
        )
        self.decoder_norm = make_norm(norm, widths[0])
        self.out = nn.Conv1d(widths[0], channels, kernel_size, padding=kernel_size // 2)

    def encode(self, x: Tensor) -> Tensor:
        """Windows (N, channels, length) to latent vectors (N, bottleneck).

        Raises:
            ValueError: for windows of another shape.
        """
        channels, length = self.stem.in_channels, self.lengths[0]
        if x.ndim != 3 or x.shape[1:] != (channels, length):
            raise ValueError(f"this net takes windows (N, {channels}, {length}), not {tuple(x.shape)}")
        out: Tensor = self.stem(x)  # (N, width, L)
        for block in self.down:
            out = block(out)  # (N, C, L / 2**i)
        out = F.relu(self.encoder_norm(out))
        latent: Tensor = self.to_latent(out.flatten(1))  # (N, bottleneck)
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """Latent vectors (N, bottleneck) to windows (N, channels, length)."""
        out: Tensor = self.from_latent(latent).unflatten(1, self.inner)  # (N, C, L / 2**depth)
        for block, length in zip(self.up, reversed(self.lengths[:-1]), strict=True):
            out = block(F.interpolate(out, size=length, mode="linear"))  # (N, C / 2, 2 L)
        reconstruction: Tensor = self.out(F.relu(self.decoder_norm(out)))  # (N, channels, L)
        return reconstruction

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (N, channels, L)
        latent = self.encode(x)
        return self.decode(latent), latent
