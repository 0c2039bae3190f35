"""Chapters 6 and 7: events as tensors, split by time, with what is known about them kept apart; rankings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Literal

import numpy as np
import pandas as pd
from torch import Tensor

from companion.data.events import Events, entities, split_by_time
from companion.data.ocsf import load_web_events
from companion.data.ocsf_synthetic import EventConfig, generate_events
from companion.detection.metrics import pr_auc, recall_at_fpr, roc_auc
from companion.experiments.base import Config, data_info
from companion.objectives.event_features import EventFeatures
from companion.runs import DataInfo

LEAVE_OUT = ("metadata.uid", "actor.session.uid", "session.uid")
"""Names of single records and sessions. There is nothing to learn in them, and they would make events of one
session neighbours whatever happened in it."""


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "roc_auc": roc_auc,
    "pr_auc": pr_auc,
    "recall_at_0.001": partial(recall_at_fpr, fpr=0.001),
    "recall_at_0.01": partial(recall_at_fpr, fpr=0.01),
}
"""Of labels and scores."""


class EventDataConfig(Config):
    """Which events."""

    source: Literal["generated", "web"] = "generated"  #: generated events, or the real ones of a web service
    num_events: int = 200_000  #: of generated ones
    days: float = 28.0  #: likewise, over how long
    attack_share: float = 0.03  #: likewise, of the events


@dataclass(frozen=True)
class PreparedEvents:
    """Events as a net takes them, in the order of their times."""

    features: EventFeatures  #: fitted on the training events
    numerical: Tensor  #: float32 (N, numbers)
    categorical: Tensor  #: int64 (N, columns)
    train: np.ndarray  #: rows of the earliest 55 %, without any that belong to an attack or a fault
    #: those of the next 5 %, likewise; what is not learned but set after training is set here
    calibration: np.ndarray
    validation: np.ndarray  #: rows of the next 20 %
    test: np.ndarray  #: rows of the last 20 %
    #: one row an event, see :class:`companion.data.events.Events`; faults have the shape ``"fault"``
    labels: pd.DataFrame
    entities: np.ndarray  #: (N,), names; empty where there is none

    def arrays(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and categories of some rows, as numpy has them."""
        return self.numerical[rows].numpy(), self.categorical[rows].numpy()

    @property
    def cardinalities(self) -> list[int]:
        """Indices of each categorical column."""
        assert self.features.encoder is not None
        return self.features.encoder.categorical_cardinalities

    def sample(self, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
        """At most ``count`` of ``rows``, drawn at random, in their order."""
        drawn = np.random.default_rng(seed).permutation(len(rows))[:count]
        return rows[np.sort(drawn)]


@cache
def load_web() -> Events:
    """The real events, read once."""
    return load_web_events()


def load(config: EventDataConfig, seed: int) -> Events:
    """The events themselves. Every seed has other generated ones, of the same company."""
    if config.source == "web":
        return load_web()
    return generate_events(EventConfig(**config.model_dump(exclude={"source"}), seed=seed))


@lru_cache(maxsize=2)
def prepared(config: EventDataConfig, seed: int) -> PreparedEvents:
    """The events as tensors; what the encoder knows comes from normal training events alone."""
    events = load(config, seed)
    labels = events.labels
    if "shape" not in labels:
        shape = labels["attack"].where(labels["attack"].isna(), "fault")
        labels = labels.assign(shape=shape, session=np.arange(len(labels)), kind="request")
    parts = split_by_time(events.frame, (0.55, 0.05, 0.2, 0.2), groups=labels["session"])
    normal = labels["attack"].isna().to_numpy()
    train, calibration = (part[normal[part]] for part in parts[:2])
    features = EventFeatures(leave_out=LEAVE_OUT).fit(events.frame.iloc[train])
    numerical, categorical = features.transform(events.frame)
    return PreparedEvents(
        features=features,
        numerical=numerical,
        categorical=categorical,
        train=train,
        calibration=calibration,
        validation=parts[2],
        test=parts[3],
        labels=labels,
        entities=entities(events.frame).fillna("").to_numpy(dtype=object),
    )


@cache
def generated_info() -> DataInfo:
    """What the generated events are; the digest is that of a thousand of them."""
    frame = generate_events(EventConfig(num_events=1000)).frame
    digest = hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()
    return DataInfo(
        name="generated OCSF events", source="companion.data.ocsf_synthetic", digest=digest, synthetic=True
    )


def web_info() -> DataInfo:
    """What the real events are, or their stand-in."""
    return data_info(load_web(), name="OCSF logs of a web service")


def positives(events: PreparedEvents, rows: np.ndarray, column: str, value: str) -> tuple[np.ndarray, ...]:
    """Which of ``rows`` are judged (not those of other attacks), and which of those are anomalies; bool."""
    labels = events.labels.iloc[rows]
    wanted = (labels[column] == value).to_numpy(dtype=bool)
    judged = wanted | labels["attack"].isna().to_numpy()
    return judged, wanted[judged]


def shapes_of(events: PreparedEvents) -> list[str]:
    """The shapes of attack that single events can show, ``"order"`` left out."""
    return sorted(set(events.labels["shape"].dropna()) - {"order"})


def rank(events: PreparedEvents, rows: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """How scores of ``rows`` rank each shape of attack above normal events: ``"<shape>_<metric>"``."""
    found: dict[str, float] = {}
    for shape in shapes_of(events):
        judged, wanted = positives(events, rows, "shape", shape)
        if wanted.any():
            found |= {f"{shape}_{name}": metric(wanted, scores[judged]) for name, metric in METRICS.items()}
    return found
