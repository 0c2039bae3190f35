"""The exercises on scores and thresholds: right answers pass, and each likely mistake hears its hint."""

from __future__ import annotations

import math

import numpy as np
import pytest

from companion.detection.metrics import wilson
from companion.detection.thresholds import UpperTail
from companion.exercises.verdicts import _needed
from tests.exercise_reports import right, told

# ---------------------------------------------------------------- precision


def precision(recall, fpr, share):
    found, false = recall * share, fpr * (1 - share)
    return found / (found + false)


def test_precision_where_anomalies_are_rare():
    right("precision", precision)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda r, f, s: 100 * precision(r, f, s), "a share lies between 0 and 1"),
        (lambda r, f, s: r / (r + f), "the share of unusual beats is not used"),
        (lambda r, f, s: r * s / (r * s + f), "a share of 1 - share"),
        (lambda r, f, s: 1 - precision(r, f, s), "that is normal"),
        (lambda r, f, s: r * s, "divide by what is flagged"),
        (lambda r, f, s: precision(r, 1 - f, s), "and not 1 - fpr"),
        (lambda r, f, s: precision(1, f, s), "not all of them"),
        (lambda r, f, s: r, "not by what is unusual"),
        (lambda r, f, s: 0.5, "recall 0.9, false positives 0.01 and a share of 0.3 give 0.5, not 0.9747"),
        (lambda r, f, s: precision(r, f, s) if f else 0, "without false positives it gives 0"),
        (lambda r, f, s: precision(r, f, s) if s < 1 else 0, "where all is unusual it gives 0"),
    ],
)
def test_wrong_precision(answer, hint):
    assert hint in told("precision", answer)


# ---------------------------------------------------------------- neighbours of one kind


def purity(vectors, labels, count, itself=False, start=0, farthest=False, measure="distance"):
    shares = []
    for place, vector in enumerate(vectors):
        distance = np.linalg.norm(vectors - vector, axis=1)
        if measure != "distance":
            distance = -vectors @ vector
        if measure == "cosine":
            distance = distance / np.linalg.norm(vectors, axis=1)
        order = [n for n in np.argsort(-distance if farthest else distance) if itself or n != place]
        shares.append((labels[order[start:count]] == labels[place]).mean())
    return np.array(shares)


def test_purity_by_hand():
    right("purity", lambda *args: purity(*args).mean())


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (purity, "numbers of shape (50,), and one number"),
        (lambda *args: purity(*args, itself=True).mean(), "its own nearest neighbour"),
        (lambda *args: purity(*args, itself=True, start=1).mean(), "one neighbour is missing"),
        (lambda *args: purity(*args, farthest=True).mean(), "farthest away"),
        (lambda *args: purity(*args, measure="cosine").mean(), "that is the cosine"),
        (lambda *args: purity(*args, measure="product").mean(), "the product of two vectors"),
        (lambda *args: (purity(*args) > 0).mean(), "one neighbour of the same label"),
        (lambda *args: (purity(*args) > 0.5).mean(), "whether most are alike"),
        (lambda x, y, k: k * purity(x, y, k).mean(), "take the mean"),
        (lambda *args: 1, "for 3 neighbours it gives 1, not"),
    ],
)
def test_wrong_purity(answer, hint):
    assert hint in told("purity", answer)


# ---------------------------------------------------------------- levels of rarity


def level(normals, scores, plus=1, base=10, strict=False, sign=-1, total=1):
    reach = np.array([(normals > x).sum() if strict else (normals >= x).sum() for x in scores])
    return sign * np.log((plus + reach) / (len(normals) + total)) / np.log(base)


def test_levels_by_hand_are_those_of_the_package_up_to_the_tail():
    right("level", level)
    normals = np.random.default_rng(0).normal(size=999)
    tail = UpperTail(normals)
    np.testing.assert_allclose(level(normals, normals), tail.level(np.minimum(normals, tail.start)), atol=1.1)
    low = normals[normals <= tail.start]
    np.testing.assert_allclose(level(normals, low), tail.level(low))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda n, x: level(n, x)[:3], "shape (3,), and not (8,)"),
        (lambda n, x: level(n, x, strict=True), "k is how many reach it"),
        (lambda n, x: level(n, x, base=math.e), "to base 10"),
        (lambda n, x: level(n, x, sign=1), "the sign is wrong"),
        (lambda n, x: 10 ** level(n, x, sign=1), "that is the share itself"),
        (lambda n, x: level(-n, -x, strict=True), "not those below"),
        (lambda n, x: level(n, x, total=0), "among n + 1, not n"),
        (lambda n, x: level(n, x, plus=1e-12), "the 1 is missing above the line"),
        (lambda n, x: x, "by hand"),
        (lambda n, x: np.where(x > 20, np.inf, level(n, x)), "1 + k is never 0"),
        (lambda n, x: np.where(x > 20, 7, level(n, x)), "numbers differ"),
    ],
)
def test_wrong_levels(answer, hint):
    assert hint in told("level", answer)


# ---------------------------------------------------------------- a promised rate


def threshold_for(normals, fpr, plus=1, shift=0, sort=True, reverse=True, least=1):
    allowed = math.floor(fpr * (len(normals) + plus) + 1e-9)
    if allowed < least:
        raise ValueError("too few normals")
    ordered = sorted(normals, reverse=reverse) if sort else list(normals)[::-1]
    return ordered[allowed - 1 + shift]


def in_place(normals, fpr):
    normals.sort()
    return threshold_for(normals, fpr)


def raises_index_error(normals, fpr):
    try:
        return threshold_for(normals, fpr)
    except ValueError:
        raise IndexError from None


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda n, f: np.quantile(n, 1 - f), "a plain quantile"),
        (lambda n, f: threshold_for(n, f, plus=0, least=0), "a new normal makes n + 1"),
        (lambda n, f: threshold_for(n, f, shift=1), "one score too low"),
        (lambda n, f: threshold_for(n, f, shift=-1), "one score too high"),
        (lambda n, f: threshold_for(n, f, reverse=False), "that is the low end"),
        (lambda n, f: threshold_for(n, f, reverse=False, shift=1), "and one further"),
        (lambda n, f: threshold_for(n, f, sort=False), "the scores are in no order"),
        (lambda n, f: max(n), "the highest score"),
        (lambda n, f: 0, "for a rate of 0.01 it leaves 999 of 999 normals above itself, not 9"),
        (in_place, "changes what it is given"),
        (lambda n, f: threshold_for(n, f) + (len(n) == 199 and f < 0.01), "199 normals just suffice"),
        (lambda n, f: threshold_for(n, f, least=0), "50 normals cannot promise a rate of 0.01"),
        (lambda n, f: threshold_for(n, f) if len(n) > 50 else None, "it gives None"),
        (raises_index_error, "it raises IndexError; raise a ValueError"),
    ],
)
def test_wrong_thresholds(answer, hint):
    assert hint in told("threshold", answer)


def test_thresholds_for_a_promised_rate():
    right("threshold", threshold_for)


# ---------------------------------------------------------------- the highest lower rate


def best_threshold(labels, scores, goal=min, equal=False):
    def reached(t):
        flagged = scores >= t if equal else scores > t
        return goal(flagged[labels == 1].mean(), (~flagged)[labels == 0].mean())

    return max(np.unique(scores), key=reached)


def verdicts_right(labels, scores):
    return max(np.unique(scores), key=lambda t: ((scores > t) == labels).mean())


def highest_rate(labels, scores):
    t = best_threshold(labels, scores)
    return min((scores > t)[labels == 1].mean(), (scores <= t)[labels == 0].mean())


def test_the_highest_lower_rate():
    def between(labels, scores):  # flags the same
        t = best_threshold(labels, scores)
        above = scores[scores > t].min()
        return (t + above) / 2

    right("best-threshold", best_threshold, between)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (highest_rate, "that is the rate"),
        (lambda y, x: best_threshold(y, x, equal=True), "not if it equals it"),
        (lambda y, x: best_threshold(y, x, goal=lambda *rates: sum(rates)), "the highest sum"),
        (verdicts_right, "the most right verdicts"),
        (lambda y, x: best_threshold(y, x, goal=max), "the highest of the higher rates"),
        (lambda y, x: list(np.unique(x)).index(best_threshold(y, x)), "the place of the threshold"),
        (lambda y, x: best_threshold(1 - y, x), "labels are 1 for anomalies"),
        (lambda y, x: 100.0, "at 100 the lower rate is 0.000, and"),
    ],
)
def test_thresholds_with_a_low_rate(answer, hint):
    assert hint in told("best-threshold", answer)


# ---------------------------------------------------------------- a clean sheet


def needed(promise, z=1.959964, add=0):
    return math.ceil(z**2 * promise / (1 - promise)) + add


def test_a_clean_sheet():
    right("clean-sheet", needed)
    for promise in (0.5, 0.9, 0.99):
        n = _needed(promise)
        assert wilson(n, n).low >= promise > (wilson(n - 1, n - 1).low)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda p: 1.959964**2 * p / (1 - p), "round up"),
        (lambda p: needed(p, add=-1), "one too few"),
        (lambda p: needed(p, add=1), "one too many"),
        (lambda p: needed(p, z=1.6448536), "leaves out half of the 5 %"),
        (lambda p: math.ceil(math.log(0.05) / math.log(p)), "one-sided bound"),
        (lambda p: math.ceil(math.log(0.025) / math.log(p)), "Clopper and Pearson"),
        (lambda p: 1, "an interval without width"),
        (lambda p: 20, "for 0.9 it gives 20; of so many the interval begins at 0.8389"),
        (lambda p: 0, "of so many the interval begins at nothing"),
    ],
)
def test_wrong_clean_sheets(answer, hint):
    assert hint in told("clean-sheet", answer)


# ---------------------------------------------------------------- what a threshold costs


def cost(scores, anomalous, groups, threshold, miss_cost, equal=False, harmless=False, false_only=False):
    total = 0
    for name in set(groups):
        flagged = [s >= threshold if equal else s > threshold for s in scores[groups == name]]
        inside = anomalous[groups == name]
        found = any(flagged) if harmless else (flagged & inside).any()
        total += any(flagged) and not (false_only and inside.any())
        total += miss_cost * (inside.any() and not found)
    return total


def parts(scores, anomalous, groups, threshold):
    """Alerts, flagged events, missed incidents, missed events, found incidents."""
    flagged, count = scores > threshold, lambda of: len(set(groups[of]))
    found = count(flagged & anomalous)
    missed = count(anomalous) - found
    return count(flagged), flagged.sum(), missed, (anomalous & ~flagged).sum(), found


def test_what_a_threshold_costs():
    right("alert-cost", cost)


def some_missed(scores, anomalous, groups, threshold, miss_cost):
    alerts = parts(scores, anomalous, groups, threshold)[0]
    return alerts + len(set(groups[anomalous & (scores <= threshold)])) * miss_cost


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (
            lambda x, a, g, t, m: parts(x, a, g, t)[1] + m * parts(x, a, g, t)[2],
            "events of one group are one alert",
        ),
        (lambda *args: cost(*args, equal=True), "not if it equals it"),
        (lambda *args: cost(*args, harmless=True), "not by a harmless one"),
        (lambda *args: cost(*args, false_only=True), "an alert that was right"),
        (lambda x, a, g, t, m: parts(x, a, g, t)[0] + m * parts(x, a, g, t)[3], "missed events of one group"),
        (some_missed, "as soon as one of its events is"),
        (lambda x, a, g, t, m: parts(x, a, g, t)[0], "what was missed costs something"),
        (lambda x, a, g, t, m: m * parts(x, a, g, t)[2], "alerts cost something"),
        (lambda x, a, g, t, m: parts(x, a, g, t)[0] + m * parts(x, a, g, t)[4], "not what was found"),
        (
            lambda x, a, g, t, m: parts(x, a, g, t)[0] + parts(x, a, g, t)[2],
            "`miss_cost` is for one",
        ),
        (lambda x, a, g, t, m: 7, "at threshold 5.5, with 20 for a miss, it gives 7, not 100"),
    ],
)
def test_wrong_costs(answer, hint):
    assert hint in told("alert-cost", answer)
