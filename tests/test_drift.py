"""Drift of fields, levels of rarity, and what is usual for a kind."""

from __future__ import annotations

import json

import numpy as np
import pytest

from companion.detection.drift import DriftError, DriftTracker
from companion.detection.thresholds import CombinedTails, ThresholdError, UpperTail
from companion.detection.usual import Usual
from companion.detection.vectors import VectorError

FIELDS = ("size", "os", "country")


def rows(num: int, seed: int, *, shift: float = 0.0, share: float = 0.1, missing: float = 0.2):
    rng = np.random.default_rng(seed)
    numbers = rng.lognormal(shift, size=(num, 1))
    numbers[rng.random(num) < missing] = np.nan
    os = rng.choice([0, 1, 2, 3], num, p=[0.1, share, 0.5, 0.4 - share])
    country = np.minimum(rng.zipf(1.5, num) + 1, 199)  # many rare categories
    return numbers, np.stack([os, country], axis=1)


def tracker() -> DriftTracker:
    return DriftTracker(FIELDS, [4, 200]).fit(*rows(5000, 0)).usual(*rows(1000, 1))


@pytest.mark.parametrize("num", [30, 300, 3000, 30_000])
def test_equal_distributions_have_not_drifted(num):
    for seed in range(10):
        report = tracker().update(*rows(num, 100 + seed)).report()
        assert not any(field.drifted for field in report), report


@pytest.mark.parametrize(
    ("change", "field"),
    [({"shift": 0.5}, "size"), ({"share": 0.25}, "os"), ({"missing": 0.5}, "size")],
)
def test_drift_is_found_where_it_is(change, field):
    report = tracker().update(*rows(2000, 7, **change)).report()
    assert [found.field for found in report if found.drifted] == [field]
    assert report[0].field == field
    assert report[0].shift > report[0].limit


def test_shares_of_missing_and_unseen_values_are_told():
    found = {field.field: field for field in tracker().update(*rows(5000, 7, share=0.3)).report()}
    assert found["os"].unseen == pytest.approx((0.1, 0.3), abs=0.02)
    assert found["os"].shift == pytest.approx(0.2, abs=0.02)
    assert found["size"].missing == pytest.approx((0.2, 0.2), abs=0.02)
    assert found["os"].change[0] in (1, 3)


def test_chunks_do_not_matter_and_a_saved_tracker_is_the_same():
    numbers, categories = rows(1000, 3)
    whole, pieces = tracker(), DriftTracker.from_state(json.loads(json.dumps(tracker().state())))
    assert pieces.report() == []
    whole.update(numbers, categories)
    for start in range(0, 1000, 333):
        pieces.update(numbers[start : start + 333], categories[start : start + 333])
    assert whole.report() == pieces.report()


def test_what_cannot_be_tracked_is_named():
    with pytest.raises(DriftError, match="fit"):
        DriftTracker(FIELDS, [4, 200]).update(*rows(5, 0))
    with pytest.raises(DriftError, match="no rows"):
        DriftTracker(FIELDS, [4, 200]).fit(*rows(0, 0))
    with pytest.raises(DriftError, match="shapes"):
        tracker().update(np.zeros((3, 2)), np.zeros((3, 2), dtype=int))
    with pytest.raises(DriftError, match="describes no"):
        DriftTracker.from_state({"fields": []})


def test_levels_count_normals_and_go_on_rising():
    normal = np.random.default_rng(0).exponential(size=100_000)
    tail = UpperTail(normal)
    new = np.array([0.0, np.log(10), np.log(1000), np.log(1e6), 40.0])
    np.testing.assert_allclose(tail.level(new), [0, 1, 3, 6, 40 / np.log(10)], atol=0.05, rtol=0.05)
    levels = tail.level(np.linspace(0, 50, 5000))
    assert (np.diff(levels) >= 0).all()
    assert (np.diff(tail.level(np.linspace(tail.start, 50, 50))) > 0).all()


@pytest.mark.parametrize("normal", [[1.0], [1.0, 1.0, 1.0], [0.0, 2.0]])
def test_few_or_equal_normals_give_levels_too(normal):
    levels = UpperTail(np.array(normal)).level(np.array([-1.0, 1.0, 3.0, 1e9]))
    assert np.isfinite(levels).all()
    assert (np.diff(levels) >= 0).all()
    assert levels[3] > levels[2]


def test_levels_together_are_levels():
    normal = np.random.default_rng(0).normal(size=(20_000, 2))
    tails = CombinedTails(normal)
    new = tails.level(np.random.default_rng(1).normal(size=(20_000, 2)))
    assert (new > 2).mean() == pytest.approx(0.01, rel=0.3)
    both, one = tails.level(np.array([[2.5, 2.5], [2.5, 0.0]]))
    assert both > one
    with pytest.raises(ThresholdError):
        CombinedTails(np.empty((0, 2)))


def test_what_is_usual_depends_on_the_kind():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(5, 2, (1000, 3)), rng.normal(0, 0.001, (1000, 3)), np.ones((5, 3))])
    kinds = np.array(["noisy"] * 1000 + ["calm"] * 1000 + ["rare"] * 5)
    usual = Usual().fit(values, kinds)
    again = Usual.from_state(json.loads(json.dumps(usual.state())))
    asked, of = np.full((4, 3), 5.0), np.array(["noisy", "calm", "rare", "new"])
    excess = again.excess(asked, of)
    np.testing.assert_array_equal(excess, usual.excess(asked, of))
    np.testing.assert_allclose(excess[0], 0, atol=0.1)
    np.testing.assert_allclose(excess[1], 5 / 0.3, rtol=0.05)
    np.testing.assert_array_equal(excess[2], excess[3])  # too few of a kind are measured by all
    with pytest.raises(VectorError, match="no rows"):
        Usual().fit(np.zeros((0, 3)), np.array([]))
    with pytest.raises(VectorError, match="usual"):
        Usual.from_state({})
