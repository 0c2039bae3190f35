"""Data sets that are kept in the cache as the file that was published."""

from __future__ import annotations

import hashlib
import io
import tarfile
import warnings
from contextlib import ExitStack, suppress

from filelock import FileLock

from companion.data.registry import Dataset, Source
from companion.data.sources import CACHE_VARIABLE, DataError, cache_folder, open_dataset
from companion.files import atomic_path


def read(dataset: Dataset) -> tuple[bytes, str]:
    """The verified content of a data set that is one file, from the cache or else from its sources.

    Returns:
        The content, and where it came from.

    Raises:
        DataError: if it cannot be had; the message lists what each source said.
    """
    path = cache_folder() / dataset.cached
    if path.is_file():
        with suppress(OSError):
            content = path.read_bytes()
            if _digest(content) == dataset.sha256:
                return content, f"cache: {dataset.cached}"
        warnings.warn(f"{path} is damaged; getting it again", stacklevel=3)
    with ExitStack() as stack:
        with suppress(OSError):  # a cache that cannot be written; the data may still be had
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path.with_suffix(".lock")))
        if path.is_file():  # which another process may have written while this one waited
            content = path.read_bytes()
            if _digest(content) == dataset.sha256:
                return content, f"cache: {dataset.cached}"
        with open_dataset(dataset) as (file, source):
            content = file.read_bytes() if source.member is None else _member(file.read_bytes(), source)
        if _digest(content) != dataset.sha256:  # a copy of a text file with other line ends
            content = content.replace(b"\r\n", b"\n").rstrip(b"\n") + b"\n"
        if _digest(content) != dataset.sha256:
            raise DataError(f"{source.filename} does not hold the file {dataset.cached} that is expected")
        try:
            with atomic_path(path) as part:
                part.write_bytes(content)
        except OSError as error:
            warnings.warn(f"{dataset.name} could not be kept in {path} ({error})", stacklevel=3)
        return content, source.url or f"a mirror's {source.filename}"


def fetch(dataset: Dataset) -> str:
    """Make sure that a verified copy is in the cache; return where it came from.

    Raises:
        DataError: if it cannot be had, or cannot be kept.
    """
    source = read(dataset)[1]
    if not (cache_folder() / dataset.cached).is_file():
        raise DataError(f"the cache folder {cache_folder()} cannot be written; set {CACHE_VARIABLE}")
    return source


def verify(dataset: Dataset) -> None:
    """Check the cached copy.

    Raises:
        DataError: if it is missing or damaged.
    """
    path, way_out = cache_folder() / dataset.cached, f"`companion data fetch {dataset.name}`"
    if not path.is_file():
        raise DataError(f"{dataset.name} is not in the cache; {way_out} gets it")
    if _digest(path.read_bytes()) != dataset.sha256:
        raise DataError(f"{path} is damaged; {way_out} replaces it")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _member(archive: bytes, source: Source) -> bytes:
    """One file of a tar archive, read in memory and never unpacked to disk."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:*") as tar:
            file = tar.extractfile(source.member or "")
            if file is None:
                raise KeyError(f"{source.member} is not a file")
            return file.read()
    except (KeyError, OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"{source.filename} does not hold {source.member} ({error})") from error
