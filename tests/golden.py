"""Golden numbers: every experiment at smoke scale, one thread, float32.

``python -m tests.golden [NAME ...]`` writes them.

They hold on one machine with one set of libraries only, so the file says which; a guard while code moves.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

import torch

from companion.compute import Compute, describe_hardware
from companion.experiments import NAMES, get_experiment
from companion.experiments.base import Context

PATH = Path(__file__).with_suffix(".json")
TIMED = ("table_cost", "casting_size")  # their metrics are times; only the names are kept


def machine() -> str:
    """What the last digits depend on."""
    return (
        f"{describe_hardware(torch.device('cpu'))}; torch {metadata.version('torch')}; {platform.machine()}"
    )


def measure(name: str) -> dict[str, float | None]:
    """The metrics of one experiment, seed 0."""
    torch.set_num_threads(1)
    experiment = get_experiment(name)
    result = experiment.run(
        experiment.config("smoke"), 0, Context(Compute(torch.device("cpu"), None), progress=False)
    )
    return {key: None if name in TIMED else value for key, value in sorted(result.metrics.items())}


if __name__ == "__main__":
    golden = json.loads(PATH.read_text("utf8")) if PATH.exists() else {"metrics": {}}
    golden["machine"] = machine()
    for name in sys.argv[1:] or NAMES:
        start = time.perf_counter()
        golden["metrics"][name] = measure(name)
        print(
            f"{name}: {len(golden['metrics'][name])} metrics, {time.perf_counter() - start:.1f} s", flush=True
        )
    PATH.write_text(json.dumps(golden, indent=0, sort_keys=True) + "\n", encoding="utf8")
