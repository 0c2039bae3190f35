"""One object that learns what an engineer's own security events look like and finds the unusual ones.

A residual net learns to predict hidden fields from the others. An event is unusual if its fields surprise the
net more than is usual for its class, if its embedding lies far from those of normal events, and if its values
are rarer for its entity than for everyone, which is counted without the net.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from companion.compute import Compute, pick_compute
from companion.data.events import ENTITY_COLUMNS, entities, record_ids, seconds_since_last, split_by_time
from companion.data.sessions import SESSION_COLUMNS
from companion.detection.detectors import NeighborIndex
from companion.detection.rows import EntityRarity, GroupStandardizer
from companion.detection.thresholds import FisherTail, fixed_fpr
from companion.estimators.base import check_weights
from companion.files import StateError, load_state, save_state
from companion.models.masked_resnet import SelfSupervisedResNet
from companion.objectives.encoding import MISSING, UNSEEN
from companion.objectives.event_features import GAP, EventFeatures
from companion.objectives.selfsupervised import MaskedFeatures, embed, nll
from companion.training import FitConfig, History
from companion.training import fit as train

_KIND = "EventDetector 3"
_LEAST = 50  # events to learn from
_BATCH, _LR, _MASK_RATE = 512, 1e-2, 0.3  # of the training
_PASSES = 8  # forward passes of a score; families of fields are hidden whole
_CLIP = 10.0  # nats of one field that count; without it one number that is far off would outweigh all else
_NEIGHBORS, _STORED = 5, 20_000  # normal events that count for the distance, and that are kept


class EventDetector(BaseEstimator):  # type: ignore[misc]
    """Learns normal events and scores others; frames as :func:`companion.data.ocsf.read_events` gives them.

    The earlier events teach the net; the later ones calibrate the scores and the threshold. The events should
    be mostly normal; no labels are needed.

    Args:
        d_model: features of an event's embedding.
        num_blocks: of the net.
        num_steps: of the training.
        max_events: that are learned from, at most; a random sample of more. The time since an entity's last
            event is taken among all of them.
        held_out: the share of the events, its latest part, that calibrates.
        fpr: the share of normal events that may be flagged.
        columns: what names an entity.
        leave_out: fields and objects that must not be used; ``*`` stands for any letters. By default the
            names of sessions, which say nothing and are new to every entity.
        json_columns: fields whose text is JSON, for ``read_events``; kept with the model.
        seed: decides everything random.

    Attributes:
        features_: fitted.
        threshold_: events with a higher score are flagged.
        counts_: events that were learned, stored, held out.
        history_: what was measured while training; empty after :meth:`load`.

    Example:
        >>> from companion.data.ocsf_synthetic import EventConfig, generate_events
        >>> events = generate_events(EventConfig(num_events=1000)).frame
        >>> detector = EventDetector(d_model=16, num_blocks=1, num_steps=2, fpr=0.05).fit(events)
        >>> list(detector.measure(events[:3]).columns)
        ['surprise', 'distance', 'habit', 'score', 'flagged']
    """

    def __init__(
        self,
        d_model: int = 128,
        num_blocks: int = 3,
        num_steps: int = 1000,
        max_events: int = 200_000,
        held_out: float = 0.2,
        fpr: float = 0.001,
        columns: Sequence[str] = ENTITY_COLUMNS,
        leave_out: Sequence[str] = SESSION_COLUMNS,
        json_columns: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self.d_model, self.num_blocks, self.num_steps = d_model, num_blocks, num_steps
        self.max_events, self.held_out, self.fpr, self.seed = max_events, held_out, fpr, seed
        self.columns, self.leave_out, self.json_columns = columns, leave_out, json_columns

    def fit(
        self,
        frame: pd.DataFrame,
        y: None = None,
        *,
        compute: Compute | None = None,
        checkpoint: Path | None = None,
        progress: str | None = None,
    ) -> EventDetector:
        """Learn from events that are mostly normal.

        Args:
            frame: events in the order of their times.
            y: not used.
            compute: device and precision; by default the best device and its fastest good precision.
            checkpoint: a file to write checkpoints to, and to continue from if it is there.
            progress: the label of a progress bar of the training; ``None`` for no bar.

        Raises:
            ValueError: if an argument is out of range, there are too few events, too few are held out for so
                small an ``fpr``, nothing names an entity, or no field varies.
            CheckpointError: if the checkpoint belongs to another training.
        """
        for name in ("held_out", "fpr"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} lies between 0 and 1, not {getattr(self, name)}")
        self.compute_ = compute or pick_compute()
        left_out = [name for name in frame.columns if self._is_left_out(str(name))]
        kept = frame.drop(columns=left_out).assign(**{GAP: seconds_since_last(frame, self.columns)})
        if len(kept) > self.max_events:
            kept = kept.sample(self.max_events, random_state=self.seed).sort_values("time", kind="stable")
        if len(kept) * (1 - self.held_out) < _LEAST:
            raise ValueError(f"too few events to learn from: {len(kept):,}")
        learn, later = (kept.iloc[rows] for rows in split_by_time(kept, (1 - self.held_out, self.held_out)))
        fixed_fpr(np.arange(len(later)), self.fpr)  # are they enough? Better now than after the training
        gaps = learn[GAP].to_numpy()
        self.features_ = EventFeatures(columns=self.columns).fit(learn.drop(columns=GAP), gaps)
        tensors = self.features_.transform(learn, gaps)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            self.net_ = self._build()
        config = FitConfig(
            num_steps=self.num_steps, batch_size=_BATCH, lr=_LR, optimizer="adamw", schedule="cosine",
            warmup_steps=min(50, self.num_steps // 10),
        )  # fmt: skip
        objective = MaskedFeatures(_MASK_RATE, self.features_.groups())
        self.history_ = train(
            self.net_, tensors, objective, config, compute=self.compute_, seed=self.seed,
            checkpoint=checkpoint, progress=progress,
        )  # fmt: skip
        self.net_.eval()
        self._remember(learn, tensors)
        self._calibrate(self._measures(later, *self.features_.transform(later, later[GAP].to_numpy())))
        self.counts_ = {"learned": len(learn), "stored": len(self._ids), "held out": len(later)}
        return self

    def _is_left_out(self, name: str) -> bool:
        return any(fnmatchcase(name, field) or name.startswith(field + ".") for field in self.leave_out)

    def _build(self) -> SelfSupervisedResNet:
        encoder = self.features_.fitted
        sizes = encoder.num_numerical_features, encoder.categorical_cardinalities
        return SelfSupervisedResNet(*sizes, self.d_model, self.num_blocks)

    def _remember(self, learned: pd.DataFrame, tensors: tuple[Tensor, Tensor]) -> None:
        """Keep normal events, spread evenly over those learned, and count the habits of all of them."""
        rows = np.linspace(0, len(learned) - 1, min(_STORED, len(learned))).round().astype(np.int64)
        self._ids = record_ids(learned.iloc[rows]).tolist()
        self._classes = _classes(learned.iloc[rows])
        self._stored = tensors[0][rows], tensors[1][rows]
        self._habits = EntityRarity(self.features_.fitted.categorical_cardinalities)
        self._habits.fit(tensors[1].numpy(), self._names(learned))
        self._index()

    def _index(self) -> None:
        """What follows from the stored events and the net: their embeddings, and their usual surprise."""
        self._groups = self.features_.groups(_PASSES)
        vectors = embed(self.net_, *self._stored, compute=self.compute_)
        self._store = NeighborIndex(_NEIGHBORS).fit(vectors, self._ids)
        nats = nll(self.net_, *self._stored, groups=self._groups, compute=self.compute_)
        self._usual = GroupStandardizer().fit(nats.clamp(max=_CLIP).numpy(), self._classes)

    def _names(self, frame: pd.DataFrame) -> np.ndarray:
        return entities(frame, self.columns).fillna("").to_numpy(dtype=object)

    def _calibrate(self, measures: np.ndarray) -> None:
        self._tails = FisherTail(measures)
        self.threshold_ = fixed_fpr(self._tails.level(measures), self.fpr)

    def _measures(self, frame: pd.DataFrame, numerical: Tensor, categorical: Tensor) -> np.ndarray:
        """Surprise beyond the usual, distance to normal events, breach of habit: float64 (N, 3)."""
        nats = nll(self.net_, numerical, categorical, groups=self._groups, compute=self.compute_)
        excess = self._usual.transform(nats.clamp(max=_CLIP).numpy(), _classes(frame)).sum(axis=1)
        distance = self._store.score(embed(self.net_, numerical, categorical, compute=self.compute_))
        return np.stack(
            [excess, distance, self._habits.score(categorical.numpy(), self._names(frame))], axis=1
        )

    # ------------------------------------------------------------ using

    def measure(self, frame: pd.DataFrame) -> pd.DataFrame:
        """How unusual each event is, and in which way.

        Surprise, distance and breach of habit have scales of their own. Each is turned into a level of rarity
        among the held-out events, and all together into one score: 3 is reached by one normal event in a
        thousand.

        Args:
            frame: events (N) in the order of their times; unknown fields are ignored, lacking ones missing.

        Returns:
            One row an event, with the frame's index, and the columns ``surprise``, ``distance``, ``habit``,
            ``score``, ``flagged``.

        Raises:
            ValueError: if nothing was fitted, nothing names an entity, or the events have another order.
        """
        if not hasattr(self, "threshold_"):
            raise ValueError("fit the detector first, or load one")
        tensors = self.features_.transform(frame, seconds_since_last(frame, self.columns))
        measures = self._measures(frame, *tensors)
        table = pd.DataFrame(measures, frame.index, columns=["surprise", "distance", "habit"])
        scores = self._tails.level(measures)
        return table.assign(score=scores, flagged=scores > self.threshold_)

    def decision_function(self, frame: pd.DataFrame) -> np.ndarray:
        """The score of :meth:`measure`, float64 (N,): the higher, the more unusual."""
        return self.measure(frame)["score"].to_numpy()

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Whether each event is flagged: bool (N,)."""
        return self.measure(frame)["flagged"].to_numpy()

    @torch.inference_mode()
    def explain(self, frame: pd.DataFrame, rows: Sequence[int], fields: int = 4) -> pd.DataFrame:
        """Why events are unusual: the fields that surprise most or break the entity's habit.

        Each family of fields is hidden alone, which takes longer than a score: explain a few.

        ``rows`` are positions in ``frame``, events in the order of their times; ``fields`` are told of each.

        Returns:
            ``row`` (of ``rows``), ``field``, ``value``, what the net ``expected``, ``nats``, and how many
            ``times_rarer`` the value is for the entity than for everyone, NaN for numbers.
        """
        gaps = seconds_since_last(frame, self.columns)[rows]
        frame = frame.iloc[list(rows)].assign(**{GAP: gaps})
        tensors = self.features_.transform(frame, gaps)
        groups, names = np.array(self.features_.groups()), self.features_.fields
        nats = nll(self.net_, *tensors, groups=tuple(groups), compute=self.compute_).numpy()
        excess = self._usual.transform(np.minimum(nats, _CLIP), _classes(frame))
        habits = np.exp(self._habits.transform(tensors[1].numpy(), self._names(frame)))
        rarer = np.concatenate([np.full_like(tensors[0].numpy(), np.nan), habits], axis=1)
        told = []
        for i, row in enumerate(rows):
            event = tensors[0][i : i + 1], tensors[1][i : i + 1]
            for j in np.argsort(-(excess[i] + np.nan_to_num(np.log(rarer[i])).clip(0)))[: 3 * fields]:
                value = frame[names[j]].iloc[i] if names[j] in frame else None
                expected = self._expected(event, torch.from_numpy(groups == groups[j]), int(j))
                shown = "missing" if pd.isna(value) else str(value)
                told.append((row, names[j], shown, expected, nats[i, j], rarer[i, j]))
        table = pd.DataFrame(told, columns=["row", "field", "value", "expected", "nats", "times_rarer"])
        right = table["value"] == table["expected"].str.replace(r" \(\d+ %\)$", "", regex=True)  # but unsure
        return table[~right].groupby("row", sort=False).head(fields).reset_index(drop=True)

    def _expected(self, event: tuple[Tensor, Tensor], hidden: Tensor, column: int) -> str:
        """What the net takes a feature of one event to be if its family is hidden."""
        encoder, device = self.features_.fitted, self.compute_.device
        with self.compute_.autocast():
            guess = self.net_(*(part.to(device) for part in event), hidden.to(device)[None])
        place = column - encoder.num_numerical_features
        if place >= 0:
            shares = guess.logits[place][0].float().softmax(dim=0)
            index = int(shares.argmax())
            name = encoder.categorical[place]
            if index in (MISSING, UNSEEN):
                value = "missing" if index == MISSING else "a rare value"
            else:
                value = "another" if name in encoder.hashed else encoder.categories[name][index - 2]
            return f"{value} ({100 * float(shares[index]):.0f} %)"
        name, mean, scale = (
            self.features_.fields[column],
            float(guess.mean[0, column]),
            float(guess.scale[0, column]),
        )
        if name == "time" or encoder.feature_names[column].endswith(" is missing"):
            return "another time" if name == "time" else ("missing" if mean > 0.5 else "a value")
        low, high = encoder.unscale(name, np.array([mean - scale, mean + scale]))
        return f"{low:,.4g} to {high:,.4g}"

    # ------------------------------------------------------------ keeping

    def save(self, path: Path) -> None:
        """Write everything to one file."""
        names, counts = self._habits.state()
        save_state(
            path,
            _KIND,
            parameters={
                name: list(v) if isinstance(v, tuple) else v for name, v in self.get_params().items()
            },
            features=self.features_.to_json(),
            counts=self.counts_,
            net=self.net_.state_dict(),
            stored=self._stored,
            ids=self._ids,
            classes=self._classes.tolist(),
            entities=names,
            habits={name: torch.from_numpy(array) for name, array in counts.items()},
            normal_scores=torch.from_numpy(self._tails.normal_scores),
        )

    @classmethod
    def load(cls, path: Path, compute: Compute | None = None) -> EventDetector:
        """Read what :meth:`save` wrote; scores are the same to the last bit on the same device.

        Raises:
            StateError: if the file is missing, damaged, or no model of this kind and version.
        """
        state = load_state(path, _KIND)
        try:
            detector = cls(**state["parameters"])
            detector.compute_ = compute or pick_compute()
            detector.features_ = EventFeatures.from_json(state["features"])
            with torch.device("meta"):  # nothing is allocated before the shapes are known to fit
                check_weights(state["net"], detector._build())
            detector.net_ = detector._build()
            detector.net_.load_state_dict(state["net"])
            if not bool(state["normal_scores"].isfinite().all()):
                raise ValueError("its scores are not finite")
            detector.compute_.model(detector.net_).eval()
            detector.counts_, detector._ids = state["counts"], state["ids"]
            detector._stored = tuple(state["stored"])
            detector._classes = np.array(state["classes"], dtype=object)
            habits = EntityRarity(detector.features_.fitted.categorical_cardinalities)
            counts = {name: part.numpy() for name, part in state["habits"].items()}
            detector._habits = habits.restore(state["entities"], counts)
            detector._index()
            detector._calibrate(state["normal_scores"].numpy())
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise StateError(f"{path} is not a model that can be read: {error}") from error
        detector.history_ = History()
        return detector


def _classes(frame: pd.DataFrame) -> np.ndarray:
    """The class of each event as text (N,), empty where there is none."""
    if "class_uid" not in frame.columns:
        return np.full(len(frame), "", dtype=object)
    return frame["class_uid"].astype("str").fillna("").to_numpy(dtype=object)
