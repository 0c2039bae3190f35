"""Cutting series into windows, scores back to time, standardisation, and the data made of waveforms."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.data.faults import KINDS, PER_DAY, faulty_series
from companion.data.standardize import Standardizer, as_windows, fill_gaps
from companion.data.windows import cut_scales, cut_windows, resample, scores_over_time, window_starts

sizes = st.integers(1, 12)
quick = settings(max_examples=60, deadline=None)


# ---------------------------------------------------------------- windows


@quick
@given(st.integers(1, 60), sizes, sizes, st.booleans())
def test_windows_stand_where_they_should(total, span, stride, tail):
    if span > total:
        with pytest.raises(ValueError, match="holds no window"):
            window_starts(total, span, stride, tail=tail)
        return
    starts = window_starts(total, span, stride, tail=tail)
    expected = [s for s in range(total) if s % stride == 0 and s + span <= total]
    if tail and expected[-1] + span < total:
        expected.append(total - span)
    assert starts.tolist() == expected


@quick
@given(st.integers(12, 60), sizes, st.one_of(st.none(), sizes), st.integers(1, 3), st.booleans())
def test_windows_hold_what_the_series_holds(total, span, stride, channels, tail):
    series = np.random.default_rng(0).normal(size=(channels, total)).astype(np.float32)
    cut = cut_windows(series, span, stride, tail=tail)
    assert cut.values.shape == (len(cut), channels, span)
    assert cut.values.dtype == np.float32
    for window, start, end in zip(cut.values, cut.starts, cut.ends, strict=True):
        assert np.array_equal(window, series[:, start:end])
    if tail and (stride is None or stride <= span):
        assert not np.isnan(cut.to_time(np.ones(len(cut)))).any()  # every sample is covered
    one = cut_windows(series[0], span, stride, tail=tail)
    assert np.array_equal(one.values[:, 0], cut.values[:, 0])


@quick
@given(st.integers(1, 40), st.integers(1, 40), st.lists(st.integers(0, 39), max_size=6))
def test_resampling_equals_averaging_a_fine_copy(span, length, gaps):
    values = np.random.default_rng(span).normal(size=(2, span))
    values[:, [g for g in gaps if g < span]] = np.nan
    fine = np.repeat(values, length, axis=1).reshape(2, length, span)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # where nothing is known
        expected = np.nanmean(fine, axis=2)
    np.testing.assert_allclose(resample(values, length), expected, atol=1e-12)


@quick
@given(
    st.lists(st.integers(0, 25), max_size=8),
    st.integers(1, 5),
    st.sampled_from(["mean", "max"]),
    st.booleans(),
)
def test_scores_return_to_their_samples(starts, span, reduce, by_sample):
    total = 30
    rng = np.random.default_rng(len(starts))
    scores = rng.normal(size=(len(starts), span) if by_sample else len(starts))
    scores[rng.random(scores.shape) < 0.2] = np.nan
    found = scores_over_time(scores, np.array(starts, dtype=int), span, total, reduce)
    for sample in range(total):
        here = [
            score[sample - start] if by_sample else score
            for start, score in zip(starts, scores, strict=True)
            if start <= sample < start + span
        ]
        here = [score for score in here if not np.isnan(score)]
        expected = np.nan if not here else max(here) if reduce == "max" else np.mean(here)
        np.testing.assert_allclose(found[sample], expected)


@quick
@given(st.integers(5, 30), st.integers(1, 5), sizes)
def test_a_monitor_knows_the_last_window_that_ended(total, span, stride):
    cut = cut_windows(np.zeros(total), span, stride)
    scores = np.arange(len(cut)) + 1.0
    found = cut.at_end(scores)
    for sample in range(total):
        ended = scores[cut.ends <= sample + 1]
        np.testing.assert_array_equal(found[sample], ended[-1] if len(ended) else np.nan)
    with pytest.raises(ValueError, match="one score for each"):
        cut.at_end(scores[:-1])


def test_a_slow_scale_sees_the_series_at_a_lower_rate():
    series = np.arange(64.0)
    fast, slow = cut_scales(series, 8, [8, 32], overlap=0.75)
    assert fast.values.shape == (29, 1, 8)
    assert slow.values.shape == (5, 1, 8)
    assert slow.starts.tolist() == [0, 8, 16, 24, 32]
    assert slow.values[1, 0].tolist() == [9.5, 13.5, 17.5, 21.5, 25.5, 29.5, 33.5, 37.5]
    assert slow.to_time(np.arange(5.0)).tolist() == np.repeat(np.arange(5.0), [8, 8, 8, 8, 32]).tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cut_windows(np.zeros(10), 11), "shorter windows"),
        (lambda: cut_windows(np.zeros(10), 0), "length"),
        (lambda: cut_windows(np.zeros(10), 4, 0), "at least 1"),
        (lambda: cut_windows(np.zeros((10, 2)), 4), "transpose"),
        (lambda: cut_windows(np.zeros((2, 3, 10)), 4), "channels, T"),
        (lambda: cut_windows(np.array(["a", "b"]), 1), "numbers"),
        (lambda: cut_scales(np.zeros(10), 4, []), "at least one span"),
        (lambda: cut_scales(np.zeros(10), 4, [4], overlap=1), "overlap"),
        (lambda: resample(np.zeros((2, 0)), 3), "cannot make"),
        (lambda: scores_over_time(np.zeros(1), np.array([8]), 3, 10), "sticks out"),
        (lambda: scores_over_time(np.zeros(2), np.array([0]), 3, 10), "need scores"),
        (lambda: scores_over_time(np.zeros(1), np.array([0]), 3, 10, "sum"), "mean"),
    ],
)
def test_impossible_windows_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------- standardisation


@quick
@given(
    st.sampled_from(["window", "channel", "none"]),
    st.integers(1, 4),
    st.integers(1, 9),
    st.floats(-1e6, 1e6),
    st.floats(1e-2, 1e4),
)
def test_standardising_can_be_undone(kind, channels, length, offset, scale):
    windows = offset + scale * np.random.default_rng(0).normal(size=(5, channels, length))
    standard, center, spread = Standardizer(kind).fit(windows).transform(windows)
    assert standard.dtype == np.float32
    assert np.isfinite(standard).all()
    np.testing.assert_allclose(
        standard * spread + center, windows, rtol=1e-5, atol=1e-5 * (scale + abs(offset))
    )
    if kind == "window" and length > 1:
        np.testing.assert_allclose(standard.mean(axis=2), 0, atol=1e-5)
        np.testing.assert_allclose(standard.std(axis=2), 1, atol=1e-5)
    if kind == "channel":
        np.testing.assert_allclose(standard.mean(axis=(0, 2)), 0, atol=1e-5)
        kept = Standardizer.from_state(Standardizer(kind).fit(windows).state())
        assert np.array_equal(kept.transform(windows[:2])[0], standard[:2])


@pytest.mark.parametrize("value", [0.0, 1.0, -7.3, 1e9, 0.1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_windows_become_zeros(value, dtype):
    windows = np.full((3, 1, 50), value, dtype=dtype)
    for kind in ("window", "channel"):
        standard, _, scale = Standardizer(kind).fit(windows).transform(windows)
        assert np.abs(standard).max() < 1e-3 * max(1, abs(value) * np.finfo(dtype).eps * 1e4)
        assert (scale == 1).all()


def test_gaps_become_straight_lines_and_do_not_count():
    nan = np.nan
    windows = np.array([[[nan, 2.0, nan, nan, 5.0, nan], [nan] * 6]])
    assert fill_gaps(windows).tolist() == [[[2, 2, 3, 4, 5, 5], [0] * 6]]
    standard, center, scale = Standardizer().transform(windows)
    assert (center[0, 0, 0], scale[0, 0, 0]) == (3.5, 1.5)
    assert standard[0, 0, [1, 4]].tolist() == [-1, 1]
    assert (standard[0, 1] == 0).all()
    whole = np.zeros((1, 1, 3))
    assert fill_gaps(whole) is whole
    with pytest.raises(ValueError, match="nothing is known of channel 1"):
        Standardizer("channel").fit(windows)
    with pytest.raises(ValueError, match="fit the standardiser"):
        Standardizer("channel").transform(windows)


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        (np.zeros((3, 2, 5)), "need \\(windows, 1"),
        (np.zeros(5), "not \\(5,\\)"),
        (np.zeros((3, 0)), "not \\(3, 0\\)"),
        (np.array([["a"]]), "numbers"),
        (np.array([[np.inf]]), "infinite"),
        ([[1.0], [1.0, 2.0]], "numbers"),
    ],
)
def test_what_is_no_window_is_refused(windows, message):
    with pytest.raises(ValueError, match=message):
        as_windows(windows, 1)


def test_integers_are_taken():
    assert as_windows(np.arange(6).reshape(2, 3), 1).dtype == np.float64


def test_faults_stand_where_they_are_said_to_stand():
    data = faulty_series(seed=1, train_days=1, validation_days=1, test_days=2, per_kind=1)
    assert data.synthetic
    assert data.values.shape == (4 * PER_DAY,)
    assert (data.train_end, data.validation_end) == (PER_DAY, 2 * PER_DAY)
    assert sorted(fault.kind for fault in data.faults) == sorted(KINDS)
    assert all(a.end < b.start for a, b in pairwise(data.faults))
    assert data.faults[0].start >= data.validation_end
    assert data.faults[-1].end <= len(data.values)
    assert data.labels.sum() == sum(fault.end - fault.start for fault in data.faults)
    by_kind = {fault.kind: data.values[fault.start : fault.end] for fault in data.faults}
    assert np.ptp(by_kind["flat line"]) == 0
    assert by_kind["spike"].min() > 0.85
    assert by_kind["weak"].max() < 0.75 * data.values[: data.train_end].max()
    assert data.digest == faulty_series(1, train_days=1, validation_days=1, test_days=2, per_kind=1).digest
    quiet = faulty_series(train_days=1, validation_days=1, test_days=1, per_kind=0)
    assert quiet.faults == ()
    with pytest.raises(ValueError, match="no room"):
        faulty_series(test_days=1, per_kind=9)
    with pytest.raises(ValueError, match="at least one day"):
        faulty_series(test_days=0)
