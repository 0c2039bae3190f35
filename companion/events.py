"""One object that learns what an engineer's own security events look like and finds the unusual ones.

A residual net learns to guess hidden fields from the others. An event is unusual if its fields surprise the
net, or if its embedding lies far from those of normal events. See :mod:`companion.learning.selfsupervised`
for the sources.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from companion.compute import Compute, pick_compute
from companion.data.event_sample import EventSample
from companion.data.events import ENTITY_COLUMNS, RECORD_ID, record_ids, split_by_time
from companion.data.ocsf_flat import Kind, kind_of_column
from companion.detection.drift import DriftTracker
from companion.detection.tails import UpperTail
from companion.detection.thresholds import fixed_fpr
from companion.detection.vectors import NeighbourIndex
from companion.event_report import Explainer, Explanation, bucket_names
from companion.learning.checkpoint import CheckpointError, load_parts, prefixed, save_parts
from companion.learning.config import FitConfig
from companion.learning.embedding import embed
from companion.learning.event_clock import EventClock
from companion.learning.event_features import GAP, EventFeatures
from companion.learning.loop import History
from companion.learning.loop import fit as train
from companion.learning.selfsupervised import MaskedFeatures, surprise
from companion.models.selfsupervised import SelfSupervisedResNet

_KIND = "EventDetector 1"
_LEAST = 50  # events to learn from


class EventDetector(BaseEstimator):  # type: ignore[misc]
    """Learns normal events and scores others; frames as :func:`companion.data.ocsf.read_events` gives them.

    Learning passes once over all events and keeps a fair sample of them, so their number does not matter. The
    time since an entity's last event is taken among all of them. The earlier events of the sample teach the
    net; the later ones calibrate the scores and the threshold. The events should be mostly normal; no labels
    are needed.

    Args:
        d_model: features of an event's embedding.
        num_blocks: of the net.
        num_steps: of the training.
        batch_size: events in a step.
        lr: the highest learning rate, of AdamW.
        mask_rate: the share of the families of fields that are hidden in training.
        passes: in how many passes the fields are hidden when events are scored; families of fields are hidden
            whole. More passes see a little more and take longer.
        clip: the most that one field can add to an event's surprise, in nats. Without it one number that is
            far off would outweigh all else.
        neighbours: how many of the nearest normal events count for the distance.
        max_events: in the sample.
        max_stored: embeddings of normal events that are kept to compare with.
        held_out: the share of the sample, its latest part, that calibrates.
        fpr: the share of normal events that may be flagged.
        columns: what names an entity, see :func:`companion.data.events.entities`.
        leave_out: fields and objects that must not be used.
        seed: decides everything random.

    Attributes:
        features_: fitted, after :meth:`fit`.
        net_: the net.
        kinds_: the columns that :meth:`score` wants and their kinds, for ``read_events``.
        drift_: counts of the training events, see :meth:`tracker`.
        threshold_: events with a higher score are flagged.
        counts_: events that came, learned, stored, held out, came late, and had no time.
        history_: what was measured while training; empty after :meth:`load`.

    Example:
        >>> from companion.data.ocsf_synthetic import EventConfig, generate_events
        >>> events = generate_events(EventConfig(num_events=1000)).frame
        >>> detector = EventDetector(d_model=16, num_blocks=1, num_steps=2, fpr=0.05).fit(events)
        >>> list(detector.score(events[:3]).columns)
        ['surprise', 'distance', 'score', 'flagged']
    """

    def __init__(
        self,
        *,
        d_model: int = 128,
        num_blocks: int = 3,
        num_steps: int = 2000,
        batch_size: int = 512,
        lr: float = 1e-3,
        mask_rate: float = 0.3,
        passes: int = 8,
        clip: float = 10.0,
        neighbours: int = 5,
        max_events: int = 200_000,
        max_stored: int = 20_000,
        held_out: float = 0.2,
        fpr: float = 0.001,
        columns: Sequence[str] = ENTITY_COLUMNS,
        leave_out: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self.d_model, self.num_blocks, self.num_steps = d_model, num_blocks, num_steps
        self.batch_size, self.lr, self.mask_rate = batch_size, lr, mask_rate
        self.passes, self.clip, self.neighbours = passes, clip, neighbours
        self.max_events, self.max_stored, self.held_out, self.fpr = max_events, max_stored, held_out, fpr
        self.columns, self.leave_out, self.seed = columns, leave_out, seed

    # ------------------------------------------------------------ learning

    def fit(
        self,
        frames: pd.DataFrame | Iterable[pd.DataFrame],
        y: None = None,
        *,
        compute: Compute | None = None,
        checkpoint: Path | None = None,
        progress: str | None = None,
    ) -> EventDetector:
        """Learn from events that are mostly normal.

        Args:
            frames: one frame, or pieces that follow each other as in their file; all with the same columns,
                which ``kinds`` of ``read_events`` sees to.
            y: not used.
            compute: device and precision; by default the best device and its fastest good precision.
            checkpoint: a file to write checkpoints to, and to continue from if it is there.
            progress: the label of a progress bar of the training; ``None`` for no bar.

        Returns:
            The detector itself.

        Raises:
            ValueError: if an argument is out of range or there are too few events. As ``EncoderError`` if
                there is no time or no field that varies, as ``ThresholdError`` if too few are held out for
                so small an ``fpr``, as ``DataError`` if nothing names an entity.
            CheckpointError: if the checkpoint belongs to another training.
        """
        self._check()
        clock, sample = EventClock(self.columns), EventSample(self.max_events, self.seed)
        for frame in [frames] if isinstance(frames, pd.DataFrame) else frames:
            timed, gaps = clock(frame.drop(columns=[name for name in frame.columns if self._left_out(name)]))
            sample.add(timed.assign(**{GAP: gaps}))
        if sample.seen * (1 - self.held_out) < _LEAST:
            raise ValueError(f"too few events to learn from: {sample.seen:,}")
        kept = sample.frame().sort_values("time", kind="stable")
        learn, later = (kept.iloc[rows] for rows in split_by_time(kept, (1 - self.held_out, self.held_out)))
        fixed_fpr(np.arange(len(later)), self.fpr)  # enough of them? Better now than after the training
        compute = compute or pick_compute()
        gaps = learn.pop(GAP).to_numpy()
        self.features_ = EventFeatures(columns=self.columns).fit(learn, gaps)
        numerical, categorical = self.features_.transform(learn, gaps)
        self.kinds_: dict[str, Kind] = {name: kind_of_column(kept[name]) for name in self._wanted(kept)}
        self._buckets = bucket_names(self.features_, learn)
        self.net_ = self._build()
        self.history_ = train(
            self.net_,
            (numerical, categorical),
            MaskedFeatures(self.mask_rate, self.features_.groups()),
            self._fit_config(),
            compute=compute,
            seed=self.seed,
            checkpoint=checkpoint,
            identity=f"{self._parameters()} {_digest(numerical, categorical)}",
            progress=progress,
        )
        self.net_.eval()
        self._compute = compute
        rows = np.linspace(0, len(learn) - 1, min(self.max_stored, len(learn))).round().astype(np.int64)
        self._stored = numerical[rows], categorical[rows]
        vectors = embed(self.net_, *self._stored, compute=compute)
        self._store = NeighbourIndex(self.neighbours).fit(vectors, record_ids(learn.iloc[rows]))
        self.drift_ = self._new_tracker().fit(self._raw_numbers(learn, gaps), categorical)
        self._calibrate(later)
        self.counts_ = {
            "events": sample.seen, "learned": len(learn), "stored": len(rows), "held out": len(later),
            "late": clock.late, "without time": clock.untimed,
        }  # fmt: skip
        return self

    def _check(self) -> None:
        shares = {"held_out": self.held_out, "fpr": self.fpr}
        bad = [f"{name} lies between 0 and 1, not {value}" for name, value in shares.items() if not 0 < value < 1]
        sizes = ("num_steps", "batch_size", "passes", "neighbours", "max_stored", "d_model", "num_blocks")
        bad += [f"{name} must be at least 1, not {getattr(self, name)}" for name in sizes if getattr(self, name) < 1]
        if self.clip <= 0:
            bad.append(f"clip must be above 0, not {self.clip}")
        if bad:
            raise ValueError("; ".join(bad))

    def _left_out(self, name: str) -> bool:
        return any(name == field or name.startswith(field + ".") for field in self.leave_out)

    def _wanted(self, frame: pd.DataFrame) -> list[str]:
        """The columns that scoring needs, in the order of the frame."""
        assert self.features_.encoder is not None
        encoder = self.features_.encoder
        used = {*encoder.numerical, *encoder.categorical, "time", RECORD_ID, *self.columns} - {GAP}
        return [str(name) for name in frame.columns if name in used]

    def _build(self) -> SelfSupervisedResNet:
        """The net with its initial weights; the global generator is left as it was."""
        assert self.features_.encoder is not None
        encoder = self.features_.encoder
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            return SelfSupervisedResNet(
                encoder.num_numerical_features, encoder.categorical_cardinalities, self.d_model, self.num_blocks
            )

    def _fit_config(self) -> FitConfig:
        return FitConfig(
            num_steps=self.num_steps,
            batch_size=self.batch_size,
            lr=self.lr,
            optimizer="adamw",
            schedule="cosine",
            warmup_steps=min(100, self.num_steps // 10),
        )

    def _parameters(self) -> str:
        """The parameters as JSON; NumPy's numbers become Python's."""
        return json.dumps(self.get_params(), default=lambda number: number.item())

    def _calibrate(self, later: pd.DataFrame) -> None:
        gaps = later[GAP].to_numpy()
        numerical, categorical = self.features_.transform(later, gaps)
        self._normal = np.stack(self._raw_scores(numerical, categorical), axis=1)  # (held out, 2)
        self.drift_.usual(self._raw_numbers(later, gaps), categorical)
        self._set_threshold()

    def _set_threshold(self) -> None:
        self._tails = UpperTail(self._normal[:, 0]), UpperTail(self._normal[:, 1])
        self.threshold_ = fixed_fpr(self._combined(*self._normal.T), self.fpr)

    # ------------------------------------------------------------ scoring

    def _fitted(self) -> None:
        if not hasattr(self, "threshold_"):
            raise ValueError("fit the detector first, or load one")

    def clock(self) -> EventClock:
        """A fresh clock for a file of events, to go over its chunks in their order.

        Its gaps are those that :meth:`score` and :meth:`explain` ask for.
        """
        return EventClock(self.columns)

    def tracker(self) -> DriftTracker:
        """A fresh tracker of drift, to be given to :meth:`score` with every chunk.

        Raises:
            ValueError: if nothing was fitted.
        """
        self._fitted()
        return DriftTracker.from_state(self.drift_.state())

    def score(
        self, frame: pd.DataFrame, gaps: np.ndarray | None = None, *, drift: DriftTracker | None = None
    ) -> pd.DataFrame:
        """How unusual each event is.

        Surprise and distance have scales of their own. Each is put on the scale of
        :class:`companion.detection.tails.UpperTail`, by the held-out events: level 3 is reached by one normal
        in a thousand. The score is the higher of the two levels, since an event may be unusual in either way.
        As two chances to be high are more than one, the threshold is taken on the score itself.

        Args:
            frame: events (N), N may be 0. Unknown fields are ignored, lacking ones are missing.
            gaps: float64 (N,), as :meth:`clock` gives them along with the frame, so that chunks know what came
                before; without them the frame is taken for all there is.
            drift: counts the events, if given.

        Returns:
            One row an event, with the frame's index. ``surprise`` is the sum over the fields, each hidden with
            its family and clipped, in nats. ``distance`` is the mean distance to the nearest normal events,
            ``score`` the level, and ``flagged`` whether it is above ``threshold_``.

        Raises:
            ValueError: if nothing was fitted. As ``EncoderError`` if the events have no time, as
                ``DataError`` if nothing names an entity.
        """
        self._fitted()
        if gaps is None:
            frame, gaps = self.clock()(frame)
        numerical, categorical = self.features_.transform(frame, gaps)
        if drift is not None:
            drift.update(self._raw_numbers(frame, gaps), categorical)
        surprises, distances = self._raw_scores(numerical, categorical)
        scores = self._combined(surprises, distances)
        table = {
            "surprise": surprises, "distance": distances, "score": scores, "flagged": scores > self.threshold_
        }  # fmt: skip
        return pd.DataFrame(table, index=frame.index)

    def _raw_scores(self, numerical: Tensor, categorical: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Clipped surprise and distance, float64 (N,) each."""
        groups = self.features_.groups(self.passes)
        nats = surprise(self.net_, numerical, categorical, groups=groups, compute=self._compute)
        vectors = embed(self.net_, numerical, categorical, compute=self._compute)
        return nats.clamp(max=self.clip).sum(dim=1).double().numpy(), self._store.score(vectors)

    def _combined(self, surprises: np.ndarray, distances: np.ndarray) -> np.ndarray:
        return np.maximum(self._tails[0].level(surprises), self._tails[1].level(distances))

    def explain(
        self, frame: pd.DataFrame, gaps: np.ndarray | None = None, *, reasons: int = 5, neighbours: int = 2
    ) -> list[Explanation]:
        """Why events are unusual: the fields that surprise most, and the nearest normal events.

        Here each family of fields is hidden alone, which takes longer than a score: explain a few.

        Args:
            frame: events (N).
            gaps: as for :meth:`score`.
            reasons: how many fields to name, at most two of a family.
            neighbours: how many normal events to name.

        Returns:
            One :class:`companion.event_report.Explanation` an event.

        Raises:
            ValueError: as :meth:`score`.
        """
        self._fitted()
        if gaps is None:
            frame, gaps = self.clock()(frame)
        explainer = Explainer(
            self.net_, self.features_, self._buckets, self._store, *self._stored, self._compute
        )
        return explainer.explain(frame, gaps, reasons=reasons, neighbours=neighbours)

    def _new_tracker(self) -> DriftTracker:
        assert self.features_.encoder is not None
        encoder = self.features_.encoder
        return DriftTracker([*encoder.numerical, *encoder.categorical], encoder.categorical_cardinalities)

    def _raw_numbers(self, frame: pd.DataFrame, gaps: np.ndarray) -> np.ndarray:
        """The numerical fields in their own units, float64 (N, fields), NaN where missing."""
        assert self.features_.encoder is not None
        columns = [gaps]
        for name in self.features_.encoder.numerical[1:]:
            there = frame[name] if name in frame.columns else pd.Series(np.nan, frame.index)
            columns.append(pd.to_numeric(there, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan))
        return np.stack(columns, axis=1)

    # ------------------------------------------------------------ keeping

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file, in one piece.

        Raises:
            ValueError: if nothing was fitted.
        """
        self._fitted()
        about = {
            "parameters": json.loads(self._parameters()),
            "features": self.features_.to_json(),
            "buckets": self._buckets,
            "kinds": self.kinds_,
            "drift": self.drift_.state(),
            "ids": self._store.ids,
            "counts": self.counts_,
        }
        tensors = prefixed("net.", self.net_.state_dict()) | {
            "store.vectors": torch.from_numpy(self._store.vectors),
            "store.numerical": self._stored[0],
            "store.categorical": self._stored[1].to(torch.int32),
            "normal": torch.from_numpy(self._normal),
        }
        save_parts(path, _KIND, about, tensors)

    @classmethod
    def load(cls, path: Path, compute: Compute | None = None) -> EventDetector:
        """Read what :meth:`save` wrote; scores are the same to the last bit on the same device.

        Args:
            path: of the file.
            compute: device and precision; by default the best device and its fastest good precision.

        Raises:
            CheckpointError: if the file is missing, damaged, or no model of this kind and version.
        """
        about, tensors = load_parts(path, _KIND)
        try:
            detector = cls(**about["parameters"])
            detector.features_ = EventFeatures.from_json(about["features"])
            detector._buckets = {
                name: {int(bucket): texts for bucket, texts in names.items()}
                for name, names in about["buckets"].items()
            }
            detector.kinds_, detector.counts_ = about["kinds"], about["counts"]
            detector.drift_ = DriftTracker.from_state(about["drift"])
            detector.net_ = detector._build()
            weights = {name: tensor for name, tensor in tensors.items() if name.startswith("net.")}
            detector.net_.load_state_dict({name[4:]: tensor for name, tensor in weights.items()})
            detector._stored = tensors["store.numerical"], tensors["store.categorical"].to(torch.int64)
            detector._store = NeighbourIndex(detector.neighbours)
            detector._store.fit(tensors["store.vectors"].numpy(), about["ids"])
            detector._normal = tensors["normal"].numpy()
            detector._set_threshold()
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} is not a model that can be read: {error}") from error
        detector._compute = compute or pick_compute()
        detector._compute.model(detector.net_).eval()
        detector.history_ = History()
        return detector


def _digest(*tensors: Tensor) -> str:
    """What tells one training set from another."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
