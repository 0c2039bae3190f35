"""A net that finds unusual sequences of events, with the habits of scikit-learn.

It learns to expect the next event of normal sessions; a session whose events it did not expect is unusual.
Source: Du et al. 2017, "DeepLog: Anomaly Detection and Diagnosis from System Logs through Deep Learning",
which flags an event that is not among the likeliest ones; here its surprise is a number.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from companion.compute import Compute, pick_compute
from companion.detection.sequences import (
    Aggregate,
    Layout,
    SequenceError,
    Task,
    check_aggregate,
    checked_tokens,
    lay_out,
    session_scores,
)
from companion.detection.thresholds import fixed_fpr
from companion.detection.vectors import checked_vectors
from companion.models.lstm import NextEventLSTM
from companion.objectives.next_event import STRETCH, NextEvent, pieces
from companion.training import (
    CheckpointError,
    FitConfig,
    History,
    evaluate,
    load_weights,
    save_weights,
    weights_metadata,
)
from companion.training import fit as train

Inputs = Literal["tokens", "vectors", "both"]

_KIND, _VERSION = "SequenceAnomalyDetector", 1
_BATCH_EVENTS = 2**15  # events in one such pass over several sessions, padding included


class SequenceAnomalyDetector(BaseEstimator):  # type: ignore[misc]
    """An LSTM over the events of a session, trained on normal sessions without labels.

    Every event has a token, which is what the net has to expect, and may have a vector, such as its embedding
    by a :class:`companion.models.masked_resnet.SelfSupervisedResNet`. Vectors are standardised by the mean
    and standard deviation of each number in training.

    A session may have any length. In training, long ones are cut into pieces of ``max_length`` events; a
    piece knows one event before it, and nothing else of its session. In scoring nothing is cut.

    Every score is computed in float32, whatever precision the net was trained in.

    Args:
        inputs: what the net reads of past events: ``"tokens"`` (one-hot), ``"vectors"``, or ``"both"``.
        task: ``"next"``: the surprise is at what comes next, of all that may come. ``"order"``: at what comes
            next of all that the session has left; see :class:`companion.objectives.next_event.NextEvent`.
        memory: whether the net is told at every step what the session has had so far.
        hidden: features of the LSTM's state.
        layers: how many LSTMs stand on one another.
        dropout: see :class:`companion.models.lstm.NextEventLSTM`.
        input_dropout: see :class:`companion.objectives.next_event.NextEvent`.
        aggregate: how a session's score comes from the surprises of its events, see
            :func:`companion.detection.sequences.session_scores`.
        top: likewise.
        lr: of AdamW, which falls to 0 along a cosine.
        weight_decay: of AdamW.
        batch_size: sessions, or pieces of long ones, in a step.
        max_length: events in a piece.
        patience: stop after this many epochs without a lower validation loss, and take the best weights;
            ``None`` for never.
        num_tokens: how many tokens there are; by default one more than the largest in training. Larger ones
            count as ``UNSEEN``, which is 0.
        seed: decides initial weights, hold-out, order and dropout.

    Attributes:
        net_: the net, after :meth:`fit`.
        history_: what was measured while training; empty after :meth:`load`.
        threshold_: sessions with a higher score are flagged; ``None`` until :meth:`calibrate`.

    Example:
        >>> tokens, sessions = np.array([1, 2, 3] * 20), np.repeat(np.arange(20), 3)
        >>> model = SequenceAnomalyDetector("tokens", hidden=8).fit(None, tokens, sessions, epochs=2)
        >>> model.score(None, tokens[:5], sessions[:5]).shape
        (2,)
    """

    def __init__(
        self,
        inputs: Inputs = "tokens",
        *,
        task: Task = "next",
        memory: bool = True,
        hidden: int = 64,
        layers: int = 1,
        dropout: float = 0.3,
        input_dropout: float = 0.0,
        aggregate: Aggregate = "top",
        top: int = 3,
        lr: float = 0.01,
        weight_decay: float = 0.0,
        batch_size: int = 64,
        max_length: int = 64,
        patience: int | None = 5,
        num_tokens: int | None = None,
        seed: int = 0,
    ) -> None:
        self.inputs, self.task, self.memory = inputs, task, memory
        self.hidden, self.layers = hidden, layers
        self.dropout, self.input_dropout = dropout, input_dropout
        self.aggregate, self.top = aggregate, top
        self.lr, self.weight_decay, self.batch_size = lr, weight_decay, batch_size
        self.max_length, self.patience, self.num_tokens, self.seed = max_length, patience, num_tokens, seed

    # ------------------------------------------------------------ learning

    def fit(
        self,
        vectors: np.ndarray | None,
        tokens: np.ndarray,
        sessions: np.ndarray,
        *,
        epochs: int = 20,
        validation: float = 0.1,
        compute: Compute | None = None,
        checkpoint: Path | None = None,
        progress: str | None = None,
        stop_after: int | None = None,
    ) -> SequenceAnomalyDetector:
        """Learn to expect the events of normal sessions.

        Args:
            vectors: float (N, d) of the events; not looked at, and may be ``None``, if the inputs are tokens.
            tokens: integers (N,), at least 0, in the order of their times within each session.
            sessions: integers (N,), which session each event belongs to; they may be interleaved.
            epochs: passes over the sessions, at most.
            validation: the share of the sessions, drawn at random, that is held out for early stopping; 0 for
                none.
            compute: device and precision; by default the best device, in float32.
            checkpoint: a file to write checkpoints to, and to continue from if it is there.
            progress: the label of a progress bar; ``None`` for no bar.
            stop_after: leave after this many steps, to look at the start only.

        Returns:
            The model itself.

        Raises:
            SequenceError: if the arguments do not fit each other or are out of range, or there are fewer than
                two sessions to learn from.
            VectorError: if vectors hold NaN or infinity, or have not two axes.
        """
        self._check_settings(epochs, validation)
        tokens, layout = checked_tokens(tokens, sessions, least=1)
        self.width_ = 0
        if self.inputs != "tokens":
            checked = self._vectors(vectors, len(tokens))
            self.width_ = checked.shape[1]
            self.mean_ = checked.mean(axis=0, dtype=np.float64).astype(np.float32)
            self.scale_ = checked.std(axis=0, dtype=np.float64).astype(np.float32)
            self.scale_[self.scale_ < 1e-6] = 1.0
        self.size_ = self.num_tokens or int(tokens.max()) + 1
        self.threshold_: float | None = None
        learn, kept = self._split(layout, validation)
        self.net_ = self._build()
        compute = compute or pick_compute(precision="float32")
        steps = max(1, len(learn) // self.batch_size)
        config = FitConfig(
            num_steps=epochs * steps,
            batch_size=self.batch_size,
            lr=self.lr,
            optimizer="adamw",
            schedule="cosine",
            weight_decay=self.weight_decay,
            eval_every=steps,
            checkpoint_every=10 * steps,
            patience=None if len(kept) == 0 else self.patience,
        )
        objective = self._data(vectors, tokens)
        seen = objective.tokens if objective.vectors is None else objective.vectors
        digest = hashlib.sha256(tokens.tobytes() + layout.order.tobytes() + seen.numpy().tobytes())
        self.history_ = train(
            self.net_,
            (learn,),
            objective,
            config,
            compute=compute,
            seed=self.seed,
            evaluation=None
            if len(kept) == 0
            else lambda net: evaluate(net, (kept,), objective, compute, batch_size=256),
            checkpoint=checkpoint,
            identity=f"{json.dumps(self.get_params(), default=float)} {digest.hexdigest()}",
            progress=progress,
            stop_after=stop_after,
        )
        self.net_.eval()
        return self

    def _check_settings(self, epochs: int, validation: float) -> None:
        if self.inputs not in ("tokens", "vectors", "both"):
            raise SequenceError(f"inputs are 'tokens', 'vectors' or 'both', not {self.inputs!r}")
        if min(epochs, self.batch_size, self.max_length) < 1 or not 0 <= validation < 1:
            raise SequenceError(
                "need an epoch, a batch_size and max_length of at least 1 and validation from 0 to below 1, "
                f"not {epochs}, {self.batch_size}, {self.max_length} and {validation}"
            )
        check_aggregate(self.aggregate, self.top)

    def _split(self, layout: Layout, validation: float) -> tuple[Tensor, Tensor]:
        """Pieces to learn from and pieces of sessions that are held out."""
        count = len(layout.names)
        cut = max(1, round(validation * count)) if validation > 0 else 0
        if count - cut < 2:
            raise SequenceError(f"too few sessions: {count}, of which {cut} are held out, and 2 must be left")
        drawn = np.random.default_rng(self.seed).permutation(count)
        parts = []
        for chosen in (np.sort(drawn[cut:]), np.sort(drawn[:cut])):
            starts, lengths = (
                torch.from_numpy(layout.starts[chosen]),
                torch.from_numpy(layout.lengths[chosen]),
            )
            parts.append(pieces(torch.from_numpy(layout.order), starts, lengths, self.max_length))
        return parts[0], parts[1]

    def _build(self) -> NextEventLSTM:
        """The net with its initial weights; the global generator is left as it was."""
        vectors = torch.empty(0, self.width_) if self.width_ else None
        width, context = self._objective(vectors, torch.empty(0, dtype=torch.long)).widths
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            return NextEventLSTM(width, self.size_, self.hidden, self.layers, self.dropout, context)

    def _objective(self, vectors: Tensor | None, tokens: Tensor) -> NextEvent:
        return NextEvent(
            tokens, self.size_, vectors, self.inputs != "vectors", self.task, self.memory, self.input_dropout
        )

    def _data(self, vectors: np.ndarray | None, tokens: np.ndarray) -> NextEvent:
        """What the net reads, float32 (N, d), standardised, and the tokens that it knows, int64 (N,)."""
        known = torch.from_numpy(np.where(tokens < self.size_, tokens, 0))
        if self.inputs == "tokens":
            return self._objective(None, known)
        standard = (self._vectors(vectors, len(tokens)) - self.mean_) / self.scale_
        return self._objective(torch.from_numpy(standard), known)

    def _vectors(self, vectors: np.ndarray | None, count: int) -> np.ndarray:
        if vectors is None:
            raise SequenceError(f"inputs {self.inputs!r} need vectors; without any, take inputs='tokens'")
        checked = checked_vectors(vectors, width=self.width_ or None)
        if len(checked) != count:
            raise SequenceError(f"{count} tokens need as many vectors, not {len(checked)}")
        return checked

    # ------------------------------------------------------------ using

    @torch.inference_mode()
    def surprise(self, vectors: np.ndarray | None, tokens: np.ndarray, sessions: np.ndarray) -> np.ndarray:
        """The negative logarithm of the probability that the net gave to each event, in nats.

        Args:
            vectors: float (N, d), or ``None`` if the inputs are tokens.
            tokens: integers (N,), as in :meth:`fit`.
            sessions: integers (N,).

        Returns:
            float64 (N,), in the order of the events; none for no events.

        Raises:
            SequenceError: if the model is not fitted, or the arguments do not fit it or each other.
            VectorError: if vectors hold NaN or infinity, or have another width.
        """
        if not hasattr(self, "net_"):
            raise SequenceError("fit the model first, or load one")
        tokens, layout = checked_tokens(tokens, sessions)
        out = np.empty(len(tokens))
        if len(tokens) == 0:
            return out
        data, order = self._data(vectors, tokens), torch.from_numpy(layout.order)
        self.net_.eval()
        by_length = np.argsort(layout.lengths, kind="stable")  # so that little is padded
        start = 0
        while start < len(by_length):
            widths = np.minimum(layout.lengths[by_length[start:]], STRETCH)
            fits = int((widths * (np.arange(len(widths)) + 1) <= _BATCH_EVENTS).sum())
            chosen = by_length[start : start + max(1, fits)]
            starts, lengths = (
                torch.from_numpy(layout.starts[chosen]),
                torch.from_numpy(layout.lengths[chosen]),
            )
            rows = pieces(order, starts, lengths, int(lengths.max()))  # (N, 1 + T)
            there = rows[:, 1:] >= 0
            out[rows[:, 1:][there].numpy()] = data.surprises(self.net_, rows)[there].numpy()
            start += len(chosen)
        return out

    def score(self, vectors: np.ndarray | None, tokens: np.ndarray, sessions: np.ndarray) -> np.ndarray:
        """One number for each session: the higher, the more unusual.

        Args:
            vectors: see :meth:`surprise`.
            tokens: likewise.
            sessions: likewise.

        Returns:
            float64 (S,), in the rising order of the session numbers, ``np.unique(sessions)``.

        Raises:
            SequenceError: see :meth:`surprise`.
            VectorError: see :meth:`surprise`.
        """
        surprise = self.surprise(vectors, tokens, sessions)
        return session_scores(surprise, lay_out(sessions), self.aggregate, self.top)

    def calibrate(
        self, vectors: np.ndarray | None, tokens: np.ndarray, sessions: np.ndarray, fpr: float = 0.01
    ) -> SequenceAnomalyDetector:
        """Set ``threshold_`` so that about a share ``fpr`` of normal sessions has a higher score.

        Args:
            vectors: of events that training did not see; see :meth:`surprise`.
            tokens: likewise.
            sessions: likewise.
            fpr: see :func:`companion.detection.thresholds.fixed_fpr`.

        Raises:
            ThresholdError: if there are too few sessions for so small a share.
            SequenceError: see :meth:`surprise`.
        """
        self.threshold_ = fixed_fpr(self.score(vectors, tokens, sessions), fpr)
        return self

    def predict(self, vectors: np.ndarray | None, tokens: np.ndarray, sessions: np.ndarray) -> np.ndarray:
        """Whether each session is flagged: bool (S,), true where the score is above ``threshold_``.

        Raises:
            SequenceError: if :meth:`calibrate` has not been called, or see :meth:`surprise`.
        """
        if getattr(self, "threshold_", None) is None:
            raise SequenceError("there is no threshold yet; calibrate the model on normal sessions first")
        flagged: np.ndarray = self.score(vectors, tokens, sessions) > self.threshold_
        return flagged

    # ------------------------------------------------------------ keeping

    def save(self, path: Path) -> None:
        """Write parameters, weights, standardisation and threshold to one safetensors file.

        Raises:
            SequenceError: if the model is not fitted.
        """
        if not hasattr(self, "net_"):
            raise SequenceError("fit the model first")
        vectors = {"mean": self.mean_.tolist(), "scale": self.scale_.tolist()} if self.width_ else None
        about = {
            "version": _VERSION,
            "parameters": json.loads(json.dumps(self.get_params(), default=lambda number: number.item())),
            "size": self.size_,
            "vectors": vectors,
            "threshold": self.threshold_,
        }
        save_weights(path, self.net_, kind=_KIND, about=json.dumps(about))

    @classmethod
    def load(cls, path: Path, compute: Compute | None = None) -> SequenceAnomalyDetector:
        """Read what :meth:`save` wrote; scores are the same to the last bit on the same device.

        Raises:
            CheckpointError: if the file is missing, damaged, or no model of this kind and version.
        """
        metadata = weights_metadata(path)
        if metadata.get("kind") != _KIND:
            raise CheckpointError(f"{path} holds no {_KIND}")
        try:
            about: dict[str, Any] = json.loads(metadata["about"])
            if about["version"] != _VERSION:
                raise CheckpointError(f"{path} has version {about['version']}, this program reads {_VERSION}")
            model = cls(**about["parameters"])
            model.size_, model.threshold_, vectors = int(about["size"]), about["threshold"], about["vectors"]
            model.width_ = 0 if vectors is None else len(vectors["mean"])
            if vectors is not None:
                model.mean_ = np.asarray(vectors["mean"], dtype=np.float32)
                model.scale_ = np.asarray(vectors["scale"], dtype=np.float32)
            model.net_ = model._build()
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is not a model that can be read: {error}") from error
        load_weights(path, model.net_)
        (compute or pick_compute(precision="float32")).model(model.net_).eval()
        model.history_ = History()
        return model
