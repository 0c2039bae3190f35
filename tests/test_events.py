"""EventDetector and its commands: learn, choose, score, explain, are kept, and stand a few faults."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare

from companion.compute import pick_compute
from companion.data.events import entities
from companion.data.synthetic_events import EventConfig, generate_events
from companion.detection.alarms import alert_threshold, days, incidents
from companion.detection.choice import choose_detectors, inject
from companion.detection.metrics import pr_auc, roc_auc
from companion.detection.plain_columns import PlainColumns
from companion.detection.rates import with_rates
from companion.detection.simple import Drift
from companion.estimators.events import EventDetector
from companion.files import StateError, load_state, save_state
from tests.test_cli import bad, good

COMPUTE = pick_compute("cpu", "float32")


@pytest.fixture(scope="module")
def events():
    return generate_events(EventConfig(num_events=6000, attack_share=0.05))


@pytest.fixture(scope="module")
def past(events):
    return events.frame.iloc[np.sort(np.r_[events.split["train"], events.split["calibration"]])]


@pytest.fixture(scope="module")
def detector(past):
    return EventDetector(num_steps=60).fit(past, compute=COMPUTE)


@pytest.fixture(scope="module")
def later(events):
    return events.frame.iloc[events.split["test"]]


def requests(count: int, faults: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Requests of a service whose faults take seconds in place of milliseconds."""
    rng = np.random.default_rng(seed)
    path, fault = rng.integers(0, 5, count), np.zeros(count, dtype=bool)
    fault[rng.permutation(count)[:faults]] = True
    frame = pd.DataFrame({"time": np.sort(rng.integers(0, 7_200_000, count)), "type_uid": 600301})
    frame["user.uid"] = rng.choice(["ann", "bob", "eve"], count)
    frame["http_request.url.path"] = np.array([f"/api/{c}" for c in "abcde"])[path]
    frame["duration"] = rng.lognormal(np.arange(5)[path], 0.3) * np.where(fault, 300, 1)
    return frame, fault


def test_attacks_score_higher_and_the_choice_is_kept(detector, events, later):
    scores = detector.measure(later)
    attacked = events.labels["attack"].iloc[events.split["test"]].notna().to_numpy()
    assert roc_auc(attacked, detector.decision_function(later)) > 0.6  # those of order are out of its reach
    assert list(scores.columns) == [*detector.chosen_, "score", "flagged"]
    assert scores.index.equals(later.index)
    assert (detector.predict(later) == (scores["score"] > detector.threshold_)).all()
    assert detector.choice_["chosen"].notna().sum() == len(detector.chosen_) >= 3
    assert set(detector.choice_.index) > {"rate", "isolation forest", "surprise"}


@pytest.mark.parametrize("share", [0, 0.01, 0.05])
def test_a_few_faults_in_training_do_no_harm(share):
    frame, _ = requests(3000, round(3000 * share))
    new, fault = requests(1000, 20, seed=1)
    scores = EventDetector(net=False, columns=("http_request.url.path",)).fit(frame).decision_function(new)
    assert pr_auc(fault, scores) > 0.6


def test_the_threshold_gives_about_as_many_alerts_as_were_asked_for(past, later):
    detector = EventDetector(net=False, alerts=2).fit(past)
    flagged = later[detector.predict(later)]
    days = (later["time"].max() - later["time"].min()) / 86_400_000
    who = flagged["actor.user.uid"].fillna("").to_numpy(dtype=object)
    alerts = len(np.unique(incidents(flagged["time"].to_numpy(dtype=np.int64), who))) / days
    assert 0.5 < alerts < 10  # the test part has attacks, too


def test_rates_go_on_from_frame_to_frame(detector, later):
    parts = [later.iloc[:300], later.iloc[300:]]
    together = pd.concat([table for _, table in detector.stream(parts)])
    whole = detector.measure(later)
    np.testing.assert_allclose(together["score"], whole["score"], rtol=1e-5)
    mixed = later.sample(frac=1, random_state=0)
    np.testing.assert_allclose(detector.measure(mixed)["score"].loc[later.index], whole["score"], rtol=1e-5)


def test_frames_that_come_in_parts_are_learned_as_one(past):
    one, parts = (EventDetector(net=False, max_events=2000) for _ in range(2))
    one.fit(past)
    parts.fit(past.iloc[i : i + 700] for i in range(0, len(past), 700))
    assert one.counts_ == parts.counts_ | {"read": len(past)}
    assert one.counts_["learned"] + one.counts_["left out"] + one.counts_["held out"] == 2000
    assert one.threshold_ == pytest.approx(parts.threshold_, rel=0.2)


def test_the_sample_to_learn_from_is_fair_however_the_events_are_cut(past):
    cuts = [past], (past.iloc[i : i + 700] for i in range(0, len(past), 700))
    one, other = (EventDetector(max_events=1000)._gather(frames) for frames in cuts)
    assert one["time"].tolist() == other["time"].tolist()
    places = np.searchsorted(np.sort(past["time"]), one["time"]) * 10 // len(past)
    assert chisquare(np.bincount(places, minlength=10)).pvalue > 0.001


def test_reasons_name_what_is_odd_and_never_the_class(detector, later):
    event = later[later["class_uid"] == 1007].iloc[[0]]
    odd = event.assign(severity_id=99)
    told = detector.explain(odd, [0], count=20).set_index("field")
    assert told.loc["severity_id", ["value", "expected"]].tolist() == ["99", "1 (100 %)"]
    assert told["weight"].is_monotonic_decreasing
    assert not told.index.str.contains("^(?:class|type|activity|category)").any()
    assert (told["weight"] > 1).all()
    assert not (told["expected"].str.partition(" (")[0] == told["value"]).any()
    assert detector.decision_function(odd)[0] > detector.decision_function(event)[0]


def test_a_saved_detector_is_the_same(detector, later, tmp_path):
    detector.save(tmp_path / "model")
    again = EventDetector.load(tmp_path / "model", COMPUTE)
    pd.testing.assert_frame_equal(again.measure(later), detector.measure(later))
    pd.testing.assert_frame_equal(again.choice_, detector.choice_)
    pd.testing.assert_frame_equal(*(one.explain(later, [7, 100]) for one in (again, detector)))


def test_a_file_that_is_no_detector_is_refused(detector, tmp_path):
    path = tmp_path / "model"
    detector.save(path)
    state, whole = load_state(path, "EventDetector 8"), path.read_bytes()
    state["simple"].pop("columns")
    for spoil in (
        lambda: path.write_bytes(whole[:-100]),
        lambda: path.write_text("{}"),
        lambda: save_state(path, "EventDetector 1"),
        lambda: save_state(path, **state),
        path.unlink,
    ):
        spoil()
        with pytest.raises(StateError, match="model"):
            EventDetector.load(path, COMPUTE)


def test_other_columns_are_taken_and_lacking_ones_are_missing(detector, later):
    plain = detector.measure(later)
    pd.testing.assert_frame_equal(detector.measure(later.assign(new=1)[later.columns[::-1]]), plain)
    lacking = detector.measure(later.drop(columns=["class_uid", "severity_id", "metadata.uid"]))
    assert np.isfinite(lacking["score"]).all()
    assert len(detector.measure(later.iloc[:0])) == 0


@pytest.mark.parametrize(
    ("settings", "rows", "message"),
    [
        ({"trim": 0.6}, 4000, "trim"),
        ({"alerts": 0}, 4000, "alerts"),
        ({}, 10, "too few events to learn from: 10"),
        ({"columns": ("who",)}, 4000, "name an entity"),
    ],
)
def test_mistakes_are_named_before_the_training(past, settings, rows, message):
    with pytest.raises(ValueError, match=message):
        EventDetector(**settings).fit(past[:rows])
    with pytest.raises(ValueError, match="fit the detector"):
        EventDetector().measure(past)


def test_injected_changes_leave_class_entity_and_copies_alone_and_bursts_are_fast(past):
    frame = with_rates(past)
    columns = PlainColumns().fit(frame)
    changed, changes = inject(frame[-1000:], columns)
    assert set(changes) == {"other's values", "rare values", "new values", "number", "burst"}
    assert list(changed.columns) == list(frame.columns)
    assert set(changed["type_uid"]) <= set(frame["type_uid"])
    assert set(changed["actor.user.uid"].dropna()) <= set(frame["actor.user.uid"].dropna())
    assert (changed["events in 60 s"][changes == "burst"] >= 60).all()


def test_a_detector_that_drowns_the_others_is_left_out():
    rng = np.random.default_rng(0)
    held = {"good": rng.normal(size=2000), "blind": rng.normal(size=2000), "wrong": rng.normal(size=2000)}
    injected = {"good": rng.normal(3, 1, 200), "blind": rng.normal(size=200), "wrong": rng.normal(-3, 1, 200)}
    chosen, table = choose_detectors(held, injected, np.repeat(["a", "b"], 100))
    assert chosen[0] == "good"
    assert "wrong" not in chosen or table.loc["wrong", "combined"] > table["combined"].max() - 0.05
    assert table.loc["good", "mean"] > 0.7 > 0.2 > table.loc["wrong", "mean"]


def test_alerts_are_counted_by_incident():
    times = np.array([0, 1, 2, 10, 11, 5_000_000])
    who = np.array(["a", "a", "b", "a", "a", "a"])
    assert incidents(times, who).tolist() == [0, 0, 2, 0, 0, 1]
    scores = np.array([5.0, 4.0, 3.0, 9.0, 8.0, 2.0])
    assert alert_threshold(scores, times, who, alerts=1) == 3.0
    assert alert_threshold(scores, times, who, alerts=2) == 2.0


def test_drift_is_told_by_field():
    frame, _ = requests(1000, 0)
    columns = PlainColumns(("user.uid",)).fit(frame)
    held = Drift(columns).add(columns.transform(frame))
    assert Drift(columns).add(columns.transform(frame)).lines(held) == []
    moved = frame.assign(**{"user.uid": "new", "duration": frame["duration"] * 1000})
    lines = Drift(columns).add(columns.transform(moved)).lines(held)
    assert [line.partition(":")[0] for line in lines] == ["user.uid", "duration"]


def test_files_are_learned_and_scored_and_alerts_are_explained(past, later, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "past").mkdir()
    past[:1500].to_parquet("past/1.parquet")
    past[1500:].to_parquet("past/2.parquet")
    fitted = good("fit", "events", "past", "--out", "model", "--no-net", "--leave-out", "cloud*")
    for told in (f"read {len(past):,} events", "isolation forest", "20 alerts a day"):
        assert told in fitted
    burst = pd.concat([later[-1:]] * 50).assign(**{"actor.user.uid": "=x", "actor.user.name": "x"})
    pd.concat([later, burst]).to_json("new.jsonl", orient="records", lines=True)
    scored = good("score", "events", "new.jsonl", "--model", "model", "--out", "s.csv", "--top", "999")
    assert "=x: 50 events" in scored
    assert ", expected " in scored
    table = pd.read_csv("s.csv")
    assert [*table][:4] + [*table][-2:] == ["row", "id", "time", "entity", "score", "flagged"]
    assert len(table) == len(later) + 50
    assert table["entity"].iloc[-1] == "'=x", "a spreadsheet would run it"


def test_a_model_is_measured_on_labelled_events_and_gets_another_threshold(events, past, later, tmp_path):
    detector = EventDetector(net=False, leave_out=("attack",)).fit(past)
    detector.save(tmp_path / "model")
    attack = events.labels["attack"].loc[later.index]
    later.assign(attack=attack.fillna("Benign")).to_parquet(tmp_path / "later.parquet")
    asked = ("--model", tmp_path / "model")
    evaluate = ("evaluate", "events", tmp_path / "later.parquet", *asked, "--label")
    told = good(*evaluate, "attack", "--out", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    faulty, table = attack.notna().to_numpy(), detector.measure(later)
    assert found["pr_auc"]["value"] == pytest.approx(pr_auc(faulty, table["score"].to_numpy()))
    assert (found["normal"], found["faulty"]) == (np.sum(~faulty), np.sum(faulty))
    flagged = table["flagged"].to_numpy()
    assert found["tpr"]["value"] == pytest.approx(flagged[faulty].mean())
    assert found["share_of_normal_events_flagged"] == pytest.approx(1 - found["tnr"]["value"])
    assert f"threshold {detector.threshold_:.4g}, set to flag" in told
    assert f"alerts a day: {found['alerts_a_day']:.3g}" in told
    own = attack == attack[faulty].iloc[0]
    assert f"  {attack[faulty].iloc[0]}: {flagged[own].sum()} of {own.sum()} flagged" in told
    assert "no field kind" in bad(*evaluate, "kind")
    assert "has learned from severity_id" in bad(*evaluate, "severity_id")

    told = good("calibrate", "events", *asked, "--alerts", 200)
    lower = EventDetector.load(tmp_path / "model", COMPUTE)
    assert lower.threshold_ < detector.threshold_
    assert f"threshold {lower.threshold_:.2f}, for 200 alerts a day: it flags" in told
    good("calibrate", "events", *asked)
    assert EventDetector.load(tmp_path / "model", COMPUTE).threshold_ == detector.threshold_
    later[~faulty].to_parquet(tmp_path / "normal.parquet")
    good("calibrate", "events", *asked, "--alerts", 2, "--normal", tmp_path / "normal.parquet")
    above = later[~faulty]
    above = above[EventDetector.load(tmp_path / "model", COMPUTE).predict(above)]
    who = entities(above).fillna("").to_numpy(dtype=object)
    alerts = len(np.unique(incidents(above["time"].to_numpy(dtype=np.int64), who)))
    assert 0 < alerts <= 2 * days(later["time"].to_numpy(dtype=np.int64))


def test_rows_of_tables_are_learned_and_scored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"size": rng.normal(9, 1, 800), "kind": rng.choice(["a", "b"], 800)})
    table.to_csv("past.csv", index=False)
    pd.DataFrame({"size": [9.0, 900.0], "kind": ["a", "z"]}).to_csv("new.csv", index=False)
    good("fit", "rows", "past.csv", "--out", "model", "--steps", "20", "--device", "cpu")
    good("score", "rows", "new.csv", "--model", "model", "--out", "s.csv", "--device", "cpu")
    usual, odd = pd.read_csv("s.csv")["score"]
    assert odd > usual + 1


def test_a_folder_in_the_place_of_a_file_is_refused_before_the_training(past, tmp_path):
    past[:100].to_parquet(tmp_path / "past.parquet")
    assert "is a folder" in bad("fit", "events", tmp_path / "past.parquet", "--out", tmp_path)
