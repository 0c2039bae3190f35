"""Thresholds, metrics, verdicts and alarms, against brute force, scikit-learn and SciPy."""

import re
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from companion.detection.alarms import alarm_spans, evaluate_alarms
from companion.detection.metrics import (
    bootstrap,
    compare,
    confusion,
    pr_auc,
    recall_at_fpr,
    roc_auc,
    two_sample,
    vus_pr,
    wilson,
)
from companion.detection.thresholds import EmpiricalTail, FisherTail, fixed_fpr, tnr_target

# few different values, so that ties are common
scores = st.lists(st.integers(0, 8).map(float), min_size=1, max_size=30).map(np.array)
shares = st.floats(0.02, 0.98)


def tnr(normals, threshold):
    return np.mean(normals <= threshold)


def tpr(anomalies, threshold):
    return np.mean(anomalies > threshold)


@settings(max_examples=60, deadline=None)
@given(scores, shares)
def test_a_fixed_rate_is_kept_on_the_normals_and_no_lower_score_keeps_it(normals, fpr):
    allowed = int(np.floor(fpr * (len(normals) + 1) + 1e-9))
    if allowed < 1:
        with pytest.raises(ValueError, match=rf"at least (\d+) normals, here are {len(normals)}") as told:
            fixed_fpr(normals, fpr)
        least = int(re.search(r"at least (\d+)", str(told.value))[1])
        assert fixed_fpr(np.arange(float(least)), fpr) == least - 1
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


@settings(max_examples=60, deadline=None)
@given(scores, scores, shares)
def test_the_target_is_met_with_the_best_rate_there_is(normals, anomalies, target):
    everything = np.concatenate([normals, anomalies])
    if np.ptp(everything) == 0:
        with pytest.raises(ValueError, match="all scores are equal"):
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


def test_what_gives_no_threshold_is_refused():
    some, none = np.arange(10.0), np.empty(0)
    for share in (0.0, 1.0, 5.0, np.nan):
        for choose in (lambda share: fixed_fpr(some, share), lambda share: tnr_target(some, some, share)):
            with pytest.raises(ValueError, match="share"):
                choose(share)
    for normals, anomalies, message in ((some, none, "no anomalies"), (none, some, "no normals")):
        with pytest.raises(ValueError, match=message):
            tnr_target(normals, anomalies)
    with pytest.raises(ValueError, match="thresholds are NaN"):
        confusion(np.array([0, 1]), np.array([0.0, 1.0]), np.nan)


def test_levels_count_normals_and_go_on_rising():
    normal = np.random.default_rng(0).exponential(size=100_000)
    tail = EmpiricalTail(normal)
    new = np.array([0.0, np.log(10), np.log(1000), np.log(1e6), 40.0])
    np.testing.assert_allclose(tail.level(new), [0, 1, 3, 6, 40 / np.log(10)], atol=0.05, rtol=0.05)
    levels = tail.level(np.linspace(0, 50, 5000))
    assert (np.diff(levels) >= 0).all()
    assert (np.diff(tail.level(np.linspace(tail.start, 50, 50))) > 0).all()
    for few_or_equal in ([1.0], [1.0, 1.0, 1.0], [0.0, 2.0]):
        levels = EmpiricalTail(np.array(few_or_equal)).level(np.array([-1.0, 1.0, 3.0, 1e9]))
        assert np.isfinite(levels).all()
        assert 0 <= levels[0] <= levels[1] <= levels[2] < levels[3]


def test_levels_together_are_levels():
    normal = np.random.default_rng(0).normal(size=(20_000, 2))
    tails = FisherTail(normal)
    new = tails.level(np.random.default_rng(1).normal(size=(20_000, 2)))
    assert (new > 2).mean() == pytest.approx(0.01, rel=0.3)
    both, one = tails.level(np.array([[2.5, 2.5], [2.5, 0.0]]))
    assert both > one
    with pytest.raises(ValueError, match="no normals"):
        FisherTail(np.empty((0, 2)))


@settings(max_examples=60, deadline=None)
@given(scores, scores, st.floats(-1, 9))
def test_the_rates_at_a_threshold_equal_counts_by_hand(normals, anomalies, threshold):
    labels = np.repeat([0, 1], [len(normals), len(anomalies)])
    both = np.concatenate([normals, anomalies])
    found = confusion(labels, both, threshold)
    assert found.tpr.value == tpr(anomalies, threshold)
    assert found.tnr.value == tnr(normals, threshold)
    for estimate in found:
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


@settings(max_examples=60, deadline=None)
@given(scores, scores)
def test_the_recall_that_can_be_had_equals_brute_force(normals, anomalies):
    labels = np.repeat([0, 1], [len(normals), len(anomalies)])
    both = np.concatenate([normals, anomalies])
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


def test_detectors_are_compared_on_the_same_samples():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    shared = rng.normal(size=200) + labels
    better, worse = shared + 0.3 * labels, shared
    found = bootstrap(roc_auc, labels, better, others=worse, repeats=200)
    assert found.value == pytest.approx(roc_auc(labels, better) - roc_auc(labels, worse))
    assert 0 < found.low < found.value < found.high
    assert found.high - found.low < 0.06  # the single intervals are wider than 0.1
    none = bootstrap(pr_auc, labels, worse, others=worse, repeats=20)
    assert (none.low, none.value, none.high) == (0, 0, 0)


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


RANKINGS = (roc_auc, pr_auc, partial(recall_at_fpr, fpr=0.1), partial(bootstrap, roc_auc))
MASKED = np.ma.masked_array([1.0, 2.0], [False, True])


BAD = [
    np.array([1.0, np.nan]), np.array([1.0, np.inf]), np.array([1.0, 2.0j]), MASKED,
    np.array(["2020-01-01", "2020-01-02"], "M8[D]"),
]  # fmt: skip
TAIL = EmpiricalTail(np.arange(9.0))


@pytest.mark.parametrize(
    ("labels", "values", "message"),
    [
        ([0, 0], [1.0, 2.0], "normals and anomalies"),
        ([0, 2], [1.0, 2.0], "label of 0 or 1"),
        ([0, 1], [1.0], "for each of 1 scores"),
    ],
)
def test_what_cannot_be_ranked_is_refused(labels, values, message):
    for metric in RANKINGS:
        with pytest.raises(ValueError, match=message):
            metric(np.array(labels), values)


@pytest.mark.parametrize("bad", BAD, ids=["nan", "inf", "complex", "masked", "dates"])
@pytest.mark.parametrize(
    "use",
    [
        *(partial(metric, np.array([0, 1])) for metric in RANKINGS),
        lambda bad: fixed_fpr(bad, 0.5),
        lambda bad: tnr_target(np.arange(9.0), bad),
        lambda bad: confusion([0, 1], bad, 0.5),
        lambda bad: EmpiricalTail(bad),
        lambda bad: TAIL.level(bad),
        lambda bad: two_sample(np.zeros((5, 2)), bad[None]),
        lambda bad: compare([bad]),
    ],
)
def test_bad_scores_are_refused_at_every_border(use, bad):
    with pytest.raises(ValueError, match=r"NaN or infinite|real numbers|masked"):
        use(bad)


def normal_rows(count: int, seed: int, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, size=(count, 20))


def test_one_distribution_cannot_be_told_apart_and_two_can_by_the_rows_that_are_unlike():
    assert two_sample(normal_rows(400, 0), normal_rows(300, 1))[0] == pytest.approx(0.5, abs=0.08)
    assert two_sample(normal_rows(400, 0), normal_rows(300, 1, 0.7))[0] > 0.95
    assert two_sample(np.ones((10, 4)), np.ones((10, 4)))[0] == 0.5  # copies of one row tell nothing
    second = np.concatenate([normal_rows(200, 1), normal_rows(40, 2, 3.0)])
    area, unlike = two_sample(normal_rows(300, 0), second)
    assert unlike[200:].min() > np.median(unlike[:200])
    assert 0.5 < area < 0.9  # most of the second set is like the first
    assert two_sample(normal_rows(300, 0), second)[0] == area


def test_many_comparisons_are_corrected_by_holm():
    gains = np.random.default_rng(1).normal(np.linspace(0, 2, 8)[:, None], size=(8, 5))
    raw = np.array([ttest_1samp(own, 0).pvalue for own in gains])
    rank = raw.argsort().argsort()
    adjusted = [max(min(1, raw[i] * (8 - rank[i])) for i in range(8) if rank[i] <= rank[j]) for j in range(8)]
    assert [found.p for found in compare(gains)] == pytest.approx(adjusted)
    assert [found.p for found in compare(gains[:5])] == pytest.approx(raw[:5])  # few are not
    clear = [[str(found) for found in compare(rows)].count("better") for rows in (gains, gains[3:])]
    assert clear[0] < clear[1]


def test_few_seeds_settle_nothing_and_equal_gains_do():
    assert [str(found) for found in compare([[0.5], [0.5, 0.51, 0.5, 0.5], [0.5] * 5, [0.0] * 5])] == [
        "not clearly different", "not clearly different", "better", "not clearly different"
    ]  # fmt: skip
    assert compare([[0.5]])[0].gain.high == np.inf
    assert str(compare([-np.arange(1.0, 7)])[0]) == "worse"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.integers(0, 5))
def test_alarms_hold_every_flag_and_lie_apart(flags, merge):
    flagged = np.array(flags, dtype=bool)
    spans = alarm_spans(flagged, merge)
    covered = np.zeros(len(flagged), dtype=bool)
    for start, end in spans:
        assert flagged[[start, end - 1]].all()
        covered[start:end] = True
    assert (covered | ~flagged).all()
    assert all(b - a > merge for (_, a), (b, _) in pairwise(spans))
    if merge == 0:
        assert (covered == flagged).all()


def test_alarms_are_judged_by_hand():
    flagged = np.zeros(8640, dtype=bool)
    flagged[[100, 101, 205, 300, 5000]] = True
    faults = [(100, 110), (200, 210), (290, 295), (400, 500)]
    report = evaluate_alarms(flagged, faults, seconds_per_sample=10, tolerance=6)
    assert report.delays == (0.0, 50.0, 100.0, None)
    assert (report.false_alarms, report.false_seconds) == (1, 10.0)
    assert report.calm_seconds == 10 * (8640 - 125 - 4 * 6)
    always = evaluate_alarms(np.ones(50, dtype=bool), [(10, 20)], seconds_per_sample=2)
    assert always == ((None,), 1, 80.0, 80.0)  # on before the fault, it calls nobody to it


@pytest.mark.parametrize(
    ("seed", "window", "expected"),
    [(0, 0, 0.4956419512203), (1, 9, 0.5337632699443), (2, 20, 0.6117235537790)],
)
def test_the_volume_is_that_of_its_library(seed, window, expected):
    """The mean of ``RangeAUC`` of ``vus`` 0.0.6 over the widths; its ``opt`` version approximates that."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(300, dtype=int)
    labels[40:70], labels[200:205] = 1, 1
    labels[: 10 * seed] = 1
    scores = (rng.normal(size=300) + 1.5 * np.convolve(labels, np.ones(9) / 9, "same")).round(2)
    assert vus_pr(labels, scores, window) == pytest.approx(expected, abs=1e-9)
    assert vus_pr(labels, labels + 0.0, 0) == pytest.approx(1, abs=0.01)
