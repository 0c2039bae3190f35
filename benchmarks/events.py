"""`python -m benchmarks.events [N]`: security events generated, read, learned and scored, in events a second.

Every step is a process of its own, so that its peak memory is its own. The model is fitted on N events and
scores N events of the two weeks after them, whose attacks it was never told of. A million: 1000000.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from companion.compute import describe_hardware

LATER = "2026-01-19"
READ = """
import sys
from companion.data.ocsf import read_events
from companion.data.ocsf_synthetic import FIELDS
sum(map(len, read_events(sys.argv[1], kinds=FIELDS)))
"""
COMPANION = "from companion.cli import app; app()"


def run(*arguments: str, code: str = COMPANION) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak megabytes of a process of its own.

    Raises:
        RuntimeError: if it fails.
    """
    start = time.perf_counter()
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code, *arguments], os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(arguments)} failed")
    peak = usage.ru_maxrss / (1e3 if sys.platform == "linux" else 1e6)
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, peak


def quality(scores: Path, labels: Path) -> Table:
    """How well the scores tell attacks of each shape from all that is no attack."""
    table = Table(
        "attacks",
        "events",
        "ROC-AUC of the score",
        "of the surprise",
        "of the distance",
        "of the habit",
        "flagged",
    )
    found = pd.read_parquet(scores).join(pd.read_parquet(labels))
    normal = found[found["attack"].isna()]
    for shape, attacked in found.groupby("shape"):
        both = pd.concat([normal, attacked])
        areas = [
            roc_auc_score(both["attack"].notna(), both[name])
            for name in ("score", "surprise", "distance", "habit")
        ]
        share = f"{100 * attacked['flagged'].mean():.1f} %"
        table.add_row(str(shape), f"{len(attacked):,}", *(f"{area:.3f}" for area in areas), share)
    table.add_row("none", f"{len(normal):,}", "", "", "", "", f"{100 * normal['flagged'].mean():.2f} %")
    return table


def main(num_events: int = 100_000) -> None:
    """Measure each step once and print two tables: cost and quality."""
    table = Table("step", "events/s", "events/s of processor time", "file", "peak memory")
    with TemporaryDirectory() as folder:
        here = Path(folder)
        paths = {name: str(here / name) for name in ("past.parquet", "past.jsonl", "later.parquet")}
        labels, model, scores = (
            str(here / "labels.parquet"),
            str(here / "model"),
            str(here / "scores.parquet"),
        )
        size = ("--labels", labels, "--events", str(num_events))

        def measure(step: str, *arguments: str, code: str = COMPANION, made: str | None = None) -> None:
            seconds, busy, peak = run(*arguments, code=code)
            written = f"{Path(made).stat().st_size / 1e6:,.0f} MB" if made else ""
            table.add_row(
                step, f"{num_events / seconds:,.0f}", f"{num_events / busy:,.0f}", written, f"{peak:,.0f} MB"
            )

        for name in ("past.parquet", "past.jsonl"):
            measure(f"generate and write {name}", "generate", "events", paths[name], *size, made=paths[name])
            measure(f"read {name}", paths[name], code=READ)
        run("generate", "events", paths["later.parquet"], *size, "--seed", "1", "--start", LATER)
        measure("fit events", "fit", "events", paths["past.parquet"], "--out", model, made=model)
        later = (paths["later.parquet"], "--model", model, "--out", scores)
        measure("score events", "score", "events", *later, "--top", "5", "--explain", made=scores)
        found = quality(Path(scores), Path(labels))
    console = Console()
    console.print(f"{num_events:,} events on {describe_hardware()}")
    console.print(table)
    console.print(found)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
