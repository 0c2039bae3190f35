"""One object that learns what an engineer's own security events look like and finds the unusual ones.

A residual net learns to guess hidden fields from the others. An event is unusual if its fields surprise the
net more than is usual, if its embedding lies far from those of normal events, and if its values are rarer for
its entity than for everyone, which is counted without the net. Sources: see
:mod:`companion.objectives.selfsupervised` and :mod:`companion.detection.vectors`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from companion.compute import Compute, pick_compute
from companion.data.event_sample import EventSample
from companion.data.events import ENTITY_COLUMNS, RECORD_ID, split_by_time
from companion.data.ocsf_flat import Kind, kind_of_column
from companion.data.sessions import SESSION_COLUMNS
from companion.detection.drift import DriftTracker
from companion.detection.thresholds import CombinedTails, fixed_fpr
from companion.estimators.event_model import EventModel
from companion.estimators.event_report import Explanation, explain
from companion.models.masked_resnet import SelfSupervisedResNet
from companion.objectives.encoding import TableEncoder
from companion.objectives.event_features import GAP, EventClock, EventFeatures
from companion.objectives.selfsupervised import MaskedFeatures
from companion.training import CheckpointError, FitConfig, History, load_parts, save_parts
from companion.training import fit as train

_KIND = "EventDetector 2"
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
        clip: the most surprise of one field that counts, in nats. Without it one number that is
            far off would outweigh all else.
        neighbours: how many of the nearest normal events count for the distance.
        max_events: in the sample.
        max_stored: embeddings of normal events that are kept to compare with.
        held_out: the share of the sample, its latest part, that calibrates.
        fpr: the share of normal events that may be flagged.
        columns: what names an entity, see :func:`companion.data.events.entities`.
        leave_out: fields and objects that must not be used; ``*`` stands for any letters. By default the
            names of sessions, which say nothing and are new to every entity.
        seed: decides everything random.

    Attributes:
        features_: fitted, after :meth:`fit`.
        kinds_: the columns that :meth:`score` wants and their kinds, for ``read_events``.
        json_columns_: fields whose text is JSON, as ``read_events`` was told; empty unless set, for frames
            are taken as they are. Kept with the model.
        drift_: counts of the training events, see :meth:`tracker`.
        threshold_: events with a higher score are flagged.
        counts_: events that came, learned, stored, held out, came late, and had no time.
        history_: what was measured while training; empty after :meth:`load`.

    Example:
        >>> from companion.data.ocsf_synthetic import EventConfig, generate_events
        >>> events = generate_events(EventConfig(num_events=1000)).frame
        >>> detector = EventDetector(d_model=16, num_blocks=1, num_steps=2, fpr=0.05).fit(events)
        >>> list(detector.score(events[:3]).columns)
        ['surprise', 'distance', 'habit', 'score', 'flagged']
    """

    def __init__(
        self,
        *,
        d_model: int = 128,
        num_blocks: int = 3,
        num_steps: int = 1000,
        batch_size: int = 512,
        lr: float = 1e-2,
        mask_rate: float = 0.3,
        passes: int = 8,
        clip: float = 10.0,
        neighbours: int = 5,
        max_events: int = 200_000,
        max_stored: int = 20_000,
        held_out: float = 0.2,
        fpr: float = 0.001,
        columns: Sequence[str] = ENTITY_COLUMNS,
        leave_out: Sequence[str] = SESSION_COLUMNS,
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
        self.json_columns_: tuple[str, ...] = ()
        compute = compute or pick_compute()
        clock, sample = EventClock(self.columns), EventSample(self.max_events, self.seed)
        for frame in [frames] if isinstance(frames, pd.DataFrame) else frames:
            timed, gaps = clock(frame.drop(columns=[name for name in frame.columns if self._left_out(name)]))
            sample.add(timed.assign(**{GAP: gaps}))
        if sample.seen * (1 - self.held_out) < _LEAST:
            raise ValueError(f"too few events to learn from: {sample.seen:,}")
        kept = sample.frame().sort_values("time", kind="stable")
        learn, later = (kept.iloc[rows] for rows in split_by_time(kept, (1 - self.held_out, self.held_out)))
        fixed_fpr(np.arange(len(later)), self.fpr)  # are they enough? Better now than after the training
        self.features_ = EventFeatures(columns=self.columns).fit(
            learn.drop(columns=GAP), learn[GAP].to_numpy()
        )
        numerical, categorical, raw = self._tensors(learn, learn[GAP].to_numpy())
        self.kinds_: dict[str, Kind] = {name: kind_of_column(kept[name]) for name in self._wanted(kept)}
        net = self._build()
        self.history_ = train(
            net,
            (numerical, categorical),
            MaskedFeatures(self.mask_rate, self.features_.groups()),
            self._fit_config(),
            compute=compute,
            seed=self.seed,
            checkpoint=checkpoint,
            progress=progress,
        )
        net.eval()
        self._model = EventModel.build(
            self.features_,
            net,
            learn,
            (numerical, categorical),
            passes=self.passes,
            clip=self.clip,
            neighbours=self.neighbours,
            max_stored=self.max_stored,
            compute=compute,
        )
        fields = [*self._encoder.numerical, *self._encoder.categorical]
        self.drift_ = DriftTracker(fields, self._encoder.categorical_cardinalities).fit(raw, categorical)
        self._calibrate(later)
        self.counts_ = {
            "events": sample.seen,
            "learned": len(learn),
            "stored": len(self._model.store.ids),
            "held out": len(later),
            "late": clock.late,
            "without time": clock.untimed,
        }
        return self

    def _check(self) -> None:
        for name in ("held_out", "fpr"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} lies between 0 and 1, not {getattr(self, name)}")
        for name in ("passes", "neighbours", "max_stored", "clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")

    def _left_out(self, name: str) -> bool:
        return any(fnmatchcase(name, field) or name.startswith(field + ".") for field in self.leave_out)

    @property
    def _encoder(self) -> TableEncoder:
        assert self.features_.encoder is not None
        return self.features_.encoder

    def _wanted(self, frame: pd.DataFrame) -> list[str]:
        """The columns that scoring needs, in the order of the frame."""
        fields = {*self._encoder.numerical, *self._encoder.categorical} - {GAP}
        wanted = fields | {"time", "class_uid", RECORD_ID, *self.columns}
        return [str(name) for name in frame.columns if name in wanted]

    def _build(self) -> SelfSupervisedResNet:
        """The net with its initial weights; the global generator is left as it was."""
        sizes = self._encoder.num_numerical_features, self._encoder.categorical_cardinalities
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            return SelfSupervisedResNet(*sizes, self.d_model, self.num_blocks)

    def _fit_config(self) -> FitConfig:
        return FitConfig(
            num_steps=self.num_steps,
            batch_size=self.batch_size,
            lr=self.lr,
            optimizer="adamw",
            schedule="cosine",
            warmup_steps=min(50, self.num_steps // 10),
        )

    def _parameters(self) -> str:
        """The parameters as JSON; NumPy's numbers become Python's."""
        return json.dumps(self.get_params(), default=lambda number: number.item())

    def _tensors(self, frame: pd.DataFrame, gaps: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
        """The features, and the numbers among them in their own units for the tracker of drift."""
        return *self.features_.transform(frame, gaps), self.features_.numbers(frame, gaps)

    def _calibrate(self, later: pd.DataFrame) -> None:
        """Learn from held-out events how high normal scores are, and how far the fields drift anyway."""
        numerical, categorical, raw = self._tensors(later, later[GAP].to_numpy())
        self._tails = CombinedTails(np.stack(self._model.measure(later, numerical, categorical), axis=1))
        self.drift_.usual(raw, categorical)
        self._set_threshold()

    def _set_threshold(self) -> None:
        self.threshold_ = fixed_fpr(self._tails.level(self._tails.normal_scores), self.fpr)

    # ------------------------------------------------------------ scoring

    def _fitted(self) -> None:
        if not hasattr(self, "threshold_"):
            raise ValueError("fit the detector first, or load one")

    def clock(self) -> EventClock:
        """A fresh clock for a file of events, to go over its chunks in their order.

        It gives the frames and gaps that :meth:`score` and :meth:`explain` ask for.
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

        Surprise, distance and breach of habit have scales of their own. Each is turned into a level of rarity
        among the held-out events, and all together into one
        (``CombinedTails``): a score of 3 is reached by one normal event in a
        thousand.

        Args:
            frame: events (N), N may be 0. Unknown fields are ignored, lacking ones are missing.
            gaps: float64 (N,), as :meth:`clock` gives them along with the frame, so that chunks know what
                came before; without them the frame is taken for all there is.
            drift: counts the events, if given.

        Returns:
            One row an event, with the frame's index. ``surprise`` and ``distance`` are as
            ``EventModel.measure`` gives them, ``score`` is their common level, and
            ``flagged`` says whether it is above ``threshold_``.

        Raises:
            ValueError: if nothing was fitted. As ``EncoderError`` if the events have no time, as
                ``DataError`` if nothing names an entity.
        """
        self._fitted()
        if gaps is None:
            frame, gaps = self.clock()(frame)
        numerical, categorical, raw = self._tensors(frame, gaps)
        if drift is not None:
            drift.update(raw, categorical)
        measured = np.stack(self._model.measure(frame, numerical, categorical), axis=1)
        table = pd.DataFrame(measured, frame.index, columns=["surprise", "distance", "habit"])
        scores = self._tails.level(measured)
        return table.assign(score=scores, flagged=scores > self.threshold_)

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
            One :class:`companion.estimators.event_report.Explanation` an event.

        Raises:
            ValueError: as :meth:`score`.
        """
        self._fitted()
        if gaps is None:
            frame, gaps = self.clock()(frame)
        return explain(self._model, frame, gaps, reasons=reasons, neighbours=neighbours)

    # ------------------------------------------------------------ keeping

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file, in one piece.

        Raises:
            ValueError: if nothing was fitted.
        """
        self._fitted()
        model, tensors = self._model.parts()
        about = {
            "parameters": json.loads(self._parameters()),
            "features": self.features_.to_json(),
            "model": model,
            "kinds": self.kinds_,
            "json_columns": self.json_columns_,
            "drift": self.drift_.state(),
            "counts": self.counts_,
        }
        tensors["normal_scores"] = torch.from_numpy(self._tails.normal_scores)
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
        compute = compute or pick_compute()
        try:
            detector = cls(**about["parameters"])
            detector.features_ = EventFeatures.from_json(about["features"])
            detector.kinds_, detector.counts_ = about["kinds"], about["counts"]
            detector.json_columns_ = tuple(about["json_columns"])
            detector.drift_ = DriftTracker.from_state(about["drift"])
            detector._model = EventModel.from_parts(
                detector.features_, detector._build(), about["model"], tensors, compute
            )
            detector._tails = CombinedTails(tensors["normal_scores"].numpy())
            detector._set_threshold()
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} is not a model that can be read: {error}") from error
        detector.history_ = History()
        return detector
