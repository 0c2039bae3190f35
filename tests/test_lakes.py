"""Lakes: parts of the entities have the scores of one stream, after a stop, and from day to day."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep

import numpy as np
import pandas as pd
import pytest

from companion import cli_images, workers
from companion.compute import pick_compute
from companion.data.synthetic_events import EventConfig, generate_events
from companion.estimators.events import EventDetector
from tests.test_cli import bad, good
from tests.test_cli_images import write

pytestmark = pytest.mark.xdist_group("lake")

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book/reference/beyond.md").read_text("utf8")
BASH = "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)).splitlines()
COMMANDS = [shlex.split(line)[1:] for line in BASH if line.startswith("companion")]
COLUMNS = ["id", "score"]


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A folder with a model, a lake of seven files and, as ``whole.csv``, the scores of one stream."""
    folder = tmp_path_factory.mktemp("lake")
    events = generate_events(EventConfig(num_events=2400, days=10)).frame
    detector = EventDetector(num_steps=20)
    detector.fit(events[:1500], compute=pick_compute("cpu", "float32")).save(folder / "model")
    (folder / "lake").mkdir()
    for i, rows in enumerate(np.array_split(np.arange(1500, 2400), 7)):
        events.iloc[rows].to_parquet(folder / "lake" / f"{i}.parquet")
    events[1500:].sample(frac=1, random_state=0).to_parquet(folder / "mixed.parquet")
    good("score", "events", folder / "lake", *options(folder, "whole.csv"))
    return folder


def options(folder, out, *more):
    return ["--model", folder / "model", "--out", folder / out, "--device", "cpu", "--top", "1", *more]


def scores(path):
    found = pd.read_csv(path) if path.is_file() else pd.read_parquet(sorted(path.glob("*.parquet")))
    return found[COLUMNS].sort_values("id", ignore_index=True)


def same(folder, out):
    pd.testing.assert_frame_equal(scores(folder / out), scores(folder / "whole.csv"), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("data", "parts"), [("lake", "1"), ("mixed.parquet", "5"), ("lake/*.parquet", "9")])
def test_scores_are_those_of_one_stream_however_files_and_parts_are_cut(lake, data, parts):
    out = f"in {parts} parts"
    told = good("score", "events", lake / data, *options(lake, out, "--parts", parts))
    assert "900 scored" in told
    same(lake, out)
    assert {path.suffix for path in (lake / out).iterdir()} == {".json", ".parquet"}
    assert "has all its scores" in bad("score", "events", lake / data, *options(lake, out, "--parts", parts))


def test_days_one_by_one_are_scored_as_in_one_run(lake):
    for day, files in enumerate(("lake/[0-2].parquet", "lake/[3-6].parquet")):
        more = ("--past", lake / "past.parquet", "--parts", "3")
        good("score", "events", lake / files, *options(lake, f"day/{day}", *more))
    together = pd.concat([scores(lake / "day" / day) for day in "01"]).sort_values("id", ignore_index=True)
    pd.testing.assert_frame_equal(together, scores(lake / "whole.csv"), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def ray():
    """Ray, which is told that there are three processors and two GPUs."""
    engine = pytest.importorskip("ray")
    engine.init(num_cpus=3, num_gpus=2, include_dashboard=False, _system_config={"worker_niceness": 0})
    yield
    engine.shutdown()


def test_a_run_of_one_worker_that_was_killed_goes_on_with_three(lake, ray):
    """The scores of one worker, and of three, are those of one stream."""
    words = ("score", "events", lake / "lake", *options(lake, "killed", "--engine", "ray", "--parts", 12))
    command = [sys.executable, "-m", "companion", *map(str, words), "--workers", "1"]
    with subprocess.Popen(command, cwd=ROOT) as run:
        while len(done := {p: p.stat().st_mtime_ns for p in (lake / "killed").glob("*.parquet")}) < 4:
            assert run.poll() is None
            sleep(0.02)
        run.kill()
    assert "going on" in good(*words, "--workers", 3)
    assert sum(path.stat().st_mtime_ns == time for path, time in done.items()) >= 3  # the last was not kept
    same(lake, "killed")
    assert not [*(lake / "killed").glob(".*")]


def test_the_commands_of_the_page_give_the_same_with_ray_and_without(lake, ray, tmp_path, monkeypatch):
    """Those for events have two workers, and files in which the events have no order."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_images, "BATCH", 8)
    for i in range(7):
        day = Path("lake", "monday" if i < 3 else "tuesday")
        day.mkdir(parents=True, exist_ok=True)
        rows = pd.read_parquet(lake / "lake" / f"{i}.parquet").sample(frac=1, random_state=0)
        rows.to_parquet(day / f"{9 - i}.parquet")
    write(Path("photos"), count=20)
    for name in "ab":
        pd.DataFrame({"x": np.random.default_rng(0).normal(size=900)}).to_csv(f"{name}.csv", index=False)
    good("fit", "images", "photos", "--out", "images.model", "--method", "pca", "--size", 16, 24)
    good("fit", "waveforms", "a.csv", "--out", "series.model", "--method", "pca", "--length", 20)
    less = {
        ("fit", "events"): ["--no-net"], ("score", "events"): ["--parts", 2],
        ("score", "images"): ["--workers", 1], ("score", "waveforms"): ["--workers", 1],
    }  # fmt: skip
    for words in COMMANDS:
        good(*words, *less.get(tuple(words[:2]), []))
        if words[1] != "events":
            out = words.index("--out") + 1
            good(*words[:out], f"here-{words[out]}")
    for table in ("photo-scores/scores.csv", "series-scores.csv"):
        assert Path(table).read_text() == Path(f"here-{table}").read_text()
    pd.testing.assert_frame_equal(scores(Path("scores")), scores(Path("ray-scores")), rtol=0, atol=1e-6)


def test_workers_share_gpus_and_one_that_is_lost_is_replaced(tmp_path, ray):
    def work(item):
        if item == 3 and not (tmp_path / "lost").exists():
            (tmp_path / "lost").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if item == 9:
            raise ValueError("nine is odd")
        return item, os.environ["CUDA_VISIBLE_DEVICES"], Path.cwd() == folder

    folder = Path.cwd()
    items, gpus, there = zip(*workers.over(range(8), work, "ray", 2, "item"), strict=True)
    assert ([*items], {*gpus}, {*there}) == ([*range(8)], {"0", "1"}, {True})
    with pytest.raises(ValueError, match=r"^nine is odd$"):
        workers.over([9], work, "ray", 1, "item")


def test_without_ray_it_is_said_what_to_install_and_where_scores_go(lake, monkeypatch):
    monkeypatch.setattr(workers.util, "find_spec", lambda name: None)
    for out, message in (("no", "pip install '.[scale]'"), ("no.csv", "are a folder")):
        assert message in bad("score", "events", lake / "lake", *options(lake, out, "--engine", "ray"))
