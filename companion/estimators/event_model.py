"""The fitted parts of a detector of unusual events, and the three things that they measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from companion.compute import Compute
from companion.data.events import entities, record_ids
from companion.detection.rows import EntityRarity
from companion.detection.usual import Usual
from companion.detection.vectors import NeighborIndex
from companion.models.masked_resnet import SelfSupervisedResNet
from companion.objectives.encoding import stable_hash
from companion.objectives.event_features import EventFeatures
from companion.objectives.selfsupervised import embed, surprise
from companion.training import prefixed

_BUCKET_NAMES = 3  # values that are named for a bucket


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


def event_classes(frame: pd.DataFrame) -> np.ndarray:
    """The class of each event as text (N,), empty where there is none."""
    if "class_uid" not in frame.columns:
        return np.full(len(frame), "", dtype=object)
    return frame["class_uid"].astype("str").fillna("").to_numpy(dtype=object)


def names_of(frame: pd.DataFrame, features: EventFeatures) -> np.ndarray:
    """Who each event is about (N,), empty where nothing says so."""
    return entities(frame, features.columns).fillna("").to_numpy(dtype=object)


def _no_habits(features: EventFeatures) -> EntityRarity:
    assert features.encoder is not None
    return EntityRarity(features.encoder.categorical_cardinalities)


@dataclass(frozen=True)
class EventModel:
    """A trained net with normal events to compare with.

    Attributes:
        features: fitted.
        net: trained on these features.
        groups: which features are hidden together when surprise is measured.
        clip: the most surprise of one feature that counts, in nats.
        store: the embeddings of M normal events.
        numerical: float32 (M, numbers), the features of the same events.
        categorical: int64 (M, categorical fields), likewise.
        habits: which values are usual for whom.
        usual: how surprising the fields of normal events are, by class.
        buckets: see :func:`bucket_names`.
        compute: device and precision.
    """

    features: EventFeatures
    net: SelfSupervisedResNet
    groups: tuple[int, ...]
    clip: float
    store: NeighborIndex
    numerical: Tensor
    categorical: Tensor
    habits: EntityRarity
    usual: Usual
    buckets: Mapping[str, Mapping[int, Sequence[str]]]
    compute: Compute

    @classmethod
    def build(
        cls,
        features: EventFeatures,
        net: SelfSupervisedResNet,
        learned: pd.DataFrame,
        tensors: tuple[Tensor, Tensor],
        *,
        passes: int,
        clip: float,
        neighbours: int,
        max_stored: int,
        compute: Compute,
    ) -> Self:
        """The model of a trained net; the events to compare with are spread evenly over those it learned.

        Args:
            features: fitted.
            net: trained.
            learned: the events (N) that it learned, in the order of their times.
            tensors: their features.
            passes: see :meth:`companion.objectives.event_features.EventFeatures.groups`.
            clip: see above.
            neighbours: how many count for the distance.
            max_stored: how many events to keep, at most.
            compute: device and precision.
        """
        groups = features.groups(passes)
        rows = np.linspace(0, len(learned) - 1, min(max_stored, len(learned))).round().astype(np.int64)
        stored, kept = learned.iloc[rows], (tensors[0][rows], tensors[1][rows])
        store = NeighborIndex(neighbours)
        store.fit(embed(net, *kept, compute=compute), record_ids(stored).tolist())
        nats = surprise(net, *kept, groups=groups, compute=compute).clamp(max=clip).numpy()
        usual = Usual().fit(nats, event_classes(stored))
        names = bucket_names(features, learned)
        habits = _no_habits(features).fit(tensors[1].numpy(), names_of(learned, features))
        return cls(features, net, groups, clip, store, *kept, habits, usual, names, compute)

    def measure(
        self, frame: pd.DataFrame, numerical: Tensor, categorical: Tensor
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How unusual events are, in three ways.

        Args:
            frame: the events (N).
            numerical: float32 (N, numbers), their features.
            categorical: int64 (N, categorical fields), likewise.

        Returns:
            Surprise, the sum over the features of what lies above the usual for the event's class, in
            standard deviations; the mean distance to the nearest normal events; and the breach of habit,
            how much rarer the event's values are for its entity than for everyone, see
            :class:`companion.detection.rows.EntityRarity`. All float64 (N,).
        """
        nats = surprise(self.net, numerical, categorical, groups=self.groups, compute=self.compute)
        excess = self.usual.excess(nats.clamp(max=self.clip).numpy(), event_classes(frame))
        vectors = embed(self.net, numerical, categorical, compute=self.compute)
        habits = self.habits.score(categorical.numpy(), names_of(frame, self.features))
        return excess.sum(axis=1), self.store.score(vectors), habits

    def parts(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that :meth:`from_parts` needs beside the features: values for JSON, and tensors."""
        names, counts = self.habits.state()
        about = {
            "groups": self.groups,
            "clip": self.clip,
            "neighbours": self.store.neighbours,
            "ids": self.store.ids,
            "usual": self.usual.state(),
            "buckets": self.buckets,
            "entities": names,
        }
        tensors = {
            "vectors": torch.from_numpy(self.store.vectors),
            "numerical": self.numerical,
            "categorical": self.categorical.to(torch.int32),
        }
        habits = {name: torch.from_numpy(array) for name, array in counts.items()}
        return about, (
            prefixed("store.", tensors)
            | prefixed("net.", self.net.state_dict())
            | prefixed("habits.", habits)
        )

    @classmethod
    def from_parts(
        cls,
        features: EventFeatures,
        net: SelfSupervisedResNet,
        about: dict[str, Any],
        tensors: dict[str, Tensor],
        compute: Compute,
    ) -> Self:
        """The model that :meth:`parts` described; ``net`` takes its weights.

        Raises:
            KeyError: if something is lacking.
            ValueError: if something does not fit.
            RuntimeError: if the weights do not fit the net.
        """
        net.load_state_dict({name[4:]: t for name, t in tensors.items() if name.startswith("net.")})
        compute.model(net).eval()
        store = NeighborIndex(about["neighbours"]).fit(tensors["store.vectors"].numpy(), about["ids"])
        buckets = {name: {int(i): v for i, v in names.items()} for name, names in about["buckets"].items()}
        counts = {name[7:]: t.numpy() for name, t in tensors.items() if name.startswith("habits.")}
        return cls(
            features,
            net,
            tuple(about["groups"]),
            about["clip"],
            store,
            tensors["store.numerical"],
            tensors["store.categorical"].to(torch.int64),
            _no_habits(features).restore(about["entities"], counts),
            Usual.from_state(about["usual"]),
            buckets,
            compute,
        )
