"""Events from files: read, flat, typed, in the order of time; whatever is wrong with them is told."""

import datetime as dt
import decimal
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from companion.data import event_files
from companion.data.download import DataError
from companion.data.event_files import read_batches, read_events
from companion.data.events import split_by_time

NOON = 1_728_049_742_000
EVENTS = [
    {"time": NOON + 1000, "user": {"uid": "ann"}, "tags": ["a", "b", "c"], "size": 1, "ok": True},
    {"time": NOON, "user": {"uid": "bob"}, "tags": [], "size": 2.5, "mixed": 1, "none": None},
    {"time": NOON + 2000, "mixed": "x", "deep": [{"a": 1}, {"a": 2}]},
]


def write(path: Path, events: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf8")
    return path


def test_events_become_typed_columns_in_the_order_of_time(tmp_path):
    frame, report = read_events(write(tmp_path / "e.jsonl", EVENTS))
    assert frame.index.tolist() == [1, 0, 2]  # rows of the file
    assert frame["user.uid"].tolist()[:2] == ["bob", "ann"]
    assert frame["tags.#"].tolist()[:2] == [0, 3]
    assert not {"tags.2", "none"} & set(frame)
    types = frame[["time", "size", "ok", "mixed", "deep.1.a"]].dtypes.astype(str).tolist()
    assert types == ["Int64", "float64", "boolean", "str", "Int64"]
    assert frame["mixed"].tolist()[::2] == ["1", "x"]
    assert report.lines() == ["read 3 events", "times were given as milliseconds (3)"]


def test_every_value_has_its_place_however_odd_its_name(tmp_path):
    odd = {
        "a b/c~d": 1, "A": 2, "a": 3, "it's": True, '"': 0.5, "größe": "ü", "e": {},
        "n": {"x": None, "y": [[7]]},
    }  # fmt: skip
    large = {"a": 2**63, "n": {"y": "text"}, "size": 1e309, "e": {"z": -(2**62)}, "A": {"b": 1}, "p.q": 1}
    events = [{"time": NOON, **odd}, {"time": NOON + 1, **large}, {"time": NOON + 2, "p": {"q": 2}}]
    frame, _ = read_events(write(tmp_path / "e.jsonl", events))
    first, second, third = (frame.iloc[i].dropna().to_dict() for i in range(3))
    assert first == {
        "time": NOON, "a b/c~d": 1, "A": 2, "a": "3", "it's": True, '"': 0.5, "größe": "ü",
        "n.y.#": 1, "n.y.0.#": 1, "n.y.0.0": 7,
    }  # fmt: skip
    assert second == {"time": NOON + 1, "a": str(2**63), "n.y": "text", "e.z": -(2**62), "A.b": 1, "p.q": 1}
    assert third == {"time": NOON + 2, "p.q": 2}


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "text", "iso", "compact", "zone", "mixed"])
def test_times_of_every_unit_are_read_value_by_value(tmp_path, unit):
    seconds = NOON // 1000 + 60 * np.arange(4)
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    moments = pd.to_datetime(seconds, unit="s", utc=True)
    iso = moments.strftime("%Y-%m-%dT%H:%M:%SZ").tolist()
    values = {
        "text": [str(value) for value in seconds],
        "iso": iso,
        "compact": moments.strftime("%Y%m%dT%H%M%SZ").tolist(),
        "zone": moments.tz_convert("+02:00").strftime("%Y-%m-%dT%H:%M:%S+02:00").tolist(),
        "mixed": [int(seconds[0]), str(seconds[1] * 1000), iso[2], int(seconds[3]) * 10**9],
    }.get(unit, (seconds * scale.get(unit, 1)).tolist())
    events = [{"time": value} for value in (*values, "soon", None, 1e999)]
    frame, report = read_events(write(tmp_path / "e.jsonl", events))
    assert frame["time"].tolist() == (seconds * 1000).tolist()
    assert report.untimed == 3


def test_units_in_a_file_are_said_and_mean_what_they_mean(tmp_path):
    events = [{"time": NOON // 1000 + 60 * i, "user": {"uid": "u"}} for i in range(4)]
    frame, report = read_events(write(tmp_path / "s.jsonl", [*events, {"time": "2024-10-04T13:53:02Z"}]))
    assert pd.Timestamp(frame["time"].iloc[0], unit="ms").year == 2024
    assert frame["time"].diff()[1:4].tolist() == [60_000] * 3
    assert report.lines()[-1] == "times were given as ISO 8601 text (1), seconds (4)"


def test_bad_lines_and_events_without_a_time_are_told(tmp_path):
    lines = [
        '{"time": 1728049742}',
        "nonsense",
        "[1]",
        "",
        '{"a": "\\ud800"}',
        '{"time": null}',
        '{"time": Na',
    ]
    path = tmp_path / "e.jsonl"
    path.write_bytes("\n".join(lines).encode() + b'\n{"a": "\xff"}\n{"time": NaN, "b": 1}\n')
    frame, report = read_events(path)
    assert len(frame) == report.events == 1
    assert (report.bad, report.untimed) == (5, 2)
    told = "\n".join(report.lines())
    for said in ("line 2: no JSON", "line 3: no JSON object: [1]", "line 5: no JSON",
                 "line 7: no JSON", "line 8: no JSON", "2 events without a time"):  # fmt: skip
        assert said in told
    path.write_text('{"time": 1728049742}\n' + "x\n" * 40)
    assert "  and 30 more" in read_events(path)[1].lines()


@pytest.mark.parametrize("form", ["jsonl", "array", "objects", "parquet"])
@pytest.mark.parametrize("packed", ["none", "gzip", "zstd"])
def test_all_forms_are_told_apart_by_their_content(tmp_path, form, packed):
    events = [EVENTS[0] | {"size": 1.5}, EVENTS[1] | {"mixed": None}]
    content = {
        "jsonl": "\ufeff" + "".join(json.dumps(event) + "\n" for event in events),
        "array": json.dumps(events),
        "objects": "\n".join(json.dumps(event, indent=1) for event in events),
    }.get(form, "").encode()
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(events), tmp_path / "e", compression=packed)
    else:
        packs = {"gzip": gzip.compress, "zstd": lambda c: pa.compress(c, "zstd", asbytes=True)}
        (tmp_path / "e").write_bytes(packs.get(packed, bytes)(content))
    frame, report = read_events(tmp_path / "e")
    expected, _ = read_events(write(tmp_path / "plain.jsonl", events))
    pd.testing.assert_frame_equal(frame[expected.columns], expected)
    assert report.events == 2


def test_folders_and_globs_are_merged_by_name(tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "b.jsonl", [{"time": NOON + 1, "x": 1, "y": 1.5}])
    pq.write_table(pa.table({"time": [NOON], "x": ["text"], "z": [True]}), tmp_path / "a.parquet")
    (tmp_path / "read.me").write_text("no events")
    whole, report = read_events(tmp_path)
    assert whole["x"].tolist() == ["text", "1"]
    assert whole["z"].tolist() == [True, pd.NA]
    assert (report.events, report.ignored) == (2, 1)
    assert "1 other files are left out" in report.lines()[0]
    pd.testing.assert_frame_equal(read_events([tmp_path / "a.parquet", f"{tmp_path}/in/*.jsonl"])[0], whole)


def test_batches_are_the_whole_in_the_order_of_time(tmp_path):
    rng = np.random.default_rng(0)
    events = [{"time": int(t), "n": i, "last": None} for i, t in enumerate(rng.integers(NOON, NOON + 50, 95))]
    events[90]["last"] = "x"  # a column that only one batch has
    whole, _ = read_events(write(tmp_path / "e.jsonl", events))
    batches, report = read_batches(tmp_path / "e.jsonl", 10)
    parts = list(batches)
    assert [len(part) for part in parts] == [10] * 9 + [5]
    pd.testing.assert_frame_equal(pd.concat(parts), whole)
    assert whole.index.tolist() == sorted(range(95), key=lambda i: (events[i]["time"], i))
    assert report.events == 95


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no event"),
        (b"[1, 2]", "holds no event"),
        (b"PK\x03\x04\0\0", "neither JSON"),
        (b"PAR1 and no more", "cannot be read"),
        (b"nonsense\n", "line 1: no JSON"),
        (b'{"a": 1}', "no field 'time'"),
        (b'{"time": "soon"}', "no event has a time"),
        (gzip.compress(b'{"time": 1}\n' * 5000)[:-9], "cut off|cannot be read"),
        (b'{"time": 1, "a": "' + b"x" * 2**25 + b'"}', "maximum_object_size"),
        (b'{"time": 1, "a": ' + b'{"a":' * 3000 + b"1" + b"}" * 3001, "nested too deeply"),
        (b'{"time": 1, "u1": 1, "u2": 1, "u3": 1}', "more than 3 different fields"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(event_files, "MAX_COLUMNS", 3)
    (tmp_path / "e").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_events(tmp_path / "e")


def test_what_is_not_there_is_refused(tmp_path):
    for nothing in (tmp_path / "none", tmp_path, f"{tmp_path}/*.json"):
        with pytest.raises(DataError, match="no file of events"):
            read_events(nothing)


def test_other_types_of_parquet_become_the_four_kinds(tmp_path):
    moment = dt.datetime(2024, 10, 4, 13, 49, 2, tzinfo=dt.UTC)
    columns = {
        "time": pa.array([moment], pa.timestamp("us", "UTC")), "price": [decimal.Decimal("1.5")],
        "raw": [b"\x01\xff"], "day": [dt.date(2024, 1, 1)],
        "map": pa.array([[(dt.date(2024, 1, 1), 1)]], pa.map_(pa.date32(), pa.int64())),
        "name": pa.array(["x"]).dictionary_encode(), "small": pa.array([3], pa.uint8()),
        "odd name's": [[{"a": float("inf"), "b": 1.0}]],
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "e.parquet")
    frame, _ = read_events(tmp_path / "e.parquet")
    assert frame.iloc[0].dropna().to_dict() == {
        "time": NOON, "price": 1.5, "raw": "01ff", "day": "2024-01-01", "map.2024-01-01": 1, "name": "x",
        "small": 3, "odd name's.#": 1, "odd name's.0.b": 1.0,
    }  # fmt: skip


def test_text_that_is_json_is_taken_apart_where_asked(tmp_path):
    event = {"time": NOON, "a": '{"b": 1}', "c": '{"b": 1}', "d": "no {", "l": '[{"q": 2}]'}
    path = write(tmp_path / "e.jsonl", [event])
    frame, _ = read_events(path, json_columns=("a", "d", "e", "l"))
    wanted = {"time": NOON, "a.b": 1, "c": '{"b": 1}', "d": "no {", "l.#": 1, "l.0.q": 2}
    assert frame.iloc[0].to_dict() == wanted
    pq.write_table(pa.Table.from_pylist([event]), tmp_path / "e.parquet")
    again = read_events(tmp_path / "e.parquet", json_columns=("a", "d", "l"))[0]
    assert again.iloc[0].to_dict() == wanted


def test_time_splits_learn_from_the_past_and_groups_stay_together():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"time": rng.integers(0, 500, 1000)})
    parts = split_by_time(frame, (0.6, 0.2, 0.2))
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1000))
    times = [frame["time"].iloc[part] for part in parts]
    assert times[0].max() < times[1].min() <= times[1].max() < times[2].min()
    groups = pd.Series(rng.integers(0, 50, 1000))
    parts = split_by_time(frame, (0.6, 0.2, 0.2), groups=groups)
    assert not set(groups[parts[0]]) & set(groups[parts[2]])


def test_the_numbers_of_rows_that_pandas_writes_are_no_field(tmp_path):
    frame = pd.DataFrame({"time": [1_700_000_000_000, 1_700_000_001_000], "a": ["x", "y"]}, index=[7, 9])
    frame.to_parquet(tmp_path / "events.parquet")
    assert read_events(tmp_path / "events.parquet")[0].columns.tolist() == ["time", "a"]
