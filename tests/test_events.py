"""EventDetector: learns, scores, explains, is kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from companion.compute import pick_compute
from companion.data.events import entities
from companion.data.ocsf_synthetic import EventConfig, generate_events
from companion.data.sources import DataError
from companion.detection.thresholds import ThresholdError
from companion.estimators.event_report import TIME, rounded
from companion.estimators.events import EventDetector
from companion.objectives.encoding import EncoderError
from companion.training import CheckpointError

COMPUTE = pick_compute("cpu", "float32")
SMALL = {"d_model": 16, "num_blocks": 1, "batch_size": 64, "lr": 3e-3, "max_stored": 500, "fpr": 0.01}


@pytest.fixture(scope="module")
def past():
    return generate_events(EventConfig(num_events=4000, attack_share=0)).frame


@pytest.fixture(scope="module")
def later():
    return generate_events(EventConfig(num_events=2000, seed=1, start="2026-01-19", attack_share=0.1))


@pytest.fixture(scope="module")
def detector(past):
    return EventDetector(num_steps=200, **SMALL).fit(past, compute=COMPUTE)


def test_attacks_score_higher(detector, later):
    scores = detector.score(later.frame)
    assert list(scores.columns) == ["surprise", "distance", "habit", "score", "flagged"]
    assert scores.index.equals(later.frame.index)
    assert np.isfinite(scores[["surprise", "distance", "habit", "score"]]).all(axis=None)
    attacked = later.labels["attack"].notna().to_numpy()
    point = (later.labels["shape"] == "point").to_numpy()
    assert roc_auc_score(attacked, scores["score"]) > 0.55
    assert roc_auc_score(attacked[point | ~attacked], scores["score"][point | ~attacked]) > 0.6
    assert scores["flagged"].equals(scores["score"] > detector.threshold_)
    assert scores["flagged"][~attacked].mean() < 0.05


def test_what_was_held_out_is_later_and_was_not_learned(past, detector):
    assert detector.counts_ == {
        "events": 4000, "learned": 3200, "stored": 500, "held out": 800, "late": 0, "without time": 0
    }  # fmt: skip
    last = past["metadata.uid"].iloc[:3200]
    assert set(detector._model.store.ids) <= set(last)
    normal = detector.score(past)["score"].iloc[3200:]
    assert (normal > detector.threshold_).mean() <= 0.01


def test_chunks_do_not_change_the_scores(detector, later):
    whole, clock, parts = detector.score(later.frame), detector.clock(), []
    for start in range(0, 2000, 777):
        frame, gaps = clock(later.frame.iloc[start : start + 777])
        parts.append(detector.score(frame, gaps))
    pd.testing.assert_frame_equal(pd.concat(parts), whole, rtol=1e-3, atol=1e-3)
    assert len(detector.score(later.frame.iloc[:0])) == 0


def test_chunks_do_not_change_what_is_learned(past):
    settings = SMALL | {"num_steps": 2, "max_events": 1000}
    whole = EventDetector(**settings).fit(past, compute=COMPUTE)
    pieces = (past.iloc[start : start + 1700] for start in range(0, 4000, 1700))
    other = EventDetector(**settings).fit(pieces, compute=COMPUTE)
    assert whole.counts_["learned"] == 800
    pd.testing.assert_frame_equal(whole.score(past[:50]), other.score(past[:50]))
    gaps = EventDetector(**settings).clock()(past)[1]
    median = whole.drift_.edges(0)[4]  # of the gaps that were learned, which are those among all events
    assert median == pytest.approx(np.nanmedian(gaps[:3200]), rel=0.3)


def test_a_saved_detector_is_the_same(detector, later, tmp_path):
    detector.save(tmp_path / "model")
    again = EventDetector.load(tmp_path / "model", COMPUTE)
    pd.testing.assert_frame_equal(again.score(later.frame), detector.score(later.frame))
    assert again.threshold_ == detector.threshold_
    assert again.counts_ == detector.counts_
    assert again.kinds_ == detector.kinds_
    few = later.frame.iloc[100:105]
    assert again.explain(few) == detector.explain(few)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize("content", ["missing", "text", "cut", "other", "version"])
def test_a_file_that_is_no_detector_is_named(detector, tmp_path, content):
    path = tmp_path / "model"
    detector.save(path)
    if content == "missing":
        path.unlink()
    elif content == "text":
        path.write_text("{}")
    elif content == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif content == "other":
        save_file({"a": torch.zeros(1)}, path)
    else:
        save_file({"a": torch.zeros(1)}, path, metadata={"kind": "EventDetector 1", "about": "{}"})
    with pytest.raises(CheckpointError, match="model"):
        EventDetector.load(path, COMPUTE)


def test_a_value_against_habit_is_told(detector, past):
    names = entities(past).to_numpy(dtype=object)
    common = past["src_endpoint.location.country"].value_counts().index
    habits = past.groupby(names)["src_endpoint.location.country"].agg(lambda column: set(column.dropna()))
    who = next(name for name in habits.index if habits[name] and common[0] not in habits[name])
    event = past[(names == who) & past["src_endpoint.location.country"].notna()].iloc[[0]]
    elsewhere = event.assign(**{"src_endpoint.location.country": common[0]})
    country = "src_endpoint.location.country"
    usual, strange = (detector.explain(frame)[0].breaches for frame in (event, elsewhere))
    assert country not in {b.field for b in usual}
    (told,) = [b for b in strange if b.field == country]
    assert told.value == common[0]
    assert told.times >= 5
    assert any("times rarer for this entity" in line for line in detector.explain(elsewhere)[0].lines())
    habit = [detector.score(frame)["habit"].item() for frame in (event, elsewhere)]
    assert habit[1] > habit[0]


def test_an_event_is_explained_in_its_own_terms(detector, past):
    frame = past.iloc[3500:3501].copy()
    upload = past.index[(past["traffic.bytes_out"] > 0).fillna(False).to_numpy()][-1]
    odd = past.loc[[upload]].copy()
    odd["traffic.bytes_out"] = 10**12
    odd["device.os.name"] = "Plan 9"
    (told,) = detector.explain(odd, reasons=8, neighbours=3)
    reasons = {reason.field: reason for reason in told.reasons}
    assert told.row == upload
    assert reasons["traffic.bytes_out"].value == "1,000,000,000,000"
    assert reasons["device.os.name"].value == "Plan 9 (rare or new)"
    assert "%" in reasons["device.os.name"].expected
    excess = [reason.excess for reason in told.reasons]
    assert excess == sorted(excess, reverse=True)
    assert len(told.reasons) <= 8
    assert len(told.neighbours) == 3
    assert {near.id for near in told.neighbours} <= set(past["metadata.uid"])
    assert all({"device.os.name", "traffic.bytes_out"} <= set(near.differs) for near in told.neighbours)
    text = "\n".join(told.lines())
    assert "device.os.name = Plan 9" in text
    assert told.neighbours[0].id in text
    assert detector.explain(frame.iloc[:0]) == []


def test_an_event_is_not_its_own_neighbour_and_hidden_fields_are_told(detector, past):
    stored = past[past["metadata.uid"].isin(detector._model.store.ids[:4])]
    for told, uid in zip(detector.explain(stored, reasons=60), stored["metadata.uid"], strict=True):
        assert uid not in {near.id for near in told.neighbours}
        assert len(told.neighbours) == 2
        for reason in told.reasons:
            assert reason.value
            assert reason.expected
            assert reason.field != "time"
    assert TIME in {r.field for told in detector.explain(past[:10], reasons=60) for r in told.reasons}


def test_drift_is_reported_where_it_was_put(detector, later):
    normal = later.frame[later.labels["attack"].isna().to_numpy()]
    tracker = detector.tracker()
    detector.score(normal, drift=tracker)
    before = {field.field for field in tracker.report() if field.drifted}
    assert before <= {"metadata.product.version"}  # the mix of products did change
    changed = normal.assign(**{"severity_id": 4, "duration": normal["duration"] * 5})
    changed = changed.drop(columns="device.os.name")
    tracker = detector.tracker()
    detector.score(changed, drift=tracker)
    drifted = {field.field for field in tracker.report() if field.drifted}
    assert drifted - before == {"severity_id", "duration", "device.os.name"}


def test_other_columns_and_orders_are_taken(detector, later):
    frame = later.frame.iloc[:500]
    plain = detector.score(frame)
    pd.testing.assert_frame_equal(detector.score(frame.assign(new=1)[frame.columns[::-1]]), plain)
    lacking = detector.score(frame.drop(columns=["class_uid", "severity_id", "duration", "metadata.uid"]))
    assert np.isfinite(lacking[["surprise", "score"]]).all(axis=None)
    mixed = detector.score(frame.sample(frac=1, random_state=0))
    np.testing.assert_allclose(mixed["distance"].sort_index(), plain["distance"], atol=0.5)
    frame = frame.assign(time=frame["time"].where(frame.index % 7 != 0))
    assert detector.score(frame)["score"].notna().all()


def test_fields_are_left_out_with_their_objects_and_by_pattern(past):
    settings = SMALL | {"num_steps": 1, "leave_out": ("actor", "*_endpoint.*", "severity")}
    fields = EventDetector(**settings).fit(past[:1000], compute=COMPUTE).drift_.fields
    assert not [name for name in fields if name.startswith("actor.") or "_endpoint." in name]
    assert "severity" not in fields
    assert "severity_id" in fields


def test_mistakes_are_named_before_the_training(past):
    fit = lambda frame, **settings: EventDetector(**SMALL | {"num_steps": 10**9} | settings).fit(frame)  # noqa: E731
    for settings, message in [
        ({"fpr": 1.5}, "fpr"),
        ({"held_out": 0.0}, "held_out"),
        ({"passes": 0}, "passes"),
        ({"clip": -1.0}, "clip"),
        ({"max_events": 0}, "sample"),
    ]:
        with pytest.raises(ValueError, match=message):
            fit(past, **settings)
    with pytest.raises(ValueError, match="too few events to learn from: 10"):
        fit(past[:10])
    with pytest.raises(ThresholdError, match="at least 9999 normals, here are 800"):
        fit(past, fpr=0.0001)
    with pytest.raises(EncoderError, match="no field 'time'"):
        fit(past.drop(columns="time"))
    with pytest.raises(DataError, match="name an entity"):
        fit(past, columns=("who",))
    for use in (
        lambda d: d.score(past),
        lambda d: d.explain(past),
        lambda d: d.tracker(),
        lambda d: d.save("x"),
    ):
        with pytest.raises(ValueError, match="fit the detector"):
            use(EventDetector())


def test_a_stopped_training_goes_on(past, tmp_path):
    settings = SMALL | {"num_steps": 6}
    whole = EventDetector(**settings).fit(past[:1000], compute=COMPUTE)
    path = tmp_path / "checkpoint"
    EventDetector(**settings).fit(past[:1000], compute=COMPUTE, checkpoint=path)
    again = EventDetector(**settings).fit(past[:1000], compute=COMPUTE, checkpoint=path)
    pd.testing.assert_frame_equal(again.score(past[:50]), whole.score(past[:50]))
    with pytest.raises(CheckpointError, match=r"another (config|data|model)"):
        EventDetector(**settings).fit(past[:900], compute=COMPUTE, checkpoint=path)


def test_numbers_are_rounded_for_people():
    assert [rounded(value) for value in (-5.0, 0.5, 12345.678, 1e20, 99.999)] == [
        "-5", "0.5", "12,346", "100,000,000,000,000,000,000", "100"
    ]  # fmt: skip
