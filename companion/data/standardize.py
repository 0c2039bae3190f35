"""Waveforms on a common scale, and across their gaps."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

StandardiserKind = Literal["window", "channel", "none"]


def as_windows(windows: np.ndarray, channels: int) -> np.ndarray:
    """Windows as (N, ``channels``, L), checked.

    Args:
        windows: (N, channels, L), or (N, L) for one channel, of any numerical dtype; NaN marks gaps.
        channels: how many there must be.

    Returns:
        float32 or float64, a view where that is possible.

    Raises:
        ValueError: for another shape, something that is no number, or infinite numbers.
    """
    try:
        array = np.asarray(windows)
        array = array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"windows must be an array of numbers: {error}") from error
    if array.ndim == 2 and channels == 1:
        array = array[:, None, :]
    if array.ndim != 3 or array.shape[1] != channels or array.shape[2] == 0:
        also = " or (windows, samples)" if channels == 1 else ""
        raise ValueError(f"need (windows, {channels}, samples){also}, not {np.shape(windows)}")
    if np.isinf(array).any():
        raise ValueError("the windows hold infinite numbers; make them NaN if they are gaps")
    return array


def fill_gaps(windows: np.ndarray) -> np.ndarray:
    """Straight lines across the gaps of each window and channel; at the ends the outermost value goes on.

    A channel of which nothing is known becomes 0.

    Args:
        windows: (N, C, L), NaN in gaps.

    Returns:
        A new array if there are gaps, else ``windows`` itself.
    """
    missing = np.isnan(windows)
    if not missing.any():
        return windows
    filled, place = windows.copy(), np.arange(windows.shape[2])
    for i, c in np.argwhere(missing.any(axis=2)):
        gap = missing[i, c]
        filled[i, c, gap] = 0 if gap.all() else np.interp(place[gap], place[~gap], windows[i, c, ~gap])
    return filled


class Standardizer:
    """Shift and scale to mean 0 and standard deviation 1, counting known samples only.

    Args:
        kind: ``"window"``: by the numbers of each window and channel. ``"channel"``: by those of each
            channel over all training windows. ``"none"``: nothing.

    Something constant (up to rounding) is shifted but not scaled, and so becomes 0.

    Raises:
        ValueError: for another kind.
    """

    def __init__(self, kind: StandardiserKind = "window") -> None:
        if kind not in ("window", "channel", "none"):
            raise ValueError(f"standardize is 'window', 'channel' or 'none', not {kind!r}")
        self.kind = kind
        self.mean: list[float] | None = None
        self.std: list[float] | None = None

    def fit(self, windows: np.ndarray) -> Standardizer:
        """Learn the channels' statistics from windows (N, C, L), if they are needed; return itself.

        Raises:
            ValueError: if nothing at all is known of a channel.
        """
        if self.kind == "channel":
            unknown = np.isnan(windows).all(axis=(0, 2))
            if unknown.any():
                raise ValueError(f"nothing is known of channel {int(np.argmax(unknown))}; leave it out")
            mean, std = _statistics(windows, (0, 2))
            self.mean, self.std = mean.ravel().tolist(), std.ravel().tolist()
        return self

    def transform(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Windows (N, C, L) with filled gaps, standardised.

        Returns:
            Windows as float32 (N, C, L), with centre and scale that broadcast to them. ``standard * scale +
            centre`` undoes the transformation.
        """
        if self.kind == "window":
            center, scale = _statistics(windows, (2,))
        elif self.kind == "channel":
            if self.mean is None or self.std is None:
                raise ValueError("fit the standardiser first")
            center, scale = np.array(self.mean)[None, :, None], np.array(self.std)[None, :, None]
        else:
            center, scale = np.zeros((1, 1, 1)), np.ones((1, 1, 1))
        known = ~np.isnan(windows).all(axis=2, keepdims=True)  # an unknown channel becomes 0
        standard = np.where(known, (fill_gaps(windows) - center) / scale, 0)
        return standard.astype(np.float32), center, scale

    def state(self) -> dict[str, Any]:
        """Everything to keep, as JSON values."""
        return {"kind": self.kind, "mean": self.mean, "std": self.std}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Standardizer:
        """What :meth:`state` described."""
        standardizer = cls(state["kind"])
        standardizer.mean, standardizer.std = state["mean"], state["std"]
        return standardizer


def _statistics(windows: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the known samples over ``axes``, which are kept with length 1.

    Where nothing is known, 0 and 1; where everything is equal up to rounding, a standard deviation of 1.
    """
    known = ~np.isnan(windows)
    count = np.maximum(known.sum(axis=axes, keepdims=True), 1)
    values = np.where(known, windows, 0).astype(np.float64)
    mean = values.sum(axis=axes, keepdims=True) / count
    deviation = np.where(known, values - mean, 0)
    std = np.sqrt((deviation**2).sum(axis=axes, keepdims=True) / count)
    rounding = 4 * np.finfo(windows.dtype).eps * np.abs(values).max(axis=axes, keepdims=True)
    return mean, np.where(std > rounding, std, 1.0)
