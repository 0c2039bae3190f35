from dataclasses import asdict
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import QuantileTransformer

from companion.objectives.encoding import MISSING, UNSEEN, TableEncoder, factorize


def table(rows: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.gamma(3, 10, rows),
            "gain": np.where(rng.random(rows) < 0.2, np.nan, rng.normal(size=rows)),
            "constant": np.full(rows, 7.0),
            "job": rng.choice(np.array(["cook", "nurse", None], dtype=object), rows),
            "address": rng.integers(0, 60, rows),
            "when": pd.Timestamp("2026-01-05T06:00Z")
            + pd.to_timedelta(rng.integers(0, 10**6, rows), unit="s"),
        }
    )


def encoder(**changes) -> TableEncoder:
    settings = {"times": ["when"], "most": 50} | changes
    return TableEncoder(["age", "gain", "constant"], ["job", "address"], **settings)


def transformed(values, asked=None, times=(), **settings):
    """Numbers and indices of the column ``c`` after training on ``values``."""
    fitted = TableEncoder([], [] if times else ["c"], times=times, **settings)
    fitted.fit(pd.DataFrame({"c": values}))
    return fitted.transform(pd.DataFrame({"c": values if asked is None else asked}))


def indices(values, asked, **settings):
    return transformed(values, pd.Series(asked, dtype=object), **settings)[1].flatten().tolist()


def test_quantiles_are_scikit_learns():
    age, new = table(2000)["age"].to_numpy(), np.append(table(100, seed=1)["age"], [-1e9, 0.0, 1e9])
    ours = TableEncoder(["age"]).fit(table(2000)).transform(pd.DataFrame({"age": new}))[0][:, 0].numpy()
    oracle = QuantileTransformer(n_quantiles=66, output_distribution="normal", subsample=None)
    noise = np.random.default_rng(0).normal(scale=1e-3 * age.std(), size=len(age))
    oracle.fit((age + noise)[:, None])
    np.testing.assert_allclose(ours, oracle.transform(new[:, None])[:, 0], rtol=1e-6)


def test_numbers_come_back():
    frame = table(2000)
    for scaling in ("quantile", "standard"):
        fitted = TableEncoder(["age"], scaling=scaling).fit(frame)
        scaled = fitted.transform(frame)[0][:, 0].numpy()
        np.testing.assert_allclose(fitted.unscale("age", scaled), frame["age"], rtol=1e-3, atol=0.05)
    assert (scaled.mean(), scaled.std()) == pytest.approx((0, 1), abs=1e-5)


def test_a_value_that_most_rows_share_is_not_mapped_to_the_far_end():
    gains = np.where(np.arange(1000) % 10 == 0, np.arange(1000) + 500.0, 0.0)  # nine of ten are 0, the lowest
    frame = pd.DataFrame({"gain": gains})
    values = TableEncoder(["gain"]).fit(frame).transform(frame)[0]
    assert abs(float(values[gains == 0].mean())) < 0.3  # the middle of the lower nine tenths
    assert float(values[gains > 0].min()) > 1.2  # the ninth tenth of a normal distribution is at 1.28


def test_missing_unseen_and_rare_values_have_their_own_places():
    training = ["cook"] * 5 + ["nurse"] * 6 + ["king", None]
    asked = ["cook", "nurse", "king", "pilot", None, np.nan]
    assert indices(training, asked, min_count=2) == [2, 3, UNSEEN, UNSEEN, MISSING, MISSING]
    of_equals_the_first = indices([*training, *["baker"] * 5], ["baker", *asked], most=2)
    assert of_equals_the_first == [2, UNSEEN, 3, UNSEEN, UNSEEN, MISSING, MISSING]


def test_missing_numbers_become_0_and_are_told():
    fitted = encoder().fit(table())
    numerical, _ = fitted.transform(table(4, seed=2).assign(age=np.nan, gain=np.nan))
    assert fitted.feature_names[:4] == ["age", "gain", "gain is missing", "constant"]
    assert numerical[:, :3].tolist() == [[0, 0, 1]] * 4  # training had no age missing, so nothing tells it


def test_times_become_circles():
    monday = pd.to_datetime(["2026-01-05T06:00:00Z", "2026-01-05T18:00:00Z"])
    expected = torch.tensor([[1.0, 0, 0, 1], [-1, 0, 0, 1]])
    torch.testing.assert_close(transformed(monday, times=["c"])[0], expected, rtol=0, atol=1e-6)


def test_values_have_codes_and_lists_have_too():
    codes, texts = factorize(pd.Series(["b", None, "a", "b", 3.0], dtype=object))
    assert (codes.tolist(), texts.tolist()) == ([0, -1, 1, 0, 2], ["b", "a", "3"])
    codes, texts = factorize(pd.Series([[1], [2], [1]]))
    assert (codes.tolist(), texts.tolist()) == ([0, 1, 0], ["[1]", "[2]"])


def test_it_is_kept_as_plain_values():
    fitted = encoder().fit(table())
    loaded, new = TableEncoder(**asdict(fitted)), table(60, seed=3)
    for ours, theirs in zip(fitted.transform(new), loaded.transform(new), strict=True):
        assert torch.equal(ours, theirs)
    assert loaded == fitted


THREES = [3, 3.0, np.int8(3), np.float32(3), np.float64(3), Decimal("3.00"), "3", "3.0", np.str_("3")]
TRUTHS = [True, np.True_, 1, 1.0, Decimal(1), "True", "true", "1"]


@pytest.mark.parametrize("value", THREES, ids=repr)
@pytest.mark.parametrize("seen", THREES, ids=repr)
def test_equal_categories_have_equal_indices(seen, value):
    other = "x" if isinstance(seen, str) else type(seen)(7)
    assert indices([seen, other], [value, None]) == [2, 0]


@pytest.mark.parametrize("value", TRUTHS, ids=repr)
@pytest.mark.parametrize("seen", TRUTHS, ids=repr)
def test_truth_has_one_index(seen, value):
    found = indices(pd.Series(["a", seen], dtype=object), [value, "a"])
    assert found[0] not in (MISSING, UNSEEN, found[1])


def test_different_texts_stay_apart():
    versions = ["1.1", "1.10", "01", "1", "1e0", "10"]
    assert len(set(indices(versions, versions))) == 6


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


def test_what_is_impossible_is_refused():
    with pytest.raises(ValueError, match="column 'age' holds an infinite number"):
        encoder().fit(table()).transform(table().assign(age=np.inf))
    with pytest.raises(ValueError, match="fit the encoder"):
        encoder().transform(table())
