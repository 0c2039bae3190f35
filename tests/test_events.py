"""EventDetector and its commands: learn, score, explain, are kept."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from companion.data.ocsf_synthetic import EventConfig, generate_events
from sklearn.metrics import roc_auc_score

from companion.compute import pick_compute
from companion.data.events import entities
from companion.detection.thresholds import ThresholdError
from companion.estimators.events import EventDetector
from companion.files import StateError, load_state, save_state
from companion.training import CheckpointError
from tests.test_cli import call

COMPUTE = pick_compute("cpu", "float32")
SMALL = {"d_model": 16, "num_blocks": 1, "fpr": 0.01}
COUNTRY = "src_endpoint.location.country"


@pytest.fixture(scope="module")
def past():
    return generate_events(EventConfig(num_events=4000, attack_share=0)).frame


@pytest.fixture(scope="module")
def later():
    return generate_events(EventConfig(num_events=2000, seed=1, start="2026-01-19", attack_share=0.1))


@pytest.fixture(scope="module")
def detector(past):
    return EventDetector(num_steps=60, **SMALL).fit(past, compute=COMPUTE)


def test_attacks_score_higher(detector, later):
    scores = detector.measure(later.frame)
    assert list(scores.columns) == ["surprise", "distance", "habit", "score", "flagged"]
    assert scores.index.equals(later.frame.index)
    assert np.isfinite(scores[["surprise", "distance", "habit", "score"]]).all(axis=None)
    attacked = later.labels["attack"].notna().to_numpy()
    assert roc_auc_score(attacked, detector.decision_function(later.frame)) > 0.55
    assert (detector.predict(later.frame) == (scores["score"] > detector.threshold_)).all()
    assert scores["flagged"][~attacked].mean() < 0.05
    assert len(detector.measure(later.frame.iloc[:0])) == 0


def test_what_was_held_out_is_later_and_was_not_learned(past, detector):
    assert detector.counts_ == {"learned": 3200, "stored": 3200, "held out": 800}
    assert set(detector._ids) <= set(past["metadata.uid"].iloc[:3200])
    assert (detector.measure(past)["score"].iloc[3200:] > detector.threshold_).mean() <= 0.01


def test_a_saved_detector_is_the_same(detector, later, tmp_path):
    detector.save(tmp_path / "model")
    again = EventDetector.load(tmp_path / "model", COMPUTE)
    pd.testing.assert_frame_equal(again.measure(later.frame), detector.measure(later.frame))
    assert again.threshold_ == detector.threshold_
    pd.testing.assert_frame_equal(*(one.explain(later.frame, [7, 100]) for one in (again, detector)))


@pytest.mark.parametrize("fault", ["missing", "text", "cut", "kind", "nan", "huge"])
def test_a_file_that_is_no_detector_is_refused_before_it_takes_memory(detector, tmp_path, fault):
    path = tmp_path / "model"
    detector.save(path)
    state = load_state(path, "EventDetector 3")
    if fault == "missing":
        path.unlink()
    elif fault == "text":
        path.write_text("{}")
    elif fault == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif fault == "kind":
        save_state(path, "EventDetector 1")
    elif fault == "nan":
        state["normal_scores"][0, 0] = torch.nan
    else:
        state["parameters"]["d_model"] = 10**7
    if fault in ("nan", "huge"):
        save_state(path, state.pop("kind"), **state)
    with pytest.raises(StateError, match="model"):
        EventDetector.load(path, COMPUTE)


def test_an_odd_value_and_one_against_habit_are_told(detector, past):
    names = entities(past).to_numpy(dtype=object)
    common = past[COUNTRY].value_counts().index[0]
    habits = past.groupby(names)[COUNTRY].agg(lambda column: set(column.dropna()))
    who = next(name for name in habits.index if habits[name] and common not in habits[name])
    event = past[(names == who) & past[COUNTRY].notna()].iloc[[0]]
    odd = event.assign(**{COUNTRY: common, "severity_id": 99})
    usual, strange = (
        detector.explain(one, [0], fields=50).drop_duplicates("field").set_index("field")
        for one in (event, odd)
    )
    assert not usual.loc[usual.index == COUNTRY, "times_rarer"].gt(5).any()
    assert strange.loc[COUNTRY, "value"] == common
    assert strange.loc[COUNTRY, "times_rarer"] > 5
    assert strange.index.str.startswith("severity").any()
    assert strange["expected"].str.contains("%").any()
    assert not (strange["expected"].str.partition(" (")[0] == strange["value"]).any()
    assert detector.measure(odd)["habit"].item() > detector.measure(event)["habit"].item()


def test_other_columns_are_taken_and_lacking_ones_are_missing(detector, later):
    frame = later.frame.iloc[:500]
    plain = detector.measure(frame)
    pd.testing.assert_frame_equal(detector.measure(frame.assign(new=1)[frame.columns[::-1]]), plain)
    lacking = detector.measure(frame.drop(columns=["class_uid", "severity_id", "duration", "metadata.uid"]))
    assert np.isfinite(lacking[["surprise", "score"]]).all(axis=None)


def test_fields_are_left_out_with_their_objects_and_by_pattern_and_samples_are_bounded(past):
    detector = EventDetector(
        num_steps=1, max_events=500, leave_out=("actor", "*_endpoint.*", "severity"), **SMALL | {"fpr": 0.05}
    ).fit(past[:1000], compute=COMPUTE)
    fields = set(detector.features_.fields)
    assert not [name for name in fields if name.startswith("actor.") or "_endpoint." in name]
    assert "severity" not in fields
    assert "severity_id" in fields
    assert detector.counts_["learned"] + detector.counts_["held out"] == 500


@pytest.mark.parametrize(
    ("settings", "rows", "message"),
    [
        ({"fpr": 1.5}, 4000, "fpr"),
        ({"held_out": 0.0}, 4000, "held_out"),
        ({}, 10, "too few events to learn from: 10"),
        ({"fpr": 0.0001}, 4000, "at least 9999 normals, here are 800"),
        ({"columns": ("who",)}, 4000, "name an entity"),
    ],
)
def test_mistakes_are_named_before_the_training(past, settings, rows, message):
    with pytest.raises((ValueError, ThresholdError), match=message):
        EventDetector(**SMALL | {"num_steps": 10**9} | settings).fit(past[:rows])


def test_nothing_is_scored_before_learning(past):
    with pytest.raises(ValueError, match="fit the detector"):
        EventDetector().measure(past)


def test_a_stopped_training_goes_on(past, tmp_path):
    settings, path = SMALL | {"num_steps": 6, "fpr": 0.05}, tmp_path / "checkpoint"
    whole = EventDetector(**settings).fit(past[:1000], compute=COMPUTE, checkpoint=path)
    again = EventDetector(**settings).fit(past[:1000], compute=COMPUTE, checkpoint=path)
    pd.testing.assert_frame_equal(again.measure(past[:50]), whole.measure(past[:50]))
    with pytest.raises(CheckpointError):
        EventDetector(**settings).fit(past[:900], compute=COMPUTE, checkpoint=path)


# ---------------------------------------------------------------- the commands


def test_files_are_learned_and_scored_and_what_was_left_out_is_told(past, later, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    past[:800].to_parquet("past.parquet")
    fitted = call(
        "fit", "events", "past.parquet", "--out", "model", "--steps", "2", "--fpr", "0.02",
        "--leave-out", "user", "--device", "cpu",
    )  # fmt: skip
    assert fitted.exit_code == 0, fitted.output
    assert "read 800 events" in fitted.output
    assert "learned from 640 events" in fitted.output
    lines = [
        json.dumps({"time": int(time), "user": {"uid": "=x"}}) for time in later.frame["time"][:20][::-1]
    ]
    (tmp_path / "new.jsonl").write_text("\n".join([*lines, "nonsense"]))
    scored = call(
        "score", "events", "new.jsonl", "--model", "model", "--out", "s.csv", "--top", "1", "--device", "cpu"
    )
    assert scored.exit_code == 0, scored.output
    assert "1 lines hold no event" in scored.output
    assert "line 21: not JSON" in scored.output
    assert "expected" in scored.output
    table = pd.read_csv("s.csv")
    assert list(table.columns) == [
        "row", "id", "time", "entity", "surprise", "distance", "habit", "score", "flagged"
    ]  # fmt: skip
    assert table["row"].tolist() == list(range(20))[::-1]
    assert set(table["entity"]) == {"'=x"}, "a spreadsheet would run it"
    assert table["time"].is_monotonic_increasing


def test_a_folder_in_the_place_of_a_file_is_refused_before_the_training(past, tmp_path):
    past[:100].to_parquet(tmp_path / "past.parquet")
    result = call("fit", "events", str(tmp_path / "past.parquet"), "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "Traceback" not in result.output
