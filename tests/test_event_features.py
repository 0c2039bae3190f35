import numpy as np
import pandas as pd
import pytest
import torch

from companion.objectives.encoding import MISSING, UNSEEN
from companion.objectives.event_features import GAP, EventFeatures, field_family


@pytest.fixture(scope="module")
def events():
    """Logons (no file) and accesses to files (no address) of four users, by turns; each has an own host."""
    rng, count = np.random.default_rng(0), 3000
    who = rng.integers(0, 4, count)
    frame = pd.DataFrame(
        {
            "time": np.cumsum(rng.integers(1, 10**5, count)),
            "timezone_offset": 60,
            "class_uid": np.where(np.arange(count) % 2, 1001, 3002),
            "class_name": np.where(np.arange(count) % 2, "File", "Logon"),
            "user.uid": np.array(["a", "b", "c", "d"])[who],
            "device.hostname": np.array(["h1", "h2", "h3", "h4"])[who],
            "metadata.uid": [f"record {i}" for i in range(count)],
            "process.pid": rng.integers(0, 60_000, count),
            "file.size": rng.lognormal(3, 1, count).round(),
            "file.name": [f"f{i}" for i in rng.zipf(1.6, count)],
            "src_endpoint.port": rng.choice([22, 80, 443], count),
            "is_remote": rng.random(count) < 0.1,
            "severity_id": 1,
            "file.modified_time": rng.integers(0, 10**9, count),
        }
    )
    return frame.mask(frame.columns.str.startswith("file")[None] & (frame[["class_uid"]] == 3002).to_numpy())


def test_gaps_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    who = rng.choice(["a", "b", "c", None], 300)
    frame = pd.DataFrame({"time": np.sort(rng.integers(0, 10**6, 300)), "user.uid": who})
    last, expected = {}, []
    for time, who in zip(frame["time"], frame["user.uid"].fillna(""), strict=True):
        expected.append((time - last[who]) / 1000 if who in last else np.nan)
        last[who] = time
    np.testing.assert_allclose(EventFeatures().gaps(frame), expected)


def test_fields_become_what_they_are(events):
    encoder = EventFeatures().fit(events).fitted
    assert encoder.numerical == [GAP, "file.size"]
    assert encoder.categorical == [
        "class_uid", "user.uid", "device.hostname", "file.name", "src_endpoint.port", "is_remote"
    ]  # the class's name says what its number says, the host of a user is another family  # fmt: skip
    assert "user.uid" not in EventFeatures(leave_out=["user.uid"]).fit(events).fields


def test_a_name_seen_once_is_one_never_seen(events):
    features = EventFeatures().fit(events.iloc[:2000])
    names = events["file.name"].iloc[:2000].value_counts()
    assert features.fitted.categories["file.name"] == sorted(names.index[names >= 2])
    later = events.iloc[2000:2002].assign(**{"file.name": [names.index[names == 1][0], "never"]})
    column = features.fitted.categorical.index("file.name")
    assert features.transform(later)[1][:, column].tolist() == [UNSEEN, UNSEEN]


def test_hours_are_local(events):
    features = EventFeatures().fit(events)
    shifted = events.assign(time=events["time"] + 3_600_000, timezone_offset=0)
    assert torch.equal(features.transform(events)[0], features.transform(shifted)[0])


def test_a_table_without_times_and_entities_will_do(events):
    table = events[["file.size", "src_endpoint.port"]]
    numerical, categorical = EventFeatures().fit(table).transform(table)
    assert (numerical.shape, categorical.shape) == ((3000, 3), (3000, 1))  # also whether there is a size


def test_later_events_may_lack_fields_have_new_ones_and_new_values(events):
    features = EventFeatures().fit(events.iloc[:2000])
    later = events.iloc[2000:].drop(columns=["is_remote"]).assign(**{"new.field": 1})
    later["user.uid"] = "a new one"
    later["file.size"] = later["file.size"].astype(object)
    later.iloc[0, later.columns.get_loc("file.size")] = "many"  # no number
    _, categorical = features.transform(later)
    names = list(features.fitted.categorical)
    assert (categorical[:, names.index("is_remote")] == MISSING).all()
    assert (categorical[:, names.index("user.uid")] == UNSEEN).all()


def test_features_know_their_fields_and_fields_their_families(events):
    features = EventFeatures().fit(events.iloc[:2000])
    numerical, categorical = features.transform(events)
    assert torch.isfinite(numerical).all()
    assert (categorical < torch.tensor(features.fitted.categorical_cardinalities)).all()
    fields, groups = features.fields, features.groups()
    assert len(fields) == len(groups) == numerical.shape[1] + categorical.shape[1]
    assert fields.count("time") == 4
    assert features.families == sorted(
        [GAP, "time", "class", "user", "device", "file", "src_endpoint", "is_remote"]
    )
    for field, group in zip(fields, groups, strict=True):
        assert features.families[group] == field_family(field)


def test_nothing_can_be_done_before_fitting(events):
    with pytest.raises(ValueError, match="fit"):
        EventFeatures().transform(events)
    with pytest.raises(ValueError, match="no events"):
        EventFeatures().fit(events.iloc[:0])
