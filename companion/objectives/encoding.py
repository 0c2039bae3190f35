"""From the rows of a table to tensors: fitted on training rows only, kept with the model."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm
from torch import Tensor

MISSING, UNSEEN = 0, 1  # the first two indices of every categorical column
_JITTER = 1e-3  # standard deviations; spreads values that occur often, see TableEncoder
_FARTHEST = 1e-7  # the share of values beyond which a quantile is not told, 5.2 standard deviations
_SAME = (("True", "true", "TRUE", "1"), ("False", "false", "FALSE", "0"))


def _text(value: object) -> str:
    if isinstance(value, str):
        return re.sub(r"^(-?(0|[1-9]\d*))\.0$", r"\1", value)
    if isinstance(value, (Real, Decimal)) and not isinstance(value, Integral) and float(value).is_integer():
        return str(int(float(value)))
    return str(float(value) if isinstance(value, Decimal) else value)


def factorize(column: pd.Series, known: Collection[str] | None = None) -> tuple[np.ndarray, pd.Series]:
    """The codes of a column's values, int64 (N,), -1 where missing, and each code's text.

    Equal values are equal texts, however they are stored (whole numbers become floats as soon as one is
    missing, and text in a file). Truth values are spelled as in ``known``, by default as in the column.
    """
    try:
        codes, unique = pd.factorize(column)
    except TypeError:  # lists, and what else has no hash
        codes, unique = pd.factorize(column.map(str, na_action="ignore"))
    texts = [_text(value) for value in unique]
    known = set(texts) if known is None else known
    for forms in _SAME:
        spelled = next((form for form in forms if form in known), "")
        texts = [spelled if spelled and text in forms else text for text in texts]
    return codes, pd.Series(texts, dtype=object)


@dataclass
class TableEncoder:
    """Numbers scaled, categories indexed, times as circles.

    Numbers are mapped to a normal distribution by their training quantiles (as scikit-learn's
    QuantileTransformer does), or to mean 0 and standard deviation 1. The quantiles are taken with a little
    noise, so that a lowest value that many rows share is mapped to the middle of its ranks and not to the far
    end. A missing number becomes 0, and a column that had some in training gets a second feature, 1 where it
    is missing. Categories become indices: 0 for missing, 1 for values that training saw fewer than
    ``min_count`` times or never, then the ``most`` frequent others in alphabetical order.

    Example:
        >>> table = pd.DataFrame({"age": [20.0, 30.0, 40.0], "job": ["cook", None, "nurse"]})
        >>> encoder = TableEncoder(["age"], ["job"], scaling="standard").fit(table)
        >>> encoder.transform(table)[1].flatten().tolist()
        [2, 0, 3]
    """

    numerical: Sequence[str] = ()  #: names of the numerical columns
    categorical: Sequence[str] = ()  #: names of the categorical columns
    times: Sequence[str] = ()  #: names of the columns with datetimes, of which none is missing
    scaling: Literal["quantile", "standard"] = "quantile"
    min_count: int = 1  #: how often training must have seen a value for it to have an index of its own
    most: int | None = None  #: values of a column that have one, at most; ``None`` for no bound
    scales: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)  #: learned, of the numbers
    categories: dict[str, list[str]] = field(default_factory=dict, repr=False)  #: learned, from index 2 on

    def fit(self, frame: pd.DataFrame) -> Self:
        """Learn scales and categories from training rows; return the encoder itself."""
        self.scales = {name: self._scale_of(_numbers(frame, name)) for name in self.numerical}
        for name in self.categorical:
            codes, texts = factorize(frame[name])
            counts = pd.Series(np.bincount(codes[codes >= 0], minlength=len(texts)), texts, dtype=int)
            counts = counts.groupby(level=0).sum()  # in alphabetical order
            kept = counts[counts >= self.min_count].nlargest(self.most or len(counts))
            self.categories[name] = sorted(kept.index)
        return self

    def _scale_of(self, values: np.ndarray) -> dict[str, Any]:
        known = values[~np.isnan(values)]
        missing = len(known) < len(values)
        if len(known) == 0 or known.min() == known.max():
            return {"missing": missing, "mean": float(known[0]) if len(known) else 0.0, "std": 1.0}
        if self.scaling == "standard":
            return {"missing": missing, "mean": float(known.mean()), "std": float(known.std())}
        count = min(len(known), max(min(len(known) // 30, 1000), 10))
        noise = np.random.default_rng(0).normal(scale=_JITTER * known.std(), size=len(known))
        quantiles = np.percentile(known + noise, 100 * np.linspace(0, 1, count))
        return {"missing": missing, "quantiles": quantiles.tolist()}

    def transform(self, frame: pd.DataFrame) -> tuple[Tensor, Tensor]:
        """The rows as float32 (N, ``num_numerical_features``), all finite, and int64 (N, columns)."""
        if len(self.scales) < len(self.numerical):
            raise ValueError("fit the encoder first, on training rows")
        features: list[np.ndarray] = []
        for name, scale in self.scales.items():
            values = _numbers(frame, name)
            missing = np.isnan(values)
            if "mean" in scale:
                scaled = (values - scale["mean"]) / scale["std"]
            else:
                quantiles = scale["quantiles"]
                share = np.interp(values, quantiles, np.linspace(0, 1, len(quantiles)))
                scaled = norm.ppf(np.clip(share, _FARTHEST, 1 - _FARTHEST))
            features.append(np.where(missing, 0.0, scaled))
            features += [missing.astype(float)] * scale["missing"]
        for name in self.times:
            hours = frame[name].dt.hour + frame[name].dt.minute / 60 + frame[name].dt.second / 3600
            angles = (2 * np.pi * hours / 24, 2 * np.pi * frame[name].dt.day_of_week / 7)
            features += [f(angle.to_numpy(dtype=float)) for angle in angles for f in (np.sin, np.cos)]
        indices = [self._indices(frame, name) for name in self.categorical]
        numerical = np.stack(features, axis=1) if features else np.zeros((len(frame), 0))
        categorical = np.stack(indices, axis=1) if indices else np.zeros((len(frame), 0), dtype=np.int64)
        # a value far outside of a column that hardly varied in training would overflow
        numerical = np.clip(numerical, *np.array([-1, 1]) * np.finfo(np.float32).max)
        return torch.from_numpy(numerical.astype(np.float32)), torch.from_numpy(categorical)

    def _indices(self, frame: pd.DataFrame, name: str) -> np.ndarray:
        codes, texts = factorize(frame[name], self.categories[name])
        places = {text: index for index, text in enumerate(self.categories[name], start=2)}
        known = texts.map(places).fillna(UNSEEN).to_numpy(dtype=np.int64)
        return np.asarray(np.append(known, MISSING)[codes])  # the code of what is missing is -1

    def unscale(self, name: str, scaled: np.ndarray) -> np.ndarray:
        """Values of a numerical column from its feature (N,), in its own units, float64: the way back."""
        scale, scaled = self.scales[name], np.asarray(scaled, dtype=np.float64)
        if "mean" in scale:
            return np.asarray(scaled * scale["std"] + scale["mean"])
        quantiles = scale["quantiles"]
        return np.asarray(np.interp(norm.cdf(scaled), np.linspace(0, 1, len(quantiles)), quantiles))

    @property
    def feature_names(self) -> list[str]:
        """The numerical features that :meth:`transform` gives, in their order."""
        names = []
        for name, scale in self.scales.items():
            names += [name] + [f"{name} is missing"] * scale["missing"]
        circles = ("hour, sine", "hour, cosine", "weekday, sine", "weekday, cosine")
        return names + [f"{name}: {circle}" for name in self.times for circle in circles]

    @property
    def num_numerical_features(self) -> int:
        """How many numerical features :meth:`transform` gives."""
        return len(self.feature_names)

    @property
    def categorical_cardinalities(self) -> list[int]:
        """How many indices each categorical column may have."""
        return [2 + len(self.categories[name]) for name in self.categorical]


def _numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    values = frame[name].astype("float64").to_numpy()
    if np.isinf(values).any():
        raise ValueError(f"column {name!r} holds an infinite number; make it missing or clip it")
    return values
