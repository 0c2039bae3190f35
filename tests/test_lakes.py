"""Lakes: parts of the entities have the scores of one stream, after a stop, and from day to day."""

import numpy as np
import pandas as pd
import pytest

from companion.compute import pick_compute
from companion.data.synthetic_events import EventConfig, generate_events
from companion.estimators.events import EventDetector
from companion.estimators.lakes import Lake
from tests.test_cli import bad, good

COLUMNS = ["id", "score"]


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A folder with a model, a lake of seven files and, as ``whole.csv``, the scores of one stream."""
    folder = tmp_path_factory.mktemp("lake")
    events = generate_events(EventConfig(num_events=4000, days=10)).frame
    detector = EventDetector(num_steps=20)
    detector.fit(events[:2500], compute=pick_compute("cpu", "float32")).save(folder / "model")
    (folder / "lake").mkdir()
    for i, rows in enumerate(np.array_split(np.arange(2500, 4000), 7)):
        events.iloc[rows].to_parquet(folder / "lake" / f"{i}.parquet")
    events[2500:].sample(frac=1, random_state=0).to_parquet(folder / "mixed.parquet")
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
    assert "1,500 scored" in told
    same(lake, out)
    assert {path.suffix for path in (lake / out).iterdir()} == {".json", ".parquet"}
    assert "has all its scores" in bad("score", "events", lake / data, *options(lake, out, "--parts", parts))


def test_a_run_that_was_stopped_goes_on(lake, monkeypatch):
    score, done = Lake.score, []

    def stopped(self, detector, part):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(part)
        score(self, detector, part)

    monkeypatch.setattr(Lake, "score", stopped)
    arguments = ("score", "events", lake / "lake", *options(lake, "stopped", "--parts", "4"))
    with pytest.raises(AssertionError):
        good(*arguments)
    times = {path: path.stat().st_mtime_ns for path in (lake / "stopped").glob("*.parquet")}
    assert len(times) == 2
    monkeypatch.setattr(Lake, "score", score)
    assert "going on" in good(*arguments)
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    same(lake, "stopped")


def test_days_one_by_one_are_scored_as_in_one_run(lake):
    for day, files in enumerate(("lake/[0-2].parquet", "lake/[3-6].parquet")):
        more = ("--past", lake / "past.parquet", "--parts", "3")
        good("score", "events", lake / files, *options(lake, f"day/{day}", *more))
    together = pd.concat([scores(lake / "day" / day) for day in "01"]).sort_values("id", ignore_index=True)
    pd.testing.assert_frame_equal(together, scores(lake / "whole.csv"), rtol=0, atol=1e-6)
