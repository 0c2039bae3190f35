"""Casting: camera crops of moulds while metal is cast, with spills; or a labelled synthetic stand-in.

The archive holds ``train/`` (normal), ``proliv/`` (spills) and ``test/`` (both, with an annotation file). As
the real one, the test set of the stand-in also holds what the training images do not show: a camera that has
moved (normal), and empty moulds (anomalous).
"""

import hashlib
import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal
from zipfile import ZipFile

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from companion.data.download import REGISTRY, DataError, Dataset, load, read_members, read_or_warn
from companion.data.images import Item, SplitImages, read_images, split_images

CASTING = REGISTRY["casting"]
CONTENT_SHA256 = "04728b70f4c4112acadf92b1fc39af0d9f87c0d709990ef337386d7cbe7601d4"
ANNOTATION = "test/test_annotation.txt"
FILES = f"/dataset/((?:train/|proliv/|test/imgs/|{ANNOTATION}).*)"
"""Paths in archives, which may be those of whole repositories."""


def load_casting(size: tuple[int, int] = (64, 64), color: bool = False) -> SplitImages:
    """The casting images at ``size``, originals are some 28 x 49; the spills of ``proliv`` are for tuning."""
    contents, about = read_or_warn("The casting data set", "images", read_real, CASTING)
    files = contents[0] if contents else synthetic_archive()
    every, _ = read_images(archive_items(files), size, color)
    folders = np.array([name.split("/")[0] for name in every.names])
    parts = [every.take(folders == part) for part in ("train", "proliv", "test")]
    return split_images(*parts, name="casting", **about | {"digest": content_digest(files)})


def read_real(dataset: Dataset) -> tuple[dict[str, bytes], str]:
    """The published files by their paths, and where they came from."""

    def read(path: Path) -> dict[str, bytes]:
        with ZipFile(path) as archive:
            return _checked({name: archive.read(name) for name in archive.namelist()})

    def keep(files: Mapping[str, bytes], path: Path) -> None:
        with ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)

    return load(dataset, read, lambda path, _: _checked(read_members(path, FILES)), keep)


def content_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 of the sorted lines ``path sha256-of-the-file``: the same whoever packed the archive."""
    lines = [f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in sorted(files.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _checked(files: dict[str, bytes]) -> dict[str, bytes]:
    if content_digest(files) != CONTENT_SHA256:
        raise DataError(f"does not hold the casting images as expected ({len(files)} files)")
    return files


def archive_items(files: Mapping[str, bytes]) -> list[Item]:
    """The images of the archive with their labels; those of the test are in the annotation."""
    told = (line.rpartition(" ") for line in files[ANNOTATION].decode().splitlines() if line)
    labels = {f"test/imgs/{name}": int(label) for name, _, label in told}
    labels |= {name: int(name.startswith("proliv/")) for name in files if not name.startswith("test/")}
    return [(name, labels[name], partial(bytes, files[name])) for name in sorted(files.keys() - {ANNOTATION})]


Kind = Literal["normal", "moved", "spill", "empty"]  # the first two are normal
PARTS: tuple[tuple[str, Kind, int], ...] = (
    ("train", "normal", 1500), ("proliv", "spill", 60),
    ("test/imgs", "normal", 480), ("test/imgs", "moved", 120), ("test/imgs", "spill", 40),
    ("test/imgs", "empty", 20),
)  # fmt: skip
"""How many images of which kind a folder of the stand-in holds."""


def _noise(shape: tuple[int, int, int, int], cells: int, generator: Generator) -> Tensor:
    """Smooth noise: random numbers on a grid with ``cells`` on a side, interpolated."""
    grid = torch.randn(*shape[:2], cells, cells, generator=generator)
    return F.interpolate(grid, size=shape[2:], mode="bilinear", align_corners=False)


def synthetic_moulds(kind: Kind, count: int, size: tuple[int, int], seed: int) -> Tensor:
    """Images of one kind, uint8 (``count``, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    one, full = (count, 1, 1, 1), (count, 1, height, width)
    colors = [0.47, 0.60, 0.53], [0.41, 0.50, 0.50], [0.43, 0.52, 0.51], [0.56, 0.63, 0.51]
    floor, rim, bottom, metal = torch.tensor(colors).view(4, 1, 3, 1, 1)
    reach = 0.35 if kind == "moved" else 0.04
    shift = torch.empty(2, *one).uniform_(-reach, reach, generator=generator)
    x = torch.linspace(-1, 1, width).view(1, 1, 1, -1) - shift[0]
    y = torch.linspace(-1, 1, height).view(1, 1, -1, 1) - shift[1]
    inside = (x / 0.85).square() + (y / 0.8).square()  # below 1 in the mould, (N, 1, H, W)
    texture = 0.03 * _noise(full, 6, generator) + 0.03 * _noise(full, 14, generator)
    image = floor + 0.01 * _noise(full, 5, generator)
    image = torch.where(inside < 1, rim, image)
    hollow = bottom + 0.04 * y
    level = torch.empty(one).uniform_(-0.5, 0.1, generator=generator)  # up to which metal fills the mould
    poured = (y > level - 0.3 * x.square()) & (kind != "empty")
    image = torch.where(inside < 0.75, torch.where(poured, metal + texture, hollow), image)
    if kind == "spill":
        streaks = _noise((count, 1, 1, width), 12, generator).abs() * (1 - (x / 0.5).square()).clamp(min=0)
        glitter = torch.randn(count, 3, height, width, generator=generator)
        image = image + streaks * (inside < 1) * (0.15 + 0.25 * glitter)
    light = torch.empty(one).uniform_(0.92, 1.08, generator=generator)
    image = image * light + 0.01 * torch.randn(count, 3, height, width, generator=generator)
    return (255 * image.clamp(0, 1)).round().to(torch.uint8)


def synthetic_archive() -> dict[str, bytes]:
    """PNG files in the layout of the casting archive, with its annotation: contents by path."""
    files = {ANNOTATION: b""}
    for seed, (folder, kind, count) in enumerate(PARTS):
        for index, image in enumerate(synthetic_moulds(kind, count, (28, 48), seed)):
            name, file = f"{kind}_{index:04d}.png", io.BytesIO()
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "png", compress_level=1)
            files[f"{folder}/{name}"] = file.getvalue()
            if folder == "test/imgs":
                files[ANNOTATION] += f"{name} {int(kind in ('spill', 'empty'))}\r\n".encode()
    return files
