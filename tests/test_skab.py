"""SKAB: what is read of an archive, the published recordings where they are, and the stand-in."""

from dataclasses import replace

import numpy as np
import pytest

from companion.data import skab
from companion.data.download import DataError, Source
from companion.data.skab import SENSORS, SKAB, load_skab
from tests.packing import tar_gz


def test_the_published_recordings_are_these(real):
    data = real(load_skab)
    assert data.calm.values.shape == (len(SENSORS), 9405)
    assert len(data.of("valve")) == 20
    assert len(data.of("other")) == 14
    starts = [each.start for each in data.recordings]
    assert starts == sorted(starts)
    for each in (data.calm, *data.recordings):
        assert np.isfinite(each.values).all()
        assert each.values.shape == (len(SENSORS), len(each.fault))
    assert sum(each.fault.sum() for each in data.recordings) == 13_067


def test_another_archive_is_refused(mirror, monkeypatch):
    (mirror / "x.tar.gz").write_bytes(tar_gz({"SKAB/data/valve1/0.csv": b"a;b"}))
    source = Source("", "x.tar.gz", "", 1)
    with pytest.raises(DataError, match="skab"):
        skab.read_real(replace(SKAB, sources=(source,)))
