"""Recorded runs: what an experiment measured, with everything needed to judge and to repeat it, as JSON.

The folder ``recorded`` has those that the book shows; a reader's own go where ``companion run --out`` says.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

import companion
from companion.files import atomic_path

PACKAGE = Path(companion.__file__).parent
RECORDED = PACKAGE / "recorded"


class RunError(RuntimeError):
    """A run that is missing, cannot be read or cannot be resumed; the message says what to do."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataInfo(_Record):
    """What an experiment was fed with; ``synthetic`` if generated, the real data being out of reach."""

    name: str
    source: str
    digest: str  # SHA-256 of the content
    synthetic: bool


class SeedResult(_Record):
    """What one seed gave."""

    seed: int
    metrics: dict[str, float] = {}  #: numbers by ``"<what>.<metric>"``; errors are shares between 0 and 1
    curves: dict[str, list[float]] = {}  #: series by ``"<what>.<metric>"``
    seconds: dict[str, float] = {}  #: training time by ``"<what>"``, evaluations included, all else left out
    peak_gib: float | None = None  #: the most memory that tensors took up on a GPU, in GiB

    def include(self, what: str, part: SeedResult) -> None:
        """Take over the metrics and curves of a part under ``"<what>.<name>"``, and its seconds."""
        self.metrics.update({f"{what}.{name}": value for name, value in part.metrics.items()})
        self.curves.update({f"{what}.{name}": values for name, values in part.curves.items()})
        self.seconds.update(part.seconds)


class RecordedRun(_Record):
    """One execution of an experiment over one or more seeds, with its provenance."""

    version: Literal[1] = 1  #: of this schema
    experiment: str  #: the name it is registered under
    scale: str  #: ``"smoke"``, ``"live"`` or ``"full"``
    config: dict[str, Any]  #: the experiment's config, as JSON values
    data: DataInfo
    results: list[SeedResult]
    commit: str | None  #: ``"-dirty"`` appended where ``companion`` had uncommitted changes
    package: str  #: version of ``companion``
    libraries: dict[str, str]  #: versions by name, Python's among them
    hardware: str  #: see :func:`companion.compute.describe_hardware`
    threads: int | None = None  #: on the CPU, which the last digits depend on; older runs do not tell
    processes: int = 1  #: that shared the rows of every batch
    device: str  #: ``"cpu"``, ``"cuda"`` or ``"mps"``
    precision: str  #: ``"float32"`` or ``"bfloat16"``
    wall_seconds: float  #: training time of all nets and seeds, over all sessions of a resumed run
    finished: str  #: date and time in UTC, ISO 8601, to the second
    weights: dict[str, str] = {}  #: SHA-256 of each file of trained weights beside the run, by part

    @property
    def stem(self) -> str:
        """The standard name, made of experiment, scale and device."""
        return f"{self.experiment}-{self.scale}-{self.device}"

    @property
    def seeds(self) -> list[int]:
        """The seeds, in the order in which they ran."""
        return [result.seed for result in self.results]

    def metric(self, name: str) -> np.ndarray:
        """One metric, shape (seeds,)."""
        return np.array([result.metrics[name] for result in self.results])

    def curve(self, name: str) -> np.ndarray:
        """One curve over the seeds, shape (seeds, points)."""
        return np.array([result.curves[name] for result in self.results])

    def save(self, folder: Path, weights: Sequence[Path] = ()) -> Path:
        """Write the run to ``folder`` under its standard name, after the files of ``weights``."""
        digests = {}
        for source in weights:
            content = source.read_bytes()
            digests[source.stem] = hashlib.sha256(content).hexdigest()
            with atomic_path(folder / f"{self.stem}.{source.name}") as part:
                part.write_bytes(content)
        path = folder / f"{self.stem}.json"
        with atomic_path(path) as part:
            complete = self.model_copy(update={"weights": digests})
            part.write_text(complete.model_dump_json(indent=1) + "\n", encoding="utf8")
        return path


def load_run(name: str | Path) -> RecordedRun:
    """Read the JSON file of that path, or a run of the package by its stem, ``"degradation-full-cpu"``."""
    path = Path(name) if str(name).endswith(".json") else RECORDED / f"{name}.json"
    try:
        return RecordedRun.model_validate_json(path.read_text("utf8"))
    except FileNotFoundError as error:
        have = sorted(p.stem for p in path.parent.glob("*.json"))
        raise RunError(f"there is no run {path}; in that folder: {', '.join(have) or 'none'}") from error
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise RunError(f"{path} is not a recorded run that this version can read: {error}") from error


def weights_path(run: RecordedRun, part: str, folder: Path = RECORDED) -> Path:
    """The file with the trained weights of a run's ``part``, checked against the run's digest."""
    path = folder / f"{run.stem}.{part}.safetensors"
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != run.weights.get(part):
        raise RunError(f"{path} is missing or not the file that the run wrote; take both from one commit")
    return path


def package_commit() -> str | None:
    """The commit that the package's source is at, or ``None`` where it is not in a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PACKAGE), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--", ".", ":!recorded")
        return git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None


@cache
def source_digest() -> str:
    """SHA-256 of all Python files of the package: what a commit stands for, also outside a repository."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the numbers."""
    names = ("torch", "numpy", "scikit-learn")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}
