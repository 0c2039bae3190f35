"""Detectors without a net: their arithmetic against loops and scikit-learn, and what they are for."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from companion.detection.detectors import (
    NeighborIndex,
    anomaly_score,
    matrix_profile,
    pca_residual,
    window_rows,
)
from companion.detection.metrics import roc_auc
from companion.detection.rows import (
    EntityHistory,
    EntityRarity,
    FamilySurprise,
    FieldRarity,
    GroupStandardizer,
    one_hot_vectors,
)

RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(3, 8))
NORMAL = RNG.normal(size=(400, 3)) @ MIX + 0.05 * RNG.normal(size=(400, 8))  # three directions of eight
MODELS = [
    NearestNeighbors(n_neighbors=3),
    LocalOutlierFactor(n_neighbors=10, novelty=True),
    IsolationForest(n_estimators=50, random_state=0),
    PCA(0.95),
]
SIZES = [3, 5]


@pytest.fixture
def events():
    return RNG.normal(size=(200, 2)), np.stack([RNG.integers(0, size, 200) for size in SIZES], axis=1)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_what_leaves_the_normal_subspace_scores_higher(model):
    new = RNG.normal(size=(100, 3)) @ MIX + 0.05 * RNG.normal(size=(100, 8))
    rows = np.concatenate([new, RNG.normal(size=(100, 8)) * 3])
    scores = anomaly_score(model.fit(NORMAL), rows)
    assert (scores.shape, scores.dtype) == ((200,), np.float64)
    assert roc_auc(np.repeat([0, 1], 100), scores) > 0.8
    assert anomaly_score(model, rows[:0]).shape == (0,)
    with pytest.raises(ValueError, match="1 of 200 rows are NaN"):
        anomaly_score(model, np.where(np.arange(200)[:, None] == 3, np.nan, rows))


def test_a_residual_is_what_scikit_learns_reconstruction_leaves_and_without_components_the_mean():
    pca, mean = PCA(2).fit(NORMAL), PCA(0).fit(NORMAL)
    np.testing.assert_allclose(
        pca_residual(pca, NORMAL), NORMAL - pca.inverse_transform(pca.transform(NORMAL)), atol=1e-12
    )
    expected = np.linalg.norm(NORMAL - NORMAL.mean(axis=0), axis=1)
    np.testing.assert_allclose(anomaly_score(mean, NORMAL), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 40), st.integers(1, 5), st.integers(1, 4), st.integers(0, 100))
def test_the_index_finds_scikit_learns_neighbors(rows, width, count, seed):
    rng = np.random.default_rng(seed)
    kept, asked = rng.normal(size=(rows, width)), rng.normal(size=(7, width))
    index = NeighborIndex(count).fit(kept)
    distances, ids = index.search(asked)
    oracle, places = NearestNeighbors(n_neighbors=count).fit(kept).kneighbors(asked)
    np.testing.assert_allclose(distances, oracle, rtol=1e-3, atol=1e-3)
    assert [int(row[0]) for row in ids] == places[:, 0].tolist()
    np.testing.assert_allclose(index.score(asked), oracle.mean(axis=1), rtol=1e-3, atol=1e-3)


def test_more_neighbors_than_vectors_are_all_of_them():
    index = NeighborIndex(1).fit(NORMAL[:3], list("abc"))
    assert index.search(NORMAL[:2], 10)[0].shape == (2, 3)
    assert [row[0] for row in index.search(NORMAL[:3])[1]] == list("abc")
    with pytest.raises(ValueError, match="5 neighbors need as many vectors, here are 3"):
        NeighborIndex(5).fit(NORMAL[:3])
    with pytest.raises(ValueError, match="vectors are NaN"):
        NeighborIndex(1).fit(NORMAL * np.inf)


def test_windows_are_compared_whatever_their_scale():
    windows = RNG.normal(size=(9, 2, 30))
    rows = window_rows(windows)
    assert rows.shape == (9, 60)
    np.testing.assert_allclose(rows.reshape(9, 2, 30).mean(axis=2), 0, atol=1e-6)
    np.testing.assert_allclose(window_rows(3 * windows + 7), rows, atol=1e-5)
    windows[0, 0, 4] = np.nan
    assert np.isfinite(window_rows(windows)).all()
    assert window_rows(windows[:, 0]).shape == (9, 30)


def test_the_matrix_profile_is_the_distance_to_the_nearest_normal_window():
    train, test = RNG.normal(size=60), RNG.normal(size=40)
    normed = []
    for series in (test, train):
        views = np.lib.stride_tricks.sliding_window_view(series, 8)
        normed.append((views - views.mean(axis=1, keepdims=True)) / views.std(axis=1, keepdims=True))
    expected = np.linalg.norm(normed[0][:, None] - normed[1][None], axis=2).min(axis=1)
    np.testing.assert_allclose(matrix_profile(test, train, 8), expected, rtol=1e-4)


def test_rarity_is_the_negative_log_share(events):
    numbers, categories = events
    rarity = FieldRarity(SIZES).fit(numbers, categories)
    costs = rarity.transform(numbers, categories)
    for column, size in enumerate(SIZES):
        counts = Counter(categories[:, column])
        expected = [-np.log((counts[value] + 0.5) / (200 + size / 2)) for value in categories[:, column]]
        np.testing.assert_allclose(costs[:, 2 + column], expected, rtol=1e-6)
    np.testing.assert_allclose(costs[:, :2], numbers**2 / 2, rtol=1e-6)
    np.testing.assert_allclose(rarity.score(numbers, categories), costs.sum(axis=1), rtol=1e-6)
    assert rarity.score(np.full((1, 2), 1e6), categories[:1]) < 50  # one number cannot decide everything
    with pytest.raises(ValueError, match="numbers are NaN"):
        rarity.score(numbers * np.nan, categories)


@pytest.mark.filterwarnings("ignore:The number of components")
def test_projected_one_hot_vectors_keep_their_distances(events):
    numbers, categories = events
    vectors = one_hot_vectors(numbers, categories, SIZES, width=2000)
    wide = np.hstack([numbers, *(np.eye(size)[categories[:, i]] for i, size in enumerate(SIZES))])
    for a, b in RNG.integers(0, 200, (50, 2)):
        near = np.linalg.norm(vectors[a] - vectors[b])
        assert near == pytest.approx(np.linalg.norm(wide[a] - wide[b]), rel=0.15, abs=1e-6)
    alone = one_hot_vectors(numbers[:5], categories[:5], SIZES, width=2000)
    np.testing.assert_allclose(alone, vectors[:5], rtol=1e-6)  # nothing is learned
    assert one_hot_vectors(numbers, categories[:, :0], [], width=8).shape == (200, 8)


def test_entity_rarity_is_that_of_a_loop(events):
    _, categories = events
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


def test_history_compares_with_the_entity_itself_and_newcomers_with_everyone():
    vectors = np.concatenate([RNG.normal(0, 1, (50, 3)), RNG.normal(20, 1, (50, 3))])
    who = np.array(["a"] * 50 + ["b"] * 50, dtype=object)
    history, usual = EntityHistory(neighbors=2).fit(vectors, who), np.zeros((1, 3))
    a, b, new = (history.score(usual, np.array([name], dtype=object))[0] for name in ("a", "b", "new"))
    assert b == pytest.approx(np.sort(np.linalg.norm(vectors[50:], axis=1))[:2].mean(), rel=1e-5)
    assert a == pytest.approx(new)
    assert a < b
    kept = EntityHistory(neighbors=1, keep=1).fit(vectors, who)
    alone = np.linalg.norm(vectors[49])
    assert kept.score(usual, np.array(["a"], dtype=object))[0] == pytest.approx(alone, rel=1e-5)
    assert history.score(vectors[:0], who[:0]).shape == (0,)


def test_what_is_usual_depends_on_the_group():
    values = np.concatenate([RNG.normal(5, 2, (1000, 3)), RNG.normal(0, 0.001, (1000, 3)), np.ones((5, 3))])
    groups = np.array(["noisy"] * 1000 + ["calm"] * 1000 + ["rare"] * 5)
    usual = GroupStandardizer().fit(values, groups)
    asked, of = np.full((4, 3), 5.0), np.array(["noisy", "calm", "rare", "new"])
    found = usual.transform(asked, of)
    np.testing.assert_allclose(found[0], 0, atol=0.1)
    np.testing.assert_allclose(found[1], 5 / 0.3, rtol=0.05)
    np.testing.assert_array_equal(found[2], found[3])  # too few of a group are measured by all
    with pytest.raises(ValueError, match="values are NaN"):
        usual.transform(asked * np.nan, of)


def test_families_are_put_on_one_scale_and_limited():
    normal = np.abs(RNG.normal(size=(500, 3))) * [1, 1, 100]
    scale = FamilySurprise([0, 0, 1], limit=4).fit(normal)
    found = scale.score(np.array([[1e6, 0, 0], normal.mean(axis=0), [0, 0, 0]]))
    np.testing.assert_allclose(found, [4, 0, 0], atol=1e-6)
    sums = np.stack([normal[:, :2].sum(axis=1), normal[:, 2]], axis=1)
    expected = ((sums - sums.mean(axis=0)) / (sums.std(axis=0) + 0.05)).clip(0, 4).sum(axis=1)
    np.testing.assert_allclose(scale.score(normal), expected)
    with pytest.raises(ValueError, match="NaN"):
        scale.score(np.full((1, 3), np.nan))
