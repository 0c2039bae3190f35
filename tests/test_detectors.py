"""Detectors without a net: their arithmetic against loops and scikit-learn, and what they are for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from companion.detection.detectors import (
    GroupStandardizer,
    NeighborIndex,
)

RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(3, 8))
NORMAL = RNG.normal(size=(400, 3)) @ MIX + 0.05 * RNG.normal(size=(400, 8))  # three directions of eight


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 40), st.integers(1, 5), st.integers(1, 4), st.integers(0, 100))
def test_the_index_finds_scikit_learns_neighbors(rows, width, count, seed):
    rng = np.random.default_rng(seed)
    kept, asked = rng.normal(size=(rows, width)), rng.normal(size=(7, width))
    index = NeighborIndex(count).fit(kept)
    distances, found = index.nearest(asked)
    oracle, places = NearestNeighbors(n_neighbors=count).fit(kept).kneighbors(asked)
    np.testing.assert_allclose(distances, oracle, rtol=1e-3, atol=1e-3)
    assert found[:, 0].tolist() == places[:, 0].tolist()
    np.testing.assert_allclose(index.score(asked), oracle.mean(axis=1), rtol=1e-3, atol=1e-3)


def test_a_vector_is_its_own_neighbor_and_what_cannot_be_kept_is_refused():
    assert NeighborIndex(1).fit(NORMAL[:3]).nearest(NORMAL[:3])[1].tolist() == [[0], [1], [2]]
    with pytest.raises(ValueError, match="5 neighbors need as many vectors, here are 3"):
        NeighborIndex(5).fit(NORMAL[:3])
    with pytest.raises(ValueError, match="vectors are NaN"):
        NeighborIndex(1).fit(NORMAL * np.inf)


def test_what_is_usual_depends_on_the_group():
    values = np.concatenate([RNG.normal(5, 2, (1000, 3)), RNG.normal(0, 0.001, (1000, 3)), np.ones((5, 3))])
    groups = np.array(["noisy"] * 1000 + ["calm"] * 1000 + ["rare"] * 5)
    usual = GroupStandardizer().fit(values, groups)
    asked, of = np.full((4, 3), 5.0), np.array(["noisy", "calm", "rare", "new"])
    found = usual.transform(asked, of)
    np.testing.assert_allclose(found[0], 0, atol=0.1)
    np.testing.assert_allclose(found[1], 5 / 0.3, rtol=0.05)
    np.testing.assert_array_equal(found[2], found[3])  # too few of a group are measured by all
