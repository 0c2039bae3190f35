"""Generated images of moulds, a labelled stand-in for the casting images and for nothing else.

An image shows a mould from above: a rim, and metal with a texture in it, over a floor. Normal images of the
test set also hold what those for training do not: a camera that has moved, and arms in view. Anomalies are
spills (bright glittering streaks) and, in the test set only, empty moulds.
"""

from __future__ import annotations

import io
from typing import Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

Kind = Literal["normal", "moved", "arm", "spill", "empty"]
KINDS: tuple[Kind, ...] = ("normal", "moved", "arm", "spill", "empty")
"""The first three are normal."""
COUNTS: dict[str, dict[Kind, int]] = {
    "train": {"normal": 1500},
    "proliv": {"spill": 60},
    "test/imgs": {"normal": 480, "moved": 80, "arm": 40, "spill": 40, "empty": 20},
}
"""How many of each kind :func:`synthetic_archive` puts into each folder."""

_FLOOR, _RIM, _HOLLOW, _METAL = (0.47, 0.60, 0.53), (0.41, 0.50, 0.50), (0.43, 0.52, 0.51), (0.56, 0.63, 0.51)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _noise(shape: tuple[int, int, int, int], cells: int, generator: Generator) -> Tensor:
    """Smooth noise: random numbers on a grid with ``cells`` on a side, interpolated."""
    count, channels, height, width = shape
    grid = torch.randn(count, channels, cells, cells, generator=generator)
    return F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)


def _color(rgb: tuple[float, float, float]) -> Tensor:
    return torch.tensor(rgb).view(1, 3, 1, 1)


def synthetic_moulds(kind: Kind, count: int, size: tuple[int, int], seed: int) -> Tensor:
    """Images of one kind.

    Args:
        kind: one of :data:`KINDS`.
        count: how many.
        size: height and width.
        seed: the same seed gives the same images.

    Returns:
        uint8 (``count``, 3, H, W).

    Raises:
        ValueError: for another kind, or numbers that are not positive.
    """
    if kind not in KINDS or min(count, *size) < 1:
        raise ValueError(
            f"need one of {', '.join(KINDS)} and positive numbers, not {kind!r}, {count}, {size}"
        )
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    one, full = (count, 1, 1, 1), (count, 1, height, width)
    reach = 0.35 if kind == "moved" else 0.04
    x = torch.linspace(-1, 1, width).view(1, 1, 1, -1) - _uniform(one, -reach, reach, generator)
    y = torch.linspace(-1, 1, height).view(1, 1, -1, 1) - _uniform(one, -reach, reach, generator)
    inside = (x / 0.85).square() + (y / 0.8).square()  # below 1 in the mould, (N, 1, H, W)
    texture = 0.03 * _noise(full, 6, generator) + 0.03 * _noise(full, 14, generator)
    image = _color(_FLOOR) + 0.01 * _noise(full, 5, generator)
    image = torch.where(inside < 1, _color(_RIM), image)
    hollow = _color(_HOLLOW) + 0.04 * y
    if kind == "empty":
        shown = hollow.expand(count, 3, height, width)
    else:
        # the metal fills the mould up to a level, or comes in from above as a widening column
        level, column = _uniform(one, -0.5, 0.1, generator), torch.rand(one, generator=generator) < 0.5
        poured = torch.where(column, x.abs() < 0.45 + 0.3 * y.abs(), y > level - 0.3 * x.square())
        shown = torch.where(poured, _color(_METAL) + texture, hollow)
        image = torch.where(column & (x.abs() < 0.4) & (y < 0), _color(_METAL) + texture, image)
    image = torch.where(inside < 0.75, shown, image)
    if kind == "spill":
        streaks = _noise((count, 1, 1, width), 12, generator).abs() * (1 - (x / 0.5).square()).clamp(min=0)
        glitter = torch.randn(count, 3, height, width, generator=generator)
        image = image + streaks * (inside < 1) * (0.15 + 0.25 * glitter)
    if kind == "arm":
        angle, place = _uniform(one, 0.2, 2.9, generator), _uniform(one, 0.2, 0.9, generator)
        across = x * torch.cos(angle) + y * torch.sin(angle)
        dark = _uniform((count, 3, 1, 1), 0.1, 0.5, generator)
        image = torch.where(across > place, dark + 0.5 * texture, image)
    light = _uniform(one, 0.92, 1.08, generator)
    image = image * light + 0.01 * torch.randn(count, 3, height, width, generator=generator)
    return (255 * image.clamp(0, 1)).round().to(torch.uint8)


def synthetic_archive(size: tuple[int, int] = (28, 48), seed: int = 0) -> dict[str, bytes]:
    """PNG files in the layout of the casting archive, with its annotation.

    Args:
        size: height and width.
        seed: the same seed gives the same pixels.

    Returns:
        Contents by path.
    """
    files: dict[str, bytes] = {}
    labels = []
    for place, (folder, kinds) in enumerate(COUNTS.items()):
        for kind, count in kinds.items():
            images = synthetic_moulds(kind, count, size, 1000 * seed + 10 * place + KINDS.index(kind))
            for index, image in enumerate(images):
                name = f"{kind}_{index:04d}.png"
                file = io.BytesIO()
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "png", compress_level=1)
                files[f"{folder}/{name}"] = file.getvalue()
                if folder == "test/imgs":
                    labels.append(f"{name} {int(kind in ('spill', 'empty'))}\r\n")
    files["test/test_annotation.txt"] = "".join(labels).encode()
    return files
