from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.data import events as events_module
from companion.data import ocsf
from companion.data.events import (
    WEB_LEAKS,
    entities,
    load_web_events,
    split_by_entity,
    split_by_time,
)
from companion.data.ocsf import BadLine, ReadReport, read_events, scan_events
from companion.data.ocsf_flat import DTYPES, flatten, kind_of, make_column, unflatten
from companion.data.ocsf_write import EventWriter, json_lines
from companion.data.sources import OCSF_LOGS, DataError
from tests.test_tables import MIRROR, fake

EVENTS = [
    {"time": 1, "user": {"name": "ann", "uid": 7}, "tags": ["a", "b", "c"], "ok": True},
    {"time": 2, "user": {"name": None}, "score": 1, "tags": []},
    {"time": 3, "score": 0.5, "resources": [{"name": "x"}, {"uid": 9}], "mixed": 1},
    {"time": 4, "mixed": "one", "ok": False, "huge": 2**70},
]


def write(path: Path, events=EVENTS) -> Path:
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


# ---------------------------------------------------------------- flat

NAMES = st.text("abcxyz_", min_size=1, max_size=3)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
NESTED = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, min_size=1, max_size=3)
    ),
    max_leaves=12,
)
EVENT = st.dictionaries(NAMES, NESTED, max_size=4)


@settings(max_examples=100, deadline=None)
@given(EVENT)
def test_flattening_can_be_undone(event):
    flat = flatten(event, list_items=3)
    assert unflatten(flat) == event
    assert not any(isinstance(value, (dict, list)) for value in flat.values())


def test_lists_longer_than_what_is_kept_keep_their_length():
    flat = flatten({"tags": ["a", "b", "c"]}, list_items=1)
    assert flat == {"tags.#": 3, "tags.0": "a"}
    assert unflatten(flat) == {"tags": ["a", None, None]}


@pytest.mark.parametrize("flat", [{"a": 1, "a.b": 2}, {"a.b": 2, "a": 1}])
def test_columns_that_contradict_each_other_are_refused(flat):
    with pytest.raises(ValueError, match="'a"):
        unflatten(flat)


@pytest.mark.parametrize(
    ("values", "kind", "expected", "misfits"),
    [
        ([1, "2", "x", 2.5, True, 3.0], "integer", [1, 2, None, None, None, 3], 3),
        ([1, "2.5", "x", float("inf"), 10**400], "number", [1.0, 2.5, None, None, None], 2),
        ([1, "a", True, 0.5], "text", ["1", "a", "true", "0.5"], 0),
        ([True, 1, "true"], "flag", [True, None, None], 2),
        ([2**70], "integer", [None], 1),
        ([2**70, 1], None, [float(2**70), 1.0], 0),
        (["\ud800", "a"], None, ["?", "a"], 0),
    ],
)
def test_values_are_read_as_the_kind_that_is_wanted(values, kind, expected, misfits):
    array, count = make_column(values, range(len(values)), len(values), kind)
    found = [None if pd.isna(value) else value for value in array]
    assert found == expected
    assert count == misfits
    assert str(array.dtype) == DTYPES[kind or kind_of(values)]


# ---------------------------------------------------------------- reading


def test_events_become_typed_columns(tmp_path):
    (frame,) = read_events(write(tmp_path / "events.jsonl"))
    assert dict(frame.dtypes.astype(str)) == {
        "time": "Int64", "user.name": "str", "user.uid": "Int64", "tags.#": "Int64", "tags.0": "str",
        "tags.1": "str", "ok": "boolean", "score": "float64", "resources.#": "Int64",
        "resources.0.name": "str", "resources.1.uid": "Int64", "mixed": "str", "huge": "float64",
    }  # fmt: skip
    assert frame["mixed"].dropna().tolist() == ["1", "one"]
    assert frame["tags.#"].tolist()[:2] == [3, 0]
    assert frame["score"].dropna().tolist() == [1.0, 0.5]


JSON_EVENT = st.dictionaries(
    st.sampled_from("abc"), st.one_of(SCALARS, st.none(), st.lists(SCALARS, max_size=2)), max_size=3
)


@settings(max_examples=40, deadline=None)
@given(st.lists(JSON_EVENT, min_size=1, max_size=12), st.integers(1, 13))
def test_where_chunks_end_changes_nothing(tmp_path_factory, events, chunk_rows):
    path = write(tmp_path_factory.mktemp("chunks") / "e.jsonl", events)
    kinds = scan_events(path)
    (whole,) = read_events(path, chunk_rows=100)
    parts = list(read_events(path, chunk_rows=chunk_rows, kinds=kinds))
    assert [len(part) for part in parts[:-1]] == [chunk_rows] * (len(parts) - 1)
    pd.testing.assert_frame_equal(pd.concat(parts), whole)


def test_the_columns_that_are_wanted_come_and_no_others(tmp_path):
    report = ReadReport()
    kinds = {"score": "integer", "absent": "text", "user.name": "text"}
    frame = pd.concat(read_events(write(tmp_path / "e.jsonl"), kinds=kinds, chunk_rows=3, report=report))
    assert list(frame.columns) == list(kinds)
    assert frame["absent"].isna().all()
    assert report.misfits == {"score": 1}
    assert frame.index.tolist() == [0, 1, 2, 3]
    assert "1 values of another kind in score" in report.summary()


def test_bad_lines_are_counted_and_listed(tmp_path):
    path = tmp_path / "events.jsonl"
    bad = [b"{broken", b"[1]", b"\xff{}", b"", b'"text"', b"[" * 100_000]
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n' + b"\n".join(bad) + b'\n{"a": NaN}\n{"a": 1e999}\n{"a": 2}')
    report = ReadReport()
    (frame,) = read_events(path, report=report)
    assert frame["a"].isna().tolist() == [False, True, True, False]
    assert (report.events, report.bad) == (4, 5)
    assert report.bad_lines[0] == BadLine(
        2, "not JSON at column 2: Expecting property name enclosed in double quotes"
    )
    assert [line.number for line in report.bad_lines] == [2, 3, 4, 6, 7]
    assert "5 bad lines (line 2" in report.summary()


def test_the_list_of_bad_lines_is_bounded(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"a": 1}\n' + "x\n" * 100)
    report = ReadReport()
    list(read_events(path, report=report))
    assert report.bad == 100
    assert len(report.bad_lines) == ocsf.MAX_LISTED


def test_a_report_may_serve_for_several_files(tmp_path):
    report = ReadReport()
    bad, good = tmp_path / "bad.jsonl", write(tmp_path / "good.jsonl")
    bad.write_text("x\n" * 2_000)
    with pytest.raises(DataError, match="holds no event"):
        list(read_events(bad, report=report))
    assert report.bad == ocsf.PATIENCE_LINES  # and no further
    bad.write_text("x\n" + json.dumps(EVENTS[0]))
    assert [len(frame) for path in (bad, good) for frame in read_events(path, report=report)] == [1, 4]
    assert (report.events, report.bad) == (5, ocsf.PATIENCE_LINES + 1)


def test_a_line_without_end_is_a_bad_line(tmp_path, monkeypatch):
    monkeypatch.setattr(ocsf, "MAX_LINE_BYTES", 64)
    path = tmp_path / "events.jsonl"
    path.write_text('{"a": 1}\n' + json.dumps({"a": "x" * 500}) + '\n{"a": 2}\n')
    report = ReadReport()
    (frame,) = read_events(path, report=report)
    assert frame["a"].tolist() == [1, 2]
    assert report.bad_lines == [BadLine(2, "longer than 64 bytes")]


def test_packed_lines_are_read_by_their_content(tmp_path):
    plain = write(tmp_path / "events.jsonl")
    packed = tmp_path / "events"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    pd.testing.assert_frame_equal(next(read_events(packed)), next(read_events(plain)))
    packed.write_bytes(gzip.compress(np.random.default_rng(0).bytes(5000).hex().encode() + b"\n")[:2000])
    with pytest.raises(DataError, match=r"cannot be read|cut off"):
        list(read_events(packed))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\xef\xbb\xbf", "holds no event"),
        (b'[{"a": 1}]', "jq -c"),
        (b"PK\3\4\0\0", "neither JSON Lines"),
        (b"a,b\n1,2\n" * 2000, "holds no event.*Line 1"),
        (b"PAR1 and no more", "cannot be read as Parquet"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, content, message):
    path = tmp_path / "events"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_events(path))


def test_a_missing_file_and_a_folder_are_named_at_once(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        read_events(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="is a folder"):
        read_events(tmp_path)
    with pytest.raises(ValueError, match="chunk_rows"):
        read_events(tmp_path, chunk_rows=0)


def test_values_in_the_place_of_names_are_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(ocsf, "MAX_COLUMNS", 3)
    path = write(tmp_path / "events.jsonl", [{f"id-{i}": 1} for i in range(5)])
    with pytest.raises(DataError, match="different fields"):
        list(read_events(path))
    assert len(next(read_events(path, kinds={"id-3": "integer"}))) == 5


# ---------------------------------------------------------------- Parquet


def test_nested_parquet_is_what_nested_json_is(tmp_path):
    events = [
        {"time": 1, "user": {"name": "ann", "uid": 7}, "tags": ["a", "b", "c"], "items": [{"n": 1}]},
        {"time": 2, "user": None, "tags": [], "items": None},
        {"time": 3, "user": {"name": "ben", "uid": None}, "tags": None, "items": [{"n": 2}, {"n": 3}]},
    ]
    pq.write_table(pa.Table.from_pylist(events), tmp_path / "e.parquet")
    (nested,) = read_events(tmp_path / "e.parquet")
    (lines,) = read_events(write(tmp_path / "e.jsonl", events))
    pd.testing.assert_frame_equal(nested, lines, check_like=True)
    kinds = scan_events(tmp_path / "e.parquet")
    parts = pd.concat(read_events(tmp_path / "e.parquet", kinds=kinds, chunk_rows=2))
    pd.testing.assert_frame_equal(parts, nested)


def test_other_types_of_parquet_become_the_four_kinds(tmp_path):
    table = pa.table(
        {
            "when": pa.array([1_700_000_000_000_000_000, None], pa.timestamp("ns", "UTC")),
            "amount": pa.array([1.5, None]).cast(pa.decimal128(5, 2)),
            "large": pa.array([2**64 - 1, 1], pa.uint64()),
            "small": pa.array([7, None], pa.uint64()),
            "raw": pa.array([b"\x01\xff", None]),
            "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
            "word": pa.array(["a", "a"]).dictionary_encode(),
            "day": pa.array([0, None], pa.date32()),
            "none": pa.nulls(2),
            "inf": pa.array([np.inf, 1.0]),
        }
    )
    pq.write_table(table, tmp_path / "e.parquet")
    (frame,) = read_events(tmp_path / "e.parquet")
    first = frame.iloc[0].to_dict()
    assert first["when"] == 1_700_000_000_000
    assert (first["amount"], first["small"], first["raw"], first["map"]) == (1.5, 7, "01ff", '{"k": 1}')
    assert first["large"] == pytest.approx(2.0**64)
    assert (first["word"], first["day"]) == ("a", "1970-01-01")
    assert "none" not in frame.columns
    assert frame["inf"].isna().tolist() == [True, False]
    as_text = next(read_events(tmp_path / "e.parquet", kinds={"small": "text", "raw": "integer"}))
    assert as_text["small"].tolist()[0] == "7"
    assert as_text["raw"].isna().all()


def test_text_that_is_json_is_taken_apart_where_asked(tmp_path):
    frame = pd.DataFrame({"time": [1, 2, 3], "actor": ['{"user": {"uid": 5}}', None, "no json"]})
    frame.to_parquet(tmp_path / "e.parquet")
    (apart,) = read_events(tmp_path / "e.parquet", json_columns=["actor"])
    assert apart["actor.user.uid"].tolist()[0] == 5
    assert apart["actor"].tolist()[2] == "no json"
    kinds = {"actor.user.uid": "text", "time": "integer"}
    wanted = next(read_events(tmp_path / "e.parquet", json_columns=["actor"], kinds=kinds))
    assert list(wanted.columns) == list(kinds)
    assert wanted["actor.user.uid"].tolist()[0] == "5"


def test_text_nested_without_end_is_left_out(tmp_path):
    pd.DataFrame({"a": ["[" * 10**5 + "]" * 10**5, '{"b": 1}']}).to_parquet(tmp_path / "e.parquet")
    (frame,) = read_events(tmp_path / "e.parquet", json_columns=["a"])
    assert frame["a.b"].tolist() == [pd.NA, 1]


def test_columns_that_no_event_has_are_missing(tmp_path):
    pd.DataFrame({"a": [1, 2, 3]}).to_parquet(tmp_path / "e.parquet")
    frame = pd.concat(read_events(tmp_path / "e.parquet", kinds={"b": "integer"}, chunk_rows=2))
    assert frame["b"].isna().tolist() == [True, True, True]


def test_a_table_without_rows_is_refused(tmp_path):
    pd.DataFrame({"a": pd.array([], dtype="Int64")}).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(DataError, match="no rows"):
        list(read_events(tmp_path / "e.parquet"))


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("name", ["e.parquet", "e.jsonl", "e.jsonl.gz"])
def test_what_is_written_is_read_again(tmp_path, name):
    (frame,) = read_events(write(tmp_path / "original.jsonl"), list_items=3)
    with EventWriter(tmp_path / name) as writer:
        writer.write(frame.iloc[:2])
        writer.write(frame.iloc[2:])
    kinds = scan_events(tmp_path / "original.jsonl", list_items=3)
    again = pd.concat(read_events(tmp_path / name, kinds=kinds, list_items=3))
    pd.testing.assert_frame_equal(again, frame)


def test_nothing_half_written_stays(tmp_path):
    with pytest.raises(ValueError, match=r"should end in one of"):
        EventWriter(tmp_path / "events.csv")
    with pytest.raises(ValueError, match="goes through"), EventWriter(tmp_path / "e.jsonl") as writer:
        writer.write(pd.DataFrame({"a": [1], "a.b": [2]}))
    assert list(tmp_path.iterdir()) == []


def test_columns_are_nested_as_events_are():
    frame = pd.concat([next(read_events_of(EVENTS)), next(read_events_of(EVENTS[::-1]))], ignore_index=True)
    slow = frame.assign(**{"time.more": pd.array([None] * 8, dtype="str")})  # "time" begins another name
    assert json_lines(frame) == json_lines(slow)
    assert [json.loads(line) for line in json_lines(frame)][2]["resources"] == [{"name": "x"}, {"uid": 9}]


def read_events_of(events):
    with TemporaryDirectory() as folder:
        yield from list(read_events(write(Path(folder) / "e.jsonl", events)))


def test_lines_are_nested_and_leave_out_what_is_missing():
    frame = pd.DataFrame(
        {"user.name": ["änn", None], "n": pd.array([1, None], dtype="Int64"), "x": [np.nan, 0.5]}
    )
    assert json_lines(frame) == ['{"user":{"name":"änn"},"n":1}\n', '{"x":0.5}\n']


# ---------------------------------------------------------------- splits


def test_time_splits_learn_from_the_past():
    time = np.random.default_rng(0).integers(0, 300, 1000)
    frame = pd.DataFrame({"time": time})
    parts = split_by_time(frame)
    assert sorted(np.concatenate(parts)) == list(range(1000))
    assert [round(len(part) / 1000, 1) for part in parts] == [0.6, 0.2, 0.2]
    assert time[parts[0]].max() < time[parts[1]].min()
    assert time[parts[1]].max() < time[parts[2]].min()


def test_groups_stay_together():
    rng = np.random.default_rng(0)
    groups = pd.Series(rng.integers(0, 80, 1000)).astype(object).mask(rng.random(1000) < 0.1, None)
    frame = pd.DataFrame({"time": rng.integers(0, 10**6, 1000)})
    parts = split_by_time(frame, groups=groups)
    assert sorted(np.concatenate(parts)) == list(range(1000))
    named = [set(groups.iloc[part].dropna()) for part in parts]
    assert not named[0] & named[1]
    assert not named[1] & named[2]


def test_entity_splits_share_nobody():
    rng = np.random.default_rng(0)
    users = pd.Series(rng.choice(["a", "b", "c", "d", "e", None], 500), dtype="str")
    frame = pd.DataFrame({"user.uid": users, "device.uid": "d1"})
    parts = split_by_entity(frame, (0.5, 0.5))
    assert sorted(np.concatenate(parts)) == list(range(500))
    assert not set(entities(frame).iloc[parts[0]]) & set(entities(frame).iloc[parts[1]])
    assert set(entities(frame)) == {"a", "b", "c", "d", "e", "d1"}
    assert all(map(np.array_equal, parts, split_by_entity(frame, (0.5, 0.5))))


def test_impossible_splits_are_refused():
    frame = pd.DataFrame({"time": [1, 2], "x": [1, 2]})
    with pytest.raises(ValueError, match="sum to 1"):
        split_by_time(frame, (0.5, 0.6))
    with pytest.raises(ValueError, match="no time"):
        split_by_time(pd.DataFrame({"time": pd.array([1, None], dtype="Int64")}))
    for split in (split_by_time, split_by_entity):
        with pytest.raises(ValueError, match="no events"):
            split(pd.DataFrame({"time": [], "user.uid": []}))
    with pytest.raises(DataError, match="none of the columns"):
        split_by_entity(frame)


# ---------------------------------------------------------------- the real events


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("COMPANION_OFFLINE", "1")
    (tmp_path / "mirror").mkdir()
    return tmp_path / "mirror"


def test_web_events_keep_their_labels_apart(offline, monkeypatch):
    frame = pd.DataFrame(
        {
            "time": [2, 1],
            "message": ["Slow query", "fine"],
            "metadata": ['{"version": "1.0.0"}'] * 2,
            "metadata_version": ["1.0.0"] * 2,
            "http_request_method": ["GET"] * 2,
            "http_request": ['{"method": "GET"}'] * 2,
            "host_name": ["h"] * 2,
            "anomaly": ['{"type": "slow_query"}', None],
            "anomaly_type": ["slow_query", None],
        }
    )
    path = offline / OCSF_LOGS.cached
    frame.to_parquet(path)
    monkeypatch.setattr(events_module, "OCSF_LOGS", fake(OCSF_LOGS, path.read_bytes()))
    data = load_web_events()
    assert list(data.frame.columns) == ["time", "host_name", "metadata.version", "http_request.method"]
    assert data.frame["time"].tolist() == [1, 2]
    assert data.labels["attack"].tolist()[1] == "slow_query"
    assert not data.synthetic
    assert "message" in load_web_events(leaks=True).frame


def test_without_web_events_labelled_ones_stand_in(offline, monkeypatch):
    monkeypatch.setattr(events_module, "OCSF_LOGS", replace(OCSF_LOGS, cached="none.parquet"))
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
    data = load_web_events(leaks=True)
    assert len(data.frame) == 27_084
    assert data.labels["attack"].value_counts().to_dict() == {
        "cache_miss_storm": 73, "db_timeout": 73, "memory_leak": 66, "slow_query": 65,
    }  # fmt: skip
    first_parts = {name.partition(".")[0] for name in data.frame.columns}
    assert set(WEB_LEAKS) <= first_parts
    assert "anomaly" not in first_parts
    assert not [name for name in first_parts if name.startswith(("actor_", "src_endpoint_", "metadata_"))]
    assert (data.frame["type_uid"] == data.frame["class_uid"] * 100 + data.frame["activity_id"]).all()
    # why the leaks are left out: among requests, just the faulty ones have no resources
    requests = data.frame["actor.user.uid"].notna()
    no_resources = data.frame["resources.#"].isna()
    assert (no_resources[requests] == data.labels["attack"].notna()[requests]).all()
