from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from companion.detection.metrics import roc_auc
from companion.detection.vectors import (
    Forest,
    NeighborIndex,
    OutlierFactor,
    SubspaceResidual,
    VectorError,
)

RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(3, 8))
NORMAL = RNG.normal(size=(400, 3)) @ MIX + 0.05 * RNG.normal(size=(400, 8))  # three directions of eight
DETECTORS = [
    NeighborIndex(3),
    NeighborIndex(3, "cosine"),
    OutlierFactor(10),
    Forest(50),
    SubspaceResidual(),
]
names = [f"{type(d).__name__}-{getattr(d, 'distance', '')}" for d in DETECTORS]


@pytest.mark.parametrize("detector", DETECTORS, ids=names)
def test_what_leaves_the_normal_subspace_scores_higher(detector):
    new = RNG.normal(size=(100, 3)) @ MIX + 0.05 * RNG.normal(size=(100, 8))
    odd = RNG.normal(size=(100, 8)) * 3
    scores = detector.fit(NORMAL).score(np.concatenate([new, odd]))
    assert scores.shape == (200,)
    assert scores.dtype == np.float64
    assert roc_auc(np.repeat([0, 1], 100), scores) > 0.8
    assert detector.score(NORMAL[:0]).shape == (0,)


@pytest.mark.parametrize("detector", DETECTORS, ids=names)
def test_bad_vectors_are_refused(detector):
    broken = NORMAL.copy()
    broken[3, 2] = np.nan
    with pytest.raises(VectorError, match="1 vectors hold NaN"):
        detector.fit(broken)
    with pytest.raises(VectorError, match="too few"):
        detector.fit(NORMAL[:1])
    with pytest.raises(VectorError, match=r"\(N, d\)"):
        detector.fit(NORMAL[0])
    detector.fit(NORMAL)
    with pytest.raises(VectorError, match="8 numbers"):
        detector.score(NORMAL[:, :5])


@pytest.mark.parametrize("make", [NeighborIndex, OutlierFactor, Forest, SubspaceResidual])
def test_nothing_is_scored_before_fitting(make):
    with pytest.raises(VectorError, match="fit"):
        make().score(NORMAL)


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 40), st.integers(1, 5), st.integers(1, 4), st.integers(0, 100))
def test_neighbours_are_scikit_learns(rows, width, count, seed):
    rng = np.random.default_rng(seed)
    kept, asked = rng.normal(size=(rows, width)), rng.normal(size=(7, width))
    index = NeighborIndex(count).fit(kept)
    distances, ids = index.search(asked)
    oracle, places = NearestNeighbors(n_neighbors=count).fit(kept).kneighbors(asked)
    np.testing.assert_allclose(distances, oracle, rtol=1e-3, atol=1e-3)
    assert [int(row[0]) for row in ids] == places[:, 0].tolist()
    np.testing.assert_allclose(index.score(asked), oracle.mean(axis=1), rtol=1e-3, atol=1e-3)


def test_the_cosine_distance_does_not_care_about_length():
    index = NeighborIndex(2, "cosine").fit(NORMAL)
    np.testing.assert_allclose(index.score(NORMAL[:9]), index.score(100 * NORMAL[:9]), atol=1e-5)
    by_hand = 1 - np.max(
        (NORMAL / np.linalg.norm(NORMAL, axis=1, keepdims=True)) @ (MIX[0] / np.linalg.norm(MIX[0]))
    )
    assert index.search(MIX[:1], 1)[0][0, 0] == pytest.approx(by_hand, abs=1e-5)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_an_index_that_was_saved_finds_the_same(tmp_path, distance):
    ids = [f"event-{i}" for i in range(len(NORMAL))]
    index = NeighborIndex(4, distance).fit(NORMAL, ids)
    index.save(tmp_path / "index.safetensors")
    again = NeighborIndex.load(tmp_path / "index.safetensors")
    assert (again.neighbours, again.distance) == (4, distance)
    np.testing.assert_array_equal(again.score(NORMAL[:20] + 1), index.score(NORMAL[:20] + 1))
    assert again.search(NORMAL[:3])[1] == index.search(NORMAL[:3])[1]
    assert again.search(NORMAL[:3])[1][2][0] == "event-2"
    content = (tmp_path / "index.safetensors").read_bytes()
    (tmp_path / "half").write_bytes(content[: len(content) // 2])
    for damaged in ("half", "missing"):
        with pytest.raises(VectorError, match=damaged):
            NeighborIndex.load(tmp_path / damaged)


def test_more_neighbours_than_vectors_are_all_of_them():
    index = NeighborIndex(1).fit(NORMAL[:3])
    assert index.search(NORMAL[:2], 10)[0].shape == (2, 3)
    with pytest.raises(VectorError, match="as many ids"):
        NeighborIndex(1).fit(NORMAL[:3], ["a"])
    with pytest.raises(VectorError, match="fit"):
        NeighborIndex(1).save(None)


def test_the_outlier_factor_is_scikit_learns_and_can_learn_from_a_sample():
    ours = OutlierFactor(15).fit(NORMAL).score(NORMAL[:20] * 2)
    theirs = LocalOutlierFactor(n_neighbors=15, novelty=True).fit(NORMAL.astype(np.float32))
    np.testing.assert_allclose(ours, -theirs.score_samples((NORMAL[:20] * 2).astype(np.float32)))
    assert OutlierFactor(15, max_vectors=100).fit(NORMAL).model_.n_samples_fit_ == 100


@pytest.mark.parametrize("bad", [lambda: NeighborIndex(0), lambda: SubspaceResidual(1.0)])
def test_settings_are_checked(bad):
    with pytest.raises(VectorError):
        bad()
