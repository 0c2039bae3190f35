"""Series (T,) or (channels, T), cut into windows (N, channels, length) of a common scale; NaN marks gaps."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

StandardizerKind = Literal["window", "channel"]
LIMIT = 1e15  # standardised samples are clipped to it: nets that square what is larger overflow in float32


def as_numbers(array: Any) -> np.ndarray:
    """Any array of real numbers as float32 or float64, a view where that is possible; what is masked is NaN.

    Numbers beyond 1e150, which some loggers write for "none", are clipped to it: their squares stay finite.
    """
    try:
        found = np.ma.asanyarray(array)
        if found.dtype.kind not in "biufO":
            raise TypeError(f"{found.dtype} is no type of real numbers")
        values = found if found.dtype in (np.float32, np.float64) else found.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"need an array of numbers: {error}") from error
    filled: np.ndarray = values.filled(np.nan) if np.ma.is_masked(values) else np.asarray(values.data)
    if np.isinf(filled).any():
        raise ValueError("there are infinite numbers; make them NaN if they are gaps")
    if filled.dtype == np.float64 and (np.abs(filled) > 1e150).any():
        filled = filled.clip(-1e150, 1e150)
    return filled


@dataclass(frozen=True)
class Windows:
    """Windows of a series, and where they came from."""

    values: np.ndarray  #: (N, channels, length), a view of the series where that is possible
    starts: np.ndarray  #: int64 (N,): the first sample of each window in the series, rising

    @property
    def ends(self) -> np.ndarray:
        """The sample behind the last one of each window, int64 (N,)."""
        return np.asarray(self.starts + self.values.shape[2])


def cut_windows(series: np.ndarray, length: int, stride: int | None = None, *, tail: bool = True) -> Windows:
    """The windows of a series (T,) or (channels, T) that begin at 0, ``stride`` (half the length) and so on.

    With ``tail`` a last window ends with the series if the others leave samples over.

    Example:
        >>> cut_windows(np.arange(11), 4, 3).starts.tolist()
        [0, 3, 6, 7]
    """
    array = np.atleast_2d(as_numbers(series))
    stride = max(1, length // 2) if stride is None else stride
    if array.ndim != 2 or array.shape[0] > array.shape[1]:
        raise ValueError(f"a series is (T,) or (channels, T), not {array.shape}: transpose it")
    if min(length, stride) < 1:
        raise ValueError(f"length and stride must be at least 1, not {length} and {stride}")
    samples = array.shape[1]
    last = samples - length
    if last < 0:
        raise ValueError(f"a series of {samples} samples has no window of {length}; take shorter windows")
    starts = np.arange(0, last + 1, stride, dtype=np.int64)
    views = np.lib.stride_tricks.sliding_window_view(array, length, axis=1)  # (C, T - length + 1, length)
    windows = views[:, ::stride].swapaxes(0, 1)  # (N, C, length), still a view
    if tail and starts[-1] != last:
        starts, windows = np.append(starts, last), np.concatenate([windows, views[:, -1][None]])
    return Windows(windows, starts)


def as_windows(windows: Any, channels: int) -> np.ndarray:
    """Windows (N, channels, L), or (N, L) for one channel, as (N, ``channels``, L), float32 or float64."""
    array = as_numbers(windows)
    if array.ndim == 2 and channels == 1:
        array = array[:, None, :]
    if array.ndim != 3 or array.shape[1] != channels or array.shape[2] == 0:
        also = " or (windows, samples)" if channels == 1 else ""
        raise ValueError(f"need (windows, {channels}, samples){also}, not {np.shape(windows)}")
    return array


def fill_gaps(windows: np.ndarray) -> np.ndarray:
    """Straight lines across the gaps of windows (N, C, L), level at the ends; 0 if nothing is known."""
    if not np.isnan(windows).any():
        return windows
    rows = pd.DataFrame(windows.reshape(-1, windows.shape[2]).T).interpolate(limit_direction="both")
    return rows.fillna(0).to_numpy().T.reshape(windows.shape)


def channel_statistics(windows: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of windows (N, C, L), over all known samples."""
    unknown = np.isnan(windows).all(axis=(0, 2))
    if unknown.any():
        raise ValueError(f"nothing is known of channel {int(np.argmax(unknown))}; leave it out")
    mean, std = _statistics(windows, (0, 2))
    return mean.ravel().tolist(), std.ravel().tolist()


def standardize(
    windows: np.ndarray, kind: StandardizerKind = "window", channels: tuple[Any, Any] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows (N, C, L) without gaps, mean 0 and standard deviation 1, as float32; centre and scale.

    By the numbers of each window and channel (``"window"``), or by the :func:`channel_statistics` of training
    windows (``"channel"``). Centre and scale broadcast: ``standard * scale + centre`` undoes it, but for
    samples that were clipped to ``LIMIT``.

    What is constant (up to rounding) becomes 0: a stuck sensor looks like the mean, see :func:`is_constant`.
    """
    if kind == "window":
        center, scale = _statistics(windows, (2,))
    else:
        center, scale = (np.array(each)[None, :, None] for each in channels or ())
    known = ~np.isnan(windows).all(axis=2, keepdims=True)  # an unknown channel becomes 0
    standard = np.where(known, (fill_gaps(windows) - center) / scale, 0)
    return standard.clip(-LIMIT, LIMIT).astype(np.float32), center, scale


def _statistics(windows: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the known samples over ``axes``, which are kept with length 1.

    Where nothing is known, 0 and 1; where everything is equal up to rounding, a standard deviation of 1.
    """
    known = ~np.isnan(windows)
    count = np.maximum(known.sum(axis=axes, keepdims=True), 1)
    values = np.where(known, windows, 0).astype(np.float64, order="C")  # sums round alike in any memory order
    low, high = (reach.reduce(windows, axis=axes, keepdims=True) for reach in (np.fmin, np.fmax))
    mean = values.sum(axis=axes, keepdims=True) / count
    deviation = np.where(known, values - mean, 0)
    std = np.sqrt((deviation**2).sum(axis=axes, keepdims=True) / count)
    rounding = 4 * np.finfo(windows.dtype).eps * np.abs(values).max(axis=axes, keepdims=True)
    return np.where(low == high, low, mean), np.where((std > rounding) & (low < high), std, 1.0)


def is_constant(windows: np.ndarray) -> np.ndarray:
    """Which windows (N, C, L) hold at least one number and in each channel no two that differ, bool (N,)."""
    low, high = (reach.reduce(windows, axis=2) for reach in (np.fmin, np.fmax))  # NaN where nothing is known
    return np.asarray(~np.isnan(low).all(axis=1) & ~(low < high).any(axis=1))
