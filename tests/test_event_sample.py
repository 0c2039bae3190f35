"""A sample of events, and a clock for events in any order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from companion.data.event_sample import EventSample
from companion.data.events import record_ids
from companion.data.sources import DataError
from companion.objectives.encoding import EncoderError
from companion.objectives.event_features import EventClock, GapTracker

RNG = np.random.default_rng(0)


def sampled(chunk: int, size: int = 50, total: int = 1000, seed: int = 0) -> list[int]:
    sample = EventSample(size, seed)
    for start in range(0, total, chunk):
        sample.add(pd.DataFrame({"row": range(start, min(start + chunk, total))}))
    assert sample.seen == total
    return sample.frame()["row"].tolist()


def test_a_sample_does_not_depend_on_the_chunks_and_keeps_the_order():
    rows = sampled(1000)
    assert len(rows) == 50
    assert rows == sorted(rows)
    assert sampled(7) == sampled(333) == rows != sampled(7, seed=1)
    assert sampled(10, size=2000) == list(range(1000))


def test_every_row_has_the_same_chance():
    counts = np.zeros(100)
    for seed in range(400):
        counts[sampled(9, size=10, total=100, seed=seed)] += 1
    assert counts.sum() == 4000
    assert np.abs(counts - 40).max() < 5 * np.sqrt(40 * 0.9)


def test_a_sample_needs_rows():
    with pytest.raises(ValueError, match="at least one"):
        EventSample(0)
    with pytest.raises(ValueError, match="no events"):
        EventSample(1).frame()


def shuffled_events(num: int = 300) -> pd.DataFrame:
    time = np.sort(RNG.integers(0, 10**6, num)).astype(float)
    time[RNG.choice(num, 40)] += RNG.integers(-(10**5), 10**5, 40)
    time[RNG.choice(num, 10)] = np.nan
    return pd.DataFrame({"time": time, "user.uid": RNG.choice(["a", "b", "c", None], num)})


def test_a_clock_agrees_with_a_loop_whatever_the_chunks():
    frame = shuffled_events()
    last: dict[str, float] = {}
    now, expected, late = float(frame["time"].dropna().iloc[0]), [], 0
    for time, who in zip(frame["time"], frame["user.uid"].fillna(""), strict=True):
        now = now if np.isnan(time) else time
        gap = (now - last[who]) / 1000 if who in last else np.nan
        late += gap < 0
        expected.append(np.nan if gap < 0 else gap)
        last[who] = max(last.get(who, -np.inf), now)
    for chunk in (300, 41, 1):
        clock = EventClock()
        parts = [clock(frame.iloc[start : start + chunk]) for start in range(0, 300, chunk)]
        np.testing.assert_allclose(np.concatenate([gaps for _, gaps in parts]), expected)
        assert pd.concat([part for part, _ in parts])["time"].dtype == np.int64
        assert (clock.late, clock.untimed) == (late, frame["time"].isna().sum())
        assert late > 0


def test_in_order_it_is_the_strict_tracker():
    frame = shuffled_events().dropna(subset="time").sort_values("time").astype({"time": np.int64})
    np.testing.assert_allclose(EventClock()(frame)[1], GapTracker()(frame))


def test_a_clock_reads_text_and_names_what_is_lacking():
    frame, gaps = EventClock(["who"])(
        pd.DataFrame({"time": ["2026-01-01T00:00:00Z", "2026-01-01T00:00:02+00:00", "?"], "who": "a"})
    )
    assert gaps.tolist()[1:] == [2.0, 0.0]
    assert frame["time"].iloc[0] == pd.Timestamp("2026-01-01", tz="UTC").value // 10**6
    with pytest.raises(EncoderError, match="no field 'time'"):
        EventClock(["who"])(pd.DataFrame({"who": ["a"]}))
    with pytest.raises(EncoderError, match="no event has a time"):
        EventClock(["who"])(pd.DataFrame({"who": ["a"], "time": [None]}))
    with pytest.raises(DataError, match="say which"):
        EventClock()(pd.DataFrame({"time": [1]}))
    assert len(EventClock(["who"])(pd.DataFrame({"time": [], "who": []}))[1]) == 0


def test_ids_fall_back_on_rows():
    frame = pd.DataFrame({"x": [1, 2]}, index=[7, 8])
    assert record_ids(frame).tolist() == ["7", "8"]
    assert record_ids(frame.assign(**{"metadata.uid": ["u", None]})).tolist() == ["u", "8"]
