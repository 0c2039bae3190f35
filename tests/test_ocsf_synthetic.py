from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from companion.data.ocsf_actions import ACTIONS, CLASSES, KINDS, MIX, NAMES
from companion.data.ocsf_plan import make_plan
from companion.data.ocsf_synthetic import (
    ATTACKS,
    FIELDS,
    EventConfig,
    generate_events,
)
from companion.data.ocsf_world import ROLES, make_world, zipf

SCHEMA = Path(os.environ.get("COMPANION_MIRROR", "")) / "ocsf_schema_1.8.0.json"
ORDER = tuple(name for name, attack in ATTACKS.items() if attack.shape == "order")
IDENTIFIERS = (
    ".uid", ".ip", "hostname", ".rdata", "file.name", "file.path", "file_result.name", "file_result.path",
    "resources.0.name", "user.name", "owner.name", "email_addr", "cmd_line",
)  # fmt: skip
TYPES = {
    "integer_t": int,
    "long_t": int,
    "timestamp_t": int,
    "port_t": int,
    "boolean_t": bool,
    "float_t": float,
}


@pytest.fixture(scope="module")
def normal():
    return generate_events(EventConfig(num_events=30_000, attack_share=0))


@pytest.fixture(scope="module")
def attacked():
    return generate_events(EventConfig(num_events=20_000, attack_share=0.25, seed=1))


# ---------------------------------------------------------------- the schema


def nested(flat: dict):
    """The event behind dotted names; lists have their length under ``#``."""
    tree: dict = {}
    for path, value in flat.items():
        *parents, name = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value

    def with_lists(node):
        if not isinstance(node, dict):
            return node
        if "#" in node:
            return [with_lists(node[str(i)]) for i in range(min(node["#"], 2))]
        return {name: with_lists(child) for name, child in node.items()}

    return with_lists(tree)


def faults(name: str, schema: dict, attributes: dict, event: dict, profiles: list[str]):
    """What the schema says against an event, as texts."""
    for key, attribute in attributes.items():
        applies = attribute.get("profile") is None or attribute["profile"] in profiles
        if attribute["requirement"] == "required" and applies and key not in event:
            yield f"{name}.{key} is required"
    for key, value in event.items():
        attribute = attributes.get(key)
        if attribute is None:
            yield f"{name}.{key} is unknown"
            continue
        if attribute.get("deprecated") or attribute.get("profile", profiles[0]) not in profiles:
            yield f"{name}.{key} is deprecated or of a profile that is not applied"
        if attribute.get("is_array", False) != isinstance(value, list):
            yield f"{name}.{key} is {'no' if attribute.get('is_array') else 'a'} list"
            continue
        for item in value if isinstance(value, list) else [value]:
            kind = attribute["type"]
            if kind in schema["objects"]:
                if not isinstance(item, dict) or not item:
                    yield f"{name}.{key} is no object"
                else:
                    yield from faults(
                        f"{name}.{key}", schema, schema["objects"][kind]["attributes"], item, profiles
                    )
            elif type(item) is not TYPES.get(kind, str):
                yield f"{name}.{key} is {item!r}, not of type {kind}"
            elif "enum" in attribute and str(item) not in attribute["enum"]:
                yield f"{name}.{key} is {item!r}, which is not in its enumeration"


@pytest.mark.skipif(
    not SCHEMA.is_file(), reason="COMPANION_MIRROR names no folder with ocsf_schema_1.8.0.json"
)
def test_every_event_of_every_class_is_valid(attacked, normal):
    schema = json.loads(SCHEMA.read_text("utf8"))
    classes = {content["uid"]: content for content in schema["classes"].values()}
    found, seen = set(), set()
    frame = pd.concat([attacked.frame.iloc[::3], normal.frame.iloc[::10]]).astype(object)
    for row in frame.to_dict("records"):
        event = nested({name: value for name, value in row.items() if not pd.isna(value)})
        attributes = classes[event["class_uid"]]["attributes"]
        found |= set(
            faults(str(event["class_uid"]), schema, attributes, event, event["metadata"]["profiles"])
        )
        assert event["class_name"] == attributes["class_uid"]["enum"][str(event["class_uid"])]
        assert event["category_name"] == attributes["category_uid"]["enum"][str(event["category_uid"])]
        assert event["activity_name"] == attributes["activity_id"]["enum"][str(event["activity_id"])]
        seen.add(event["class_uid"])
    assert found == set()
    assert seen == set(CLASSES) == set(classes)


def test_what_the_class_requires_is_never_missing(attacked):
    frame = attacked.frame
    assert (frame["type_uid"] == frame["class_uid"] * 100 + frame["activity_id"]).all()
    assert (frame["category_uid"] == frame["class_uid"] // 1000).all()
    for class_uid, names in {
        1001: ["file.name", "file.type_id", "actor.user.uid", "device.type_id"],
        1007: ["process.name", "actor.user.uid", "device.type_id"],
        3001: ["user.uid"],
        3002: ["user.uid"],
        4002: ["http_response.code"],
        4003: ["query.hostname"],
        6003: ["api.operation", "actor.user.uid", "src_endpoint.ip", "cloud.provider"],
    }.items():
        assert frame.loc[frame["class_uid"] == class_uid, names].notna().all(axis=None)


def test_the_tables_fit_together():
    assert len(FIELDS) >= 60
    assert set(MIX) == set(ROLES)
    assert all(kind in KINDS for mix in MIX.values() for kind in mix)
    assert {ACTIONS[name].class_uid for name in NAMES} == set(CLASSES)
    assert sum(attack.shape == "order" for attack in ATTACKS.values()) >= 4
    assert len(ATTACKS) >= 12


# ---------------------------------------------------------------- the same again


def test_the_same_seed_gives_the_same_events(attacked):
    again = generate_events(EventConfig(num_events=20_000, attack_share=0.25, seed=1))
    pd.testing.assert_frame_equal(again.frame, attacked.frame)
    pd.testing.assert_frame_equal(again.labels, attacked.labels)
    assert again.digest == attacked.digest
    other = generate_events(EventConfig(num_events=2_000, attack_share=0.25, seed=2))
    assert other.digest != attacked.digest
    assert not other.frame["metadata.uid"].equals(attacked.frame["metadata.uid"].iloc[:2000])


@pytest.mark.parametrize(
    "change",
    [{"num_events": 0}, {"num_users": 5}, {"days": 0}, {"attack_share": 0.9}, {"attacks": ("none",)}],
)
def test_impossible_configs_are_refused(change):
    with pytest.raises(ValueError, match=r"got|unknown"):
        replace(EventConfig(), **change)


# ---------------------------------------------------------------- habits


def test_people_work_by_day_and_week_and_services_do_not_care(normal):
    who = normal.frame["actor.user.type_id"].astype("float64")
    moments = pd.to_datetime(normal.frame["time"].astype("int64"), unit="ms")
    people, services = moments[who == 1], moments[who == 4]
    weekend = (people.dt.day_of_week >= 5).mean()
    assert weekend < 0.12
    assert 0.18 < (services.dt.day_of_week >= 5).mean() < 0.4
    hours = np.bincount(people.dt.hour, minlength=24)
    assert hours[7:17].sum() > 2 * hours[[*range(5), *range(20, 24)]].sum()


def test_users_have_their_own_places_programs_and_sites(normal):
    frame = normal.frame
    for name in ("process.name", "dst_endpoint.hostname", "src_endpoint.location.country"):
        pairs = frame[["actor.user.uid", name]].dropna()
        everyone = pairs[name].value_counts(normalize=True).iloc[0]
        own = pairs.groupby("actor.user.uid")[name].agg(
            lambda names: names.value_counts(normalize=True).iloc[0]
        )
        assert own.mean() > everyone + 0.05


def test_categories_have_heavy_tails_and_fields_have_gaps(normal):
    frame = normal.frame
    domains = frame["query.hostname"].dropna().value_counts()
    assert len(domains) > 1_000
    assert domains.iloc[:20].sum() > 2 * domains.iloc[-200:].sum()
    traffic = frame["traffic.bytes_out"].dropna().astype(float)
    assert traffic.quantile(0.999) > 100 * traffic.median()
    flows = frame[frame["class_uid"] == 4001]
    assert 0.02 < flows["traffic.packets"].isna().mean() < 0.15
    ranks = zipf(np.random.default_rng(0).random(100_000), 50, 1.0)
    assert 1.7 < (ranks == 0).sum() / (ranks == 1).sum() < 2.3


# ---------------------------------------------------------------- labels


def test_the_share_is_kept_and_every_attack_happens(attacked, normal):
    labels = attacked.labels
    assert labels["attack"].notna().mean() == pytest.approx(0.25, rel=0.25)
    assert set(labels["attack"].dropna()) == set(ATTACKS)
    assert (labels["attack"].isna() == labels["attack_id"].isna()).all()
    incidents = labels.dropna().groupby("attack_id")
    assert (incidents["attack"].nunique() == 1).all()
    assert (incidents["session"].nunique() == 1).all()
    assert incidents["attack"].first().value_counts().nunique() == 1  # each as often
    assert normal.labels["attack"].isna().all()
    assert not {"attack", "shape", "attack_id", "session", "kind"} & set(attacked.frame.columns)


def test_attacks_are_what_they_say(attacked):
    frame, labels = attacked.frame, attacked.labels

    def of(name):
        return frame[(labels["attack"] == name).to_numpy()]

    assert set(of("odd_parent")["process.parent_process.name"].str.removesuffix(".exe")) <= {
        "winword", "excel", "outlook", "acrobat",
    }  # fmt: skip
    assert of("large_upload")["traffic.bytes_out"].dropna().min() > 10**7
    assert (of("service_privilege")["actor.user.type_id"].dropna() == 4).all()
    assert of("port_scan").groupby(labels["attack_id"])["dst_endpoint.port"].nunique().min() >= 8
    assert of("dns_tunnel")["query.hostname"].str.len().min() > 28
    homes = frame[labels["attack"].isna().to_numpy()]
    usual = homes.groupby("actor.user.uid")["src_endpoint.location.country"].agg(lambda c: set(c.dropna()))
    for name in ("impossible_travel", "odd_hour_new_country"):
        there = of(name)[["actor.user.uid", "src_endpoint.location.country"]].dropna()
        assert not [row for row in there.itertuples(index=False) if row[1] in usual.get(row[0], set())]


# ---------------------------------------------------------------- no give-aways


def test_attacks_use_no_word_that_nobody_else_uses(normal, attacked):
    """Neither new categories nor other gaps than the events of the same activity have."""
    inside = attacked.labels["attack"].notna().to_numpy()
    ordinary = pd.concat([normal.frame, attacked.frame[~inside]])
    strange = attacked.frame[inside]
    for name, kind in FIELDS.items():
        if kind == "text" and not name.endswith(IDENTIFIERS):
            words = strange[name].dropna()
            assert (~words.isin(set(ordinary[name].dropna()))).mean() <= 0.01 or words.empty, name
    types = strange["type_uid"].astype("int64")
    for type_uid, rows in strange.groupby(types):
        same = ordinary[(ordinary["type_uid"] == type_uid).to_numpy()]
        gaps, usual = rows.isna().mean(), same.isna().mean()
        assert len(same) > 0
        if len(same) < 400:
            continue  # too few to tell chance from a habit
        assert not [name for name in FIELDS if usual[name] == 0 and gaps[name] > 0], type_uid
        assert not [name for name in FIELDS if usual[name] == 1 and gaps[name] < 1], type_uid


def plan_of_order_attacks():
    rng = np.random.default_rng(0)
    return make_plan(
        make_world(60, rng), rng, num_events=20_000, start=0, days=7, attack_share=0.2, attacks=ORDER
    )


def test_an_order_attack_has_the_actions_and_times_of_a_normal_session(monkeypatch):
    """Had the same sessions kept the normal order, the same would have been done at the same times."""
    attacked = plan_of_order_attacks()
    for name, kind in KINDS.items():
        steps = tuple(replace(step, attack_rank=step.rank) for step in kind.steps)
        monkeypatch.setitem(KINDS, name, replace(kind, steps=steps))
    kept = plan_of_order_attacks()

    def bag(*columns):
        return sorted(zip(*(column.tolist() for column in columns), strict=True))

    assert bag(attacked.session, attacked.action, attacked.attack, attacked.topic) == bag(
        kept.session, kept.action, kept.attack, kept.topic
    )
    assert bag(attacked.session, attacked.time) == bag(kept.session, kept.time)
    moved = np.flatnonzero(attacked.action != kept.action)
    assert set(attacked.session[moved]) <= set(attacked.session[attacked.attack > 0])
    assert len(moved) > 500


def test_an_order_attack_has_the_order_that_its_table_says():
    plan = plan_of_order_attacks()
    names = np.array(NAMES)
    for code, attack in enumerate(ATTACKS, start=1):
        if attack not in ORDER:
            continue
        steps = [
            step.action for step in sorted(KINDS[ATTACKS[attack].kind].steps, key=lambda s: s.attack_rank)
        ]
        rows = np.flatnonzero(plan.attack == code)
        for session in np.unique(plan.session[rows]):
            done = names[plan.action[rows[plan.session[rows] == session]]].tolist()
            assert list(dict.fromkeys(done)) == [action for action in steps if action in done]


@pytest.fixture(scope="module")
def disordered():
    return generate_events(EventConfig(num_events=60_000, attack_share=0.06, attacks=ORDER, seed=4))


@pytest.mark.parametrize("name", ORDER)
def test_no_single_record_betrays_an_order_attack(disordered, name):
    """Trees that see every field of one record cannot tell attacked sessions from others of their kind."""
    labels = disordered.labels
    rows = np.flatnonzero(labels["kind"] == ATTACKS[name].kind)
    sessions = labels["session"].to_numpy()[rows]
    target = (labels["attack"] == name).groupby(labels["session"]).transform("any").to_numpy()[rows]
    assert 0.2 < target.mean() < 0.8
    features = {}
    for column, kind in FIELDS.items():
        if not column.endswith(("time", ".uid")):
            values = disordered.frame[column].iloc[rows]
            codes = pd.factorize(values)[0] if kind == "text" else values.astype("float64").fillna(-1)
            features[column] = np.asarray(codes, dtype=float)
    model = HistGradientBoostingClassifier(max_iter=15, min_samples_leaf=100)
    scores = cross_val_predict(
        model, pd.DataFrame(features), target, groups=sessions, cv=GroupKFold(3), method="predict_proba"
    )
    assert roc_auc_score(target, scores[:, 1]) < 0.6
