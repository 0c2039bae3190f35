"""A residual autoencoder for waveforms: a 1-D encoder, a latent vector, and a mirrored decoder.

The blocks carry the pre-activated block of He et al. 2016b ("Identity Mappings in Deep Residual Networks",
figure 1b) over to one dimension.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

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
