from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import QuantileTransformer

from companion.objectives.encoding import MISSING, UNSEEN, EncoderError, TableEncoder, stable_hash


def table(rows: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.gamma(3, 10, rows),
            "gain": np.where(rng.random(rows) < 0.2, np.nan, rng.normal(size=rows)),
            "constant": np.full(rows, 7.0),
            "job": rng.choice(np.array(["cook", "nurse", None], dtype=object), rows),
            "address": rng.integers(0, 1000, rows),
            "when": pd.Timestamp("2026-01-05T06:00Z")
            + pd.to_timedelta(rng.integers(0, 10**6, rows), unit="s"),
        }
    )


def encoder(**changes) -> TableEncoder:
    settings = {"times": ["when"], "hashed": {"address": 50}} | changes
    return TableEncoder(["age", "gain", "constant"], ["job", "address"], **settings)


def test_what_comes_out_is_as_announced():
    fitted = encoder().fit(table())
    numerical, categorical = fitted.transform(table(50, seed=1))
    assert numerical.shape == (50, fitted.num_numerical_features) == (50, 8)
    assert fitted.feature_names[:4] == ["age", "gain", "gain is missing", "constant"]
    assert numerical.dtype == torch.float32
    assert torch.isfinite(numerical).all()
    assert categorical.dtype == torch.int64
    assert fitted.categorical_cardinalities == [4, 52]
    assert (categorical < torch.tensor([4, 52])).all()


def test_quantiles_are_scikit_learns():
    frame, new = table(2000), table(100, seed=1)
    ours = TableEncoder(["age"]).fit(frame).transform(new)[0][:, 0].numpy()
    oracle = QuantileTransformer(n_quantiles=66, output_distribution="normal", subsample=None)
    oracle.fit(frame[["age"]].to_numpy())
    np.testing.assert_allclose(ours, oracle.transform(new[["age"]].to_numpy())[:, 0], atol=0.05)  # the noise


def test_a_value_that_most_rows_share_is_not_mapped_to_the_far_end():
    gains = np.where(np.arange(1000) % 10 == 0, np.arange(1000) + 500.0, 0.0)  # nine of ten are 0, the lowest
    values = (
        TableEncoder(["gain"]).fit(pd.DataFrame({"gain": gains})).transform(pd.DataFrame({"gain": gains}))
    )
    assert abs(float(values[0][gains == 0].mean())) < 0.3  # the middle of the lower nine tenths
    assert float(values[0][gains > 0].min()) > 1.2  # the ninth tenth of a normal distribution is at 1.28


def test_categories_are_listed_as_they_are_indexed():
    fitted = TableEncoder([], ["job", "host"], hashed={"host": 3})
    frame = pd.DataFrame({"job": ["nurse", "cook", None], "host": ["a", "b", "c"]})
    assert fitted.fit(frame).categories("job") == ["cook", "nurse"]
    assert fitted.transform(frame)[1][:, 0].tolist() == [3, 2, 0]
    with pytest.raises(EncoderError, match="host"):
        fitted.categories("host")


def test_standard_scaling_gives_mean_0_and_spread_1():
    numerical, _ = TableEncoder(["age"], scaling="standard").fit(table()).transform(table())
    assert abs(float(numerical.mean())) < 1e-5
    assert abs(float(numerical.std(correction=0)) - 1) < 1e-5


def test_missing_unseen_and_rare_values_have_their_own_places():
    frame = pd.DataFrame({"job": ["cook"] * 5 + ["nurse"] * 5 + ["king", None]})
    fitted = TableEncoder([], ["job"], min_count=2).fit(frame)
    _, found = fitted.transform(pd.DataFrame({"job": ["cook", "nurse", "king", "pilot", None, np.nan]}))
    assert found[:, 0].tolist() == [2, 3, UNSEEN, UNSEEN, MISSING, MISSING]


def test_missing_numbers_become_0_and_are_told():
    fitted = encoder().fit(table())
    rows = table(4, seed=2).assign(age=np.nan, gain=np.nan)
    numerical, _ = fitted.transform(rows)
    by_name = dict(zip(fitted.feature_names, numerical.T, strict=True))
    assert by_name["age"].tolist() == [0] * 4  # training had none missing, so nothing tells it
    assert by_name["gain"].tolist() == [0] * 4
    assert by_name["gain is missing"].tolist() == [1] * 4


def test_times_become_circles():
    monday = pd.DataFrame({"when": ["2026-01-05T06:00:00Z", "2026-01-05T18:00:00+00:00", None]})
    numerical, _ = TableEncoder(times=["when"]).fit(monday).transform(monday)
    expected = [[1, 0, 0, 1], [-1, 0, 0, 1], [0, 0, 0, 0]]
    torch.testing.assert_close(numerical, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-6)


def test_hashes_are_the_same_everywhere():
    assert [stable_hash(text, 1000) for text in ("10.0.0.1", "10.0.0.2", "")] == [
        stable_hash(t, 1000) for t in ("10.0.0.1", "10.0.0.2", "")
    ]
    fitted = TableEncoder([], ["ip"], hashed={"ip": 1000}).fit(pd.DataFrame({"ip": ["a"]}))
    _, found = fitted.transform(pd.DataFrame({"ip": ["b", None]}))
    assert found[:, 0].tolist() == [2 + stable_hash("b", 1000), MISSING]


def test_it_is_kept_with_the_model(tmp_path):
    fitted, new = encoder().fit(table()), table(60, seed=3)
    fitted.save(tmp_path / "encoder.json")
    loaded = TableEncoder.load(tmp_path / "encoder.json")
    for ours, theirs in zip(fitted.transform(new), loaded.transform(new), strict=True):
        assert torch.equal(ours, theirs)
    assert loaded.feature_names == fitted.feature_names


@pytest.mark.parametrize("damage", ["missing", "truncated", "version", "other"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "encoder.json"
    if damage != "missing":
        encoder().fit(table()).save(path)
        content = json.loads(path.read_text())
        text = {
            "truncated": path.read_text()[:-9],
            "version": json.dumps(content | {"version": 9}),
            "other": "[]",
        }
        path.write_text(text[damage])
    with pytest.raises(EncoderError, match=r"encoder\.json"):
        TableEncoder.load(path)


CELLS = st.one_of(st.none(), st.floats(allow_infinity=False, width=32), st.integers(-(10**6), 10**6))
TEXTS = st.one_of(st.none(), st.text(max_size=5), st.integers(0, 9), st.booleans())


def test_a_value_far_outside_of_training_stays_finite():
    encoder = TableEncoder(["a"], scaling="standard").fit(pd.DataFrame({"a": [0.0, 1e-36]}))
    numerical = encoder.transform(pd.DataFrame({"a": [311.0, -1e300]}))[0]
    assert torch.isfinite(numerical).all()
    assert numerical[0, 0] > 0 > numerical[1, 0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(CELLS, CELLS, TEXTS), min_size=1, max_size=30),
    st.lists(st.tuples(CELLS, CELLS, TEXTS), max_size=10),
    st.sampled_from(["quantile", "standard"]),
    st.integers(1, 3),
)
def test_any_rows_give_finite_numbers_and_indices_in_range(training, new, scaling, min_count):
    columns = ["a", "b", "c"]
    fitted = TableEncoder(["a", "b"], ["c"], scaling=scaling, min_count=min_count)
    fitted.fit(pd.DataFrame(training, columns=columns))
    for rows in (training, new):
        numerical, categorical = fitted.transform(pd.DataFrame(rows, columns=columns))
        assert numerical.shape == (len(rows), fitted.num_numerical_features)
        assert torch.isfinite(numerical).all()
        assert categorical.shape == (len(rows), 1)
        if rows:
            assert 0 <= int(categorical.min()) <= int(categorical.max()) < fitted.categorical_cardinalities[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="age"), "no column 'age'"),
        (lambda frame: frame.assign(age="old"), "no number"),
        (lambda frame: frame.assign(age=np.inf), "infinite"),
        (lambda frame: frame.assign(when="yesterday?"), "no time"),
    ],
)
def test_tables_that_do_not_fit_are_refused(change, message):
    fitted = encoder().fit(table())
    with pytest.raises(EncoderError, match=message):
        fitted.transform(change(table()))


def test_fitting_needs_rows_and_transforming_needs_a_fit():
    with pytest.raises(EncoderError, match="no rows"):
        encoder().fit(table(0))
    with pytest.raises(EncoderError, match="fit the encoder"):
        encoder().transform(table())


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"numerical": ["a", "a"]},
        {"numerical": ["a"], "categorical": ["a"]},
        {"numerical": ["a"], "scaling": "log"},
        {"numerical": ["a"], "min_count": 0},
        {"categorical": ["a"], "hashed": {"b": 3}},
        {"categorical": ["a"], "hashed": {"a": 0}},
    ],
)
def test_impossible_encoders_are_refused(arguments):
    with pytest.raises(EncoderError):
        TableEncoder(**arguments)
