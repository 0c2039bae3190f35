"""What the experiments on events promise beyond running, see also test_runs.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from companion.compute import Compute
from companion.experiments import event_detection, get_experiment, self_supervised
from companion.experiments.base import Context
from companion.experiments.event_data import LEAVE_OUT, METRICS, load, positives, prepared, rank, shapes_of
from companion.experiments.event_detection import evaluate_detectors

CONTEXT = Context(Compute(torch.device("cpu"), None), progress=False)
DATA = self_supervised.SMOKE_DATA


@pytest.fixture(scope="module")
def events():
    return prepared(DATA, 0)


def test_the_parts_follow_each_other_and_share_no_session(events):
    times = load(DATA, 0).frame["time"].to_numpy()
    sessions = events.labels["session"].to_numpy()
    parts = [events.train, events.calibration, events.validation, events.test]
    seen = [set(sessions[part]) for part in parts]
    for i, part in enumerate(parts):
        assert len(part) > 0
        for j in range(i):
            assert not seen[i] & seen[j]
            first = [min(times[sessions == session]) for session in seen[i]]
            assert min(first) >= max(min(times[sessions == session]) for session in seen[j])
    for part in parts[:2]:
        assert events.labels["attack"].iloc[part].isna().all()
    assert not set(LEAVE_OUT) & set(events.features.fields)


def test_only_training_events_teach_the_encoder(events):
    frame = load(DATA, 0).frame
    known = set(frame["process.name"].iloc[events.train].dropna())
    assert set(events.features.encoder.categories["process.name"]) <= known


def test_attacks_of_another_shape_are_neither_normal_nor_wanted(events):
    rows = np.arange(len(events.labels))
    judged, wanted = positives(events, rows, "shape", "point")
    shapes = events.labels["shape"].to_numpy(dtype=object)
    assert set(shapes[judged][wanted]) == {"point"}
    assert events.labels["attack"].to_numpy(dtype=object)[judged][~wanted].tolist().count(None) == 0
    assert not np.isin(shapes[judged][~wanted].astype(str), ["order", "context", "point"]).any()
    assert shapes_of(events) == ["context", "point"]


def test_perfect_scores_are_judged_perfect_and_constant_ones_as_chance(events):
    labels = events.labels
    truth = {
        part: labels["attack"].iloc[getattr(events, part)].notna().to_numpy(dtype=float)
        for part in ("validation", "test")
    }
    found = evaluate_detectors(
        events, {"oracle": truth, "blind": {part: 0 * own for part, own in truth.items()}}, repeats=3
    )
    for shape in ("point", "context"):
        for metric in METRICS:
            assert found[f"oracle.test_{shape}_{metric}"] == 1
        assert found[f"blind.test_{shape}_roc_auc"] == 0.5
        share = positives(events, events.test, "shape", shape)[1].mean()
        assert found[f"blind.test_{shape}_pr_auc"] == pytest.approx(share)
        assert found[f"oracle.test_{shape}_pr_auc_low"] == found[f"oracle.test_{shape}_pr_auc_high"] == 1
    assert rank(events, events.train, np.zeros(len(events.train))) == {}  # no attack, no number


def test_every_detector_scores_the_test_events_once(events, monkeypatch):
    asked = []
    real = event_detection.vectors

    def counting(net, given, rows, context):
        asked.append(np.array_equal(rows, events.test))
        return real(net, given, rows, context)

    monkeypatch.setattr(event_detection, "vectors", counting)
    config = get_experiment("event_detection").config("smoke")
    result = event_detection.run(config, 0, CONTEXT)
    assert sum(asked) == len(config.objectives)
    names = {key.partition(".")[0] for key in result.metrics} - {"share", "incidents"}
    spaces = {"rarity", "one_hot", *config.objectives}
    expected = {f"{space}-{kind}" for space in spaces for kind in ("knn", "lof", "forest", "subspace")}
    expected |= {"rarity", "entity_rarity", "one_hot-history", "masked-surprise", "combined-surprise"}
    assert names == expected | {f"{objective}-history" for objective in config.objectives}
    for name in names:
        assert 0 <= result.metrics[f"{name}.test_point_roc_auc_low"] <= 1


def test_the_ablation_changes_one_thing_at_a_time():
    config = get_experiment("ssl_ablation").config("full")
    nets = config.nets()
    assert len(nets) == len({net.model_dump_json() for net in nets.values()})
    for net in nets.values():
        changed = {key for key, value in net.model_dump().items() if value != getattr(config.net, key)}
        assert len(changed - {"objective"}) <= 1
    for rate in config.mask_rates:
        assert nets[config.name_of("masked", "mask_rate", rate)].mask_rate == rate
    center = config.name_of("masked", "num_blocks", config.net.num_blocks)
    assert center == config.name_of("masked", "mask_rate", config.net.mask_rate)


def test_spaces_are_looked_at_beside_chance(events):
    config = get_experiment("self_supervised").config("smoke")
    rows = self_supervised.probe_rows(events, config, 0)
    kinds = events.labels["kind"].to_numpy(dtype=object)
    assert events.labels["attack"].iloc[rows[1]].isna().all()
    names = sorted(set(kinds[rows[1]]))
    answer = [
        np.eye(len(names) + 9)[[names.index(k) if k in names else -1 for k in kinds[part]]] for part in rows
    ]
    noise = [np.random.default_rng(0).normal(size=(len(part), 4)) for part in rows]
    found = self_supervised.evaluate_embeddings(events, config, 0, {"answer": answer, "noise": noise})
    assert found["answer.purity"] > 0.9
    assert found["answer.probe"] > 0.8  # a rare kind may be missing in training
    assert abs(found["noise.purity"] - found["chance.purity"]) < 0.1
