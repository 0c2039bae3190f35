import hashlib
from dataclasses import replace

import numpy as np
import pytest

from companion.data import tables as tabular
from companion.data.download import REGISTRY, Source
from companion.data.tables import load_adult, load_california, load_small

ADULT_ROW = (
    "39, State-gov, 77516, Bachelors, 13, Never-married, ?, Not-in-family, White, Male, 2174, 0, 40, "
    "United-States, "
)


def fake(dataset, content: bytes):
    digest = hashlib.sha256(content).hexdigest()
    source = Source("", dataset.cached, digest, len(content))
    return replace(dataset, sources=(source,), sha256=digest)


@pytest.fixture
def adult(mirror, monkeypatch):
    train = "".join(f"{ADULT_ROW}{'<=50K' if i % 3 else '>50K'}\n" for i in range(100)) + "\n"
    rows = [f"{ADULT_ROW}{'<=50K.' if i % 2 else '>50K.'}\n" for i in range(40)]
    test = "|1x3 Cross validator\n" + "".join(rows)
    for name, content in (("ADULT_TRAIN", train), ("ADULT_TEST", test)):
        dataset = fake(getattr(tabular, name), content.encode())
        (mirror / dataset.cached).write_text(content)
        monkeypatch.setattr(tabular, name, dataset)
    return mirror


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


def test_the_split_of_california_is_decided_by_its_seed(mirror):
    with pytest.warns(UserWarning, match="SYNTHETIC"):
        first, again, second = (load_california(split_seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.train, again.train)
    assert not np.array_equal(first.validation, second.validation)


def test_california_is_given_per_household(mirror, monkeypatch):
    line = "-122.0,37.0,41.0,{}.0,100.0,300.0,100.0,8.0,{}.0\n"
    lines = "".join(line.format(800 + i, 100_000 + i) for i in range(50))
    dataset = fake(tabular.CALIFORNIA, lines.encode())
    (mirror / "cal_housing.data").write_text(lines)
    monkeypatch.setattr(tabular, "CALIFORNIA", dataset)
    data = load_california()
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 8, 10)
    assert data.frame["rooms"].iloc[0] == 8
    assert data.frame["occupancy"].iloc[0] == 3
    assert data.target[0] == np.float32(1.0)
    assert data.class_names is None


def small(mirror, monkeypatch, name, content):
    dataset = fake(REGISTRY[name], content.encode())
    (mirror / dataset.cached).write_text(content)
    monkeypatch.setitem(REGISTRY, name, dataset)
    return load_small(name)


def test_rows_that_are_the_same_do_not_lie_on_both_sides(mirror, monkeypatch):
    rows = "".join(f"0.{i},1,2,3,4,{i % 2}\n" for i in range(100, 150))
    data = small(mirror, monkeypatch, "phoneme", rows + rows)
    assert len(data.frame) == 50
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 8, 10)
    assert data.target.tolist() == [0, 1] * 25


def test_the_air_of_beijing_is_split_by_years(mirror, monkeypatch):
    header = "No,year,month,day,hour,pm2.5,DEWP,TEMP,PRES,cbwd,Iws,Is,Ir\n"
    hours = "".join(
        f"{i},{2010 + i // 4},1,1,{i % 4},{'NA' if i == 3 else i},-21,-11,1021,NW,1.79,0,0\n"
        for i in range(20)
    )
    data = small(mirror, monkeypatch, "pm25", header + hours)
    assert data.train.tolist() == list(range(11))  # an hour without a measurement is left out
    assert data.validation.tolist() == list(range(11, 15))
    assert data.target[data.test] == pytest.approx(np.log(np.arange(17, 21)))
    assert data.categorical == ("cbwd",)
    assert not {"No", "year"} & set(data.frame)


def test_the_real_tables_have_their_published_sizes(real):
    data, houses = real(load_adult), real(load_california)
    assert (len(data.train), len(data.validation), len(data.test)) == (26_049, 6_512, 16_281)
    assert data.frame[list(data.categorical)].isna().any().sum() == 3  # workclass, occupation, native-country
    assert np.mean(data.target[data.test]) == pytest.approx(0.2362, abs=1e-4)
    assert len(houses.frame) == 20_640
    assert houses.target.max() == np.float32(5.00001)
    for name, rows in (("wine", 3961), ("phoneme", 5349), ("pm25", 41_757)):
        assert len(real(lambda name=name: load_small(name)).frame) == rows
    assert [d.cached for d in (tabular.ADULT_TRAIN, tabular.ADULT_TEST)] == ["adult.data", "adult.test"]
