"""SKAB: eight sensors of a water pump on a test bed, with and without faults; or a labelled stand-in.

A recording lasts about twenty minutes and holds one fault, or two; the first, of nearly three hours, none.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from companion.data.download import REGISTRY, Dataset, Origin, read_members, read_or_warn, read_published

SKAB = REGISTRY["skab"]
SENSORS = (
    "acceleration 1", "acceleration 2", "current", "pressure", "temperature", "thermocouple", "voltage",
    "flow",
)  # fmt: skip


@dataclass(frozen=True)
class Recording:
    """What the sensors told while the pump ran once."""

    name: str  #: folder and number, such as ``"valve1/0"``
    start: pd.Timestamp
    values: np.ndarray  #: float32 (8, T), one row for each of the ``SENSORS``, a sample about every second
    fault: np.ndarray  #: bool (T,)


@dataclass(frozen=True)
class Skab(Origin):
    """One long recording without a fault, and shorter ones with faults, in the order of their times."""

    calm: Recording
    recordings: tuple[Recording, ...]

    def of(self, kind: str) -> list[Recording]:
        """Those with a fault of one kind: ``"valve"`` (closed by hand, wholly or in part) or ``"other"``."""
        return [each for each in self.recordings if each.name.startswith(kind)]


def load_skab() -> Skab:
    """The recordings, or a stand-in; a warning has said if they are synthetic."""
    contents, about = read_or_warn("SKAB", "sensors", read_real, SKAB)
    if contents is None:
        rng = np.random.default_rng(0)
        names = [f"{kind}/{i}" for kind in ("other", "valve1") for i in range(4)]
        calm = synthetic_recording("anomaly-free/0", 3000, rng)
        return Skab(calm, tuple(synthetic_recording(name, 1000, rng) for name in names), **about)
    parts = (_recording(*part.split("\n", 1)) for part in contents[0].decode().split("# ")[1:])
    calm, *rest = sorted(parts, key=lambda each: (not each.name.startswith("anomaly-free"), each.start))
    return Skab(calm, tuple(rest), **about)


def _recording(name: str, text: str) -> Recording:
    table = pd.read_csv(io.StringIO(text), sep=";", parse_dates=["datetime"])
    values = np.ascontiguousarray(table.iloc[:, 1 : 1 + len(SENSORS)].to_numpy(np.float32).T)
    fault = table["anomaly"].to_numpy() > 0 if "anomaly" in table else np.zeros(len(table), dtype=bool)
    return Recording(name, table["datetime"].iloc[0], values, fault)


def read_real(dataset: Dataset) -> tuple[bytes, str]:
    """The published CSV files one after the other, each behind a line with its name; and their source."""

    def extract(path: Path) -> bytes:
        files = read_members(path, r"/data/((?:anomaly-free|other|valve[12])/[\w-]+)\.csv$")
        texts = (f"# {name}\n".encode() + files[name].replace(b"\r\n", b"\n") for name in sorted(files))
        return b"".join(texts)

    return read_published(dataset, extract)


def synthetic_recording(name: str, samples: int, rng: np.random.Generator) -> Recording:
    """Noise around levels that wander slowly, some of which are shifted for a third of the time."""
    noise = rng.normal(size=(len(SENSORS), samples))
    wander = 0.02 * rng.normal(size=noise.shape).cumsum(axis=1)
    fault = np.zeros(samples, dtype=bool)
    if not name.startswith("anomaly-free"):
        fault[samples // 2 : samples // 2 + samples // 3] = True
    shift = 3 * (rng.random((len(SENSORS), 1)) < 0.5) * fault
    return Recording(name, pd.Timestamp("2020-01-01"), (noise + wander + shift).astype(np.float32), fault)
