"""The real, labelled sets: their counts, their splits, and that no field gives the label away."""

import hashlib
import os
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier

from companion.data import fetch, security
from companion.data.download import DataError, Source
from companion.data.events import Events
from companion.data.security import load_cloudtrail, load_demo_service, load_nsl_kdd, load_zeek
from companion.data.sessions import load_hdfs
from tests.packing import tar_gz

LOADERS = {f.__name__: f for f in (load_zeek, load_cloudtrail, load_demo_service, load_nsl_kdd)}
# rows and attacks of train, calibration, validation and test, counted by hand with awk and jq
COUNTS = {
    "load_zeek": [(2486, 0), (853, 0), (3810, 3028), (8722, 3951)],
    "load_cloudtrail": [(694, 0), (192, 0), (1287, 173), (727, 41)],
    "load_demo_service": [(13309, 0), (2660, 0), (5376, 57), (5376, 61)],
    "load_nsl_kdd": [(8069, 0), (2017, 0), (15106, 11743), (22544, 12833)],
}
TELLING = {"load_zeek": {"dst_endpoint.port"}}  # these hosts call port 443, and attackers try all ports
"""Fields that alone tell an attack, and are columns all the same: they are the traffic itself."""


@pytest.fixture(scope="module")
def real():
    if not os.environ.get("COMPANION_MIRROR"):
        pytest.skip("COMPANION_MIRROR is not set")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {name: load() for name, load in LOADERS.items()}


@pytest.mark.parametrize("name", LOADERS)
def test_parts_have_their_counts_and_share_no_incident(real, name):
    data = real[name]
    attack = data.labels["attack"].notna().to_numpy()
    assert [(len(rows), attack[rows].sum()) for rows in data.split.values()] == COUNTS[name]
    parts = [set(data.labels["incident"].iloc[rows]) for rows in data.split.values()]
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert data.labels["incident"].notna().all()
    assert {str(kind) for kind in data.frame.dtypes} <= {"Int64", "float64", "boolean", "str"}
    assert set(data.entity) <= set(data.frame.columns)
    if "time" in data.frame:
        assert data.frame["time"].is_monotonic_increasing
        assert pd.Timestamp(data.frame["time"].iloc[0], unit="ms").year in (2022, 2023, 2026)


def clues(column: pd.Series, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """What a tree may ask of one field: numbers; of texts length, frequency, and the 50 commonest."""
    asked = column.iloc[rows]
    if column.dtype in ("Int64", "float64"):
        return np.column_stack([asked.astype("float64").fillna(-1), asked.isna()])
    text = column.astype("str").fillna("")
    asked, common = text.iloc[rows], text.value_counts()
    counts = [asked.map(own).fillna(0) for own in (text.iloc[train].value_counts(), common)]
    which = pd.Categorical(asked, common.index[:50]).codes[:, None] == np.arange(50)
    return np.column_stack([*counts, asked.str.len(), which])


def telling(data: Events, auc: float, but: str = "") -> set[str]:
    """Fields by which alone a tree tells attacks, ``but`` those of one kind, with such an AUC."""
    rows = np.concatenate([data.split["validation"], data.split["test"]])
    labels = data.labels["attack"].iloc[rows]
    known, rows = labels[labels != but].notna(), rows[(labels != but).to_numpy()]
    found = set()
    for field in data.frame.columns:
        values = clues(data.frame[field], data.split["train"], rows)
        tree = DecisionTreeClassifier(max_depth=2, random_state=0).fit(values, known)
        if roc_auc_score(known, tree.predict_proba(values)[:, 1]) >= auc:
            found.add(field)
    return found


@pytest.mark.parametrize("name", LOADERS)
def test_no_single_field_gives_the_label_away(real, name):
    assert telling(real[name], 0.99) == TELLING.get(name, set())


def test_nothing_of_a_demo_fault_stays_but_the_fault(real):
    data = real["load_demo_service"]
    faults = data.labels["attack"].notna()
    assert faults.sum() == 277
    assert not data.frame["trace_id"][~faults].isin(data.frame["trace_id"][faults].dropna()).any()
    assert not {
        name for name in data.frame for left in security.DEMO_LEFT_OUT if f"{name}.".startswith(f"{left}.")
    }


def test_hdfs_sessions_are_labelled_and_few_are_distinct():
    data = load_hdfs()
    if data.synthetic:
        pytest.skip("HDFS is out of reach here")
    assert (len(data.abnormal), data.abnormal.sum()) == (4855 + 16838, 16838)
    keys = pd.Series([session.tobytes() for session in data.tokens])
    assert keys[~data.abnormal].nunique() == 839
    assert keys.nunique() == 839 + 4123


def test_cloudtrail_is_read_from_an_archive_however_it_is_packed(mirror):
    content = b'{"a": 1}\n{"a": 2}\n{"a": 3}\n'
    files = {
        "2": b'{"Records": [{"a": 3}]}',
        "1": b'{"Records": [{"a": 1}, {"a": 2}]}',
    }  # the names' order counts
    packed = tar_gz({f"repo-main/CloudTrail/{name}.json": records for name, records in files.items()})
    (mirror / "x.tar.gz").write_bytes(packed)
    digest = hashlib.sha256(content).hexdigest()
    source = Source("", "x.tar.gz", "", 1)
    fake = replace(security.CLOUDTRAIL, sources=(source,), sha256=digest)
    assert fetch(fake) == "a mirror's x.tar.gz"
    assert security.read_real(fake) == (content, "cache: cloudtrail.jsonl")
    with pytest.raises(DataError, match="does not hold the file y"):
        fetch(replace(fake, sha256="0" * 64, cached="y"))
