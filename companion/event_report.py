"""Why an event is unusual: the fields that surprise a net, and the normal events that come nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from companion.compute import Compute
from companion.detection.vectors import NeighbourIndex
from companion.learning.embedding import embed
from companion.learning.encoder import MISSING, UNSEEN, stable_hash
from companion.learning.event_features import GAP, EventFeatures
from companion.learning.selfsupervised import group_numbers, surprise
from companion.models.selfsupervised import Reconstruction, SelfSupervisedResNet

TIME = "time of day and weekday"
_BUCKET_NAMES = 3  # values that are named for a bucket
_FAMILY_FIELDS = 2  # fields of one family among the reasons
_LISTED = 3  # values that were expected instead
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

Buckets = Mapping[str, Mapping[int, Sequence[str]]]


@dataclass(frozen=True)
class Reason:
    """A field that surprises.

    Attributes:
        field: its OCSF name, or what was derived from it.
        value: as it stands in the event; ``"missing"`` if it has none.
        expected: what the net thought more likely, from the rest of the event.
        surprise: in nats, not clipped.
    """

    field: str
    value: str
    expected: str
    surprise: float


@dataclass(frozen=True)
class Neighbour:
    """A normal event near an unusual one.

    Attributes:
        id: of its record.
        distance: in the embedding.
        differs: the fields in which the two differ, those that surprise most first.
    """

    id: str
    distance: float
    differs: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """Why an event is unusual.

    Attributes:
        row: its label in the frame's index: the number of the event in its file.
        reasons: the most surprising fields, the most surprising first.
        neighbours: the nearest normal events, nearest first.
    """

    row: int
    reasons: tuple[Reason, ...]
    neighbours: tuple[Neighbour, ...]

    def lines(self, fields: int = 6) -> list[str]:
        """For people, one reason or neighbour a line; of a neighbour so many fields that differ."""
        lines = [f"{r.field} = {r.value}  (expected {r.expected}; {r.surprise:.1f} nats)" for r in self.reasons]
        for near in self.neighbours:
            more = f" and {len(near.differs) - fields} more" if len(near.differs) > fields else ""
            differs = ", ".join(near.differs[:fields]) + more if near.differs else "nothing"
            lines.append(f"near {near.id} (distance {near.distance:.2f}), which differs in {differs}")
        return lines


def bucket_names(features: EventFeatures, frame: pd.DataFrame) -> dict[str, dict[int, list[str]]]:
    """The commonest values of each bucket of each hashed field, at most three, from training events."""
    assert features.encoder is not None
    names: dict[str, dict[int, list[str]]] = {}
    for name, buckets in features.encoder.hashed.items():
        names[name] = {}
        for text in frame[name].dropna().astype(str).value_counts().index:
            here = names[name].setdefault(2 + stable_hash(text, buckets), [])
            if len(here) < _BUCKET_NAMES:
                here.append(text)
    return names


@dataclass(frozen=True)
class Explainer:
    """What is needed to explain.

    Attributes:
        net: trained.
        features: fitted.
        buckets: see :func:`bucket_names`.
        store: the embeddings of normal events.
        numerical: float32 (M, numbers), the same events' features.
        categorical: int (M, categorical fields), likewise.
        compute: device and precision.
    """

    net: SelfSupervisedResNet
    features: EventFeatures
    buckets: Buckets
    store: NeighbourIndex
    numerical: Tensor
    categorical: Tensor
    compute: Compute

    def explain(
        self, frame: pd.DataFrame, gaps: np.ndarray, *, reasons: int = 5, neighbours: int = 2
    ) -> list[Explanation]:
        """Explain a few events.

        Each family of fields (:func:`companion.learning.event_features.field_family`) is hidden alone, so that
        its fields are judged by the rest of the event.

        Args:
            frame: the events (N).
            gaps: float64 (N,), the seconds since the last event of each one's entity.
            reasons: how many fields to name, at most two of a family.
            neighbours: how many normal events to name.

        Returns:
            One explanation an event.
        """
        if len(frame) == 0:
            return []
        fields, groups = self.features.fields, np.array(self.features.groups())
        numerical, categorical = self.features.transform(frame, gaps)
        nats = surprise(self.net, numerical, categorical, groups=groups.tolist(), compute=self.compute).numpy()
        codes = pd.factorize(np.array(fields))[0]
        sums = np.stack([np.bincount(codes, weights=row) for row in nats])  # (N, distinct fields)
        names = list(dict.fromkeys(fields))
        family = {name: int(group) for name, group in zip(fields, groups, strict=True)}
        vectors = embed(self.net, numerical, categorical, compute=self.compute)
        distances, places = self.store.search_places(vectors, neighbours)
        found = []
        for i in range(len(frame)):
            order = [names[j] for j in np.argsort(-sums[i], kind="stable")]
            chosen: list[str] = []
            for name in order:
                if sum(family[name] == family[other] for other in chosen) < _FAMILY_FIELDS:
                    chosen.append(name)
                if len(chosen) == reasons:
                    break
            row = (numerical[i : i + 1], categorical[i : i + 1])
            told = tuple(
                Reason(
                    TIME if name == "time" else name,
                    self._value(name, frame.iloc[i], gaps[i], row[1]),
                    self._expected(name, self._guess(row, family[name])),
                    float(sums[i, names.index(name)]),
                )
                for name in chosen
            )
            near = tuple(
                Neighbour(self.store.ids[place], float(distance), self._differences(row, place, order))
                for distance, place in zip(distances[i], places[i], strict=True)
            )
            found.append(Explanation(int(frame.index[i]), told, near))
        return found

    @torch.inference_mode()
    def _guess(self, row: tuple[Tensor, Tensor], group: int) -> Reconstruction:
        """What the net takes one event to be if a group is hidden."""
        index = group_numbers(self.features.groups(), self.net.num_features)
        mask = (index == group).to(self.compute.device).expand(1, -1)
        self.net.eval()
        with self.compute.autocast():
            guess: Reconstruction = self.net(*(t.to(self.compute.device) for t in row), mask)
        return guess

    # ------------------------------------------------------------ in words

    def _value(self, name: str, event: pd.Series, gap: float, categorical: Tensor) -> str:
        if name == GAP:
            return "missing (its first event)" if np.isnan(gap) else f"{_rounded(gap)} s"
        if name == "time":
            moment = pd.Timestamp(int(event["time"]), unit="ms", tz="UTC")
            return f"{_DAYS[moment.day_of_week]} {moment:%H:%M} UTC"
        value = event.get(name)
        if value is None or pd.isna(value):
            return "missing"
        column = self._column(name)
        if column is None:
            return _rounded(value) if isinstance(value, (int, float, np.number)) else str(value)
        return f"{value} (rare or new)" if int(categorical[0, column]) == UNSEEN else str(value)

    def _expected(self, name: str, guess: Reconstruction) -> str:
        assert self.features.encoder is not None
        column = self._column(name)
        if column is not None:
            shares = guess.logits[column][0].softmax(dim=0)
            best = shares.topk(min(_LISTED, len(shares)))
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            likely = [
                f"{self._category(name, index)} {100 * share:.0f} %"
                for index, share in pairs
                if share >= 0.01 or index == best.indices[0]
            ]
            return ", ".join(likely)
        places = [i for i, field in enumerate(self.features.fields) if field == name]
        mean, scale = (t[0, places].cpu().double().numpy() for t in (guess.mean, guess.scale))
        if name == "time":
            sine, cosine, week_sine, week_cosine = mean
            hour = np.arctan2(sine, cosine) * 12 / np.pi % 24
            day = round(np.arctan2(week_sine, week_cosine) * 3.5 / np.pi) % 7
            return f"about {_DAYS[day]} {int(hour):02d} h UTC"
        likely_missing = len(mean) == 2 and mean[1] > 0.5  # the second one says that it is missing
        if likely_missing:
            return "missing"
        ends = mean[0] + np.array([-1, 1]) * scale[0]
        low, high = (_rounded(value) for value in self.features.encoder.unscale(name, ends))
        return low if low == high else f"{low} to {high}"

    def _category(self, name: str, index: int) -> str:
        assert self.features.encoder is not None
        if index in (MISSING, UNSEEN):
            return "missing" if index == MISSING else "a rare value"
        if name in self.features.encoder.hashed:
            return " or ".join(self.buckets.get(name, {}).get(index, ["another"]))
        return self.features.encoder.categories(name)[index - 2]

    def _column(self, name: str) -> int | None:
        assert self.features.encoder is not None
        categorical = self.features.encoder.categorical
        return categorical.index(name) if name in categorical else None

    def _differences(
        self, row: tuple[Tensor, Tensor], place: int, order: Sequence[str]
    ) -> tuple[str, ...]:
        """The fields that differ from a kept event; numbers if by more than half a standard deviation."""
        far = (row[0][0] - self.numerical[place]).abs() > 0.5
        other = row[1][0] != self.categorical[place]
        flags = torch.cat([far, other]).tolist()
        differing = {name for name, flag in zip(self.features.fields, flags, strict=True) if flag}
        return tuple(TIME if name == "time" else name for name in order if name in differing)


def _rounded(value: float) -> str:
    """A number as people write it: no more than four digits that matter."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
