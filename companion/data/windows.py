"""Cutting long series into windows, at one scale or several, and carrying scores back to time.

A series is an array (T,) or (channels, T); NaN marks gaps. Windows are (N, channels, length), as
:class:`companion.estimators.autoencoders.ResNetAE` takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Reduce = Literal["mean", "max"]


@dataclass(frozen=True)
class Windows:
    """Windows of a series, and where they came from.

    Attributes:
        values: (N, channels, length). Cut at one scale without resampling, a view of the series.
        starts: int64 (N,): the first sample of each window in the series, rising.
        span: how many samples of the series each window covers.
        series_length: samples in the series.
    """

    values: np.ndarray
    starts: np.ndarray
    span: int
    series_length: int

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def ends(self) -> np.ndarray:
        """The sample behind the last one of each window, int64 (N,)."""
        ends: np.ndarray = self.starts + self.span
        return ends

    def to_time(self, scores: np.ndarray, reduce: Reduce = "max") -> np.ndarray:
        """Scores of windows as scores of samples, see :func:`scores_over_time`."""
        return scores_over_time(scores, self.starts, self.span, self.series_length, reduce)

    def at_end(self, scores: np.ndarray) -> np.ndarray:
        """What a monitor knows at each sample: the score of the last window that has ended by then.

        Args:
            scores: (N,), one for each window.

        Returns:
            float64 (series_length,); NaN before the end of the first window.

        Raises:
            ValueError: for another number of scores.
        """
        if np.shape(scores) != self.starts.shape:
            raise ValueError(f"need one score for each of {len(self)} windows, not {np.shape(scores)}")
        last = np.searchsorted(self.ends, np.arange(1, self.series_length + 1), side="right")
        return np.concatenate([[np.nan], np.asarray(scores, dtype=np.float64)])[last]


def window_starts(series_length: int, span: int, stride: int, *, tail: bool = True) -> np.ndarray:
    """Where the windows begin: 0, ``stride``, 2 ``stride`` ... as long as they fit.

    Args:
        series_length: samples in the series.
        span: samples in a window.
        stride: samples from one start to the next.
        tail: whether a last window ends with the series if the others leave samples over.

    Returns:
        int64 (N,), rising.

    Raises:
        ValueError: if ``span`` or ``stride`` is not positive, or the series is shorter than a window.

    Example:
        >>> window_starts(10, 4, 3).tolist(), window_starts(11, 4, 3).tolist()
        ([0, 3, 6], [0, 3, 6, 7])
    """
    if span < 1 or stride < 1:
        raise ValueError(f"span and stride must be at least 1, not {span} and {stride}")
    if series_length < span:
        raise ValueError(
            f"a series of {series_length} samples holds no window of {span}; take shorter windows"
        )
    last = series_length - span
    starts = np.arange(0, last + 1, stride, dtype=np.int64)
    return np.append(starts, last) if tail and starts[-1] != last else starts


def _checked(series: np.ndarray) -> np.ndarray:
    array = np.asarray(series)
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or array.shape[0] < 1 or not np.issubdtype(array.dtype, np.number):
        raise ValueError(f"a series is an array of numbers (T,) or (channels, T), not {np.shape(series)}")
    if array.shape[0] > array.shape[1]:
        raise ValueError(
            f"{array.shape} has more channels than samples; a series is (channels, T): transpose it"
        )
    return array


def cut_windows(
    series: np.ndarray,
    length: int,
    stride: int | None = None,
    *,
    span: int | None = None,
    tail: bool = True,
) -> Windows:
    """Windows of a series, resampled to ``length`` samples if they span another number of them.

    Args:
        series: (T,) or (channels, T).
        length: samples in a window that is returned.
        stride: samples of the series from one start to the next; by default half the span, at least 1.
        span: samples of the series that a window covers; ``length`` if not given. Twice the length,
            for example, shows the series at half the rate.
        tail: see :func:`window_starts`.

    Raises:
        ValueError: if the series has another shape, a size is not positive, or the series is too short.
    """
    array = _checked(series)
    if length < 1:
        raise ValueError(f"length must be at least 1, not {length}")
    span = length if span is None else span
    stride = max(1, span // 2) if stride is None else stride
    starts = window_starts(array.shape[1], span, stride, tail=tail)
    views = np.lib.stride_tricks.sliding_window_view(array, span, axis=1)  # (C, T - span + 1, span)
    step = slice(None, None, stride)
    regular = views[:, step].swapaxes(0, 1)  # (N, C, span), still a view
    if len(regular) < len(starts):
        regular = np.concatenate([regular, views[:, -1][None]])
    return Windows(resample(regular, length), starts, span, array.shape[1])


def cut_scales(
    series: np.ndarray, length: int, spans: Sequence[int], *, overlap: float = 0.5
) -> tuple[Windows, ...]:
    """Windows at several scales, all resampled to ``length`` samples.

    Args:
        series: (T,) or (channels, T).
        length: samples in a window that is returned.
        spans: samples of the series that the windows of each scale cover.
        overlap: the share of a window that the next one covers, too; from 0 to below 1.

    Raises:
        ValueError: see :func:`cut_windows`; or there is no scale, or the overlap is out of range.
    """
    if not spans or not 0 <= overlap < 1:
        raise ValueError(
            f"need at least one span and an overlap from 0 to below 1, not {spans} and {overlap}"
        )
    strides = [max(1, round(span * (1 - overlap))) for span in spans]
    return tuple(
        cut_windows(series, length, stride, span=span) for span, stride in zip(spans, strides, strict=True)
    )


def resample(windows: np.ndarray, length: int) -> np.ndarray:
    """Windows (..., span) as (..., ``length``), each new sample the mean of what it covers.

    New sample i covers the time from i span / length to (i + 1) span / length, and old samples in part if
    need be. So the mean is kept. Of gaps the known part is averaged; where nothing is known, NaN.

    Raises:
        ValueError: if a length is not positive.

    Example:
        >>> resample(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist()
        [2.0, 6.0]
    """
    span = windows.shape[-1]
    if span < 1 or length < 1:
        raise ValueError(f"cannot make {length} samples of {span}")
    if span == length:
        return windows
    edges = np.arange(length + 1) * (span / length)
    left, right = edges[:-1, None], edges[1:, None]
    place = np.arange(span)
    overlap = np.clip(np.minimum(right, place + 1) - np.maximum(left, place), 0, None)  # (length, span)
    known = ~np.isnan(windows)
    total = np.where(known, windows, 0) @ overlap.T
    weight = known @ overlap.T
    enough = weight > 1e-9 * span / length
    mean = np.divide(total, weight, out=np.full(total.shape, np.nan), where=enough)
    kept: np.ndarray = mean.astype(windows.dtype if np.issubdtype(windows.dtype, np.floating) else np.float64)
    return kept


def scores_over_time(
    scores: np.ndarray, starts: np.ndarray, span: int, series_length: int, reduce: Reduce = "max"
) -> np.ndarray:
    """Scores of windows, or of their samples, as one score for each sample of the series.

    Args:
        scores: (N,), one for each window, or (N, span), one for each of its samples. NaN is left out.
        starts: (N,), the first sample of each window.
        span: samples that a window covers.
        series_length: samples in the series.
        reduce: the mean or the maximum over the windows that cover a sample.

    Returns:
        float64 (series_length,); NaN where no window with a score covers the sample.

    Raises:
        ValueError: if the shapes do not fit, a window sticks out of the series, or ``reduce`` is another.

    Example:
        >>> scores_over_time(np.array([1.0, 3.0]), np.array([0, 2]), 3, 6, "mean").tolist()
        [1.0, 1.0, 2.0, 3.0, 3.0, nan]
    """
    scores, starts = np.asarray(scores, dtype=np.float64), np.asarray(starts)
    if reduce not in ("mean", "max"):
        raise ValueError(f"reduce is 'mean' or 'max', not {reduce!r}")
    if starts.ndim != 1 or scores.shape not in (starts.shape, (len(starts), span)):
        raise ValueError(f"need scores (N,) or (N, {span}) for {starts.shape} starts, not {scores.shape}")
    if len(starts) and (starts.min() < 0 or starts.max() + span > series_length):
        raise ValueError(f"a window sticks out of the series of {series_length} samples")
    total, count = np.zeros(series_length), np.zeros(series_length, dtype=np.int64)
    highest = np.full(series_length, np.nan)
    for start, score in zip(starts.tolist(), scores, strict=True):
        part = slice(start, start + span)
        if reduce == "max":
            highest[part] = np.fmax(highest[part], score)
        else:
            known = ~np.isnan(score)
            total[part] += np.where(known, score, 0)
            count[part] += known
    if reduce == "max":
        return highest
    mean: np.ndarray = np.divide(total, count, out=np.full(series_length, np.nan), where=count > 0)
    return mean
