"""Detectors for rows: their arithmetic against loops, and what they are for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from companion.detection.rows import EntityHistory, EntityRarity, FamilySurprise, FieldRarity, OneHotVectors
from companion.detection.vectors import VectorError

RNG = np.random.default_rng(0)
SIZES = [3, 5]


@pytest.fixture
def rows():
    return RNG.normal(size=(200, 2)), np.stack([RNG.integers(0, size, 200) for size in SIZES], axis=1)


def test_rarity_is_the_negative_log_share(rows):
    numbers, categories = rows
    rarity = FieldRarity(SIZES).fit(numbers, categories)
    costs = rarity.transform(numbers, categories)
    for column, size in enumerate(SIZES):
        counts = Counter(categories[:, column])
        expected = [-np.log((counts[value] + 0.5) / (200 + size / 2)) for value in categories[:, column]]
        np.testing.assert_allclose(costs[:, 2 + column], expected, rtol=1e-6)
    np.testing.assert_allclose(costs[:, :2], numbers**2 / 2, rtol=1e-6)
    np.testing.assert_allclose(rarity.score(numbers, categories), costs.sum(axis=1), rtol=1e-6)
    assert rarity.score(np.full((1, 2), 1e6), categories[:1]) < 50  # one number cannot decide everything
    with pytest.raises(VectorError, match="need numbers"):
        rarity.score(numbers, categories[1:])


@pytest.mark.filterwarnings("ignore:The number of components")
def test_projected_one_hot_vectors_keep_their_distances(rows):
    numbers, categories = rows
    vectors = OneHotVectors(SIZES, width=2000).fit(numbers, categories).transform(numbers, categories)
    wide = np.hstack([numbers, *(np.eye(size)[categories[:, i]] for i, size in enumerate(SIZES))])
    for a, b in RNG.integers(0, 200, (50, 2)):
        near = np.linalg.norm(vectors[a] - vectors[b])
        assert near == pytest.approx(np.linalg.norm(wide[a] - wide[b]), rel=0.15, abs=1e-6)
    again = OneHotVectors(SIZES, width=2000).fit(numbers[:5], categories[:5])
    assert np.array_equal(again.transform(numbers, categories), vectors)  # nothing is learned
    bare = OneHotVectors([], width=8).fit(numbers, categories[:, :0])
    assert bare.transform(numbers, categories[:, :0]).shape == (200, 8)


def test_entity_rarity_is_that_of_a_loop(rows):
    _, categories = rows
    who = RNG.choice(np.array(list("abc"), dtype=object), 200)
    rarity = EntityRarity(SIZES, strength=3.0, top=1).fit(categories, who)
    asked, names = categories[:20], np.append(who[:19], "new")
    costs = rarity.transform(asked, names)
    for row, name in enumerate(names):
        for column, size in enumerate(SIZES):
            value = asked[row, column]
            everyone = ((categories[:, column] == value).sum() + 0.5) / (200 + size / 2)
            count = ((categories[:, column] == value) & (who == name)).sum()
            own = (count + 3 * everyone) / ((who == name).sum() + 3)
            assert costs[row, column] == pytest.approx(np.log(everyone / own), abs=1e-5)
    np.testing.assert_allclose(costs[-1], 0, atol=1e-6)
    np.testing.assert_allclose(rarity.score(asked, names), costs.max(axis=1), rtol=1e-6)
    again = EntityRarity(SIZES, strength=3.0, top=1).restore(*rarity.state())
    assert np.array_equal(again.transform(asked, names), costs)
    with pytest.raises(ValueError, match="exceed"):
        EntityRarity([1, 1]).restore(*rarity.state())
    with pytest.raises(VectorError, match="as many entities"):
        EntityRarity(SIZES).fit(categories, who[1:])


def test_history_compares_with_the_entity_itself_and_newcomers_with_everyone():
    vectors = np.concatenate([RNG.normal(0, 1, (50, 3)), RNG.normal(20, 1, (50, 3))])
    who = np.array(["a"] * 50 + ["b"] * 50, dtype=object)
    history = EntityHistory(neighbours=2).fit(vectors, who)
    usual = np.zeros((1, 3))
    scores = [history.score(usual, np.array([name], dtype=object))[0] for name in ("a", "b", "new")]
    nearest = np.sort(np.linalg.norm(vectors[50:], axis=1))[:2].mean()
    assert scores[1] == pytest.approx(nearest, rel=1e-5)
    assert scores[0] == pytest.approx(scores[2])
    assert scores[0] < scores[1]
    kept = EntityHistory(neighbours=1, keep=1).fit(vectors, who)
    alone = np.linalg.norm(vectors[49])
    assert kept.score(usual, np.array(["a"], dtype=object))[0] == pytest.approx(alone, rel=1e-5)
    assert history.score(vectors[:0], who[:0]).shape == (0,)
    for method in (history.fit, history.score):
        with pytest.raises(VectorError, match="as many entities"):
            method(vectors, who[1:])


def test_families_are_put_on_one_scale_and_limited():
    normal = np.abs(RNG.normal(size=(500, 3))) * [1, 1, 100]
    scale = FamilySurprise([0, 0, 1], limit=4).fit(normal)
    found = scale.transform(np.array([[1e6, 0, 0], normal.mean(axis=0), [0, 0, 0]]))
    assert found[0].tolist() == [4, 0]
    np.testing.assert_allclose(found[1], 0, atol=1e-6)
    assert scale.score(np.zeros((2, 3))).tolist() == [0, 0]
    sums = normal[:, :2].sum(axis=1)
    expected = ((sums - sums.mean()) / (sums.std() + 0.05)).clip(0, 4)
    np.testing.assert_allclose(scale.transform(normal)[:, 0], expected)
    with pytest.raises(VectorError, match="surprises"):
        scale.score(normal[:, :2])
    with pytest.raises(VectorError, match="at least 2"):
        FamilySurprise([0]).fit(np.ones((1, 1)))
