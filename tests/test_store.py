from __future__ import annotations

import numpy as np
import pytest

from companion.detection.detectors import NeighborIndex
from companion.detection.store import EmbeddingStore
from companion.files import StateError, save_state

SIZE, COUNT = 32, 3000
rng = np.random.default_rng(0)
VECTORS = rng.normal(size=(COUNT, SIZE)).astype(np.float32)
IDS = rng.permutation(COUNT) + 100
TIMES = np.datetime64("2026-01-01", "ms") + rng.permutation(COUNT) * np.timedelta64(1, "h")
ASKED = rng.normal(size=(50, SIZE)).astype(np.float32)


def made(kind, effort=64):
    store = EmbeddingStore(SIZE, kind, effort)
    return store.add(VECTORS[:2000], IDS[:2000], TIMES[:2000]).add(VECTORS[2000:], IDS[2000:], TIMES[2000:])


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf"])
def test_the_nearest_come_with_their_ids_and_times_also_from_a_file(kind, tmp_path):
    distances, rows = NeighborIndex(5).fit(VECTORS).nearest(ASKED)
    store = made(kind, effort=500)
    store.save(tmp_path / "store")
    for each in (store, EmbeddingStore.load(tmp_path / "store")):
        found = each.nearest(ASKED, 5)
        assert len(each.times) == COUNT
        assert np.allclose(found[0], distances, atol=1e-5)  # with this effort nothing is missed
        assert (found[1] == IDS[rows]).all()
        assert (found[2] == TIMES[rows]).all()
    if kind != "exact":
        store.effort = 1
        assert (store.nearest(ASKED, 5)[1] == IDS[rows]).mean() < 0.97


def test_fewer_than_asked_for_are_filled_up():
    distances, ids, times = EmbeddingStore(SIZE).add(VECTORS[:2], IDS[:2], TIMES[:2]).nearest(ASKED, 3)
    assert np.isinf(distances[:, 2]).all()
    assert (ids[:, 2] == -1).all()
    assert np.isnat(times[:, 2]).all()


def test_what_cannot_be_is_refused(tmp_path):
    store = made("hnsw")
    for wrong in (
        lambda: EmbeddingStore(SIZE).nearest(ASKED),
        lambda: store.add(VECTORS[:1], IDS[:1], TIMES[:1]),  # its id is there
        lambda: store.add(VECTORS[:2], np.array([1, 1]), TIMES[:2]),
        lambda: store.add(VECTORS[:1, :3], np.array([1]), TIMES[:1]),
        lambda: store.add(VECTORS[:1] * np.nan, np.array([1]), TIMES[:1]),
    ):
        with pytest.raises(ValueError):  # noqa: PT011
            wrong()
    assert len(store.times) == COUNT
    save_state(tmp_path / "other", "embedding store 1", size=3)
    with pytest.raises(StateError, match="damaged"):
        EmbeddingStore.load(tmp_path / "other")
