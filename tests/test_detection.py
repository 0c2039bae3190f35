"""Thresholds, metrics, alarms and the simple detectors, against brute force and scikit-learn."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_recall_curve

from companion.detection.alarms import alarm_spans, judge_alarms
from companion.detection.metrics import (
    bootstrap,
    bootstrap_difference,
    confusion,
    pr_auc,
    recall_at_fpr,
    roc_auc,
    wilson,
)
from companion.detection.simple import (
    MeanDistance,
    NeighborDistance,
    PcaReconstruction,
    matrix_profile_scores,
)
from companion.detection.thresholds import ThresholdError, fixed_fpr, normal_quantile, tnr_target

# few different values, so that ties are common
scores = st.lists(st.integers(0, 8).map(float), min_size=1, max_size=30).map(np.array)
shares = st.floats(0.02, 0.98)


def tnr(normals, threshold):
    return np.mean(normals <= threshold)


def tpr(anomalies, threshold):
    return np.mean(anomalies > threshold)


# ---------------------------------------------------------------- thresholds


@settings(max_examples=60, deadline=None)
@given(scores, shares)
def test_a_fixed_rate_is_kept_on_the_normals_and_no_lower_score_keeps_it(normals, fpr):
    allowed = int(np.floor(fpr * (len(normals) + 1) + 1e-9))
    if allowed < 1:
        with pytest.raises(ThresholdError, match="needs at least"):
            fixed_fpr(normals, fpr)
        return
    threshold = fixed_fpr(normals, fpr)
    assert threshold in normals
    assert (normals > threshold).sum() <= allowed - 1
    lower = normals[normals < threshold]
    if len(lower):
        assert (normals > lower.max()).sum() > allowed - 1


def test_a_fixed_rate_holds_for_new_normals_on_average():
    rng = np.random.default_rng(0)
    rates = [np.mean(rng.normal(size=500) > fixed_fpr(rng.normal(size=39), 0.05)) for _ in range(2000)]
    assert np.mean(rates) == pytest.approx(2 / 40, abs=0.002)


@pytest.mark.parametrize(("fpr", "least"), [(0.01, 99), (0.001, 999), (0.05, 19), (0.5, 1)])
def test_too_few_normals_for_a_rate_are_refused_with_the_number_needed(fpr, least):
    assert fixed_fpr(np.arange(float(least)), fpr) == least - 1
    if least > 1:
        with pytest.raises(ThresholdError, match=f"at least {least} normals, here are {least - 1}"):
            fixed_fpr(np.arange(least - 1.0), fpr)


@settings(max_examples=60, deadline=None)
@given(scores, shares)
def test_a_quantile_is_the_lowest_score_that_enough_normals_do_not_exceed(normals, quantile):
    threshold = normal_quantile(normals, quantile)
    enough = [t for t in normals if tnr(normals, t) >= quantile - 1e-12]
    assert threshold == min(enough)


@settings(max_examples=60, deadline=None)
@given(scores, scores, shares)
def test_the_target_is_met_with_the_best_rate_there_is(normals, anomalies, target):
    everything = np.concatenate([normals, anomalies])
    if np.ptp(everything) == 0:
        with pytest.raises(ThresholdError, match="all scores are equal"):
            tnr_target(normals, anomalies, target)
        return
    threshold = tnr_target(normals, anomalies, target)
    assert threshold in everything
    assert tnr(normals, threshold) >= target - 1e-12
    possible = [t for t in everything if tnr(normals, t) >= target - 1e-12]
    best = max(tpr(anomalies, t) for t in possible)
    assert tpr(anomalies, threshold) == best
    equal = [t for t in possible if tpr(anomalies, t) == best]
    assert tnr(normals, threshold) == max(tnr(normals, t) for t in equal)


def test_what_is_told_apart_perfectly_stays_so():
    assert tnr_target(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0])) == 3.0


@pytest.mark.parametrize(
    ("normals", "anomalies", "message"),
    [
        ([1.0, 2.0], [], "no anomalies.*fixed_fpr"),
        ([], [1.0, 2.0], "no normals"),
        ([], [], "at least one"),
        ([1.0, 1.0], [1.0], "all scores are equal"),
        ([1.0, np.nan], [2.0], "1 of 2 scores of normals"),
        ([1.0], [np.inf, np.nan], "2 of 2 scores of anomalies"),
        ([[1.0], [2.0]], [1.0], "not \\(2, 1\\)"),
    ],
)
def test_cases_without_an_answer_are_refused(normals, anomalies, message):
    with pytest.raises(ThresholdError, match=message):
        tnr_target(np.array(normals), np.array(anomalies))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 5.0, float("nan")])
def test_shares_outside_0_and_1_are_refused(share):
    some = np.arange(10.0)
    with pytest.raises(ThresholdError, match="share"):
        fixed_fpr(some, share)
    with pytest.raises(ThresholdError, match="share"):
        normal_quantile(some, share)
    with pytest.raises(ThresholdError, match="share"):
        tnr_target(some, some, share)


def test_equal_scores_of_normals_flag_none_of_them():
    same = np.full(200, 0.5)
    assert not (same > fixed_fpr(same, 0.01)).any()
    assert not (same > normal_quantile(same, 0.9)).any()


@pytest.mark.parametrize("bad", [[], [np.nan, 1.0]])
def test_no_scores_and_nan_are_refused(bad):
    for choose in (lambda s: fixed_fpr(s, 0.5), normal_quantile):
        with pytest.raises(ThresholdError, match=r"at least one|NaN"):
            choose(np.array(bad))


# ---------------------------------------------------------------- metrics


@settings(max_examples=60, deadline=None)
@given(scores, scores, st.floats(-1, 9))
def test_the_counts_equal_scikit_learns(normals, anomalies, threshold):
    labels = np.repeat([0, 1], [len(normals), len(anomalies)])
    both = np.concatenate([normals, anomalies])
    found = confusion(labels, both, threshold)
    expected = confusion_matrix(labels, both > threshold, labels=[0, 1]).ravel().tolist()
    assert [found.tn, found.fp, found.fn, found.tp] == expected
    assert found.tpr.value == tpr(anomalies, threshold)
    assert found.tnr.value == tnr(normals, threshold)
    assert found.fpr.value == pytest.approx(1 - found.tnr.value)
    for estimate in (found.tpr, found.tnr, found.fpr):
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@settings(max_examples=60, deadline=None)
@given(scores, scores)
def test_areas_and_recall_equal_brute_force(normals, anomalies):
    labels = np.repeat([0, 1], [len(normals), len(anomalies)])
    both = np.concatenate([normals, anomalies])
    pairs = np.sign(anomalies[:, None] - normals[None]).mean() / 2 + 0.5
    assert roc_auc(labels, both) == pytest.approx(pairs)
    precision, recall, _ = precision_recall_curve(labels, both)
    assert pr_auc(labels, both) == pytest.approx(-(np.diff(recall) * precision[:-1]).sum())
    for fpr in (0.0, 0.1, 0.5, 1.0):
        thresholds = [-np.inf, *both]
        possible = [tpr(anomalies, t) for t in thresholds if 1 - tnr(normals, t) <= fpr + 1e-12]
        assert recall_at_fpr(labels, both, fpr) == pytest.approx(max(possible))


def test_wilson_is_the_textbooks():
    # Newcombe 1998, table I, method 3
    for successes, trials, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        found = wilson(successes, trials)
        assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    assert wilson(0, 20).low == 0.0
    assert wilson(20, 20).high == 1.0
    assert str(wilson(1, 2)) == "0.500 [0.095, 0.905]"
    for impossible in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="trials"):
            wilson(*impossible)


def test_the_bootstrap_is_seeded_and_covers():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    found = bootstrap(roc_auc, labels, rng.normal(size=120) + labels, repeats=200)
    again = bootstrap(roc_auc, labels, np.random.default_rng(0).normal(size=120) + labels, repeats=200)
    assert found == again
    assert found.low < found.value < found.high
    assert 0.05 < found.high - found.low < 0.3
    assert found.low < 0.76 < found.high  # what two normals a standard deviation apart have
    certain = bootstrap(pr_auc, labels, labels.astype(float), repeats=20)
    assert (certain.low, certain.value, certain.high) == (1, 1, 1)
    with pytest.raises(ValueError, match="repeat"):
        bootstrap(roc_auc, labels, labels, repeats=0)


def test_detectors_are_compared_on_the_same_samples():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    shared = rng.normal(size=200) + labels
    better, worse = shared + 0.3 * labels, shared
    found = bootstrap_difference(roc_auc, labels, better, worse, repeats=200)
    assert found.value == pytest.approx(roc_auc(labels, better) - roc_auc(labels, worse))
    assert 0 < found.low < found.value < found.high
    assert found.high - found.low < 0.06  # the single intervals are wider than 0.1
    none = bootstrap_difference(pr_auc, labels, worse, worse, repeats=20)
    assert (none.low, none.value, none.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("labels", "values", "message"),
    [
        ([0, 0], [1.0, 2.0], "normals and anomalies"),
        ([1, 1], [1.0, 2.0], "normals and anomalies"),
        ([0, 1], [1.0, np.nan], "NaN"),
        ([0, 2], [1.0, 2.0], "0 for normal"),
        ([0, 1], [1.0], "not"),
    ],
)
def test_what_cannot_be_ranked_is_refused(labels, values, message):
    for metric in (roc_auc, pr_auc, lambda a, b: recall_at_fpr(a, b, 0.1)):
        with pytest.raises(ValueError, match=message):
            metric(np.array(labels), np.array(values))
    with pytest.raises(ValueError, match="share"):
        recall_at_fpr(np.array([0, 1]), np.array([0.0, 1.0]), 2.0)


# ---------------------------------------------------------------- alarms


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.integers(0, 5))
def test_alarms_hold_every_flag_and_lie_apart(flags, merge):
    flagged = np.array(flags, dtype=bool)
    spans = alarm_spans(flagged, merge)
    covered = np.zeros(len(flagged), dtype=bool)
    for start, end in spans:
        assert flagged[start]
        assert flagged[end - 1]
        covered[start:end] = True
    assert (covered | ~flagged).all()
    assert all(b - a > merge for (_, a), (b, _) in pairwise(spans))
    if merge == 0:
        assert (covered == flagged).all()


def test_alarms_are_judged_by_hand():
    flagged = np.zeros(8640, dtype=bool)
    flagged[[100, 101, 205, 300, 5000]] = True
    report = judge_alarms(
        flagged, [(100, 110), (200, 210), (290, 295), (400, 500)], seconds_per_sample=10, tolerance=6
    )
    assert report.delays == (0.0, 50.0, 100.0, None)
    assert report.detected == 3
    assert report.false_alarms == 1
    assert report.false_alarms_per_day == 1.0
    without = judge_alarms(flagged, [(290, 295)], seconds_per_sample=10)
    assert without.delays == (None,)
    assert without.false_alarms == 4
    early = judge_alarms(flagged, [(101, 103)], seconds_per_sample=10)
    assert early.delays == (0.0,)


def test_impossible_alarms_are_refused():
    with pytest.raises(ValueError, match="bool"):
        alarm_spans(np.zeros(3))
    for faults in ([(2, 2)], [(-1, 2)], [(0, 9)]):
        with pytest.raises(ValueError, match="inside the series"):
            judge_alarms(np.zeros(5, dtype=bool), faults, seconds_per_sample=1)


# ---------------------------------------------------------------- simple detectors

DETECTORS = [MeanDistance, PcaReconstruction, NeighborDistance]


def waves(count, seed, channels=None):
    rng = np.random.default_rng(seed)
    shape = (count, 30) if channels is None else (count, channels, 30)
    return np.sin(np.linspace(0, 6, 30)) + 0.1 * rng.normal(size=shape)


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("channels", [None, 2])
def test_a_detector_finds_what_is_unlike(detector, channels):
    normal, other = waves(50, 0, channels), np.roll(waves(20, 1, channels), 8, axis=-1)
    found = detector().fit(normal)
    again = waves(40, 2, channels)
    assert found.score(other).min() > found.score(again).max()
    assert found.score(again).shape == (40,)
    assert found.score(again[:0]).shape == (0,)
    np.testing.assert_allclose(found.score(3 * again + 7), found.score(again))  # each window is standardised
    with pytest.raises(ValueError, match="shape"):
        found.score(again[..., :20])
    with pytest.raises(ValueError, match="too few"):
        detector().fit(normal[:0])
    with pytest.raises(ValueError, match="fit"):
        detector().score(normal)


def test_the_simple_scores_by_hand():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(20, 6)), rng.normal(size=(5, 6))
    mean = train.mean(axis=0)
    np.testing.assert_allclose(
        MeanDistance("none").fit(train).score(test), ((test - mean) ** 2).mean(axis=1), rtol=1e-5
    )
    axes = np.linalg.svd(train - mean)[2][:2]
    residual = (test - mean) - (test - mean) @ axes.T @ axes
    np.testing.assert_allclose(
        PcaReconstruction(2, "none").fit(train).score(test), (residual**2).mean(axis=1), rtol=1e-4
    )
    distances = np.sort(np.linalg.norm(test[:, None] - train[None], axis=2), axis=1)[:, :3].mean(axis=1)
    np.testing.assert_allclose(NeighborDistance(3, "none").fit(train).score(test), distances, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PcaReconstruction(0), "component"),
        (lambda: NeighborDistance(0), "neighbour"),
        (lambda: MeanDistance("rows"), "standardise"),
        (lambda: PcaReconstruction(7).fit(np.random.default_rng(0).normal(size=(9, 6))), "7 components"),
        (lambda: NeighborDistance(3).fit(np.zeros((2, 6))), "at least 3"),
        (lambda: MeanDistance().fit(np.full((2, 6), np.nan)), "no number"),
    ],
)
def test_impossible_detectors_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_matrix_profile_is_the_distance_to_the_nearest_normal_window():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=60), rng.normal(size=40)
    found = matrix_profile_scores(test, train, 8)
    normed = []
    for series in (test, train):
        views = np.lib.stride_tricks.sliding_window_view(series, 8)
        normed.append((views - views.mean(axis=1, keepdims=True)) / views.std(axis=1, keepdims=True))
    expected = np.linalg.norm(normed[0][:, None] - normed[1][None], axis=2).min(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    test[10], train[:5] = np.nan, np.nan
    gaps = matrix_profile_scores(test, train, 8)
    assert np.isnan(gaps).nonzero()[0].tolist() == list(range(3, 11))
    expected = np.linalg.norm(normed[0][:, None] - normed[1][None, 5:], axis=2).min(axis=1)
    np.testing.assert_allclose(gaps[11:], expected[11:], rtol=1e-4)
    with pytest.raises(ValueError, match="at least 50"):
        matrix_profile_scores(test, train, 50)
    with pytest.raises(ValueError, match="without a gap"):
        matrix_profile_scores(test, np.full(20, np.nan), 8)


def test_resampling_groups_widens_the_interval_where_rows_resemble_each_other():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 20)
    labels = groups < 20
    truth = rng.normal(size=60)[groups] + 0.8 * labels  # all rows of a group score about the same
    scores = truth + rng.normal(scale=0.01, size=1200)
    rows = bootstrap(roc_auc, labels, scores, repeats=200)
    whole = bootstrap(roc_auc, labels, scores, groups=groups, repeats=200)
    assert rows.value == whole.value
    assert whole.high - whole.low > 2 * (rows.high - rows.low)
    alone = bootstrap(roc_auc, labels, scores, groups=np.arange(1200), repeats=200)  # every row by itself
    assert alone.high - alone.low == pytest.approx(rows.high - rows.low, rel=0.3)
    with pytest.raises(ValueError, match="as many groups"):
        bootstrap(roc_auc, labels, scores, groups=groups[1:])
