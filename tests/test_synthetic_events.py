"""Generated events: valid by OCSF 1.8.0, and each attack is what its name says."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from companion.data.synthetic_events import TABLE, EventConfig, generate_events
from tests.test_security import telling

SCHEMA = Path(os.environ.get("COMPANION_MIRROR", "")) / "ocsf_schema_1.8.0.json"
TYPES = {"integer_t": int, "long_t": int, "timestamp_t": int, "port_t": int, "boolean_t": bool}


@pytest.fixture(scope="module")
def data():
    return generate_events(EventConfig(num_events=20_000, days=10, attack_share=0.05))


def nested(flat: dict) -> dict:
    """The event behind dotted names; the generator's only list is ``metadata.profiles``."""
    tree: dict = {}
    for path, value in flat.items():
        *parents, name = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    tree["metadata"]["profiles"] = [tree["metadata"]["profiles"]["0"]]
    return tree


def faults(name: str, schema: dict, attributes: dict, event: dict):
    """What the schema says against an event with the profile ``host``, as texts."""
    # the compiled schema gives "api" to the profile "cloud", though the class requires it itself
    own = {"api"}
    applied = {key: a for key, a in attributes.items() if key in own or a.get("profile", "host") == "host"}
    for key, attribute in applied.items():
        if attribute["requirement"] == "required" and key not in {*event, *own}:
            yield f"{name}.{key} is required"
    for key, value in event.items():
        if key not in applied or applied[key].get("deprecated"):
            yield f"{name}.{key} is unknown, deprecated or of another profile"
            continue
        attribute = applied[key]
        if attribute.get("is_array", False) != isinstance(value, list):
            yield f"{name}.{key} should be a list, or not"
        for item in value if isinstance(value, list) else [value]:
            if attribute["type"] in schema["objects"]:
                inner = schema["objects"][attribute["type"]]["attributes"]
                yield from faults(f"{name}.{key}", schema, inner, item)
            elif type(item) is not TYPES.get(attribute["type"], str):
                yield f"{name}.{key} is {item!r}, not of type {attribute['type']}"
            elif str(item) not in attribute.get("enum", [str(item)]):
                yield f"{name}.{key} is {item!r}, which is not in its enumeration"


@pytest.mark.skipif(not SCHEMA.is_file(), reason="COMPANION_MIRROR holds no ocsf_schema_1.8.0.json")
def test_every_event_is_valid(data):
    schema = json.loads(SCHEMA.read_text("utf8"))
    classes = {content["uid"]: content for content in schema["classes"].values()}
    rows = np.unique([*range(0, 20_000, 10), *np.flatnonzero(data.labels["attack"].notna())])
    found = set()
    for row in data.frame.iloc[rows].astype(object).to_dict("records"):
        event = nested({name: value for name, value in row.items() if pd.notna(value)})
        kind = classes[event["class_uid"]]
        found |= set(faults(kind["caption"], schema, kind["attributes"], event))
        assert 0 <= event.get("src_endpoint", {}).get("port", 0) < 2**16
    assert not found


def test_the_table_says_what_there_is(data):
    assert len(data.frame) == len(data.labels) == 20_000
    assert data.frame["time"].is_monotonic_increasing
    assert {str(kind) for kind in data.frame.dtypes} <= {"Int64", "boolean", "str"}
    names = {n for part in (*TABLE["class"].values(), TABLE["every"]) for n in part}
    assert names <= set(data.frame.columns)
    assert set(data.labels["attack"].dropna()) == set(TABLE["attack"])
    assert data.labels.groupby("attack")["incident"].nunique().nunique() == 1
    shapes = data.labels.dropna().drop_duplicates("attack")["shape"].value_counts()
    assert shapes.to_dict() == {"point": 2, "context": 2, "order": 2}
    assert 0.03 < data.labels["attack"].notna().mean() < 0.07


def test_the_seed_is_the_company():
    small = EventConfig(num_events=500, days=3)
    first, again = generate_events(small), generate_events(small)
    pd.testing.assert_frame_equal(first.frame, again.frame)
    assert first.digest == again.digest
    other = generate_events(EventConfig(num_events=500, days=3, seed=1))
    assert not first.frame["src_endpoint.ip"].equals(other.frame["src_endpoint.ip"])
    calm = generate_events(EventConfig(num_events=500, days=3, attack_share=0))
    assert calm.labels["attack"].isna().all()


def events_of(data, attack: str) -> pd.DataFrame:
    rows = data.frame[(data.labels["attack"] == attack).to_numpy()]
    assert len(rows)
    return rows.assign(incident=data.labels["incident"], who=rows["actor.user.uid"].fillna(rows["user.uid"]))


def test_point_attacks_are_rare_values_and_bursts(data):
    train = data.frame.iloc[data.split["train"]]
    assert not set(events_of(data, "rare-tool")["process.name"]) & set(train["process.name"])
    burst = events_of(data, "password-guessing")
    assert burst.groupby("incident")["time"].agg(len).min() >= 20
    assert burst["time"].groupby(burst["incident"]).diff().median() < 4_000 < train["time"].diff().mean()


def test_contexts_are_strange_for_the_user_only(data):
    train = data.frame.iloc[data.split["train"]]
    stolen = events_of(data, "stolen-account").dropna(subset=["who"])
    assert set(stolen["device.uid"]) <= set(train["device.uid"])
    known = pd.crosstab(train["actor.user.uid"], train["device.uid"])
    assert all(known.loc[who, laptop] < 0.1 * known.loc[who].sum()
               for who, laptop in zip(stolen["who"], stolen["device.uid"], strict=True))  # fmt: skip

    def hour(frame):
        return (frame["time"] / 3_600_000 + frame["timezone_offset"] / 60) % 24

    usual = train.dropna(subset=["actor.user.uid"])
    odd = events_of(data, "odd-hour").dropna(subset=["who"])
    for who, when in zip(odd["who"], hour(odd), strict=True):
        away = (hour(usual[usual["actor.user.uid"] == who]) - when).abs()
        assert (np.minimum(away, 24 - away) < 2).mean() < 0.1


def test_order_attacks_have_the_events_of_normal_sessions_in_another_order(data):
    operation = data.frame["api.operation"]
    rows, incident = pd.Series(np.arange(20_000)), data.labels["incident"]
    names = ("ApproveRelease", "DeployRelease")
    approved, deployed = (rows[(operation == name).to_numpy()].groupby(incident).min() for name in names)
    attack = data.labels.groupby("incident")["attack"].first()
    early = (deployed < approved).pipe(lambda found: found[found].index)
    kinds = attack.reindex(early)
    assert set(kinds) <= {"unapproved-release", "shuffled-release"}
    assert (kinds == "unapproved-release").sum() == (attack == "unapproved-release").sum()


def test_no_field_gives_an_attack_away_but_a_rare_tool(data):
    assert telling(data, 0.9, but="rare-tool") <= {"time"}
