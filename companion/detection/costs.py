"""What a threshold costs: alerts that someone must look at, and incidents that no one sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from companion.detection.thresholds import checked_scores


@dataclass(frozen=True)
class OperatingPoints:
    """What each threshold leads to, from the highest to the lowest; scores above it are flagged.

    Attributes:
        threshold: (M,).
        alerts_per_day: (M,), groups with a flagged event.
        found: (M,), the share of the incidents of which an event is flagged.
        cost_per_day: (M,), of alerts and missed incidents.
    """

    threshold: np.ndarray
    alerts_per_day: np.ndarray
    found: np.ndarray
    cost_per_day: np.ndarray

    @property
    def cheapest(self) -> int:
        """The index of the lowest cost, of equal ones the highest threshold."""
        return int(self.cost_per_day.argmin())


def operating_points(
    scores: np.ndarray,
    anomalous: np.ndarray,
    groups: np.ndarray,
    *,
    days: float,
    alert_cost: float,
    miss_cost: float,
) -> OperatingPoints:
    """Alerts, found incidents and costs at every threshold that makes a difference.

    Flagged events of one group, such as a session, are one alert. A group with an anomalous event is an
    incident; it is found if one of its anomalous events is flagged.

    Args:
        scores: (N,), higher for the unusual.
        anomalous: bool (N,).
        groups: (N,), names or numbers.
        days: how long the events took.
        alert_cost: of looking at an alert, whether it was right or not.
        miss_cost: of an incident that was not found, in the same units.

    Returns:
        The first point flags nothing.

    Raises:
        ThresholdError: if a score is not finite or there are none.
        ValueError: if there is no incident, the lengths differ, or a number is not positive.
    """
    scores = checked_scores(scores, "events")
    anomalous = np.asarray(anomalous, dtype=bool)
    if len(anomalous) != len(scores) or len(groups) != len(scores) or not anomalous.any():
        raise ValueError("need a label and a group for each score, and at least one anomalous event")
    if min(days, alert_cost, miss_cost) <= 0:
        raise ValueError("days and costs must be above 0")
    highest = _highest(scores, groups)
    incidents = _highest(scores[anomalous], np.asarray(groups)[anomalous])
    levels = np.unique(highest)[::-1]
    below = np.append(levels[1:], -np.inf)  # a threshold that flags a level lies at the next lower one
    thresholds = np.concatenate([levels[:1], below])
    alerts = len(highest) - np.searchsorted(np.sort(highest), thresholds, side="right")
    missed = np.searchsorted(np.sort(incidents), thresholds, side="right")
    return OperatingPoints(
        threshold=thresholds,
        alerts_per_day=alerts / days,
        found=1 - missed / len(incidents),
        cost_per_day=(alerts * alert_cost + missed * miss_cost) / days,
    )


def _highest(scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The highest score of each group."""
    codes = np.unique(groups, return_inverse=True)[1]
    highest = np.full(codes.max() + 1, -np.inf)
    np.maximum.at(highest, codes, scores)
    return highest
