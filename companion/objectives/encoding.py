"""From the rows of a table to tensors: fitted on training rows only, kept with the model.

What a net cannot take is dealt with here: other units, missing values, text, times of day, and values
that training never saw.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm
from sklearn.preprocessing import QuantileTransformer
from torch import Tensor

from companion.files import atomic_path

MISSING, UNSEEN = 0, 1
"""The first two indices of every categorical column."""

Scaling = Literal["quantile", "standard"]
_JITTER = 1e-3  # standard deviations; spreads values that occur often, see TableEncoder
_VERSION = 1


class EncoderError(ValueError):
    """A table or a file that the encoder cannot take; the message says why."""


def stable_hash(value: str, buckets: int) -> int:
    """A bucket for a text, the same on every machine and in every process.

    Example:
        >>> stable_hash("10.0.0.1", 100) == stable_hash("10.0.0.1", 100)
        True
    """
    return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "big") % buckets


class TableEncoder:
    """Numbers scaled, categories indexed, times as circles.

    Numerical columns are mapped to a normal distribution by their training quantiles, or shifted and scaled
    to mean 0 and standard deviation 1. The quantiles are taken with a little noise on the values. Without
    it, a lowest value that many rows share (no capital gain, say) would be mapped to the far end of the
    normal distribution; with it, to the middle of the ranks that it takes up. A missing number becomes 0,
    and a column that had missing numbers in training gets a second feature, 1 where it is missing.
    Categorical columns become indices: 0 for missing, 1 for values that training saw fewer than
    ``min_count`` times or never, then the others in alphabetical order. Hashed columns become one of so
    many buckets after these two. Time columns become hour of day and day of week, each as sine and cosine.

    Args:
        numerical: names of the numerical columns.
        categorical: names of the categorical columns.
        times: names of the columns with times, anything that pandas reads as one; UTC.
        hashed: number of buckets for each categorical column that has too many values to list.
        scaling: ``"quantile"`` or ``"standard"``.
        min_count: how often training must have seen a value for it to have an index of its own.

    Raises:
        EncoderError: if there is no column, a name stands twice, or a number is out of range.

    Example:
        >>> table = pd.DataFrame({"age": [20.0, 30.0, 40.0], "job": ["cook", None, "nurse"]})
        >>> encoder = TableEncoder(["age"], ["job"], scaling="standard").fit(table)
        >>> encoder.transform(table)[1].flatten().tolist()
        [2, 0, 3]
    """

    def __init__(
        self,
        numerical: Sequence[str] = (),
        categorical: Sequence[str] = (),
        *,
        times: Sequence[str] = (),
        hashed: Mapping[str, int] | None = None,
        scaling: Scaling = "quantile",
        min_count: int = 1,
    ) -> None:
        self.numerical, self.categorical, self.times = tuple(numerical), tuple(categorical), tuple(times)
        self.hashed = dict(hashed or {})
        self.scaling, self.min_count = scaling, min_count
        names = [*self.numerical, *self.categorical, *self.times]
        if not names or len(set(names)) < len(names):
            raise EncoderError(f"need at least one column, and each only once; got {names}")
        if scaling not in ("quantile", "standard") or min_count < 1:
            raise EncoderError("scaling must be 'quantile' or 'standard', and min_count at least 1")
        if not self.hashed.keys() <= set(self.categorical) or any(n < 1 for n in self.hashed.values()):
            raise EncoderError("hashed columns must be categorical and have at least one bucket")
        self._fitted: dict[str, dict[str, list[float]]] = {}
        self._categories: dict[str, list[str]] = {}

    # ------------------------------------------------------------ fitting

    def fit(self, frame: pd.DataFrame) -> TableEncoder:
        """Learn scales and categories from training rows; return the encoder itself.

        Raises:
            EncoderError: if there are no rows, a column is not there, or a number is infinite or no number.
        """
        if len(frame) == 0:
            raise EncoderError("there are no rows to fit on")
        self._fitted = {name: self._fit_column(self._numbers(frame, name)) for name in self.numerical}
        self._categories = {}
        for name in self.categorical:
            if name not in self.hashed:
                counts = self._texts(frame, name).value_counts()
                self._categories[name] = sorted(counts[counts >= self.min_count].index)
        return self

    def _fit_column(self, values: np.ndarray) -> dict[str, list[float]]:
        known = values[~np.isnan(values)]
        fitted = {"missing": [float(len(known) < len(values))]}
        if len(known) == 0:
            return fitted | {"mean": [0.0], "std": [1.0]}
        if self.scaling == "standard" or known.min() == known.max():
            return fitted | {"mean": [float(known.mean())], "std": [float(known.std()) or 1.0]}
        count = min(len(known), max(min(len(known) // 30, 1000), 10))
        transformer = QuantileTransformer(n_quantiles=count, subsample=None, output_distribution="normal")
        noise = np.random.default_rng(0).normal(scale=_JITTER * known.std(), size=len(known))
        transformer.fit((known + noise)[:, None])
        return fitted | {"quantiles": transformer.quantiles_[:, 0].tolist()}

    # ------------------------------------------------------------ transforming

    def transform(self, frame: pd.DataFrame) -> tuple[Tensor, Tensor]:
        """The rows as tensors; any number of them, none included.

        Returns:
            float32 (N, ``num_numerical_features``), all finite, and int64 (N, categorical columns).

        Raises:
            EncoderError: if a column is not there, a number is infinite or no number, or nothing was fitted.
        """
        if self._fitted.keys() != set(self.numerical):
            raise EncoderError("fit the encoder first, on training rows")
        features: list[np.ndarray] = []
        for name, fitted in self._fitted.items():
            values = self._numbers(frame, name)
            missing = np.isnan(values)
            features.append(np.where(missing, 0.0, self._scale(np.where(missing, 0.0, values), fitted)))
            if fitted["missing"][0]:
                features.append(missing.astype(float))
        for name in self.times:
            features += self._circles(frame, name)
        indices = [self._indices(frame, name) for name in self.categorical]
        shape = (len(frame), 0)
        numerical = np.stack(features, axis=1) if features else np.zeros(shape)
        categorical = np.stack(indices, axis=1) if indices else np.zeros(shape, dtype=np.int64)
        # a value far outside of a column that hardly varied in training would overflow
        numerical = np.clip(numerical, *np.array([-1, 1]) * np.finfo(np.float32).max)
        return torch.from_numpy(numerical.astype(np.float32)), torch.from_numpy(categorical)

    def _scale(self, values: np.ndarray, fitted: Mapping[str, list[float]]) -> np.ndarray:
        if "mean" in fitted:
            scaled: np.ndarray = (values - fitted["mean"][0]) / fitted["std"][0]
            return scaled
        if len(values) == 0:
            return values
        quantiles = np.array(fitted["quantiles"])
        transformer = QuantileTransformer(n_quantiles=len(quantiles), output_distribution="normal")
        transformer.n_features_in_, transformer.n_quantiles_ = 1, len(quantiles)
        transformer.quantiles_, transformer.references_ = (
            quantiles[:, None],
            np.linspace(0, 1, len(quantiles)),
        )
        scaled = transformer.transform(values[:, None])[:, 0]
        return scaled

    def unscale(self, name: str, scaled: np.ndarray) -> np.ndarray:
        """Values of a numerical column from its feature: what :meth:`transform` did, undone.

        Args:
            name: of the column.
            scaled: float (N,).

        Returns:
            float64 (N,), in the column's own units; with quantiles never beyond those of training.

        Raises:
            EncoderError: if the column is not numerical, or nothing was fitted.
        """
        if name not in self._fitted:
            raise EncoderError(f"{name!r} is not a fitted numerical column")
        fitted, scaled = self._fitted[name], np.asarray(scaled, dtype=np.float64)
        if "mean" in fitted:
            return np.asarray(scaled * fitted["std"][0] + fitted["mean"][0])
        quantiles = fitted["quantiles"]
        return np.asarray(np.interp(norm.cdf(scaled), np.linspace(0, 1, len(quantiles)), quantiles))

    def _circles(self, frame: pd.DataFrame, name: str) -> list[np.ndarray]:
        try:
            moments = pd.to_datetime(self._column(frame, name), utc=True)
        except (ValueError, TypeError) as error:
            raise EncoderError(f"column {name!r} holds something that is no time: {error}") from error
        hours = moments.dt.hour + moments.dt.minute / 60 + moments.dt.second / 3600
        angles = (2 * np.pi * hours / 24, 2 * np.pi * moments.dt.day_of_week / 7)
        circles = [f(angle.to_numpy(dtype=float)) for angle in angles for f in (np.sin, np.cos)]
        return [np.nan_to_num(circle) for circle in circles]  # a missing time is the circle's centre

    def _indices(self, frame: pd.DataFrame, name: str) -> np.ndarray:
        texts = self._texts(frame, name)
        if name in self.hashed:
            unique = {text: 2 + stable_hash(text, self.hashed[name]) for text in texts.dropna().unique()}
        else:
            unique = {text: index for index, text in enumerate(self._categories[name], start=2)}
        found = texts.map(unique).to_numpy(dtype=float)
        return np.where(texts.isna(), MISSING, np.where(np.isnan(found), UNSEEN, found)).astype(np.int64)

    # ------------------------------------------------------------ columns

    @staticmethod
    def _column(frame: pd.DataFrame, name: str) -> pd.Series:
        if name not in frame.columns:
            raise EncoderError(
                f"there is no column {name!r}; there are: {', '.join(map(str, frame.columns))}"
            )
        return frame[name]

    def _numbers(self, frame: pd.DataFrame, name: str) -> np.ndarray:
        try:
            values = self._column(frame, name).astype("float64").to_numpy()
        except (ValueError, TypeError) as error:
            raise EncoderError(f"column {name!r} holds something that is no number: {error}") from error
        if np.isinf(values).any():
            raise EncoderError(f"column {name!r} holds an infinite number; make it missing or clip it")
        return values

    def _texts(self, frame: pd.DataFrame, name: str) -> pd.Series:
        column = self._column(frame, name).astype(object)
        return column.where(column.isna(), column.astype(str)).where(column.notna(), None)

    # ------------------------------------------------------------ what a model needs

    @property
    def feature_names(self) -> list[str]:
        """The numerical features that :meth:`transform` gives, in their order."""
        names = []
        for name in self.numerical:
            names += [name] + [f"{name} is missing"] * bool(self._fitted[name]["missing"][0])
        circles = ("hour, sine", "hour, cosine", "weekday, sine", "weekday, cosine")
        return names + [f"{name}: {circle}" for name in self.times for circle in circles]

    def categories(self, name: str) -> list[str]:
        """The values of a categorical column that have an index of their own, from index 2 on.

        Raises:
            EncoderError: if the column is not listed, or hashed, or nothing was fitted.
        """
        if name not in self._categories:
            raise EncoderError(f"{name!r} is not a fitted categorical column whose values are listed")
        return list(self._categories[name])

    @property
    def num_numerical_features(self) -> int:
        """How many numerical features :meth:`transform` gives."""
        return len(self.feature_names)

    @property
    def categorical_cardinalities(self) -> list[int]:
        """How many indices each categorical column may have."""
        sizes = {name: len(values) for name, values in self._categories.items()} | self.hashed
        return [2 + sizes[name] for name in self.categorical]

    # ------------------------------------------------------------ keeping

    def to_json(self) -> dict[str, Any]:
        """Everything that the encoder knows, as values that JSON can hold."""
        settings = {
            "numerical": self.numerical, "categorical": self.categorical, "times": self.times,
            "hashed": self.hashed, "scaling": self.scaling, "min_count": self.min_count,
        }  # fmt: skip
        return {
            "version": _VERSION,
            "settings": settings,
            "fitted": self._fitted,
            "categories": self._categories,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TableEncoder:
        """The encoder that :meth:`to_json` described.

        Raises:
            EncoderError: if the content is incomplete or of another version.
        """
        try:
            if content["version"] != _VERSION:
                raise EncoderError(f"the encoder has version {content['version']}, not {_VERSION}")
            encoder = cls(**content["settings"])
            encoder._fitted, encoder._categories = content["fitted"], content["categories"]
        except (KeyError, TypeError) as error:
            raise EncoderError(f"this describes no encoder: {error}") from error
        return encoder

    def save(self, path: Path) -> None:
        """Write the encoder as JSON."""
        with atomic_path(path) as part:
            part.write_text(json.dumps(self.to_json()), encoding="utf8")

    @classmethod
    def load(cls, path: Path) -> TableEncoder:
        """Read what :meth:`save` wrote.

        Raises:
            EncoderError: if the file is missing, damaged, or of another version.
        """
        try:
            return cls.from_json(json.loads(path.read_text("utf8")))
        except (OSError, ValueError) as error:
            raise EncoderError(f"{path} is not an encoder that can be read: {error}") from error
