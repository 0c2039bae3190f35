"""Labelled synthetic stand-ins for data that are out of reach."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SHAPES = (
    "disc", "ring", "square", "frame", "triangle",
    "plus", "cross", "bars", "columns", "checkerboard",
)  # fmt: skip
"""The classes of :func:`synthetic_shapes`, by label."""


def _masks(shape: str, u: Tensor, v: Tensor) -> Tensor:
    """Which pixels a shape covers, from coordinates in which it spans about -1 to 1."""
    distance, side = torch.hypot(u, v), torch.maximum(u.abs(), v.abs())
    inside = side < 1
    masks = {
        "disc": distance < 1,
        "ring": (distance < 1) & (distance > 0.55),
        "square": side < 0.85,
        "frame": (side < 0.9) & (side > 0.55),
        "triangle": (v < 0.7) & (v > 2 * u.abs() - 1),
        "plus": inside & (torch.minimum(u.abs(), v.abs()) < 0.3),
        "cross": inside & (torch.minimum((u - v).abs(), (u + v).abs()) < 0.4),
        "bars": inside & (torch.sin(3 * math.pi * v) > 0),
        "columns": inside & (torch.sin(3 * math.pi * u) > 0),
        "checkerboard": inside & (torch.sin(2 * math.pi * u) * torch.sin(2 * math.pi * v) > 0),
    }
    return masks[shape]


def synthetic_shapes(num_images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy images of ten shapes, a stand-in for CIFAR-10.

    Each image shows one shape of random size, place, slant and colour on a ground of another colour,
    under noise. The class is the shape and nothing else: its colours and its place tell nothing.

    Args:
        num_images: how many.
        seed: the same seed gives the same images.

    Returns:
        Images uint8 (N, 3, 32, 32), and labels int64 (N,), indices of :data:`SHAPES`.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, len(SHAPES), (num_images,), generator=generator)
    images = torch.empty(num_images, 3, 32, 32, dtype=torch.uint8)
    axis = torch.arange(32, dtype=torch.float32) - 15.5
    for label, shape in enumerate(SHAPES):
        chosen = torch.nonzero(labels == label)[:, 0]
        n = len(chosen)
        place = torch.randn(2, n, 1, 1, generator=generator).clamp(-2, 2) * 2.5
        radius = 6 + 7 * torch.rand(n, 1, 1, generator=generator)
        angle = 0.35 * torch.randn(n, 1, 1, generator=generator)
        x, y = axis.view(1, 1, 32) - place[0], axis.view(1, 32, 1) - place[1]  # (n, 32, 32) together
        u = (x * torch.cos(angle) + y * torch.sin(angle)) / radius
        v = (y * torch.cos(angle) - x * torch.sin(angle)) / radius
        mask = _masks(shape, u, v)[:, None]  # (n, 1, 32, 32)
        shown, ground = 255 * torch.rand(2, n, 3, 1, 1, generator=generator)
        noise = 30 * torch.randn(n, 3, 32, 32, generator=generator)
        images[chosen] = (torch.where(mask, shown, ground) + noise).clamp(0, 255).to(torch.uint8)
    return images, labels
