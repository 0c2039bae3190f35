"""Rates against a loop, plain columns against a count by hand, and the detectors on what they are for."""

import numpy as np
import pandas as pd
import pytest

from companion.detection.event_detectors import EVENT_DETECTORS
from companion.detection.plain_columns import PlainColumns
from companion.detection.rates import RATES, rates, remember, with_rates

ENTITY = ("user.uid",)


def stream(count: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "time": np.sort(rng.integers(0, 3 * 3_600, count)) * 1000,  # many of the same moment
            "user.uid": pd.array(rng.choice(["ann", "bob", "eve", None], count, p=[0.6, 0.2, 0.1, 0.1])),
            "type_uid": rng.integers(1, 4, count),
            "status_id": pd.array(rng.choice([1, 2], count), dtype="Int64"),
            "dst_endpoint.ip": pd.array(rng.choice(["10.0.0.1", "10.0.0.2", "10.0.1.9", None], count)),
            "device.hostname": rng.choice(["a", "b", "c"], count),
            "bytes": rng.lognormal(8, 1, count),
        }
    )


def by_hand(frame: pd.DataFrame) -> np.ndarray:
    who = frame["user.uid"].fillna("").to_numpy(dtype=object)
    time, rows = frame["time"].to_numpy(), []
    for i in range(len(frame)):
        own, past = who == who[i], time <= time[i]
        same = own & past & (frame["type_uid"] == frame["type_uid"][i]).to_numpy()
        hour = frame[own & past & (time >= time[i] - 3_600_000)]
        earlier = time[own & (time < time[i])]
        news = []
        for before in (own & (time < time[i]), time < time[i]):
            habits = frame[["dst_endpoint.ip", "device.hostname"]]
            values = [(name, value) for name, value in habits.loc[i].items() if pd.notna(value)]
            news.append(sum(value not in set(habits[name][before]) for name, value in values))
        rows.append(
            [
                (same & (time >= time[i] - 60_000)).sum(),
                (same & (time >= time[i] - 3_600_000)).sum(),
                (hour["status_id"] == 2).mean(),
                hour["dst_endpoint.ip"].nunique(),
                (time[i] - earlier.max()) / 1000 if len(earlier) else np.nan,
                float(len(earlier) == 0),
                *news,
            ]
        )
    return np.array(rows, dtype=np.float64)


def test_rates_are_those_of_a_loop():
    frame = stream(300)
    np.testing.assert_allclose(rates(frame, ENTITY)[RATES], by_hand(frame), rtol=1e-12)


def test_rates_go_on_from_what_is_remembered():
    frame = stream(400)
    cut = int(np.searchsorted(frame["time"], frame["time"][250]))  # not within a moment
    past = remember(frame[:100], ENTITY)
    past = remember(frame[100:cut], ENTITY, past)
    pd.testing.assert_frame_equal(rates(frame[cut:], ENTITY, past), rates(frame, ENTITY)[cut:])
    assert len(past) < cut


def test_events_from_before_what_was_learned_are_scored_alike_in_one_part_and_in_two():
    frame = stream(400)
    cut = int(np.searchsorted(frame["time"], frame["time"][250]))  # not within a moment
    learned = remember(stream(400, seed=1).assign(time=lambda each: each["time"] + 86_400_000), ENTITY)
    whole, first = (rates(part, ENTITY, learned) for part in (frame, frame[:cut]))
    second = rates(frame[cut:], ENTITY, remember(frame[:cut], ENTITY, learned))
    pd.testing.assert_frame_equal(pd.concat([first, second]), whole)


def test_events_of_one_moment_count_alike_in_any_order():
    frame = stream(200)
    mixed = frame.sample(frac=1, random_state=0).sort_values("time", kind="stable")
    pd.testing.assert_frame_equal(rates(mixed, ENTITY).sort_index(), rates(frame, ENTITY))


def test_plain_columns_leave_out_what_says_nothing_or_nothing_new():
    frame = pd.DataFrame(
        {
            "status": ["ok", "ok", "bad", "bad"] * 30,
            "status_id": [1, 1, 2, 2] * 30,
            "same": 1,
            "empty": None,
            "process.pid": range(120),
            "metadata.uid": [f"id-{i}" for i in range(120)],
            "raw": ['{"a": 1}', "{}"] * 60,
            "name": [f"host{i}.example.com" for i in range(120)],
            "size": np.r_[np.arange(119.0), np.nan],
        }
    )
    plain = PlainColumns().fit(frame)
    assert plain.left_out_ == {
        "status_id": "says the same as status",
        "empty": "says nothing",
        "process.pid": "an identifier",
        "metadata.uid": "an identifier",
        "raw": "JSON text",
    }
    rows = plain.transform(frame)
    assert rows.plain.shape == (120, len(plain.feature_names))
    assert np.isfinite(rows.plain).all()
    assert (rows.codes.max(axis=0) < plain.cardinalities).all()
    assert ("name", "example.com") in plain.feature_names
    assert rows.plain[-1, plain.feature_names.index(("size", "missing"))] == 1


def test_a_value_is_new_if_training_saw_it_less_than_twice():
    names = [f"n{i % 60}" for i in range(120)] + ["once"]
    plain = PlainColumns().fit(pd.DataFrame({"name": names}))
    column = plain.feature_names.index(("name", "never seen"))
    told = plain.transform(pd.DataFrame({"name": ["n3", "once", "never", None]})).plain[:, column]
    assert told.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(("offset", "hour"), [(None, 14), (-300, 7)])
def test_hours_are_local(offset, hour):
    noon = 1_720_008_000_000  # 2024-07-03 12:00 UTC
    frame = pd.DataFrame({"time": [noon, noon + 3 * 86_400_000], "timezone_offset": [offset] * 2})
    plain = PlainColumns(zone="Europe/Berlin")
    assert plain.fit(frame).transform(frame).codes[0, 0] - 2 == hour


@pytest.mark.parametrize("name", EVENT_DETECTORS)
def test_each_detector_finds_what_it_is_for(name):
    frame = stream(1500)
    burst = pd.concat([frame[-1:]] * 60).assign(type_uid=2)  # of one user within one second
    burst = burst.assign(bytes=1e9, **{"device.hostname": "z", "dst_endpoint.ip": "203.0.113.7"})
    frame = with_rates(pd.concat([frame, burst], ignore_index=True), ENTITY)
    columns = PlainColumns(ENTITY).fit(frame[:1000])
    rows = columns.transform(frame)
    detector = EVENT_DETECTORS[name](columns, 0).fit(rows[:1000])
    scores = detector.score(rows)
    assert scores.dtype == np.float64
    assert np.median(scores[-60:]) > np.quantile(scores[1000:1500], 0.9)
    assert detector.score(rows[:0]).shape == (0,)


def test_neighbours_are_of_the_same_type_where_there_are_enough():
    frame = pd.DataFrame(
        {"time": 0, "type_uid": [1] * 150 + [2] * 150 + [3], "bytes": [1.0] * 150 + [9e6] * 151}
    )
    columns = PlainColumns(entity=()).fit(frame)
    detector = EVENT_DETECTORS["nearest neighbours"](columns, 0).fit(columns.transform(frame))
    usual = detector.score(columns.transform(frame))
    assert (usual[:300] == 0).all()
    swapped = frame.assign(bytes=[9e6] * 150 + [1.0] * 150 + [9e6])
    assert detector.score(columns.transform(swapped)).min() > 0
    assert (
        usual[300] == detector.score(columns.transform(frame[300:].assign(type_uid=4)))[0]
    )  # looks among all
