"""Simple detectors for windows, the rivals that a net must beat.

Each learns from normal windows with ``fit`` and gives ``score``, higher for the more unusual. Windows are
(N, channels, L) or (N, L); each window and channel is first given mean 0 and standard deviation 1, as
``ResNetAE`` does by default, unless ``standardize`` says otherwise. Gaps (NaN) are
filled by straight lines, and the filled samples count like the others.
"""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.neighbors import NearestNeighbors

from companion.data.standardize import StandardiserKind, Standardizer, as_windows


class WindowDetector(Protocol):
    """Anything that learns what normal windows look like and scores others."""

    def fit(self, train_windows: np.ndarray) -> Self:
        """Learn from normal windows (N, channels, L) or (N, L)."""
        ...

    def score(self, windows: np.ndarray) -> np.ndarray:
        """float64 (N,): the higher, the more unusual."""
        ...


class _Simple:
    """What the simple detectors share: standardised windows as rows of numbers."""

    _least = 1  # windows to learn from

    def __init__(self, standardize: StandardiserKind = "window") -> None:
        self.standardize = standardize
        self._standardizer = Standardizer(standardize)
        self._shape: tuple[int, int] | None = None

    def _learning_rows(self, windows: np.ndarray) -> np.ndarray:
        windows = self._as_windows(windows)
        if len(windows) < self._least:
            raise ValueError(f"too few windows: {len(windows)}, and at least {self._least} are needed")
        if np.isnan(windows).all(axis=(1, 2)).any():
            raise ValueError("some training windows hold no number at all; leave them out")
        self._standardizer.fit(windows)
        self._shape = windows.shape[1], windows.shape[2]
        return self._rows(windows)

    def _scoring_rows(self, windows: np.ndarray) -> np.ndarray:
        if self._shape is None:
            raise ValueError("fit the detector first")
        windows = self._as_windows(windows)
        if windows.shape[1:] != self._shape:
            raise ValueError(f"this detector takes windows of shape {self._shape}, not {windows.shape[1:]}")
        return self._rows(windows)

    def _rows(self, windows: np.ndarray) -> np.ndarray:
        standard = self._standardizer.transform(windows)[0]
        return standard.reshape(len(windows), windows.shape[1] * windows.shape[2]).astype(np.float64)

    @staticmethod
    def _as_windows(windows: np.ndarray) -> np.ndarray:
        shape = np.shape(windows)
        return as_windows(windows, shape[1] if len(shape) == 3 else 1)


class MeanDistance(_Simple):
    """Mean squared distance to the mean of the training windows."""

    def fit(self, train_windows: np.ndarray) -> Self:
        """Learn the mean window.

        Raises:
            ValueError: if the windows are too few or no windows.
        """
        self.mean_ = self._learning_rows(train_windows).mean(axis=0)
        return self

    def score(self, windows: np.ndarray) -> np.ndarray:
        """float64 (N,).

        Raises:
            ValueError: if nothing was fitted, or the windows have another shape.
        """
        scores: np.ndarray = ((self._scoring_rows(windows) - self.mean_) ** 2).mean(axis=1)
        return scores


class PcaReconstruction(_Simple):
    """Mean squared residual after projection on the first principal components: a linear autoencoder.

    Args:
        components: how many.
        standardize: see :mod:`companion.detection.simple`.
    """

    def __init__(self, components: int = 2, standardize: StandardiserKind = "window") -> None:
        super().__init__(standardize)
        if components < 1:
            raise ValueError(f"need at least one component, not {components}")
        self.components = self._least = components

    def fit(self, train_windows: np.ndarray) -> Self:
        """Learn the components.

        Raises:
            ValueError: if there are fewer windows or samples than components, or no windows.
        """
        rows = self._learning_rows(train_windows)
        if rows.shape[1] < self.components:
            raise ValueError(f"windows of {rows.shape[1]} numbers have no {self.components} components")
        self.pca_ = PCA(self.components, svd_solver="full").fit(rows)
        return self

    def score(self, windows: np.ndarray) -> np.ndarray:
        """float64 (N,).

        Raises:
            ValueError: if nothing was fitted, or the windows have another shape.
        """
        rows = self._scoring_rows(windows)
        if len(rows) == 0:
            return np.empty(0)
        residual = rows - self.pca_.inverse_transform(self.pca_.transform(rows))
        scores: np.ndarray = (residual**2).mean(axis=1)
        return scores


class NeighborDistance(_Simple):
    """Mean Euclidean distance to the nearest training windows.

    Args:
        neighbours: how many.
        standardize: see :mod:`companion.detection.simple`.
    """

    def __init__(self, neighbours: int = 1, standardize: StandardiserKind = "window") -> None:
        super().__init__(standardize)
        if neighbours < 1:
            raise ValueError(f"need at least one neighbour, not {neighbours}")
        self.neighbours = self._least = neighbours

    def fit(self, train_windows: np.ndarray) -> Self:
        """Keep the windows.

        Raises:
            ValueError: if there are fewer windows than neighbours, or no windows.
        """
        self.neighbours_ = NearestNeighbors(n_neighbors=self.neighbours).fit(
            self._learning_rows(train_windows)
        )
        return self

    def score(self, windows: np.ndarray) -> np.ndarray:
        """float64 (N,); a training window is its own nearest neighbour.

        Raises:
            ValueError: if nothing was fitted, or the windows have another shape.
        """
        rows = self._scoring_rows(windows)
        if len(rows) == 0:
            return np.empty(0)
        scores: np.ndarray = self.neighbours_.kneighbors(rows)[0].mean(axis=1)
        return scores


def matrix_profile_scores(series: np.ndarray, train_series: np.ndarray, span: int) -> np.ndarray:
    """For each window of ``series`` the distance to the most similar window of ``train_series``.

    Windows are z-normalised: this is the matrix profile of an AB-join (Yeh et al. 2016, "Matrix Profile I",
    section II), by brute force over all pairs. Its libraries are faster on very long series, but compile for
    half a minute in each new process.

    Args:
        series: (T,), NaN in gaps.
        train_series: (T',), free of faults; its windows with gaps are left out.
        span: samples in a window, at least 2.

    Returns:
        float64 (T - ``span`` + 1,), one for each start; NaN where the window has a gap.

    Raises:
        ValueError: if a series has not one axis or holds no window without a gap.
    """
    both = [np.asarray(values, dtype=np.float64) for values in (series, train_series)]
    if any(values.ndim != 1 for values in both) or span < 2 or min(map(len, both)) < span:
        raise ValueError(f"need two series (T,) of at least {span} samples, and a span of at least 2")
    views = [np.lib.stride_tricks.sliding_window_view(values, span) for values in both]
    whole = [~np.isnan(view).any(axis=1) for view in views]
    if not whole[1].any():
        raise ValueError(f"the training series has no window of {span} samples without a gap")
    scores = np.full(len(views[0]), np.nan)
    if whole[0].any():
        test, train = (
            Standardizer("window").transform(view[kept][:, None])[0][:, 0]
            for view, kept in zip(views, whole, strict=True)
        )
        scores[whole[0]] = pairwise_distances_argmin_min(test, train)[1]
    return scores
