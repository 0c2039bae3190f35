"""Few generated moulds in the place of the casting images."""

import hashlib
from dataclasses import replace
from functools import cache

import torch
import torch.nn.functional as F

from companion.data.casting import synthetic_moulds
from companion.data.images import ImageSet, SplitImages, split_images
from companion.experiments.casting_detectors import COLOR


def folder(seed: int, **counts: int) -> ImageSet:
    """Generated moulds of some kinds in colour, the first image of every kind twice."""
    kinds = {kind: synthetic_moulds(kind, count, COLOR, seed) for kind, count in counts.items()}
    images = torch.cat([torch.cat([each, each[:1]]) for each in kinds.values()])
    labels = [int(kind in ("spill", "empty")) for kind, each in kinds.items() for _ in range(len(each) + 1)]
    names = tuple(f"{seed}/{place}" for place in range(len(images)))
    hashes = tuple(hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images)
    return ImageSet(images, torch.tensor(labels), names, hashes)


@cache
def few_moulds(size: tuple[int, int], color: bool = False, normal: int = 90) -> SplitImages:
    """In the place of ``load_casting``: the same images in either size, as a real loader gives them."""
    folders = (
        folder(1, normal=normal),
        folder(2, spill=24),
        folder(3, normal=50, moved=12, spill=12, empty=12),
    )
    if not color:
        folders = tuple(replace(each, images=gray(each.images, size)) for each in folders)
    return split_images(*folders, name="few", source="generated", digest="", synthetic=True)


def gray(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(images.float().mean(dim=1, keepdim=True), size=size).round().to(torch.uint8)
