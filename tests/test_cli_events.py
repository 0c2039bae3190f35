"""``companion generate events``, ``companion fit events`` and ``companion score events``."""

from __future__ import annotations

import gzip
import json

import pandas as pd
import pytest

from companion import cli_events, cli_events_output
from companion.compute import pick_compute
from companion.data.ocsf import read_events
from companion.estimators.events import EventDetector
from tests.test_cli import call

FAST = ("--steps", "2", "--fpr", "0.02", "--device", "cpu", "--chunk-rows", "300")


def good(*arguments):
    result = call(*map(str, arguments))
    assert result.exit_code == 0, result.output
    return result.output


def bad(*arguments):
    result = call(*map(str, arguments))
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("events")
    for name in ("past.parquet", "past.jsonl.gz"):
        good("generate", "events", folder / name, "--labels", folder / "labels.parquet", "--events", 800)
    told = good("fit", "events", folder / "past.parquet", "--out", folder / "model", *FAST)
    assert "learned from 640 events" in told
    assert "held out 160 later ones" in told
    assert "false-positive rate of 0.02" in told
    assert not list(folder.glob(".*"))
    return folder


def test_scores_are_those_of_the_detector_in_any_chunks_and_formats(here, tmp_path):
    path, model = here / "past.parquet", here / "model"
    told = good(
        "score", "events", path, "--model", model, "--out", tmp_path / "a.parquet", "--chunk-rows", 333
    )
    assert "800 events scored" in told
    scores = pd.read_parquet(tmp_path / "a.parquet")
    good("score", "events", here / "past.jsonl.gz", "--model", model, "--out", tmp_path / "b.csv")
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "b.csv", dtype={"id": "str", "entity": "str"}), scores, rtol=1e-2, atol=0.02
    )
    columns = ["row", "id", "time", "entity", "surprise", "distance", "habit", "score", "flagged"]
    assert list(scores.columns) == columns
    assert scores["row"].tolist() == list(range(800))
    (frame,) = read_events(path)
    assert scores["id"].tolist() == frame["metadata.uid"].tolist()
    expected = EventDetector.load(model, pick_compute()).score(frame)
    pd.testing.assert_frame_equal(scores[expected.columns], expected, rtol=1e-2, atol=0.02)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "b.csv"]


def test_the_worst_are_printed_with_reasons_and_drift_is_written(here, tmp_path):
    out, report = tmp_path / "scores.csv", tmp_path / "drift.csv"
    told = good(
        "score", "events", here / "past.parquet", "--model", here / "model", "--out", out,
        "--top", 3, "--explain", "--report", report, "--chunk-rows", 111,
    )  # fmt: skip
    scores = pd.read_csv(out)
    worst = scores.sort_values("score", ascending=False, kind="stable").iloc[:3]
    assert [told.index(f"event {uid},") for uid in worst["id"]] == sorted(
        told.index(f"event {uid},") for uid in worst["id"]
    )
    assert "4. event" not in told
    assert told.count("expected ") >= 3
    assert told.count("near event") == 6
    assert "have drifted since" in told or "no field has drifted" in told
    drift = pd.read_csv(report)
    assert {"field", "drifted", "shift", "limit", "missing_now"} <= set(drift.columns)
    assert len(drift) == len(EventDetector.load(here / "model").drift_.fields)
    plain = good(
        "score", "events", here / "past.parquet", "--model", here / "model", "--out", out, "--top", 1
    )
    assert "1. event" in plain
    assert "expected" not in plain


def test_bad_lines_other_fields_and_wrong_orders_are_survived(here, tmp_path):
    with gzip.open(here / "past.jsonl.gz", "rt") as lines:
        events = [json.loads(line) for line in lines]
    events = events[400:] + events[:400]  # out of order
    for event in events:
        event["color"] = {"name": "green"}  # unknown
        event.pop("severity_id", None)  # missing
    del events[7]["time"]
    events[9]["duration"] = "long"
    path = tmp_path / "events.jsonl"
    lines = [json.dumps(event) for event in events]
    path.write_text("\n".join([*lines[:100], "{broken", "[1]", "", *lines[100:], lines[0][:50]]))
    out = tmp_path / "scores.parquet"
    told = good("score", "events", path, "--model", here / "model", "--out", out, "--chunk-rows", 333)
    assert "read 800 events; 3 bad lines" in told
    assert "line 101: not JSON" in told
    assert "line 804: not JSON" in told
    assert "come after later ones of the same entity" in told
    assert "1 events have no time" in told
    assert "severity_id" in told
    scores = pd.read_parquet(out)
    assert len(scores) == 800
    assert scores["score"].notna().all()
    good("fit", "events", path, "--out", tmp_path / "model", "--leave-out", "color,http*", *FAST)
    fields = EventDetector.load(tmp_path / "model").drift_.fields
    assert not [name for name in fields if name.startswith(("color", "http"))]


def test_json_text_is_taken_apart(tmp_path):
    rows = [
        {
            "time": 1000 * i,
            "actor": json.dumps({"user": {"uid": f"u{i % 3}"}}),
            "size": i % 7,
            "kind": f"k{i % 5}",
        }
        for i in range(300)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "events.parquet")
    arguments = ("fit", "events", tmp_path / "events.parquet", "--out", tmp_path / "model", *FAST)
    assert "say which name an entity" in bad(*arguments)
    good(*arguments, "--json-column", "actor")
    scored = ("score", "events", tmp_path / "events.parquet", "--model", tmp_path / "model", "--out")
    good(*scored, tmp_path / "scores.csv")  # the model remembers what is JSON
    assert pd.read_csv(tmp_path / "scores.csv")["entity"].tolist() == [f"u{i % 3}" for i in range(300)]
    good(*arguments, "--entity", "nobody,kind")
    out = tmp_path / "scores.csv"
    good("score", "events", tmp_path / "events.parquet", "--model", tmp_path / "model", "--out", out)
    assert pd.read_csv(out)["entity"].tolist() == [f"k{i % 5}" for i in range(300)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "{empty}", "--out", "{out}"), "is empty"),
        (("fit", "{nothing}", "--out", "{out}"), "there is no file"),
        (("fit", "{past}", "--out", "{folder}"), "is a folder"),
        (("fit", "{past}", "--out", "{empty}/model"), "exists"),
        (("fit", "{past}", "--out", "{out}", "--fpr", "0.0001"), "at least 9999 normals"),
        (("fit", "{past}", "--out", "{out}", "--fpr", "2"), "fpr"),
        (("fit", "{past}", "--out", "{out}", "--leave-out", "time"), "no field 'time'"),
        (("score", "{past}", "--model", "{nothing}", "--out", "{out}.csv"), "not a model"),
        (("score", "{past}", "--model", "{past}", "--out", "{out}.csv"), "not a model"),
        (("score", "{past}", "--model", "{model}", "--out", "{out}.txt"), "should end in"),
        (("score", "{empty}", "--model", "{model}", "--out", "{out}.csv"), "is empty"),
        (("score", "{past}", "--model", "{model}", "--out", "{empty}/s.csv"), "exists"),
        (("score", "{odd}", "--model", "{model}", "--out", "{out}.csv"), "time that can be read"),
    ],
)
def test_mistakes_end_with_one_message_and_leave_nothing(here, tmp_path, arguments, message):
    (tmp_path / "empty").write_text("")
    (tmp_path / "odd").write_text('{"a": 1}\n')
    places = {name: tmp_path / name for name in ("empty", "nothing", "odd", "out")}
    places |= {"folder": tmp_path, "past": here / "past.parquet", "model": here / "model"}
    command, *rest = (argument.format(**places) for argument in arguments)
    assert message in bad(command, "events", *rest)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "odd"]


def test_a_scoring_that_breaks_leaves_the_old_file(here, tmp_path, monkeypatch):
    out = tmp_path / "scores.csv"
    out.write_text("old")
    original, calls = EventDetector.score, []

    def breaking(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("the disk is full")
        return original(self, *arguments, **options)

    monkeypatch.setattr(EventDetector, "score", breaking)
    arguments = ("score", "events", here / "past.parquet", "--model", here / "model", "--chunk-rows", 100)
    assert "the disk is full" in bad(*arguments, "--out", out)
    calls.clear()
    assert "the disk is full" in bad(*arguments, "--out", tmp_path / "scores.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]
    assert out.read_text() == "old"


def test_a_training_that_was_stopped_is_resumed(here, tmp_path, monkeypatch):
    arguments = ("fit", "events", here / "past.parquet", "--out", tmp_path / "model", *FAST)
    with monkeypatch.context() as patch:
        patch.setattr(EventDetector, "save", lambda self, path: 1 / 0)
        assert "division" in bad(*arguments)
    assert [path.name for path in tmp_path.iterdir()] == [".model.checkpoint"]
    good(*arguments, "--resume")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_long_lists_are_cut(capsys):
    from companion.data.ocsf import ReadReport

    report = ReadReport(events=5)
    for number in range(30):
        report.add_bad(number + 1, "no JSON")
    cli_events_output.tell_reading(report)
    told = capsys.readouterr().out
    assert "line 10: no JSON" in told
    assert "line 11:" not in told
    assert "and 20 more" in told
    assert cli_events.split_names(["a, b", "", "c"]) == ["a", "b", "c"]
