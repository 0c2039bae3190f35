"""What a camera and its surroundings do to images, on whole batches: shifts, light, obstacles, faults.

All take float images (N, C, H, W) in [0, 1], on any device, and give new ones. Random numbers come from a CPU
generator. Functions that paint something also return where.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from companion.objectives.classification import random_shift_flip

# images (N, C, H, W), and where they were painted over, float32 (N, 1, H, W), 1 or 0
Painted = tuple[Tensor, Tensor]


def check_images(images: Tensor) -> None:
    """Raise what the functions here raise for anything but float images (N, C, H, W).

    Raises:
        ValueError: if there are not four axes, an axis has no length, or there is NaN.
        TypeError: if the images are not floating-point.
    """
    if not images.is_floating_point():
        raise TypeError(f"images must be floating-point in 0..1, not {images.dtype}; divide by 255 first")
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"need images (N, C, H, W), not {tuple(images.shape)}")
    if images.isnan().any():
        raise ValueError("the images hold NaN")


def uniform(count: int, low: float, high: float, generator: Generator | None, like: Tensor) -> Tensor:
    """Draws (N, 1, 1, 1) from ``low`` to ``high`` with the device and type of ``like``."""
    draws = low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)
    return draws.to(like)


def smooth_noise(shape: torch.Size, rows: int, columns: int, generator: Generator | None) -> Tensor:
    """Normally distributed numbers on a grid, interpolated to (N, C, H, W); on the CPU."""
    grid = torch.randn(shape[0], shape[1], rows, columns, generator=generator)
    return F.interpolate(grid, size=tuple(shape[2:]), mode="bilinear", align_corners=False)


def coordinates(images: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel centres from -1 to 1: x (1, 1, 1, W) and y (1, 1, H, 1)."""
    axes = [(torch.arange(n, device=images.device) + 0.5) * 2 / n - 1 for n in images.shape[2:]]
    y, x = (axis.to(images.dtype) for axis in axes)
    return x.view(1, 1, 1, -1), y.view(1, 1, -1, 1)


def camera_jitter(
    images: Tensor,
    *,
    max_shift: float = 0.15,
    max_zoom: float = 0.15,
    flip: bool = True,
    brightness: float = 0.1,
    contrast: float = 0.1,
    tint: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    """Move, zoom, mirror and light every image by its own random amounts, as a camera that was touched does.

    Pixels from outside repeat the edge.

    Args:
        images: float (N, C, H, W) in [0, 1].
        max_shift: the largest shift in either direction, as a share of the side.
        max_zoom: sides are scaled by up to this share, each image by one factor and its sides against each
            other by half as much.
        flip: whether half the images are mirrored left to right.
        brightness: the largest amount that is added to all pixels.
        contrast: the largest share by which differences from the image's mean grow or shrink.
        tint: the largest amount that is added to single channels.
        generator: a CPU generator that the draws come from; the global one if ``None``.

    Returns:
        Of the same shape, clipped to [0, 1].

    Raises:
        ValueError: for images that :func:`check_images` refuses, or negative amounts.
        TypeError: likewise.
    """
    check_images(images)
    if min(max_shift, max_zoom, brightness, contrast, tint) < 0 or max_zoom >= 0.6:
        raise ValueError(
            "shift, zoom, brightness, contrast and tint are not negative, and the zoom is below 0.6"
        )
    count = len(images)
    if flip:
        images = random_shift_flip(images, max_shift=0, flip=True, generator=generator)
    if count and (max_shift or max_zoom):
        draws = (2 * torch.rand(4, count, generator=generator) - 1).to(images)
        scale, aspect = 1 + max_zoom * draws[0], 1 + 0.5 * max_zoom * draws[1]
        matrix = images.new_zeros(count, 2, 3)
        matrix[:, 0, 0], matrix[:, 1, 1] = scale * aspect, scale / aspect
        matrix[:, 0, 2], matrix[:, 1, 2] = 2 * max_shift * draws[2], 2 * max_shift * draws[3]
        grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    light = uniform(count, -brightness, brightness, generator, images)
    images = mean + (images - mean) * (1 + uniform(count, -contrast, contrast, generator, images)) + light
    if tint:
        draws = torch.rand(count, images.shape[1], 1, 1, generator=generator).to(images)
        images = images + tint * (2 * draws - 1)
    return images.clamp(0, 1)


def cut_paste(
    images: Tensor, *, smallest: float = 0.02, largest: float = 0.15, generator: Generator | None = None
) -> Painted:
    """Copy a rectangle of every image to another place in it, a little lighter or darker.

    Source: Li et al. 2021, "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization".

    Args:
        images: float (N, C, H, W) in [0, 1].
        smallest: share of the area that the rectangle covers, at least.
        largest: at most.
        generator: a CPU generator that the draws come from.

    Raises:
        ValueError: for images that :func:`check_images` refuses, or shares that are none.
        TypeError: likewise.
    """
    check_images(images)
    if not 0 < smallest <= largest <= 1:
        raise ValueError(f"need 0 < smallest <= largest <= 1, not {smallest} and {largest}")
    count, _, height, width = images.shape
    area = uniform(count, smallest, largest, generator, images)[:, 0, 0, 0]  # (N,)
    ratio = uniform(count, -1, 1, generator, images)[:, 0, 0, 0]
    high = ((area * height * width) ** 0.5 * torch.exp(ratio)).clamp(1, height).long()
    wide = ((area * height * width) ** 0.5 * torch.exp(-ratio)).clamp(1, width).long()
    draws = torch.rand(4, count, generator=generator).to(images)
    top, left = (draws[0] * (height - high + 1)).long(), (draws[1] * (width - wide + 1)).long()
    new_top, new_left = (draws[2] * (height - high + 1)).long(), (draws[3] * (width - wide + 1)).long()
    rows = torch.arange(height, device=images.device).view(1, -1)  # (1, H)
    columns = torch.arange(width, device=images.device).view(1, -1)
    inside = ((rows >= new_top[:, None]) & (rows < (new_top + high)[:, None]))[:, None, :, None] & (
        (columns >= new_left[:, None]) & (columns < (new_left + wide)[:, None])
    )[:, None, None, :]  # (N, 1, H, W)
    from_row = (rows + (top - new_top)[:, None]).clamp(0, height - 1)  # (N, H)
    from_column = (columns + (left - new_left)[:, None]).clamp(0, width - 1)  # (N, W)
    which = torch.arange(count, device=images.device).view(-1, 1, 1)
    moved = images[which, :, from_row[:, :, None], from_column[:, None, :]].permute(
        0, 3, 1, 2
    )  # (N, C, H, W)
    moved = (moved + uniform(count, -0.1, 0.1, generator, images)).clamp(0, 1)
    return torch.where(inside, moved, images), inside.to(torch.float32)


def spill(images: Tensor, *, strength: float = 0.5, generator: Generator | None = None) -> Painted:
    """Paint bright glittering streaks from a random place of each image's middle downwards.

    Args:
        images: float (N, C, H, W) in [0, 1].
        strength: of the brightest glitter; each image has between a third of it and all.
        generator: a CPU generator that the draws come from.

    Raises:
        ValueError: for images that :func:`check_images` refuses, or a strength that is not positive.
        TypeError: likewise.
    """
    check_images(images)
    if strength <= 0:
        raise ValueError(f"the strength is positive, not {strength}")
    count, _, height, width = images.shape
    x, y = coordinates(images)
    middle, reach = uniform(count, -0.3, 0.3, generator, images), uniform(count, 0.15, 0.5, generator, images)
    top, bottom = uniform(count, -0.9, 0.3, generator, images), uniform(count, 0.5, 1.3, generator, images)
    lean = uniform(count, -0.4, 0.4, generator, images)
    across = (x - middle - lean * y) / reach
    body = torch.exp(-across.square()) * torch.sigmoid(12 * (y - top)) * torch.sigmoid(12 * (bottom - y))
    streaks = smooth_noise(images[:, :1].shape, max(2, height // 6), max(2, width // 3), generator)
    glitter = smooth_noise(images.shape, max(2, height * 2 // 3), max(2, width * 2 // 3), generator)
    force = strength * uniform(count, 0.33, 1, generator, images)
    amount = body * streaks.to(images).abs().clamp(max=2)  # (N, 1, H, W)
    painted = images + force * amount * (0.5 + 0.8 * glitter.to(images))
    return painted.clamp(0, 1), (amount > 0.2).to(torch.float32)


def emptied(images: Tensor, *, generator: Generator | None = None) -> Painted:
    """Take the texture out of an ellipse in the middle of each image, and give it one smooth shade.

    The shade is a mixture of those at the ellipse's rim, with a gradient; now and then some bright specks are
    left at the lower edge.

    Args:
        images: float (N, C, H, W) in [0, 1].
        generator: a CPU generator that the draws come from.

    Raises:
        ValueError: for images that :func:`check_images` refuses.
        TypeError: likewise.
    """
    check_images(images)
    count, channels, height, width = images.shape
    x, y = coordinates(images)
    middle = [uniform(count, -0.12, 0.12, generator, images) for _ in range(2)]
    radii = [uniform(count, low, low + 0.25, generator, images) for low in (0.75, 0.7)]
    distance = (((x - middle[0]) / radii[0]).square() + ((y - middle[1] - 0.1) / radii[1]).square()).sqrt()
    soft = torch.sigmoid((1 - distance) * uniform(count, 8, 30, generator, images))  # (N, 1, H, W)
    rim = ((distance > 0.8) & (distance < 1.05)).to(images)
    color = (images * rim).sum(dim=(2, 3), keepdim=True) / rim.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    tint = torch.tensor([-0.03, -0.02, 0.02]) if channels == 3 else torch.zeros(channels)
    color = color + tint.to(images).view(1, -1, 1, 1) * uniform(count, 0, 1.5, generator, images)
    shade = 0.08 * (
        y * uniform(count, -1, 1, generator, images) + x * uniform(count, -0.5, 0.5, generator, images)
    )
    grain = smooth_noise(images.shape, max(2, height // 2), max(2, width // 2), generator).to(images)
    filled = color + uniform(count, -0.06, 0.06, generator, images) + shade + 0.006 * grain
    out = images * (1 - soft) + filled * soft
    specks = torch.exp(-((distance - 0.9) / 0.08).square()) * torch.sigmoid(10 * (y - 0.4))
    sparkle = smooth_noise(images.shape, height, width, generator).to(images).clamp(0, 2)
    some = (uniform(count, 0, 1, generator, images) < 0.4).to(images)
    return (out + 0.2 * some * specks * sparkle).clamp(0, 1), (soft > 0.5).to(torch.float32)


def arms(images: Tensor, *, largest: float = 0.4, generator: Generator | None = None) -> Painted:
    """Put something in front of each image that reaches into it from a side: an arm, a helmet, a beam.

    Two in five are bars of any slant, two in five are discs, and one covers all behind a straight line. Each
    has one colour, from nearly black to bright, a shade of its own and soft edges.

    Args:
        images: float (N, C, H, W) in [0, 1].
        largest: how far they reach into the image, as a share of its side.
        generator: a CPU generator that the draws come from.

    Raises:
        ValueError: for images that :func:`check_images` refuses, or a reach that is no share.
        TypeError: likewise.
    """
    check_images(images)
    if not 0 < largest <= 1:
        raise ValueError(f"the reach is a share above 0, not {largest}")
    count, channels, height, width = images.shape
    x, y = coordinates(images)
    angle = uniform(count, -math.pi, math.pi, generator, images)
    reach = 2 * largest * uniform(count, 0.1, 1, generator, images)
    along = x * torch.cos(angle) + y * torch.sin(angle)
    across = y * torch.cos(angle) - x * torch.sin(angle)
    wide, place = uniform(count, 0.08, 0.4, generator, images), uniform(count, -0.8, 0.8, generator, images)
    bar = torch.minimum(along - (1 - reach), wide - (across - place).abs())
    radius = uniform(count, 0.3, 1.2, generator, images)
    center = 1 - reach + radius
    disc = radius - ((along - center).square() + (across - place).square()).sqrt()
    kind = uniform(count, 0, 1, generator, images)
    shape = torch.where(kind < 0.4, bar, torch.where(kind < 0.8, disc, along - (1 - reach)))
    soft = torch.sigmoid(shape * uniform(count, 10, 40, generator, images))  # (N, 1, H, W)
    own = torch.rand(count, channels, 1, 1, generator=generator).to(images)
    mean = images.mean(dim=(2, 3), keepdim=True)
    mixed = uniform(count, 0.2, 1, generator, images)
    color = mixed * own * uniform(count, 0.1, 1, generator, images) + (1 - mixed) * mean
    shade = 0.1 * smooth_noise(images.shape, 3, 4, generator).to(images)
    fine = 0.04 * smooth_noise(images[:, :1].shape, max(2, height // 3), max(2, width // 3), generator).to(
        images
    )
    out = images * (1 - soft) + (color + shade + fine) * soft
    return out.clamp(0, 1), (soft > 0.5).to(torch.float32)


def haze(images: Tensor, *, strongest: float = 0.98, generator: Generator | None = None) -> Painted:
    """Put steam or smoke in front of each image: blurred, and mixed with one shade that is nearly even.

    Args:
        images: float (N, C, H, W) in [0, 1].
        strongest: the share of the shade in the mixture, at most.
        generator: a CPU generator that the draws come from.

    Raises:
        ValueError: for images that :func:`check_images` refuses, or a strength that is no share.
        TypeError: likewise.
    """
    check_images(images)
    if not 0 < strongest <= 1:
        raise ValueError(f"the strength is a share above 0, not {strongest}")
    count = len(images)
    amount = strongest * uniform(count, 0.3, 1, generator, images)
    smooth = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    shade = images.mean(dim=(2, 3), keepdim=True) * uniform(count, 0.7, 1.15, generator, images)
    drift = 0.03 * smooth_noise(images[:, :1].shape, 2, 3, generator).to(images)
    out = (1 - amount) * smooth + amount * (shade + drift)
    return out.clamp(0, 1), torch.ones_like(images[:, :1], dtype=torch.float32)
