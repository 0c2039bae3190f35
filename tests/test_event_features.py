from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from companion.data.events import seconds_since_last
from companion.data.ocsf_synthetic import EventConfig, generate_events
from companion.objectives.encoding import MISSING, UNSEEN, EncoderError
from companion.objectives.event_features import GAP, EventFeatures, FieldRules


@pytest.fixture(scope="module")
def events():
    return generate_events(EventConfig(num_events=3000)).frame


def made(times, who, **columns):
    return pd.DataFrame({"time": times, "user.uid": who, **columns})


def test_gaps_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    frame = made(np.sort(rng.integers(0, 10**6, 300)), rng.choice(["a", "b", "c", None], 300))
    last, expected = {}, []
    for time, who in zip(frame["time"], frame["user.uid"].fillna(""), strict=True):
        expected.append((time - last[who]) / 1000 if who in last else np.nan)
        last[who] = time
    np.testing.assert_allclose(seconds_since_last(frame), expected)
    with pytest.raises(ValueError, match="order"):
        seconds_since_last(frame[::-1])


def test_fields_become_what_they_are(events):
    features = EventFeatures(FieldRules(max_listed=50)).fit(events)
    numerical, categorical = features.encoder.numerical, features.encoder.categorical
    assert {GAP, "traffic.bytes_out", "file.size"} <= set(numerical)
    assert {"class_uid", "activity_id", "device.is_managed", "http_response.code"} <= set(categorical)
    assert {"actor.user.uid", "dst_endpoint.hostname"} <= set(features.encoder.hashed)
    used = {*numerical, *categorical}
    for left_out in (
        "metadata.uid",
        "metadata.version",
        "metadata.logged_time",
        "time",
        "file.modified_time",
    ):
        assert left_out not in used
    assert not any(name.endswith("_id") for name in numerical)


def test_events_become_tensors_without_holes(events):
    features = EventFeatures().fit(events.iloc[:2000])
    numerical, categorical = features.transform(events.iloc[2000:])
    assert torch.isfinite(numerical).all()
    assert numerical.shape == (1000, features.encoder.num_numerical_features)
    assert (categorical < torch.tensor(features.encoder.categorical_cardinalities)).all()


def test_later_events_may_lack_fields_have_new_ones_and_new_values(events):
    features = EventFeatures().fit(events.iloc[:2000])
    later = events.iloc[2000:].drop(columns=["severity_id", "traffic.bytes_out"]).assign(**{"new.field": 1})
    later["activity_name"] = "Levitate"
    later["file.size"] = later["file.size"].astype(object)
    later.iloc[0, later.columns.get_loc("file.size")] = "many"  # no number
    _, categorical = features.transform(later)
    names = list(features.encoder.categorical)
    assert (categorical[:, names.index("severity_id")] == MISSING).all()
    assert (categorical[:, names.index("activity_name")] == UNSEEN).all()


def test_features_know_their_fields_and_fields_their_families(events):
    features = EventFeatures().fit(events)
    numerical, categorical = features.transform(events)
    fields, groups = features.fields, features.groups()
    assert len(fields) == len(groups) == numerical.shape[1] + categorical.shape[1]
    assert fields.count("time") == 4
    assert GAP in fields
    number = dict(zip(fields, groups, strict=True))
    assert all(number[field] == group for field, group in zip(fields, groups, strict=True))
    assert number["status"] == number["status_id"] != number["severity_id"]
    assert number["process.name"] == number["process.file.path"] != number["process.parent_process.name"]
    assert number["class_name"] == number["metadata.log_name"]
    passes = features.groups(8)
    assert set(passes) == set(range(8))
    assert len(set(zip(groups, passes, strict=True))) == len(set(groups))  # families stay whole


def test_what_must_not_be_used_is_not(events):
    features = EventFeatures(leave_out=["activity_id"]).fit(events)
    assert "activity_id" not in features.encoder.categorical


def test_features_that_were_saved_give_the_same(events):
    features = EventFeatures(FieldRules(buckets=64)).fit(events.iloc[:2000])
    again = EventFeatures.from_json(json.loads(json.dumps(features.to_json())))
    assert again.rules == features.rules
    for ours, theirs in zip(features.transform(events), again.transform(events), strict=True):
        assert torch.equal(ours, theirs)


def test_nothing_can_be_done_before_fitting(events):
    with pytest.raises(EncoderError, match="fit"):
        EventFeatures().transform(events)
    with pytest.raises(EncoderError, match="no events"):
        EventFeatures().fit(events.iloc[:0])
