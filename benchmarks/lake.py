"""`python -m benchmarks.lake FOLDER`: ten million generated events in 100 files are scored, by two processes.

One file is generated. The others are copies of it, as if of ten companies, with users and machines of
their own, and of ten fortnights. What was measured goes to `companion/recorded/lake.toml`.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import duckdb
import psutil
import torch

from companion.compute import describe_hardware
from companion.data.events import ENTITY_COLUMNS
from companion.data.synthetic_events import EventConfig, generate_events
from companion.runs import RECORDED

EACH, FORTNIGHT = 100_000, 14 * 86_400_000  # events of a file, milliseconds


def started(*arguments: object) -> psutil.Popen:
    """A command of the package; each of its processes has one thread."""
    words = [sys.executable, "-m", "companion", *map(str, arguments)]
    return psutil.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def lake(folder: Path) -> list[Path]:
    """Its files, and beside it a model of all companies' first fortnight."""
    files = [folder / "lake" / f"{i:03}.parquet" for i in range(100)]
    if not (model := folder / "model").exists():
        files[0].parent.mkdir(parents=True, exist_ok=True)
        events = generate_events(EventConfig(EACH, days=14)).frame
        for i, file in enumerate(files):
            own = dict.fromkeys(ENTITY_COLUMNS, i % 10) | {"metadata.uid": i}
            changed = [f'"{name}" || \'-{n}\' AS "{name}"' for name, n in own.items() if name in events]
            changed.append(f"time + {i // 10 * FORTNIGHT} AS time")
            duckdb.sql(f"SELECT * REPLACE ({', '.join(changed)}) FROM events").write_parquet(str(file))
        assert started("fit", "events", *files[:10], "--out", model, "--steps", 1000).wait() == 0
    return files


def measured(folder: Path, files: list[Path], processes: int) -> dict[str, object]:
    """Score the files: seconds, and processor seconds and memory of the whole tree of processes."""
    parts, out = -(-64 * len(files) // 100), folder / f"{len(files)} by {processes}"
    model = ("--model", folder / "model", "--parts", parts, "--device", "cpu")
    engine = ("--engine", "ray", "--workers", processes) if processes > 1 else ()
    load, peak, spent, moments = os.getloadavg()[0], 0, {}, [time.monotonic()]
    run = started("score", "events", *files, *model, "--out", out, *engine)
    while run.poll() is None:
        with suppress(psutil.Error):  # a process that has just ended
            tree = [run, *run.children(recursive=True)]
            spent |= {process.pid: sum(process.cpu_times()[:2]) for process in tree}
            peak = max(peak, sum(process.memory_info().rss for process in tree))
        if len(moments) == 1 and (out / "about.json").exists():  # all is divided
            moments += [time.monotonic(), sum(spent.values())]
        time.sleep(0.5)
    assert run.returncode == 0, "what was stopped in the middle has no times; delete its scores"
    start, divided, cpu = moments
    return {
        "events": EACH * len(files), "processes": processes, "peak_gib": round(peak / 2**30, 2),
        "divide": round(divided - start), "divide_cpu": round(cpu),
        "score": round(time.monotonic() - divided), "score_cpu": round(sum(spent.values()) - cpu),
        "load": round(load, 1), "date": time.strftime("%Y-%m-%d"),
        "hardware": describe_hardware(torch.device("cpu")),
    }  # fmt: skip


if __name__ == "__main__":
    folder, lines = Path(sys.argv[1]), []
    for count, processes in ((5, 1), (100, 2)):
        found = measured(folder, lake(folder)[:count], processes)
        lines += ["[[run]]", *(f"{name} = {json.dumps(value)}" for name, value in found.items()), ""]
    (RECORDED / "lake.toml").write_text("\n".join(lines), "utf8")
