"""Autoencoders: convolutional and residual ones for images, a residual one for waveforms; one interface.

The residual ones are made of pre-activated blocks (He et al. 2016b, figure 1b).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from companion.models.blocks import PreActResidualBlock, conv1x1, conv3x3


class Autoencoder(nn.Module):
    """An ``encoder`` to a code of ``latent_shape``, a ``decoder`` back; a forward pass gives both results."""

    encoder: nn.Module
    decoder: nn.Module
    latent_shape: tuple[int, ...]

    def encode(self, x: Tensor) -> Tensor:
        """Examples (N, ...) to codes (N, ...)."""
        return cast(Tensor, self.encoder(x))

    def decode(self, code: Tensor) -> Tensor:
        """Codes (N, ...) to examples (N, ...)."""
        return cast(Tensor, self.decoder(code))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encode(x)
        x_hat = self.decode(code)
        assert x_hat.shape == x.shape, f"made for other examples than {tuple(x.shape[1:])}"
        return x_hat, code


def halved(size: Sequence[int], times: int) -> tuple[int, ...]:
    """The sides of an image after ``times`` halvings, which must come out even."""
    if any(side % 2**times for side in size):
        raise ValueError(f"{times} halvings need sides that {2**times} divides, not {tuple(size)}")
    return tuple(side // 2**times for side in size)


class ConvAutoencoder(Autoencoder):
    """Strided convolutions down to a vector, and transposed ones back.

    Down: 3x3 convolutions of stride 2 with ``widths`` channels, each with a norm and a ReLU, then one linear
    layer. Back: a linear layer, then 4x4 transposed convolutions of stride 2, and tanh at the end.

    Shapes: (N, ``channels``, H, W) in [-1, 1] to the same, and codes (N, ``latent``).
    """

    def __init__(
        self, channels: int = 1, size: tuple[int, int] = (64, 64),
        latent: int = 512, widths: Sequence[int] = (32, 64, 128),
    ) -> None:  # fmt: skip
        super().__init__()
        inner = (widths[-1], *halved(size, len(widths)))
        self.latent_shape, numbers = (latent,), math.prod(inner)
        self.encoder = nn.Sequential()
        for a, b in pairwise([channels, *widths]):
            down = conv3x3(a, b, stride=2)
            self.encoder.extend((down, nn.BatchNorm2d(b), nn.ReLU()))
        self.encoder.extend((nn.Flatten(), nn.Linear(numbers, latent)))
        self.decoder = nn.Sequential(nn.Linear(latent, numbers), nn.ReLU(), nn.Unflatten(1, inner))
        for a, b in pairwise(reversed(widths)):
            up = nn.ConvTranspose2d(a, b, 4, 2, padding=1, bias=False)
            self.decoder.extend((up, nn.BatchNorm2d(b), nn.ReLU()))
        last = nn.ConvTranspose2d(widths[0], channels, 4, 2, padding=1)
        self.decoder.extend((last, nn.Tanh()))


class UpStage(nn.Module):
    """1x1 convolution, bilinear upsampling (they commute; this way round is cheaper), norm, and blocks."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv, self.norm = conv1x1(channels, width), nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(PreActResidualBlock(width, width), PreActResidualBlock(width, width))

    def forward(self, x: Tensor) -> Tensor:  # (N, channels, H, W)
        x = F.interpolate(self.conv(x), scale_factor=2, mode="bilinear", align_corners=False)
        return cast(Tensor, self.blocks(self.norm(x)))  # (N, width, 2H, 2W)


class ResidualAutoencoder(Autoencoder):
    """Stages of two pre-activated blocks that halve the sides, and the way back.

    Down: a 7x7 convolution with a norm and a ReLU, then the stages, the first block of each with stride 2.
    Back: :class:`UpStage`, then a 7x7 convolution and a sigmoid. Only that last convolution has a bias,
    projections have no norm, and none follows the last block.

    Shapes: (N, ``channels``, H, W) in [0, 1] to the same, and codes (N, ``latent_channels``, H / 2**s,
    W / 2**s), with s stages, as many as there are ``widths``; ``widths[0]`` is the first convolution's.
    """

    def __init__(
        self, channels: int = 1, size: tuple[int, int] = (256, 256),
        widths: Sequence[int] = (64, 128, 256, 512), latent_channels: int = 16,
    ) -> None:  # fmt: skip
        super().__init__()
        self.latent_shape = (latent_channels, *halved(size, len(widths)))
        first = widths[0]
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, first, 7, padding=3, bias=False), nn.BatchNorm2d(first), nn.ReLU()
        )
        for a, b in pairwise([*widths, latent_channels]):
            self.encoder.append(nn.Sequential(PreActResidualBlock(a, b, stride=2), PreActResidualBlock(b, b)))
        ways = pairwise([latent_channels, *reversed(widths)])
        self.decoder = nn.Sequential(*(UpStage(a, b) for a, b in ways))
        self.decoder.extend((nn.Conv2d(first, channels, 7, padding=3), nn.Sigmoid()))


def conv5(channels: int, out_channels: int, stride: int = 1) -> nn.Conv1d:
    """A convolution over 5 samples that divides the length by ``stride``."""
    return nn.Conv1d(channels, out_channels, 5, stride, padding=2, bias=False)


class WaveBlock(nn.Module):
    """``shortcut(x) + conv(relu(norm(conv(relu(norm(x))))))`` over time.

    Shapes: (N, ``in_channels``, L) to (N, ``width``, ceil(L / ``stride``)).

    Difference from the paper: a projection starts from the input itself. Without ``residual`` the block is
    plain: no shortcut is added.
    """

    def __init__(self, in_channels: int, width: int, stride: int = 1, residual: bool = True) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm1d(in_channels)
        self.conv1 = conv5(in_channels, width, stride)
        self.bn2 = nn.BatchNorm1d(width)
        self.conv2 = conv5(width, width)
        self.shortcut: nn.Module | None = nn.Identity() if residual else None
        if residual and (stride != 1 or in_channels != width):
            self.shortcut = nn.Conv1d(in_channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, L)
        out: Tensor = self.conv1(F.relu(self.bn1(x)))  # (N, C', L/s)
        out = self.conv2(F.relu(self.bn2(out)))  # (N, C', L/s)
        return out if self.shortcut is None else cast(Tensor, out + self.shortcut(x))


class WaveAutoencoder(Autoencoder):
    """Windows of one length to a latent vector and back.

    The encoder halves the length ``depth`` times and doubles the channels, up to eight times ``width``; the
    decoder goes the same way back, interpolating to exactly the lengths that the encoder passed. So any
    length will do, not only multiples of ``2**depth``.

    Shapes: (N, ``channels``, ``length``) to the same, and codes (N, ``bottleneck``).
    """

    def __init__(
        self, channels: int, length: int, depth: int = 4, bottleneck: int = 128, width: int = 16,
        residual: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if length < 2**depth:
            least = f"at least {2**depth} samples, or depth={max(1, length.bit_length() - 1)}"
            raise ValueError(f"{length} samples cannot be halved {depth} times; take windows of {least}")
        self.latent_shape = (bottleneck,)
        self.lengths = [-(-length // 2**i) for i in range(depth + 1)]  # rounded up
        widths = [width * 2 ** min(i, 3) for i in range(depth + 1)]
        self.stem = conv5(channels, width)
        self.down = nn.ModuleList(WaveBlock(a, b, 2, residual) for a, b in pairwise(widths))
        self.encoder_norm = nn.BatchNorm1d(widths[-1])
        self.inner = (widths[-1], self.lengths[-1])
        self.to_latent = nn.Linear(math.prod(self.inner), bottleneck)
        self.from_latent = nn.Linear(bottleneck, math.prod(self.inner))
        ways = pairwise(reversed(widths))
        self.up = nn.ModuleList(WaveBlock(a, b, residual=residual) for a, b in ways)
        self.decoder_norm = nn.BatchNorm1d(width)
        self.out = nn.Conv1d(width, channels, 5, padding=2)

    def encode(self, x: Tensor) -> Tensor:
        out: Tensor = self.stem(x)  # (N, width, L)
        for block in self.down:
            out = block(out)  # (N, C, L / 2**i)
        out = F.relu(self.encoder_norm(out))
        return cast(Tensor, self.to_latent(out.flatten(1)))  # (N, bottleneck)

    def decode(self, latent: Tensor) -> Tensor:
        out: Tensor = self.from_latent(latent).unflatten(1, self.inner)
        lengths = reversed(self.lengths[:-1])
        for block, length in zip(self.up, lengths, strict=True):
            out = F.interpolate(out, size=length, mode="linear")
            out = block(out)  # (N, C / 2, 2 L)
        return cast(Tensor, self.out(F.relu(self.decoder_norm(out))))  # (N, channels, L)
