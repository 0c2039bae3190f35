"""Events from files: read, flat, typed, in the order of time; splits; the real web log."""

from __future__ import annotations

import datetime as dt
import decimal
import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.data import ocsf
from companion.data.download import DataError
from companion.data.events import flatten, make_frame, seconds_since_last, split_by_time, to_milliseconds
from companion.data.ocsf import OCSF_LOGS, WEB_LEAKS, load_web_events, read_events
from tests.test_tables import fake

MIRROR = os.environ.get("COMPANION_MIRROR")
NOON = 1_728_049_742_000
EVENTS = [
    {"time": NOON + 1000, "user": {"uid": "ann"}, "tags": ["a", "b", "c"], "size": 1, "ok": True},
    {"time": NOON, "user": {"uid": "bob"}, "tags": [], "size": 2.5, "mixed": 1, "none": None},
    {"time": NOON + 2000, "mixed": "x", "deep": [{"a": 1}, {"a": 2}]},
]
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
NAMES = st.text("ab", min_size=1, max_size=2)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
)


def write(path: Path, events: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf8")
    return path


@settings(deadline=None)
@given(st.lists(st.dictionaries(NAMES, TREES, max_size=3), max_size=4))
def test_every_scalar_of_any_events_has_its_place(events):
    rows = [flatten(event) for event in events]
    frame = make_frame(rows)
    assert len(frame) == len(events)
    for i, row in enumerate(rows):
        assert set(frame.columns[frame.iloc[i].notna()]) <= set(row)
        for name, value in row.items():
            if frame[name].dtype == "Int64" or frame[name].dtype == "boolean":
                assert frame[name].iloc[i] == value
            elif (
                isinstance(value, float | int)
                and not isinstance(value, bool)
                and frame[name].dtype == "float64"
            ):
                assert frame[name].iloc[i] == value or not abs(value) < 1e308
            elif isinstance(value, str):
                assert frame[name].iloc[i] == value.encode("utf8", "replace").decode("utf8")


def test_events_become_typed_columns_in_the_order_of_time(tmp_path):
    frame, report = read_events(write(tmp_path / "e.jsonl", EVENTS))
    assert frame.index.tolist() == [1, 0, 2]  # rows of the file
    assert frame["user.uid"].tolist()[:2] == ["bob", "ann"]
    assert frame["tags.#"].tolist()[:2] == [0, 3]
    assert "tags.2" not in frame
    types = frame[["time", "size", "ok", "mixed", "deep.1.a"]].dtypes.astype(str).tolist()
    assert types == ["Int64", "float64", "boolean", "str", "Int64"]
    assert frame["mixed"].tolist()[0] == "1"
    assert report.lines() == ["read 3 events"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "text", "iso", "mixed"])
def test_times_of_every_unit_are_read_value_by_value(unit):
    seconds = NOON // 1000 + 60 * np.arange(4)
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    iso = pd.to_datetime(seconds, unit="s", utc=True).strftime("%Y-%m-%dT%H:%M:%SZ").tolist()
    values = {
        "text": [str(value) for value in seconds],
        "iso": iso,
        "mixed": [seconds[0], str(seconds[1] * 1000), iso[2], int(seconds[3]) * 10**9],
    }.get(unit, seconds * scale.get(unit, 1))
    assert to_milliseconds(pd.Series(values)).tolist() == (seconds * 1000).tolist()
    assert np.isnan(to_milliseconds(pd.Series(["soon", None, np.inf]))).all()


def test_seconds_in_a_file_give_the_year_and_the_gaps_that_they_mean(tmp_path):
    events = [{"time": NOON // 1000 + 60 * i, "user": {"uid": "u"}} for i in range(4)]
    frame, _ = read_events(write(tmp_path / "s.jsonl", events))
    assert pd.Timestamp(frame["time"].iloc[0], unit="ms").year == 2024
    assert seconds_since_last(frame)[1:].tolist() == [60, 60, 60]


def test_bad_lines_and_events_without_a_time_are_told(tmp_path):
    path = tmp_path / "e.jsonl"
    deep = "[" * 3000 + "]" * 3000
    lines = [
        '{"time": 1728049742}',
        "nonsense",
        "[1]",
        '{"a": "\\ud800"}',
        f'{{"a": {deep}}}',
        "",
        b"\xff".decode("latin1"),
    ]
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode("latin1"))
    frame, report = read_events(path)
    assert len(frame) == 1
    assert (report.events, report.bad, report.untimed) == (2, 4, 1)
    told = "\n".join(report.lines())
    assert "line 2: not JSON" in told
    assert "line 3: JSON, but no object" in told
    assert "line 7: not UTF-8" in told
    assert "1 events without a time are left out" in told
    path.write_text('{"time": 1728049742}\n' + "x\n" * 40)
    assert read_events(path)[1].lines()[-1] == "  and 30 more"


def test_a_line_without_end_is_a_bad_line(tmp_path, monkeypatch):
    monkeypatch.setattr(ocsf, "MAX_LINE_BYTES", 100)
    path = tmp_path / "e.jsonl"
    path.write_text(json.dumps({"time": NOON, "a": "x" * 500}) + "\n" + json.dumps({"time": NOON}))
    frame, report = read_events(path)
    assert (len(frame), report.bad) == (1, 1)


def test_packed_lines_are_read_by_their_content_and_damage_is_told(tmp_path):
    packed = gzip.compress(write(tmp_path / "e.jsonl", EVENTS * 50).read_bytes())
    path = tmp_path / "e.any"
    path.write_bytes(packed)
    pd.testing.assert_frame_equal(read_events(path)[0], read_events(tmp_path / "e.jsonl")[0])
    path.write_bytes(packed[:-20])
    with pytest.raises(DataError, match="damaged or cut off"):
        read_events(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no event"),
        (b"[{}]", "one JSON array"),
        (b"PK\x03\x04\0\0", "neither JSON Lines"),
        (b"PAR1 and no more", "cannot be read as Parquet"),
        (b"nonsense\n", "line 1: not JSON"),
        (b'{"a": 1}', "no field 'time'"),
        (b'{"time": "soon"}', "no event .* has a time"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, content, message):
    (tmp_path / "e").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_events(tmp_path / "e")


def test_a_missing_file_a_folder_and_values_for_names_are_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no file"):
        read_events(tmp_path / "none")
    with pytest.raises(DataError, match="is a folder"):
        read_events(tmp_path)
    monkeypatch.setattr(ocsf, "MAX_COLUMNS", 10)
    path = write(tmp_path / "e.jsonl", [{"time": NOON, f"user{i}": 1} for i in range(20)])
    with pytest.raises(DataError, match="more than 10 different fields"):
        read_events(path)


def test_nested_parquet_is_what_nested_json_is(tmp_path):
    events = [EVENTS[0] | {"size": 1.0}, EVENTS[1] | {"mixed": None}]
    pq.write_table(pa.Table.from_pylist(events), tmp_path / "e.parquet")
    json_frame, _ = read_events(write(tmp_path / "e.jsonl", events))
    frame, _ = read_events(tmp_path / "e.parquet")
    pd.testing.assert_frame_equal(frame[json_frame.columns], json_frame)


def test_other_types_of_parquet_become_the_four_kinds(tmp_path):
    moment = dt.datetime(2024, 10, 4, 13, 49, 2, tzinfo=dt.UTC)
    table = pa.table(
        {
            "time": pa.array([moment], pa.timestamp("us", "UTC")),
            "price": [decimal.Decimal("1.5")],
            "raw": [b"\x01\xff"],
            "day": [dt.date(2024, 1, 1)],
            "map": pa.array([[(dt.date(2024, 1, 1), 1)]], pa.map_(pa.date32(), pa.int64())),
            "name": pa.array(["x"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "e.parquet")
    frame, _ = read_events(tmp_path / "e.parquet")
    assert frame.iloc[0].to_dict() == {
        "time": NOON, "price": 1.5, "raw": "01ff", "day": "2024-01-01", "map.2024-01-01": 1, "name": "x"
    }  # fmt: skip


def test_text_that_is_json_is_taken_apart_where_asked(tmp_path):
    path = write(tmp_path / "e.jsonl", [{"time": NOON, "a": '{"b": 1}', "c": '{"b": 1}', "d": "no {"}])
    frame, _ = read_events(path, json_columns=("a", "d", "e"))
    assert frame.iloc[0].to_dict() == {"time": NOON, "a.b": 1, "c": '{"b": 1}', "d": "no {"}


def test_time_splits_learn_from_the_past_and_groups_stay_together():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"time": rng.integers(0, 500, 1000)})
    parts = split_by_time(frame)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1000))
    times = [frame["time"].iloc[part] for part in parts]
    assert times[0].max() < times[1].min() <= times[1].max() < times[2].min()
    groups = pd.Series(rng.integers(0, 50, 1000))
    parts = split_by_time(frame, groups=groups)
    assert not set(groups[parts[0]]) & set(groups[parts[2]])


# ---------------------------------------------------------------- the real log


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("COMPANION_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("COMPANION_OFFLINE", "1")
    (tmp_path / "mirror").mkdir()
    return tmp_path / "mirror"


def test_web_events_keep_their_labels_apart(offline, monkeypatch):
    frame = pd.DataFrame(
        {
            "time": [NOON + 1, NOON],
            "message": ["Slow query", "fine"],
            "metadata": ['{"version": "1.0.0"}'] * 2,
            "metadata_version": ["1.0.0"] * 2,
            "http_request": ['{"method": "GET"}'] * 2,
            "host_name": ["h"] * 2,
            "anomaly": ['{"type": "slow_query"}', None],
            "anomaly_type": ["slow_query", None],
        }
    )
    path = offline / OCSF_LOGS.cached
    frame.to_parquet(path)
    monkeypatch.setattr(ocsf, "OCSF_LOGS", fake(OCSF_LOGS, path.read_bytes()))
    data = load_web_events()
    assert list(data.frame.columns) == ["time", "host_name", "metadata.version", "http_request.method"]
    assert data.frame["time"].tolist() == [NOON, NOON + 1]
    assert data.labels["attack"].tolist()[1] == "slow_query"
    assert not data.synthetic


def test_without_web_events_labelled_ones_stand_in(offline, monkeypatch):
    monkeypatch.setattr(ocsf, "OCSF_LOGS", replace(OCSF_LOGS, cached="none.parquet"))
    with pytest.warns(UserWarning, match="SYNTHETIC"):
        data = load_web_events()
    assert data.synthetic
    assert len(data.frame) == len(data.labels) == 27_084


@pytest.mark.skipif(
    not MIRROR or not (Path(MIRROR) / OCSF_LOGS.cached).is_file(),
    reason="COMPANION_MIRROR names no folder with ocsf_logs.parquet",
)
def test_the_real_web_events_have_their_published_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path))
    data = load_web_events()
    assert len(data.frame) == 27_084
    assert data.labels["attack"].value_counts().to_dict() == {
        "cache_miss_storm": 73, "db_timeout": 73, "memory_leak": 66, "slow_query": 65,
    }  # fmt: skip
    first_parts = {name.partition(".")[0] for name in data.frame.columns}
    assert not {"anomaly", *WEB_LEAKS} & first_parts
    assert not [name for name in first_parts if name.startswith(("actor_", "src_endpoint_", "metadata_"))]
    assert (data.frame["type_uid"] == data.frame["class_uid"] * 100 + data.frame["activity_id"]).all()
