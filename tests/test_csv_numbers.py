"""Files of numbers: read right, or refused with the reason."""

import numpy as np
import pandas as pd
import pytest
from scipy.io import wavfile

from companion.data.csv_numbers import read_numbers

NAN = np.nan
ROWS = "0.5,0.7\n0.6,0.8\n"
VALUES = [[0.5, 0.7], [0.6, 0.8]]


@pytest.mark.parametrize(
    ("text", "values", "names", "told"),
    [
        (ROWS, VALUES, None, "2 rows, 2 columns"),
        ("a,b\r\n0.5,0.7\r\n0.6,0.8\r\n", VALUES, ["a", "b"], "2 columns (a, b)"),
        ("a,b\n0.5,0.7,\n0.6,0.8,\n", VALUES, ["a", "b"], "an empty field behind each row"),
        ("0.5,0.7,\n0.6,0.8,\n", VALUES, None, "an empty field behind each row"),
        ("\ufeff" + ROWS, VALUES, None, "2 rows"),
        ("\ufeff,0,1\n0,0.5,0.7\n1,0.6,0.8\n", VALUES, None, "a first column without a name"),
        ("0,1\n0.5,0.7\n0.6,0.8\n", VALUES, None, "2 rows"),
        ("0.5,NA\n0.6,\n", [[0.5, NAN], [0.6, NAN]], None, "2 rows"),
        ("a,b\n1,\n2,\n", [[1, NAN], [2, NAN]], ["a", "b"], "2 rows"),
        ("a;b\n0,5;7\n-1,25;\n", [[0.5, 7], [-1.25, NAN]], ["a", "b"], "with decimal commas"),
        ("a\tb\n0.5\t0.7\n0.6\t0.8\n", VALUES, ["a", "b"], "2 rows"),
        (" 0.5  0.7\n 0.6 0.8 \n", VALUES, None, "2 rows"),
        ("0.5,0.7\n\n0.6,0.8\n\n", VALUES, None, "left out: 1 empty lines"),
        ("-1e3,.5\n1, nan\n", [[-1000, 0.5], [1, NAN]], None, "2 rows"),
    ],
)
def test_what_spreadsheets_and_programs_write_is_read(tmp_path, text, values, names, told):
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode())
    found = read_numbers(path)
    np.testing.assert_array_equal(found.values, values)
    assert found.names == names
    assert told in found.told
    path.write_bytes(text.removeprefix("\ufeff").encode("utf-16"))
    np.testing.assert_array_equal(read_numbers(path).values, values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no row of numbers"),
        ("a,b\n", "no row of numbers"),
        ("a,b\n1,2\n3,4,5\n", "line 3 has 3 fields, the lines before have 2"),
        ("a,b,c\n1,2\n", "names 3 columns, and the lines below have 2"),
        ("a\n0,5\n0,7\n", "numbers need a decimal point"),
        ("a;b\n0,5;1.5\n", "some of its numbers have a decimal comma"),
        ('a,b\n"0,5",1\n', "column a .*holds '0,5', no number"),
        ("a,3\n", "the number 3 beside 'a'"),
        ("date\n2024-01-01\n", "no column of numbers"),
        ("a,b\nlow,3\n", "column a .*holds 'low', no number; name the columns"),
        ("time,end,a\n2024-01-01,2024-01-02,3\n", "column end .*holds '2024-01-02', no number"),
        ("a\nTrue\n", "holds True, no number"),
        ("\0\xff", "cannot be read|no number"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(tmp_path, text, message):
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=message):
        read_numbers(path)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("columns", [None, ["a", "b", "c"]])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_pandas_writes_comes_back(tmp_path, index, columns, suffix):
    path = tmp_path / f"data.{suffix}"
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 3)), columns=columns)
    table.iloc[0, 0] = np.nan
    if suffix == "csv":
        table.to_csv(path, index=index)
    else:
        table.rename(columns=str).to_parquet(path, index=index)
    np.testing.assert_allclose(read_numbers(path).values, table.to_numpy())


def test_columns_are_chosen_by_name(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("time,a,b\n2024-01-01,1,2\n")
    found = read_numbers(path, ["b", "a"])
    assert found.values.tolist() == [[2, 1]]
    assert "times: time" in found.told
    with pytest.raises(ValueError, match="has not one column 'c'; it has: a, b"):
        read_numbers(path, ["c"])
    path.write_text(ROWS)
    with pytest.raises(ValueError, match="does not name its columns"):
        read_numbers(path, ["a"])


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("date;a;b\n01.02.2024 10:15;0,5;0,7\n01.02.2024 10:16;0,6;0,8\n", "01.02.2024 10:15"),
        (",a,b\n2024-02-01T10:15Z,0.5,0.7\n2024-02-01T10:16Z,0.6,0.8\n", "2024-02-01T10:15Z"),
        ("10:15,0.5,0.7\n10:16,0.6,0.8\n", "10:15"),
        ("a,timestamp,b\n0.5,17,0.7\n0.6,19,0.8\n", 17),
    ],
)
def test_times_are_told_and_are_no_measurements(tmp_path, text, times):
    (tmp_path / "data.csv").write_text(text)
    found = read_numbers(tmp_path / "data.csv")
    assert found.values.tolist() == VALUES
    assert found.times[0] == times
    assert len(found.times) == 2


def test_arrays_and_sound_are_read(tmp_path):
    np.savez(tmp_path / "one.npz", np.ones((4, 2, 3)))
    np.savez(tmp_path / "some.npz", a=np.arange(4), b=np.ones(4))
    np.savez(tmp_path / "mixed.npz", a=np.arange(4), b=np.ones((4, 2)))
    wavfile.write(tmp_path / "x.wav", 8000, np.arange(40, dtype=np.int16).reshape(20, 2))
    assert read_numbers(tmp_path / "one.npz").values.shape == (4, 2, 3)
    some = read_numbers(tmp_path / "some.npz")
    assert (some.values.shape, some.names) == ((4, 2), ["a", "b"])
    with pytest.raises(ValueError, match=r"mixed\.npz cannot be read: it holds the arrays a, b; save one"):
        read_numbers(tmp_path / "mixed.npz")
    (tmp_path / "old.csv").write_bytes("in °C;t\n0,5;1\n0,7;2\n".encode("cp1252"))
    old = read_numbers(tmp_path / "old.csv")
    assert (old.names, old.values.tolist(), old.times.tolist()) == (["in °C"], [[0.5], [0.7]], [1, 2])
    assert "read as Windows-1252" in old.told
    sound = read_numbers(tmp_path / "x.wav")
    assert (sound.values.shape, sound.times[8], sound.names) == ((20, 2), 0.001, None)
    frame = pd.DataFrame({"a": [1.0, 2.0]}, index=pd.date_range("2024-01-01", periods=2))
    frame.to_parquet(tmp_path / "dated.parquet")
    dated = read_numbers(tmp_path / "dated.parquet")
    assert (dated.names, dated.times[1]) == (["a"], pd.Timestamp("2024-01-02"))


@pytest.mark.parametrize("name", ["data.npy", "data.npz", "data.parquet", "data.csv", "data.wav"])
def test_damaged_files_are_named(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(ValueError, match="there is no file"):
        read_numbers(path)
    np.save(tmp_path / "data.npy", np.ones((4, 3)))
    whole = (tmp_path / "data.npy").read_bytes()
    spoilt = (b"\x93NUMPY\x01\x00\xff", whole[:60], whole[:-5], whole.replace(b"<f8", b"<c8"))
    for content in (*spoilt, b"PAR1xxPAR1"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"data\.\w+ cannot be read|data\.\w+ holds"):
            read_numbers(path)
