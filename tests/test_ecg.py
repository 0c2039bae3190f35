"""ECG5000: the published sizes where it is here, and the stand-in."""

import numpy as np
import pytest

from companion.data.ecg import LENGTH, load_ecg5000


def check_split(beats):
    assert beats.train.shape[1] == beats.validation.shape[1] == beats.test.shape[1] == LENGTH
    assert beats.train.dtype == beats.test.dtype == np.float32
    assert (beats.validation_labels == (beats.validation_classes > 1)).all()
    assert (beats.test_labels == (beats.test_classes > 1)).all()
    rows = np.concatenate([beats.train, beats.validation, beats.test])
    assert len(np.unique(rows, axis=0)) == len(rows) == 5000  # no beat stands in two parts


def test_out_of_reach_labelled_beats_come(mirror):
    with pytest.warns(UserWarning, match="SYNTHETIC"):
        beats = load_ecg5000(validation_normals=100)
    assert beats.synthetic
    check_split(beats)
    assert (beats.validation_labels == 0).sum() == 100
    assert set(beats.test_classes) == {1, 2, 3, 4, 5}


def test_the_real_beats_have_their_published_sizes(real):
    beats, again = real(load_ecg5000), real(load_ecg5000)
    check_split(beats)
    assert len(beats.train) == 292
    assert np.bincount(beats.validation_classes).tolist() == [0, 1000, 177, 10, 19, 2]
    assert np.bincount(beats.test_classes).tolist() == [0, 1627, 1590, 86, 175, 22]
    assert np.array_equal(beats.test, again.test)
    assert np.array_equal(beats.validation, again.validation)
    np.testing.assert_allclose(beats.test.mean(axis=1), 0, atol=1e-5)
