"""`python -m benchmarks.events [N]`: security events generated, written and read, in events a second."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from companion.compute import describe_hardware
from companion.data.ocsf import read_events
from companion.data.ocsf_synthetic import FIELDS, EventConfig, iter_events, write_synthetic


def main(num_events: int = 1_000_000) -> None:
    """Measure each step once and print a table; peak memory is that of the process so far."""
    config = EventConfig(num_events=num_events)
    table = Table("step", "events/s", "file", "peak memory so far")
    with TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.parquet"

        def measure(step: str, work: Callable[[], object], path: Path | None = None) -> None:
            start = time.perf_counter()
            work()
            rate = num_events / (time.perf_counter() - start)
            size = f"{path.stat().st_size / 1e6:,.0f} MB" if path else ""
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
                1e3 if sys.platform == "linux" else 1e6
            )
            table.add_row(step, f"{rate:,.0f}", size, f"{peak:,.0f} MB")

        measure("generate", lambda: sum(len(part.frame) for part in iter_events(config)))
        for ending in ("parquet", "jsonl"):
            path = Path(folder) / f"events.{ending}"
            measure(f"generate and write {ending}", lambda p=path: write_synthetic(p, labels, config), path)
            measure(f"read {ending}", lambda p=path: sum(map(len, read_events(p, kinds=FIELDS))), path)
    console = Console()
    console.print(f"{num_events:,} events on {describe_hardware()}")
    console.print(table)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
