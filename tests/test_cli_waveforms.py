"""``companion fit waveforms`` and ``companion score waveforms``."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas as pd
import pytest

from companion.cli_waveforms import hold_out, read_numbers, read_windows
from companion.data.windows import cut_windows
from companion.estimators import ResNetAE
from tests.test_cli import call
from tests.test_waveforms import waves

FAST = ("--epochs", "2", "--bottleneck", "2", "--depth", "2", "--device", "cpu")


def good(*arguments):
    result = call(*map(str, arguments))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("kind", ["csv", "npy"])
def test_windows_are_learned_and_scored(tmp_path, kind):
    data, model, scores = tmp_path / f"data.{kind}", tmp_path / "model.safetensors", tmp_path / "scores.csv"
    windows = waves(150).astype(np.float64)
    windows[3, 5:8] = np.nan
    windows[4] = np.nan
    if kind == "csv":
        pd.DataFrame(windows).to_csv(data, index=False, header=False)
    else:
        np.save(data, windows)
    told = good("fit", "waveforms", data, "--out", model, "--validation", 0.7, *FAST)
    assert "threshold" in told
    assert "1 x 32" in told
    told = good("score", "waveforms", data, "--model", model, "--out", scores, "--device", "cpu")
    assert "150 windows scored" in told
    assert "1 without any number" in told
    table = pd.read_csv(scores)
    assert list(table.columns) == ["window", "score", "flagged"]
    detector = ResNetAE.load(model)
    np.testing.assert_allclose(table["score"], detector.decision_function(windows))
    assert table["flagged"].tolist() == detector.predict(windows).astype(int).tolist()


def test_a_series_is_cut_learned_and_scored(tmp_path):
    data, model, scores = tmp_path / "series.csv", tmp_path / "model.safetensors", tmp_path / "scores.csv"
    rng = np.random.default_rng(0)
    series = np.sin(np.arange(400) / 3)[:, None] + 0.1 * rng.normal(size=(400, 2))
    pd.DataFrame(series, columns=["left", "right"]).assign(note="x").to_csv(data, index=False)
    names = ("--columns", "left,right")
    told = good("fit", "waveforms", data, "--out", model, "--length", 20, "--stride", 5, *names, *FAST)
    assert "2 x 20" in told
    assert "no threshold: a false-positive rate of 0.01 needs at least 99" in told
    good("score", "waveforms", data, "--model", model, "--out", scores, "--series", *names, "--stride", 7)
    table = pd.read_csv(scores)
    assert list(table.columns) == ["window", "start", "end", "score"]
    cut = cut_windows(series.T, 20, 7)
    assert table["start"].tolist() == cut.starts.tolist()
    assert table["end"].iloc[-1] == 400
    np.testing.assert_allclose(table["score"], ResNetAE.load(model).score(cut.values), rtol=1e-5)


def test_what_is_held_out_is_not_learned():
    cut = cut_windows(np.arange(1000.0), 50, 5)
    learn, held = hold_out(cut, 0.2, 0)
    assert learn.max() < 800 <= held.min()
    windows = np.arange(40.0)[:, None, None] + np.zeros((1, 1, 4))
    learn, held = hold_out(windows, 0.25, 0)
    assert len(held) == 10
    assert sorted([*learn[:, 0, 0], *held[:, 0, 0]]) == list(range(40))
    with pytest.raises(ValueError, match="too few windows"):
        hold_out(windows[:2], 0.1, 0)


def test_a_header_is_seen(tmp_path):
    path = tmp_path / "data.csv"
    for text, expected in {
        "1,2\n3,4\n": [[1, 2], [3, 4]],
        "a,b\n3,4\n": [[3, 4]],
        "1, nan\n,4\n": [[1, np.nan], [np.nan, 4]],
        "-1e3,.5\n": [[-1000, 0.5]],
    }.items():
        path.write_text(text)
        np.testing.assert_array_equal(read_numbers(path), expected)
    path.write_text("a,b\n3,4\n")
    assert read_numbers(path, "b").tolist() == [[4]]
    path.write_text("0,1\n3,4\n")
    assert read_numbers(path, header=False).tolist() == [[0, 1], [3, 4]]


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("columns", [None, ["a", "b", "c"]])
def test_what_pandas_writes_comes_back(tmp_path, index, columns):
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 3)), columns=columns)
    table.iloc[0, 0] = np.nan
    table.to_csv(tmp_path / "data.csv", index=index)
    np.testing.assert_allclose(read_numbers(tmp_path / "data.csv"), table.to_numpy())
    name = str(table.columns[1])
    assert read_numbers(tmp_path / "data.csv", name).shape == (5, 1)


@pytest.mark.parametrize(
    ("name", "content", "arguments", "message"),
    [
        ("a.txt", b"1", {}, "none of .csv"),
        ("a.csv", b"", {}, "no CSV"),
        ("a.csv", b"\xff\xfe\x00", {}, "no CSV"),
        ("a.csv", b"a,b\n1,x\n", {}, "not only numbers in column b"),
        ("a.csv", b"a,b\n1,x\n", {"columns": "c"}, "no column 'c'; it has: a, b"),
        ("a.npy", b"nothing", {}, "no array"),
        ("a.npy", b"", {"columns": "a"}, "no names of columns"),
        ("a.csv", b"1,2\n", {"stride": 2}, "--stride is for a series"),
        ("a.csv", b"1\n2\n", {"length": 3}, "shorter windows"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, arguments, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_windows(tmp_path / name, **{"length": None, "stride": None, "columns": None} | arguments)


def test_parquet_is_read_or_its_reader_is_named(tmp_path):
    path = tmp_path / "data.parquet"
    path.write_bytes(b"nothing")
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(ValueError, match="pip install pyarrow"):
            read_numbers(path)
        return
    with pytest.raises(ValueError, match="no Parquet"):
        read_numbers(path)
    pd.DataFrame({"a": [1.0, None], "b": [3, 4]}).to_parquet(path)
    np.testing.assert_array_equal(read_numbers(path), [[1, 3], [np.nan, 4]])


def test_mistakes_end_with_status_1_and_a_message(tmp_path):
    np.save(tmp_path / "few.npy", waves(2))
    np.save(tmp_path / "deep.npy", np.zeros((2, 2, 2, 2)))
    np.save(tmp_path / "short.npy", waves(30, 8))
    (tmp_path / "model").write_text("nothing")
    fit, score = ("fit", "waveforms"), ("score", "waveforms")
    out = ("--out", tmp_path / "out")
    for arguments, message in [
        ((*fit, tmp_path / "nothing.npy", *out), "there is no file"),
        ((*fit, tmp_path / "few.npy", *out), "too few windows"),
        ((*fit, tmp_path / "deep.npy", *out), "windows are"),
        ((*fit, tmp_path / "deep.npy", *out, "--length", 2), "a series is"),
        ((*fit, tmp_path / "short.npy", *out), "depth=3"),
        ((*fit, tmp_path / "short.npy", *out, "--validation", 1), "--validation"),
        ((*fit, tmp_path / "short.npy", *out, "--fpr", 0), "--fpr"),
        ((*fit, tmp_path / "short.npy", *out, "--standardize", "rows"), "standardise"),
        ((*score, tmp_path / "few.npy", *out, "--model", tmp_path / "model"), "not a readable"),
    ]:
        result = call(*map(str, arguments))
        assert result.exit_code == 1
        assert message in result.output
        assert "Traceback" not in result.output
        assert not (tmp_path / "out").exists()
