"""Costs of thresholds, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from companion.detection.thresholds import ThresholdError, operating_points


def test_every_point_is_what_counting_gives():
    rng = np.random.default_rng(0)
    scores, groups = rng.integers(0, 12, 200).astype(float), rng.integers(0, 40, 200)
    anomalous = (groups < 5) & (rng.random(200) < 0.5)
    points = operating_points(scores, anomalous, groups, days=2, alert_cost=1.0, miss_cost=30.0)
    incidents = set(groups[anomalous])
    for i, threshold in enumerate(points.threshold):
        flagged = scores > threshold
        alerts = len(set(groups[flagged]))
        found = len(set(groups[flagged & anomalous]))
        assert points.alerts_per_day[i] == alerts / 2
        assert points.found[i] == pytest.approx(found / len(incidents))
        assert points.cost_per_day[i] == pytest.approx((alerts + 30 * (len(incidents) - found)) / 2)
    assert points.alerts_per_day[0] == 0
    assert points.alerts_per_day[-1] == len(set(groups)) / 2
    assert points.cost_per_day[points.cheapest] == points.cost_per_day.min()


def test_the_dearer_a_miss_the_lower_the_threshold():
    rng = np.random.default_rng(1)
    anomalous = np.arange(500) < 50
    scores = rng.normal(size=500) + 1.5 * anomalous
    costs = [
        operating_points(scores, anomalous, np.arange(500), days=1, alert_cost=1, miss_cost=miss)
        for miss in (0.5, 5, 500)
    ]
    thresholds = [points.threshold[points.cheapest] for points in costs]
    assert thresholds[0] > thresholds[1] > thresholds[2]
    assert costs[0].alerts_per_day[costs[0].cheapest] == 0  # then it is cheaper to look at nothing


def test_bad_input_is_named():
    good = np.ones(3), np.array([True, False, False]), np.arange(3)
    with pytest.raises(ValueError, match="at least one anomalous"):
        operating_points(good[0], np.zeros(3, dtype=bool), good[2], days=1, alert_cost=1, miss_cost=1)
    with pytest.raises(ValueError, match="above 0"):
        operating_points(*good, days=0, alert_cost=1, miss_cost=1)
    with pytest.raises(ThresholdError, match="NaN"):
        operating_points(np.array([1, np.nan, 2]), *good[1:], days=1, alert_cost=1, miss_cost=1)
