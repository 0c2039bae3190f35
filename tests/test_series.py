"""Series: windows where they should be, gaps, and one scale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.data.series import (
    LIMIT,
    as_windows,
    channel_statistics,
    cut_windows,
    fill_gaps,
    is_constant,
    standardize,
)

sizes = st.integers(1, 12)
quick = settings(max_examples=60, deadline=None)


@quick
@given(st.integers(12, 60), sizes, st.one_of(st.none(), sizes), st.integers(1, 3), st.booleans())
def test_windows_hold_what_the_series_holds(total, length, stride, channels, tail):
    series = np.random.default_rng(0).normal(size=(channels, total)).astype(np.float32)
    cut = cut_windows(series, length, stride, tail=tail)
    step = stride or max(1, length // 2)
    expected = [start for start in range(0, total, step) if start + length <= total]
    if tail and expected[-1] + length < total:
        expected.append(total - length)
    assert cut.starts.tolist() == expected
    assert cut.values.shape == (len(cut.starts), channels, length)
    assert cut.values.dtype == np.float32
    for window, start, end in zip(cut.values, cut.starts, cut.ends, strict=True):
        assert np.array_equal(window, series[:, start:end])
    assert np.array_equal(cut_windows(series[0], length, stride, tail=tail).values[:, 0], cut.values[:, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cut_windows(np.zeros(10), 11), "shorter windows"),
        (lambda: cut_windows(np.zeros(10), 0), "at least 1"),
        (lambda: cut_windows(np.zeros((10, 2)), 4), "transpose"),
        (lambda: cut_windows(np.array(["a", "b"]), 1), "numbers"),
        (lambda: as_windows(np.zeros((3, 2, 5)), 1), "need \\(windows, 1"),
        (lambda: as_windows(np.zeros((3, 0)), 1), "not \\(3, 0\\)"),
        (lambda: as_windows([[1.0], [1.0, 2.0]], 1), "numbers"),
        (lambda: as_windows(np.array([[np.inf]]), 1), "infinite"),
        (lambda: as_windows(np.array([[1 + 2j]]), 1), "complex128 is no type of real numbers"),
        (lambda: as_windows(np.array([["2024-01-01"]], "datetime64[D]"), 1), "no type of real numbers"),
    ],
)
def test_what_is_no_series_or_window_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_integers_are_taken_and_what_is_masked_is_a_gap():
    assert as_windows(np.arange(6).reshape(2, 3), 1).dtype == np.float64
    masked = np.ma.masked_less(np.array([[1.0, 2.0, -9999.0, 3.0]]), -100)
    np.testing.assert_array_equal(as_windows(masked, 1), [[[1, 2, np.nan, 3]]])
    np.testing.assert_array_equal(as_windows(masked.astype(int), 1), [[[1, 2, np.nan, 3]]])
    np.testing.assert_array_equal(cut_windows(masked[0], 2, 2).values[1], [[np.nan, 3]])


@quick
@given(
    st.sampled_from(["window", "channel"]), st.integers(1, 4), st.integers(1, 9),
    st.floats(-1e6, 1e6), st.floats(1e-2, 1e4),
)  # fmt: skip
def test_standardizing_can_be_undone(kind, channels, length, offset, scale):
    windows = offset + scale * np.random.default_rng(0).normal(size=(5, channels, length))
    own = channel_statistics(windows)
    standard, center, spread = standardize(windows, kind, own)
    assert standard.dtype == np.float32
    tolerance = 1e-5 * (scale + abs(offset))
    np.testing.assert_allclose(standard * spread + center, windows, rtol=1e-5, atol=tolerance)
    if kind == "window" and length > 1:
        np.testing.assert_allclose(standard.mean(axis=2), 0, atol=1e-5)
        np.testing.assert_allclose(standard.std(axis=2), 1, atol=1e-5)
    if kind == "channel":
        np.testing.assert_allclose(standard.mean(axis=(0, 2)), 0, atol=1e-5)
        few = standardize(windows[:2], kind, own)[0]
        assert np.array_equal(few, standard[:2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_constant_windows_become_zeros_in_any_memory_order(order, dtype):
    values = np.round(np.random.default_rng(0).normal(size=(500, 1)), 2)
    windows = np.asarray(np.repeat(values, 140, axis=1), dtype=dtype, order=order)[:, None]
    standard, _, scale = standardize(windows)
    assert (standard == 0).all()
    assert (scale == 1).all()
    assert is_constant(windows).all()
    same = np.full((3, 1, 50), 0.1, dtype=dtype, order=order)
    assert (standardize(same, "channel", channel_statistics(same))[0] == 0).all()


def test_windows_round_alike_in_any_memory_order():
    windows = np.random.default_rng(0).normal(size=(50, 2, 140)) + 1000
    plain, fortran = (standardize(x)[0] for x in (windows, np.asfortranarray(windows)))
    assert np.array_equal(plain, fortran)
    assert not is_constant(windows).any()


@pytest.mark.parametrize("kind", ["window", "channel"])
@pytest.mark.parametrize("spike", [1e39, -1e39, 1.797e308])
def test_numbers_beyond_float32_stay_finite_and_high(kind, spike):
    windows = np.random.default_rng(0).normal(size=(6, 1, 64))
    own = channel_statistics(windows)
    windows[0, 0, 5] = spike
    standard = standardize(as_windows(windows, 1), kind, own)[0]
    assert np.isfinite(standard).all()
    assert abs(standard[0, 0, 5]) == (LIMIT if kind != "window" else pytest.approx(63**0.5))
    assert np.isfinite(standard.astype(np.float32) ** 2).all()


def test_gaps_become_straight_lines_and_do_not_count():
    nan = np.nan
    windows = np.array([[[nan, 2.0, nan, nan, 5.0, nan], [nan] * 6]])
    assert fill_gaps(windows).tolist() == [[[2, 2, 3, 4, 5, 5], [0] * 6]]
    standard, center, scale = standardize(windows)
    assert (center[0, 0, 0], scale[0, 0, 0]) == (3.5, 1.5)
    assert standard[0, 0, [1, 4]].tolist() == [-1, 1]
    assert (standard[0, 1] == 0).all()
    assert is_constant(np.array([[[nan, 2.0, 2.0]]])).all()
    assert not is_constant(windows[:, 1:]).any()  # nothing is known: no verdict at all
    with pytest.raises(ValueError, match="nothing is known of channel 1"):
        channel_statistics(windows)
