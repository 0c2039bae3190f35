"""``companion fit waveforms`` and ``companion score waveforms``."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy.io import wavfile

from companion import cli_waveforms
from companion.cli_common import load
from companion.cli_waveforms import KINDS, hold_out
from companion.data.series import Windows, cut_windows
from companion.estimators import ResNetAE, WindowBaseline
from companion.estimators.baselines import inject
from tests.small_data import waves
from tests.test_cli import bad, good

NET = ("--epochs", 2, "--method", "net", "--standardize", "window")


@pytest.fixture
def series(tmp_path):
    """A series of two channels, with a date, and the model that learned from it."""
    noise = 0.1 * np.random.default_rng(0).normal(size=(600, 2))
    table = pd.DataFrame(np.sin(np.arange(600) / 3)[:, None] + noise, columns=["left", "right"])
    table["time"] = pd.date_range("2024-01-01", periods=600)
    table.to_csv(tmp_path / "series.csv", index=False)
    options = ("--length", 20, "--columns", "left,right", "--fpr", 0.2)
    told = good("fit", "waveforms", tmp_path / "series.csv", "--out", tmp_path / "model", *options, *NET)
    assert "series.csv: 600 rows, 2 columns (left, right); times: time" in told
    assert "learned from 47 windows of 2 x 20" in told
    assert "from 11 held out: of new normal data it flags at most 20 %" in told
    return table


def score(tmp_path, name):
    told = good("score", "waveforms", tmp_path / name, "--model", tmp_path / "model", "--out", tmp_path / "s")
    return pd.read_csv(tmp_path / "s"), told


@pytest.mark.parametrize("kind", ["csv", "npy", "parquet"])
def test_windows_are_learned_and_scored(tmp_path, kind):
    data, windows = tmp_path / f"data.{kind}", waves(150).astype(np.float64)
    windows[3, 5:8], windows[4], windows[5] = np.nan, np.nan, 3.0
    if kind == "csv":
        pd.DataFrame(windows).to_csv(data, index=False, header=False)
    elif kind == "parquet":
        pd.DataFrame(windows).rename(columns="t{}".format).to_parquet(data)
    else:
        np.save(data, windows)
    told = good("fit", "waveforms", data, "--out", tmp_path / "model", *NET)
    assert "the lowest rate that can be promised is 3.2 %; for 1 % take more data" in told
    assert told.index("warning") < told.index("learned")
    table, told = score(tmp_path, data.name)
    assert "150 windows scored" in told
    assert "1 windows hold no number and have neither score nor verdict" in told
    assert "warning: 1 windows are flat lines" in told
    assert list(table.columns) == ["window", "score", "flagged"]
    detector = ResNetAE.load(tmp_path / "model")
    np.testing.assert_allclose(table["score"], detector.decision_function(windows))
    assert table["flagged"].isna().tolist() == [place == 4 for place in range(150)]
    expected = detector.predict(windows).compressed()
    assert table["flagged"].dropna().astype(bool).tolist() == expected.tolist()


def test_a_series_is_cut_as_it_was_and_its_columns_are_found_by_name(tmp_path, series):
    table, _ = score(tmp_path, "series.csv")
    cut = cut_windows(series[["left", "right"]].to_numpy().T, 20, 10)
    names = ["window", "start", "end", "start_time", "end_time", "score", "flagged"]
    assert list(table.columns) == names
    assert table["start"].tolist() == cut.starts.tolist()
    assert table["start_time"].tolist() == series["time"].dt.strftime("%Y-%m-%d")[cut.starts].tolist()
    assert table["end_time"].tolist() == series["time"].dt.strftime("%Y-%m-%d")[cut.ends - 1].tolist()
    expected = ResNetAE.load(tmp_path / "model").decision_function(cut.values)
    np.testing.assert_allclose(table["score"], expected, rtol=1e-5)
    series[["right", "left"]].to_csv(tmp_path / "turned.csv", index=False)
    pd.testing.assert_frame_equal(
        score(tmp_path, "turned.csv")[0], table.drop(columns=["start_time", "end_time"])
    )
    for columns in (["left", "time"], ["left"]):
        series[columns].to_csv(tmp_path / "other.csv", index=False)
        model = ("--model", tmp_path / "model", "--out", "s")
        assert "one column 'right'" in bad("score", "waveforms", tmp_path / "other.csv", *model)


def test_what_is_held_out_is_not_learned():
    parts = [cut_windows(np.arange(first, first + 1000.0), 50, 5) for first in (0, 5000)]
    learn, held = hold_out(parts, series=True)
    assert not set(learn.ravel()) & set(held.ravel())
    for first in (0, 5000):
        own, later = (part[(part >= first) & (part < first + 1000)] for part in (learn, held))
        assert own.max() < first + 800 <= later.min()
    windows = np.arange(40.0)[:, None, None] + np.zeros((1, 1, 4))
    learn, held = hold_out([Windows(windows, np.arange(40))], series=False)
    assert len(held) == 8
    assert sorted([*learn[:, 0, 0], *held[:, 0, 0]]) == list(range(40))


def test_several_files_are_learned_and_scored_and_known_faults_choose(tmp_path):
    rng, files, rate = np.random.default_rng(0), [], 100
    for name, height in (("a", 1000), ("b", 1000), ("faulty", 3000)):
        sound = height * np.sin(np.arange(800) / 3) + 50 * rng.normal(size=800)
        wavfile.write(tmp_path / f"{name}.wav", rate, sound.astype(np.int16))
        files.append(tmp_path / f"{name}.wav")
    out = ("--out", tmp_path / "model", "--length", 20, "--epochs", 2)
    told = good("fit", "waveforms", *files[:2], *out, "--known", files[2])
    assert "for 1 % take a --stride below" not in told
    assert "the lowest rate that can be promised is 3.2 %; for 1 % take --stride 3, more data" in told
    assert re.search(r", channel: PR-AUC 1.000 on normals and known faults \(kept\)", told)
    told = good("score", "waveforms", *files, "--model", tmp_path / "model", "--out", tmp_path / "s")
    table = pd.read_csv(tmp_path / "s")
    assert table.groupby("file")["flagged"].mean()[str(files[2])] == 1
    assert table.groupby("file")["flagged"].mean()[str(files[0])] < 0.2
    assert table["end_time"][0] == pytest.approx(0.19)
    assert "a series has --length" in bad("fit", "waveforms", files[0], "--out", tmp_path / "x")
    np.save(tmp_path / "other.npy", np.zeros((800, 3)))
    assert "files differ in channels" in bad("fit", "waveforms", files[0], tmp_path / "other.npy", *out)


def test_files_that_are_scored_are_kept_when_a_run_stops(tmp_path, series, monkeypatch):
    files = [tmp_path / "series.csv", tmp_path / "later.csv", tmp_path / "last.csv"]
    for file in files[1:]:
        series.to_csv(file, index=False)
    score = ("score", "waveforms", *files, "--model", tmp_path / "model", "--out")
    whole, asked, read = good(*score, tmp_path / "whole"), [], cli_waveforms.read_numbers

    def stopped(file, columns):
        asked.append(file.name)
        if asked == ["series.csv", "later.csv"]:
            raise MemoryError("stopped")
        return read(file, columns)

    monkeypatch.setattr(cli_waveforms, "read_numbers", stopped)
    assert "stopped" in bad(*score, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    told = good(*score, tmp_path / "s")
    assert asked == ["series.csv", "later.csv", "later.csv", "last.csv"]
    assert told.startswith("going on with the parts that are left")
    assert told.splitlines()[-2:-1] == whole.splitlines()[-2:-1]
    assert (tmp_path / "s").read_text() == (tmp_path / "whole").read_text()
    assert not list(tmp_path.glob("*.parts"))


def test_a_model_is_measured_on_faulty_windows_and_gets_another_threshold(tmp_path, series):
    (series[["left", "right"]] * [1, -1]).to_csv(tmp_path / "turned.csv", index=False)
    asked = (tmp_path / "series.csv", "--model", tmp_path / "model")
    told = good("evaluate", "waveforms", *asked, "--faults", tmp_path / "turned.csv", "--out", tmp_path / "f")
    assert "59 normal, 59 faulty, 0 left out; threshold" in told
    assert json.loads((tmp_path / "f").read_text())["faulty"] == 59
    before = ResNetAE.load(tmp_path / "model")
    assert "from 11 held out: of new normal data it flags at most 50 %" in good(
        "calibrate", "waveforms", *asked[1:], "--fpr", 0.5
    )
    assert ResNetAE.load(tmp_path / "model").threshold_ < before.threshold_
    assert "from 59 held out" in good(
        "calibrate", "waveforms", *asked[1:], "--fpr", 0.1, "--normal", asked[0]
    )


def test_much_less_flagged_than_promised_is_told_too(tmp_path, series):
    pd.DataFrame(np.zeros((2000, 2)), columns=["left", "right"]).to_csv(tmp_path / "still.csv", index=False)
    told = score(tmp_path, "still.csv")[1]
    assert "0 % are flagged, where 20 % are expected of windows like the held-out ones: the windows" in told


def test_the_best_of_all_is_kept_and_a_moved_level_counts_where_it_is_told_from_normal(tmp_path):
    np.save(tmp_path / "data.npy", waves(150)[:, None])
    told = good("fit", "waveforms", tmp_path / "data.npy", "--out", tmp_path / "model", "--epochs", 2)
    found = re.findall(r"(\w+, \w+): PR-AUC ([\d.]+) on normals and injected faults", told)
    assert len(found) == 6
    assert found == sorted(found, key=lambda each: -float(each[1]))
    method, standardize = found[0][0].split(", ")
    model = load(tmp_path / "model", KINDS)
    assert isinstance(model, ResNetAE if method == "net" else WindowBaseline)
    assert model.standardize == standardize
    assert model.compared_[found[0][0]] == pytest.approx(float(found[0][1]), abs=1e-3)


def test_the_faults_that_are_put_in_are_in_one_channel_and_leave_gaps_alone():
    windows = np.random.default_rng(0).normal(size=(6, 3, 40))
    windows[0, :, 30:] = np.nan
    before = windows.copy()
    faulty = inject(windows).reshape(5, 6, 3, 40)
    np.testing.assert_array_equal(windows, before)
    changed = ~np.isclose(faulty, windows, equal_nan=True)
    assert (changed.any(axis=3).sum(axis=2) <= 1).all()
    assert changed.any(axis=(2, 3)).sum() >= 28  # a spike may fall into the gap
    assert (changed[0].sum(axis=(1, 2)) <= 3).all()
    assert not changed[1:, :, :, :20].any()
    assert np.isfinite(faulty[:, 1:]).all()


def test_mistakes_end_with_status_1_and_a_message(tmp_path, monkeypatch):
    monkeypatch.setattr(ResNetAE, "fit", lambda *_, **__: pytest.fail("it is refused before the training"))
    np.save(tmp_path / "few.npy", waves(2))
    np.save(tmp_path / "deep.npy", np.zeros((2, 2, 2, 2)))
    np.save(tmp_path / "good.npy", waves(30, 8))
    (tmp_path / "model").write_text("nothing")
    fit, score, out = ("fit", "waveforms"), ("score", "waveforms"), ("--out", tmp_path / "out")
    for arguments, message in [
        ((*fit, tmp_path / "nothing.npy", *out), "there is no file"),
        ((*fit, tmp_path / "few.npy", *out), "too few windows"),
        ((*fit, tmp_path / "deep.npy", *out), "windows are"),
        ((*fit, tmp_path / "good.npy", "--out", tmp_path), "is a folder"),
        (
            (*score, tmp_path / "few.npy", *out, "--model", tmp_path / "model"),
            "model is not a readable weight file",
        ),
    ]:
        assert message in bad(*arguments)
        assert not (tmp_path / "out").exists()
