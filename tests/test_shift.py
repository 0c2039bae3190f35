"""The classifier two-sample test."""

from __future__ import annotations

import numpy as np
import pytest

from companion.detection.metrics import two_sample
from companion.detection.vectors import VectorError


def rows(count: int, seed: int, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, size=(count, 20))


def test_one_distribution_cannot_be_told_apart_and_two_can():
    assert two_sample(rows(400, 0), rows(300, 1))[0] == pytest.approx(0.5, abs=0.08)
    assert two_sample(rows(400, 0), rows(300, 1, 0.7))[0] > 0.95


def test_the_unlike_rows_get_the_high_scores():
    second = np.concatenate([rows(200, 1), rows(40, 2, 3.0)])
    area, unlike = two_sample(rows(300, 0), second, components=50)
    assert unlike.shape == (240,)
    assert unlike[200:].min() > np.median(unlike[:200])
    assert 0.5 < area < 0.9  # most of the second set is like the first


def test_the_same_seed_gives_the_same_answer():
    first, again = (two_sample(rows(60, 0), rows(40, 1), seed=3) for _ in range(2))
    assert first[0] == again[0]
    np.testing.assert_array_equal(first[1], again[1])


def test_copies_of_one_row_tell_nothing():
    assert two_sample(np.ones((10, 4)), np.ones((10, 4)))[0] == 0.5


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((9, 2)), np.zeros((9, 3)), "need rows"),
        (np.zeros((9, 0)), np.zeros((9, 0)), "need rows"),
        (np.zeros(9), np.zeros((9, 3)), "need rows"),
        (np.zeros((9, 2)), np.zeros((4, 2)), "5 folds"),
        (np.zeros((9, 2)), np.full((9, 2), np.nan), "NaN"),
    ],
)
def test_what_cannot_be_compared_is_named(first, second, message):
    with pytest.raises(VectorError, match=message):
        two_sample(first, second)
