"""Why an event is unusual: fields that surprise a net, values against habit, and what comes nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from companion.data.events import record_ids
from companion.estimators.event_model import EventModel, event_classes, names_of
from companion.models.masked_resnet import Reconstruction
from companion.objectives.encoding import MISSING, UNSEEN, TableEncoder
from companion.objectives.event_features import GAP
from companion.objectives.selfsupervised import embed, surprise

TIME = "time of day and weekday"
_FAMILY_FIELDS = 2  # fields of one family among the reasons
_LISTED = 3  # values that were expected instead
_BREACHES, _LEAST_TIMES = 3, 5.0  # how many are told, and how rare they must be
_LEAST_SHARE = 0.01  # of those after the first
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Reason:
    """A field that surprises.

    Attributes:
        field: its OCSF name, or what was derived from it.
        value: as it stands in the event; ``"missing"`` if it has none.
        expected: what the net thought more likely, from the rest of the event.
        surprise: in nats, not clipped.
        excess: how far above what is usual for this field in events of this class, in standard deviations.
    """

    field: str
    value: str
    expected: str
    surprise: float
    excess: float


@dataclass(frozen=True)
class Breach:
    """A value that the entity hardly ever has, though others do.

    Attributes:
        field: its OCSF name.
        value: as it stands in the event; ``"missing"`` if it has none.
        times: how many times rarer it is for this entity than for everyone.
    """

    field: str
    value: str
    times: float


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
        row: its label in the frame's index, which is the number of the event in its file.
        reasons: the most surprising fields, the most surprising first.
        breaches: values that are not the entity's habit, the rarest first, one of a family.
        neighbours: the nearest normal events, nearest first.
    """

    row: int
    reasons: tuple[Reason, ...]
    breaches: tuple[Breach, ...]
    neighbours: tuple[Neighbour, ...]

    def lines(self, fields: int = 6) -> list[str]:
        """For people, one reason or neighbour a line; of a neighbour so many fields that differ."""
        lines = [
            f"{r.field} = {r.value}  (expected {r.expected}; {r.surprise:.1f} nats)" for r in self.reasons
        ]
        lines += [
            f"{b.field} = {b.value}  ({b.times:.0f} times rarer for this entity than for everyone)"
            for b in self.breaches
        ]
        for near in self.neighbours:
            more = f" and {len(near.differs) - fields} more" if len(near.differs) > fields else ""
            differs = ", ".join(near.differs[:fields]) + more if near.differs else "nothing"
            lines.append(f"near event {near.id} (distance {near.distance:.2f}), which differs in {differs}")
        return lines


def explain(
    model: EventModel, frame: pd.DataFrame, gaps: np.ndarray, *, reasons: int = 5, neighbours: int = 2
) -> list[Explanation]:
    """Explain a few events.

    Each family of fields (:func:`companion.objectives.event_features.field_family`) is hidden alone, so that
    its fields are judged by the rest of the event.

    Args:
        model: fitted.
        frame: the events (N).
        gaps: float64 (N,), the seconds since the last event of each one's entity.
        reasons: how many fields to name, at most two of a family; only what surprises beyond the usual.
        neighbours: how many normal events to name.

    Returns:
        One explanation an event.
    """
    if len(frame) == 0:
        return []
    fields, groups = model.features.fields, model.features.groups()
    family = dict(zip(fields, groups, strict=True))
    tensors = model.features.transform(frame, gaps)
    nats = surprise(model.net, *tensors, groups=groups, compute=model.compute).numpy()
    excess = model.usual.excess(np.minimum(nats, model.clip), event_classes(frame))
    names = list(dict.fromkeys(fields))
    codes = np.array([names.index(name) for name in fields])
    vectors = embed(model.net, *tensors, compute=model.compute)
    distances, places = model.store.search_places(vectors, neighbours + 1)  # one may be the event itself
    ids = record_ids(frame).tolist()
    habits = np.exp(model.habits.transform(tensors[1].numpy(), names_of(frame, model.features)))
    found = []
    for i in range(len(frame)):
        total, above = (
            dict(zip(names, np.bincount(codes, table[i]), strict=True)) for table in (nats, excess)
        )
        order = sorted(names, key=lambda name: -above[name])
        told = _Event(model, frame.iloc[i], float(gaps[i]), (tensors[0][i : i + 1], tensors[1][i : i + 1]))
        chosen: list[str] = []
        for name in order:
            if above[name] <= 0 or len(chosen) == reasons:
                break
            if sum(family[name] == family[other] for other in chosen) < _FAMILY_FIELDS:
                chosen.append(name)
        found.append(
            Explanation(
                int(frame.index[i]),
                tuple(
                    Reason(
                        TIME if name == "time" else name,
                        told.value(name),
                        told.expected(name, family[name]),
                        float(total[name]),
                        float(above[name]),
                    )
                    for name in chosen
                    if told.value(name) != told.expected(name, family[name])  # unsure, but right
                ),
                told.breaches(habits[i], family),
                tuple(
                    Neighbour(model.store.ids[place], float(distance), told.differences(place, order))
                    for distance, place in zip(distances[i], places[i], strict=True)
                    if model.store.ids[place] != ids[i]
                )[:neighbours],
            )
        )
    return found


@dataclass(frozen=True)
class _Event:
    """One event, to be told of in words."""

    model: EventModel
    event: pd.Series
    gap: float
    tensors: tuple[Tensor, Tensor]
    guesses: dict[int, Reconstruction] = field(default_factory=dict)

    @property
    def encoder(self) -> TableEncoder:
        assert self.model.features.encoder is not None
        return self.model.features.encoder

    def column(self, name: str) -> int | None:
        """Which categorical field it is, if it is one."""
        names = self.encoder.categorical
        return names.index(name) if name in names else None

    def value(self, name: str) -> str:
        """What the event has."""
        if name == GAP:
            return "missing (its first event)" if np.isnan(self.gap) else f"{rounded(self.gap)} s"
        if name == "time":
            moment = pd.Timestamp(int(self.event["time"]), unit="ms", tz="UTC")
            return f"{_DAYS[moment.day_of_week]} {moment:%H:%M} UTC"
        value: Any = self.event.get(name)
        if value is None or pd.isna(value):
            return "missing"
        column = self.column(name)
        if column is None:
            return str(value) if isinstance(value, str) else rounded(float(value))
        return f"{value} (rare or new)" if int(self.tensors[1][0, column]) == UNSEEN else str(value)

    @torch.inference_mode()
    def guess(self, family: int) -> Reconstruction:
        """What the net takes the event to be if a family of fields is hidden; asked once for each."""
        model = self.model
        if family in self.guesses:
            return self.guesses[family]
        hidden = torch.tensor([group == family for group in model.features.groups()])
        mask = hidden.to(model.compute.device)[None]
        with model.compute.autocast():
            self.guesses[family] = model.net(*(t.to(model.compute.device) for t in self.tensors), mask)
        return self.guesses[family]

    def expected(self, name: str, family: int) -> str:
        """What the net would rather have seen."""
        guess, column = self.guess(family), self.column(name)
        if column is not None:
            shares = guess.logits[column][0].softmax(dim=0)
            best = shares.topk(min(_LISTED, len(shares)))
            pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            return ", ".join(
                f"{self.category(name, index)} ({100 * share:.0f} %)"
                for i, (index, share) in enumerate(pairs)
                if i == 0 or share >= _LEAST_SHARE
            )
        places = [i for i, own in enumerate(self.model.features.fields) if own == name]
        mean, scale = (t[0, places].cpu().double().numpy() for t in (guess.mean, guess.scale))
        if name == "time":
            sine, cosine, week_sine, week_cosine = mean
            hour = np.arctan2(sine, cosine) * 12 / np.pi % 24
            day = round(np.arctan2(week_sine, week_cosine) * 3.5 / np.pi) % 7
            return f"about {_DAYS[day]} {int(hour):02d} h UTC"
        if len(mean) == 2 and mean[1] > 0.5:  # the second feature says whether it is missing
            return "missing"
        ends = self.encoder.unscale(name, mean[0] + np.array([-1, 1]) * scale[0])
        low, high = (rounded(value) for value in (np.maximum(ends, 0) if name == GAP else ends))
        return low if low == high else f"{low} to {high}"

    def category(self, name: str, index: int) -> str:
        """The value, or values, behind an index."""
        if index in (MISSING, UNSEEN):
            return "missing" if index == MISSING else "a rare value"
        if name in self.encoder.hashed:
            return " or ".join(self.model.buckets.get(name, {}).get(index, ["another"]))
        return self.encoder.categories(name)[index - 2]

    def breaches(self, times: np.ndarray, family: Mapping[str, int]) -> tuple[Breach, ...]:
        """The values that are most times rarer for the entity, given (columns,) how many times each is."""
        found: dict[int, Breach] = {}
        for column in np.argsort(-times):
            name = self.encoder.categorical[column]
            if times[column] >= _LEAST_TIMES and len(found) < _BREACHES:
                found.setdefault(family[name], Breach(name, self.value(name), float(times[column])))
        return tuple(found.values())

    def differences(self, place: int, order: Sequence[str]) -> tuple[str, ...]:
        """The fields that differ from a kept event; numbers if by more than half a standard deviation."""
        far = (self.tensors[0][0] - self.model.numerical[place]).abs() > 0.5
        other = self.tensors[1][0] != self.model.categorical[place]
        flags = torch.cat([far, other]).tolist()
        differing = {name for name, flag in zip(self.model.features.fields, flags, strict=True) if flag}
        return tuple(TIME if name == "time" else name for name in order if name in differing)


def rounded(value: float) -> str:
    """A number as people write it, with no more than four digits that matter.

    Example:
        >>> rounded(1234567.0), rounded(0.123456), rounded(3.0)
        ('1,234,567', '0.1235', '3')
    """
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
