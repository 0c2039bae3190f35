from __future__ import annotations

import hashlib
import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from companion.data import plain
from companion.data import tables as tabular
from companion.data.sources import ADULT_TEST, ADULT_TRAIN, CALIFORNIA, DataError, Source
from companion.data.tables import load_adult, load_california, synthetic_table

MIRROR = os.environ.get("COMPANION_MIRROR")
ADULT_ROW = (
    "39, State-gov, 77516, Bachelors, 13, Never-married, ?, Not-in-family, White, Male, 2174, 0, 40, "
    "United-States, "
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A mirror and a cache of the test's own, and no network."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("COMPANION_MIRROR", str(mirror))
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("COMPANION_OFFLINE", "1")
    return mirror


def fake(dataset, content: bytes):
    digest = hashlib.sha256(content).hexdigest()
    source = Source("", dataset.cached, digest, len(content))
    return replace(dataset, sources=(source,), sha256=digest)


@pytest.fixture
def adult(place, monkeypatch):
    train = "".join(f"{ADULT_ROW}{'<=50K' if i % 3 else '>50K'}\n" for i in range(100)) + "\n"
    test = "|1x3 Cross validator\n" + "".join(
        f"{ADULT_ROW}{'<=50K.' if i % 2 else '>50K.'}\n" for i in range(40)
    )
    for name, content in (("ADULT_TRAIN", train), ("ADULT_TEST", test)):
        dataset = fake(getattr(tabular, name), content.encode())
        (place / dataset.cached).write_text(content)
        monkeypatch.setattr(tabular, name, dataset)
    return place


def test_adult_has_the_published_split(adult):
    data = load_adult()
    assert (len(data.train), len(data.validation), len(data.test)) == (80, 20, 40)
    rows = np.concatenate([data.train, data.validation, data.test])
    assert sorted(rows) == list(range(140))
    assert not data.synthetic
    assert data.frame["occupation"].isna().all()  # "?" is missing
    assert data.frame["age"].dtype == "float64"
    assert data.frame["sex"].tolist() == ["Male"] * 140
    assert data.target[:3].tolist() == [1, 0, 0]
    assert data.target[100:102].tolist() == [1, 0]


def test_another_seed_gives_another_split_and_the_same_test(adult):
    first, second = load_adult(split_seed=0), load_adult(split_seed=1)
    assert not np.array_equal(first.validation, second.validation)
    assert np.array_equal(first.test, second.test)
    assert np.array_equal(first.train, load_adult(split_seed=0).train)


def test_california_is_given_per_household(place, monkeypatch):
    lines = "".join(
        f"-122.0,37.0,41.0,{800 + i}.0,100.0,300.0,100.0,8.0,{100_000 + i}.0\n" for i in range(50)
    )
    dataset = fake(CALIFORNIA, lines.encode())
    (place / "cal_housing.data").write_text(lines)
    monkeypatch.setattr(tabular, "CALIFORNIA", dataset)
    data = load_california()
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 8, 10)
    assert data.frame["rooms"].iloc[0] == 8
    assert data.frame["occupancy"].iloc[0] == 3
    assert data.target[0] == np.float32(1.0)
    assert data.class_names is None


@pytest.mark.parametrize("load", [load_adult, load_california])
def test_out_of_reach_a_labelled_stand_in_comes(place, load):
    with pytest.warns(UserWarning, match="SYNTHETIC"):
        data = load()
    assert data.synthetic
    assert set(data.frame.columns) == {*data.numerical, *data.categorical}
    assert len({*data.train, *data.validation, *data.test}) == len(data.frame)


def test_the_stand_in_can_be_learned_and_has_gaps():
    data = synthetic_table("x", 2000, num_categorical=3, num_classes=3)
    assert np.bincount(data.target).min() > 500
    assert data.frame.isna().to_numpy().any()
    assert data.digest == synthetic_table("x", 2000, num_categorical=3, num_classes=3).digest


# ---------------------------------------------------------------- files that are kept as published


def archive(member: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def packed(content: bytes, member: str = "folder/file.csv"):
    whole = archive("folder/file.csv", content)
    source = Source("", "file.tgz", hashlib.sha256(whole).hexdigest(), len(whole), member=member)
    return replace(CALIFORNIA, sources=(source,), sha256=hashlib.sha256(content).hexdigest()), whole


def test_a_member_of_an_archive_is_kept_alone(place, tmp_path):
    dataset, whole = packed(b"1,2\n")
    (place / "file.tgz").write_bytes(whole)
    content, source = plain.read(dataset)
    assert content == b"1,2\n"
    assert "file.tgz" in source
    assert (tmp_path / "cache" / dataset.cached).read_bytes() == b"1,2\n"
    (place / "file.tgz").unlink()
    assert plain.read(dataset)[1] == f"cache: {dataset.cached}"  # and no path of this machine
    plain.verify(dataset)


def test_a_damaged_copy_is_got_again(place, tmp_path):
    dataset, whole = packed(b"1,2\n")
    (place / "file.tgz").write_bytes(whole)
    plain.fetch(dataset)
    (tmp_path / "cache" / dataset.cached).write_bytes(b"1,")
    with pytest.raises(DataError, match="damaged"):
        plain.verify(dataset)
    with pytest.warns(UserWarning, match="damaged"):
        assert plain.read(dataset)[0] == b"1,2\n"
    plain.verify(dataset)


def test_what_is_not_there_is_named(place):
    dataset, _ = packed(b"1,2\n")
    with pytest.raises(DataError, match="could not be had"):
        plain.read(dataset)
    with pytest.raises(DataError, match="companion data fetch california"):
        plain.verify(dataset)


@pytest.mark.parametrize("member", ["folder/other.csv", "folder"])
def test_an_archive_without_the_file_is_named(place, member):
    dataset, whole = packed(b"1,2\n", member)
    (place / "file.tgz").write_bytes(whole)
    with pytest.raises(DataError, match="does not hold"):
        plain.read(dataset)


def test_other_content_is_refused(place):
    dataset, whole = packed(b"1,2\n")
    (place / "file.tgz").write_bytes(whole)
    with pytest.raises(DataError, match="does not hold the file"):
        plain.read(replace(dataset, sha256="0" * 64))


def test_a_cache_that_cannot_be_written_still_gives_the_data(place, tmp_path, monkeypatch):
    dataset, whole = packed(b"1,2\n")
    (place / "file.tgz").write_bytes(whole)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder is wanted")
    monkeypatch.setenv("COMPANION_DATA", str(blocked))
    with pytest.warns(UserWarning, match="could not be kept"):
        assert plain.read(dataset)[0] == b"1,2\n"
    with (
        pytest.warns(UserWarning, match="could not be kept"),
        pytest.raises(DataError, match="cannot be written"),
    ):
        plain.fetch(dataset)


@pytest.mark.skipif(
    not MIRROR or not (Path(MIRROR) / "adult.data").is_file(), reason="no mirror with the files"
)
def test_the_real_tables_have_their_published_sizes(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path))
    data = load_adult()
    assert (len(data.train), len(data.validation), len(data.test)) == (26_049, 6_512, 16_281)
    assert data.frame[list(data.categorical)].isna().any().sum() == 3  # workclass, occupation, native-country
    assert np.mean(data.target[data.test]) == pytest.approx(0.2362, abs=1e-4)
    houses = load_california()
    assert len(houses.frame) == 20_640
    assert houses.target.max() == np.float32(5.00001)
    assert [d.cached for d in (ADULT_TRAIN, ADULT_TEST)] == ["adult.data", "adult.test"]
