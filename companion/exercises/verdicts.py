"""Checks of thresholds and what they cost: false positives, the lower rate, alerts, a test without a miss."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Any

import numpy as np

from companion.detection.metrics import confusion, wilson
from companion.detection.thresholds import fixed_fpr, operating_points
from companion.exercises.base import Check, Exercise, NotYet, compare, number, told

# ---------------------------------------------------------------- a promised rate of false positives


def _threshold_mistakes(scores: np.ndarray, fpr: float) -> dict[str, float]:
    """The thresholds that likely mistakes choose."""
    n, ordered = len(scores), np.sort(scores)
    j = math.floor(fpr * (n + 1) + 1e-9)
    fewer = math.floor(fpr * n + 1e-9)
    return {
        "that is a plain quantile, which promises too much with few normals": float(
            np.quantile(scores, 1 - fpr)
        ),
        "a new normal makes n + 1, so j is the whole part of fpr * (n + 1)": ordered[-fewer],
        "one score too low: the j-th largest is the last that a new normal exceeds with at most j in n + 1": (
            ordered[-j - 1]
        ),
        "one score too high: you may allow one false positive more": ordered[-j + 1],
        "that is the low end of the scores; the unusual ones are high": ordered[j - 1],
        "that is the low end of the scores, and one further; the unusual ones are high": ordered[j],
        "the scores are in no order; sort a copy of them": scores[-j],
        "that is the highest score, which promises more than was asked for": ordered[-1],
    }


def _threshold_checks() -> tuple[Check, ...]:
    rng = np.random.default_rng(0)
    draws = {n: rng.gamma(2.0, size=n) for n in (199, 250, 999, 50)}

    def is_number(answer: Any) -> None:
        number(answer, draws[999], 0.01)

    def agrees(answer: Any) -> None:
        cases = []
        for n, fpr in ((999, 0.01), (250, 0.03), (199, 0.02)):
            found, wanted = number(answer, draws[n], fpr), fixed_fpr(draws[n], fpr)
            flagged = int((draws[n] > found).sum())
            right = int((draws[n] > wanted).sum())
            said = f"for a rate of {fpr:g} it leaves {flagged} of {n} normals above itself, not {right}"
            cases.append((found, wanted, _threshold_mistakes(draws[n], fpr), said))
        compare(*cases)

    def just_enough(answer: Any) -> None:
        found = number(answer, draws[199], 0.005)
        said = "199 normals just suffice for a rate of 0.005, with the highest score as threshold"
        compare((found, fixed_fpr(draws[199], 0.005), {}, said))

    def refuses(answer: Any) -> None:
        try:
            found = answer(draws[50].copy(), 0.01)
        except ValueError:
            return
        except Exception as error:
            raise NotYet(
                f"with too few normals it raises {type(error).__name__}; raise a ValueError"
            ) from None
        raise NotYet(f"50 normals cannot promise a rate of 0.01, and it gives {found}; raise a ValueError")

    return (
        ("it gives a number", is_number),
        ("it is the lowest threshold that holds the promise", agrees),
        ("it knows when there are just enough normals", just_enough),
        ("it refuses to promise what too few normals cannot", refuses),
    )


# ---------------------------------------------------------------- the highest lower rate


def _lower(labels: np.ndarray, scores: np.ndarray, threshold: float) -> float:
    counts = confusion(labels, scores, threshold)
    return min(counts.tpr.value, counts.tnr.value)


def _best_mistakes(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """The thresholds that likely mistakes choose."""
    tried = np.unique(scores)
    anomalous, normal = scores[labels == 1], scores[labels == 0]
    tpr = np.array([(anomalous > t).mean() for t in tried])
    tnr = np.array([(normal <= t).mean() for t in tried])
    with_equal = np.minimum([(anomalous >= t).mean() for t in tried], [(normal < t).mean() for t in tried])
    right = np.array([((scores > t) == labels).mean() for t in tried])
    lower, higher, swapped = np.minimum(tpr, tnr), np.maximum(tpr, tnr), np.minimum(1 - tpr, 1 - tnr)
    return {
        "that is the rate; give the threshold that reaches it": lower.max(),
        "a score is flagged if it is above the threshold, not if it equals it": tried[with_equal.argmax()],
        "that has the highest sum of both rates, and the lower may still be low": tried[(tpr + tnr).argmax()],
        "that has the most right verdicts, and the lower rate may still be low": tried[right.argmax()],
        "that has the highest of the higher rates; the lower one counts": tried[higher.argmax()],
        "that is the place of the threshold in a list; give the score itself": float(lower.argmax()),
        "labels are 1 for anomalies, and high scores are unusual": tried[swapped.argmax()],
    }


def _best_checks() -> tuple[Check, ...]:
    rng = np.random.default_rng(4)
    labels = np.r_[np.zeros(60, dtype=int), np.ones(25, dtype=int)]
    scores = np.r_[rng.normal(0, 1, 60), rng.normal(1.1, 1.2, 25)].round(1) + 3  # some are equal
    sets = []
    for _ in range(3):
        order = rng.permutation(85)[:70]
        sets.append((labels[order], scores[order]))

    def is_number(answer: Any) -> None:
        number(answer, *sets[0])

    def agrees(answer: Any) -> None:
        cases = []
        for labels_, scores_ in sets:
            found = number(answer, labels_, scores_)
            reached = _lower(labels_, scores_, found)
            wanted = max(_lower(labels_, scores_, t) for t in np.unique(scores_))
            said = f"at {told(found)} the lower rate is {reached:.3f}, and {wanted:.3f} can be reached"
            right = found if reached >= wanted - 1e-12 else math.nan  # several thresholds may be best
            cases.append((found, right, _best_mistakes(labels_, scores_), said))
        compare(*cases)

    return (
        ("it gives a number", is_number),
        ("no threshold has a higher lower rate", agrees),
    )


# ---------------------------------------------------------------- a test without a miss


def _needed(promise: float) -> int:
    """The least number of trials that, without a miss, promises a rate."""
    return 1 + bisect_left(range(1, 100_000), promise, key=lambda n: wilson(n, n).low)


def _needed_checks() -> tuple[Check, ...]:
    def is_whole(answer: Any) -> None:
        found = number(answer, 0.9)
        if not found.is_integer():
            raise NotYet(f"it gives {told(found)}; images are counted in whole numbers, so round up")

    def agrees(answer: Any) -> None:
        cases = []
        for promise in (0.9, 0.99, 0.5, 0.999):
            found, wanted = number(answer, promise), _needed(promise)
            mistakes = {
                "one too few: its interval begins just below what is promised": wanted - 1,
                "one too many: one image less would do": wanted + 1,
                "the interval has two ends, so each leaves out half of the 5 %": math.ceil(
                    1.6448536**2 * promise / (1 - promise)
                ),
                "that is the exact one-sided bound; Wilson's interval asks for more": math.ceil(
                    math.log(0.05) / math.log(promise)
                ),
                "that is the exact interval of Clopper and Pearson, not Wilson's": math.ceil(
                    math.log(0.025) / math.log(promise)
                ),
                "an interval without width promises everything; take Wilson's": 1,
            }
            said = f"for {promise:g} it gives {told(found)}; of so many the interval begins at "
            said += f"{wilson(int(found), int(found)).low:.4f}" if found >= 1 else "nothing"
            cases.append((found, wanted, mistakes, f"{said}, and the least number is asked for"))
        compare(*cases)

    return (
        ("it gives a whole number", is_whole),
        ("it is the least number that keeps the promise", agrees),
    )


# ---------------------------------------------------------------- what a threshold costs


def _cost_mistakes(
    scores: np.ndarray, anomalous: np.ndarray, groups: np.ndarray, threshold: float, miss_cost: float
) -> dict[str, float]:
    """What likely mistakes say that a threshold costs."""

    def count(of: np.ndarray) -> int:
        return len(set(groups[of]))

    flagged = scores > threshold
    alerts, incidents = count(flagged), count(anomalous)
    missed = incidents - count(flagged & anomalous)
    equal = scores >= threshold
    return {
        "flagged events of one group are one alert": flagged.sum() + missed * miss_cost,
        "an event is flagged if its score is above the threshold, not if it equals it": (
            count(equal) + (incidents - count(equal & anomalous)) * miss_cost
        ),
        "an incident is found by one of its anomalous events, not by a harmless one of the same group": (
            alerts + len(set(groups[anomalous]) - set(groups[flagged])) * miss_cost
        ),
        "an alert that was right has to be looked at, too": (
            len(set(groups[flagged]) - set(groups[anomalous])) + missed * miss_cost
        ),
        "missed events of one group are one incident": alerts + (anomalous & ~flagged).sum() * miss_cost,
        "an incident is found as soon as one of its events is": (
            alerts + count(anomalous & ~flagged) * miss_cost
        ),
        "what was missed costs something, too": alerts,
        "alerts cost something, too": missed * miss_cost,
        "misses cost, not what was found": alerts + (incidents - missed) * miss_cost,
        "groups are whole: an alert is counted once, and `miss_cost` is for one incident": alerts + missed,
    }


def _cost_checks() -> tuple[Check, ...]:
    rng = np.random.default_rng(18)
    groups = rng.choice([f"session {n}" for n in range(12)], 60)
    scores = rng.integers(0, 12, 60) / 2
    anomalous = np.isin(groups, ["session 1", "session 4", "session 7", "session 9", "session 10"])
    anomalous &= rng.random(60) < 0.6
    data = scores, anomalous, groups

    def is_number(answer: Any) -> None:
        number(answer, *data, 2.0, 20.0)

    def agrees(answer: Any) -> None:
        cases = []
        for miss_cost in (20.0, 3.0):
            points = operating_points(*data, days=1, alert_cost=1, miss_cost=miss_cost)
            for threshold, wanted in zip(points.threshold, points.cost_per_day, strict=True):
                found = number(answer, *data, float(threshold), miss_cost)
                mistakes = _cost_mistakes(*data, threshold, miss_cost)
                given = f"at threshold {threshold:g}, with {miss_cost:g} for a miss,"
                said = f"{given} it gives {told(found)}, not {told(wanted)}"
                cases.append((found, float(wanted), mistakes, said))
        compare(*cases)

    return (
        ("it gives a number", is_number),
        ("it counts alerts and missed incidents, at every threshold", agrees),
    )


VERDICTS: dict[str, Exercise] = {
    "threshold": Exercise("threshold_for(normal_scores, fpr)", _threshold_checks),
    "best-threshold": Exercise("best_threshold(labels, scores)", _best_checks),
    "clean-sheet": Exercise("needed(promise)", _needed_checks),
    "alert-cost": Exercise("cost(scores, anomalous, groups, threshold, miss_cost)", _cost_checks),
}
"""The exercises on thresholds, by name."""
