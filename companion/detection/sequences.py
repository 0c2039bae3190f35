"""Detectors for sequences of tokens that count instead of learning weights: the rivals of a net.

Each learns from normal sessions with ``fit(tokens, sessions)`` and gives ``score(tokens, sessions)``, one
number for each session, higher for the unusual. Events stand in the order of their times; sessions may be
interleaved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from companion.detection.vectors import NeighborIndex

Aggregate = Literal["mean", "max", "top"]
"""How the surprises of a session's events become its score, see :func:`session_scores`."""
Task = Literal["next", "order"]
"""What has to be found, the next event among all kinds or among those that the session has left."""
_EVENTS = 4096  # whose whole distribution is held at once, or those of one session if it has more


class SequenceError(ValueError):
    """Tokens, sessions or settings that a detector of sequences cannot take; the message says why."""


@dataclass(frozen=True)
class Layout:
    """Which events belong to which session.

    Attributes:
        names: int64 (S,), the different session numbers, rising.
        order: int64 (N,), the events session by session, and within each in the order in which they came.
        starts: int64 (S,), where in ``order`` each session begins.
        lengths: int64 (S,), how many events it has; at least 1.
    """

    names: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def places(self) -> np.ndarray:
        """int64 (N,), for each entry of ``order`` its place in its session, from 0."""
        places: np.ndarray = np.arange(len(self.order)) - np.repeat(self.starts, self.lengths)
        return places


def lay_out(sessions: np.ndarray) -> Layout:
    """Put the events of each session together.

    Args:
        sessions: integers (N,), in any order.

    Raises:
        SequenceError: if they are not integers, or have not one axis.

    Example:
        >>> lay_out(np.array([7, 3, 7])).order.tolist()
        [1, 0, 2]
    """
    array = _integers(sessions, "sessions")
    order = np.argsort(array, kind="stable")
    names, starts, lengths = np.unique(array[order], return_index=True, return_counts=True)
    return Layout(names, order, starts.astype(np.int64), lengths.astype(np.int64))


def _integers(values: np.ndarray, what: str) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim == 1 and array.size == 0:
        array = np.empty(0, dtype=np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise SequenceError(f"{what} are integers (N,), not {array.dtype} {array.shape}")
    numbers: np.ndarray = array.astype(np.int64)
    return numbers


def checked_tokens(tokens: np.ndarray, sessions: np.ndarray, least: int = 0) -> tuple[np.ndarray, Layout]:
    """Tokens as int64 (N,), with the layout of their sessions.

    Raises:
        SequenceError: if they are not integers (N,) both, a token is negative, or there are fewer events than
            ``least``.
    """
    array, layout = _integers(tokens, "tokens"), lay_out(sessions)
    if len(array) != len(layout.order):
        raise SequenceError(f"{len(array)} tokens need as many sessions, not {len(layout.order)}")
    if len(array) < least:
        raise SequenceError("there are no events to learn from")
    if len(array) and array.min() < 0:
        raise SequenceError(f"tokens count from 0; there is a {array.min()}")
    return array, layout


def check_aggregate(aggregate: Aggregate, top: int) -> None:
    """Refuse what :func:`session_scores` would.

    Raises:
        SequenceError: for another aggregate, or a top below 1.
    """
    if aggregate not in ("mean", "max", "top") or top < 1:
        raise SequenceError(f"aggregate 'mean', 'max' or 'top' of at least 1, not {aggregate!r}, {top}")


def session_scores(
    surprise: np.ndarray, sessions: np.ndarray | Layout, aggregate: Aggregate = "mean", top: int = 3
) -> np.ndarray:
    """One score for each session from the surprises of its events.

    Args:
        surprise: float (N,), one for each event.
        sessions: integers (N,), or their layout.
        aggregate: ``"mean"`` of all, ``"max"``, or ``"top"``, the mean of the ``top`` largest, or of all if
            there are fewer.
        top: how many.

    Returns:
        float64 (S,), in the rising order of the session numbers; none for no events.

    Raises:
        SequenceError: if the lengths differ, or an argument is out of range.

    Example:
        >>> session_scores(np.array([1.0, 5.0, 3.0]), np.array([0, 1, 0]), "max").tolist()
        [3.0, 5.0]
    """
    check_aggregate(aggregate, top)
    layout = sessions if isinstance(sessions, Layout) else lay_out(sessions)
    values = np.asarray(surprise, dtype=np.float64)
    if values.shape != layout.order.shape:
        raise SequenceError(f"{len(layout.order)} events need as many surprises, not {values.shape}")
    if len(values) == 0:
        return np.empty(0)
    owner = np.repeat(np.arange(len(layout.names)), layout.lengths)
    by_size = np.lexsort((-values[layout.order], owner))  # largest first in each session
    ranked = values[layout.order][by_size]
    most = {"mean": len(values), "max": 1, "top": top}[aggregate]
    counted = layout.places() < most
    total = np.bincount(owner, np.where(counted, ranked, 0))
    scores: np.ndarray = total / np.minimum(layout.lengths, most)
    return scores


# ---------------------------------------------------------------- n-grams


class NgramModel:
    """How likely each event is after the few before it, by counting.

    The probability of token w after the history h is that of Witten and Bell, interpolated over all lengths
    of the history (I. H. Witten and T. C. Bell, "The Zero-Frequency Problem: Estimating the Probabilities of
    Novel Events in Adaptive Text Compression", IEEE Transactions on Information Theory, 1991, method C; in
    this form in S. F. Chen and J. Goodman, "An Empirical Study of Smoothing Techniques for Language
    Modeling", 1999, section 2.5):

    ``p(w | h) = (count(h w) + kinds(h) p(w | h')) / (count(h) + kinds(h))``,

    where ``kinds(h)`` is how many different tokens followed h in training, and h' is h without its oldest
    token. A history that training never had gives way to h'. Below the empty history stands the uniform
    distribution, so every token has a probability above 0. Sessions begin with a start symbol.

    With ``task="order"`` the same probabilities are shared out among the events that the session has left:
    the surprise is at which of them comes now. So what is rare surprises only if it stands in the wrong
    place, and a session can be judged when it is over. One of k events takes memory for k times the tokens.

    Args:
        order: events in an n-gram: 1 for no history, 2 for the event before, and so on.
        task: see above; ``"next"`` for the plain probability.
        aggregate: see :func:`session_scores`.
        top: likewise.
        num_tokens: how many tokens there are; by default one more than the largest in training. Larger ones
            count as ``UNSEEN``, which is 0.

    Raises:
        SequenceError: for an argument out of range.

    Example:
        >>> model = NgramModel(2).fit(np.array([1, 2, 1, 2]), np.array([0, 0, 1, 1]))
        >>> model.probabilities([1]).round(3).tolist()
        [0.037, 0.148, 0.815]
    """

    def __init__(
        self,
        order: int = 3,
        task: Task = "next",
        aggregate: Aggregate = "top",
        top: int = 3,
        num_tokens: int | None = None,
    ) -> None:
        if order < 1 or task not in ("next", "order"):
            raise SequenceError(
                f"need an order of at least 1 and task 'next' or 'order', not {order}, {task!r}"
            )
        check_aggregate(aggregate, top)
        self.order, self.task, self.aggregate, self.top = order, task, aggregate, top
        self.num_tokens = num_tokens

    def fit(self, tokens: np.ndarray, sessions: np.ndarray) -> Self:
        """Count the n-grams of normal sessions.

        Args:
            tokens: integers (N,), at least 0, in the order of their times within each session.
            sessions: integers (N,).

        Raises:
            SequenceError: if there are no events, or the arguments do not fit each other.
        """
        tokens, layout = checked_tokens(tokens, sessions, least=1)
        self.size_ = self.num_tokens or int(tokens.max()) + 1
        stream = self._known(tokens)[layout.order]
        places = layout.places()
        self._contexts: list[np.ndarray] = []  # of each length k: keys (parent, oldest token), rising
        self._pairs: list[np.ndarray] = []  # keys (context, token), rising
        self._counts: list[np.ndarray] = []  # of each pair
        self._totals: list[np.ndarray] = []  # of each context
        self._kinds: list[np.ndarray] = []  # different tokens behind each context
        context = np.zeros(len(stream), dtype=np.int64)
        for k in range(self.order):
            if k > 0:
                keys = context * (self.size_ + 1) + self._before(stream, places, k)
                distinct, context = np.unique(keys, return_inverse=True)
                self._contexts.append(distinct)
            pairs, counts = np.unique(context * self.size_ + stream, return_counts=True)
            self._pairs.append(pairs)
            self._counts.append(counts)
            owner = pairs // self.size_
            self._totals.append(np.bincount(owner, counts))
            self._kinds.append(np.bincount(owner))
        return self

    def _known(self, tokens: np.ndarray) -> np.ndarray:
        return np.where(tokens < self.size_, tokens, 0)

    def _before(self, stream: np.ndarray, places: np.ndarray, k: int) -> np.ndarray:
        """The token ``k`` events before each; the start symbol where the session has none."""
        earlier = np.concatenate([np.zeros(k, dtype=np.int64), stream[:-k]])[: len(stream)]
        return np.where(places >= k, earlier, self.size_)

    def surprise(self, tokens: np.ndarray, sessions: np.ndarray) -> np.ndarray:
        """The negative logarithm of each event's probability, in nats; with ``task="order"`` see above.

        Args:
            tokens: integers (N,), as in :meth:`fit`.
            sessions: integers (N,).

        Returns:
            float64 (N,), in the order of the events.

        Raises:
            SequenceError: if nothing was fitted, or the arguments do not fit each other.
        """
        tokens, layout = self._checked(tokens, sessions)
        stream, places = self._known(tokens)[layout.order], layout.places()
        history = [self._before(stream, places, k) for k in range(1, self.order)]
        chance = self._probability(stream, history)
        if self.task == "order":
            chance = chance / self._left(stream, history, layout)
        surprise = np.empty(len(stream))
        surprise[layout.order] = -np.log(chance)
        return surprise

    def _left(self, stream: np.ndarray, history: list[np.ndarray], layout: Layout) -> np.ndarray:
        """The probability of all events that the session has left, for each that is of this token (N,)."""
        total = np.empty(len(stream))
        ends = layout.starts + layout.lengths
        first = 0
        while first < len(ends):
            fits = int(np.searchsorted(ends, layout.starts[first] + _EVENTS, side="right"))
            last = max(first + 1, fits)  # sessions in this piece
            rows = np.arange(layout.starts[first], ends[last - 1])
            here = np.zeros((len(rows), self.size_))
            here[np.arange(len(rows)), stream[rows]] = 1
            done = here.cumsum(axis=0)
            end = np.repeat(ends[first:last], layout.lengths[first:last]) - 1 - rows[0]
            left = done[end] - done + here  # (n, tokens)
            each = np.tile(np.arange(self.size_), len(rows))
            before = [np.repeat(past[rows], self.size_) for past in history]
            chance = self._probability(each, before).reshape(left.shape)
            total[rows] = (left * chance).sum(axis=1) / left[np.arange(len(rows)), stream[rows]]
            first = last
        return total

    def _checked(self, tokens: np.ndarray, sessions: np.ndarray) -> tuple[np.ndarray, Layout]:
        if not hasattr(self, "size_"):
            raise SequenceError("fit the model first, on normal sessions")
        return checked_tokens(tokens, sessions)

    def _probability(self, stream: np.ndarray, history: list[np.ndarray]) -> np.ndarray:
        """Of each token (N,) after its history, the latest event first; float64 (N,)."""
        chance = np.full(len(stream), 1 / self.size_)
        context = np.zeros(len(stream), dtype=np.int64)  # -1 for one that training never had
        for k in range(self.order):
            if k > 0:
                keys = context * (self.size_ + 1) + history[k - 1]
                context = np.where(context >= 0, _find(self._contexts[k - 1], keys), -1)
            known = np.flatnonzero(context >= 0)
            here = context[known]
            place = _find(self._pairs[k], here * self.size_ + stream[known])
            count = np.where(place >= 0, self._counts[k][place], 0)
            kinds = self._kinds[k][here]
            chance[known] = (count + kinds * chance[known]) / (self._totals[k][here] + kinds)
        return chance

    def probabilities(self, history: list[int]) -> np.ndarray:
        """The probability of every token after the first events of a session: float64 (tokens,), sum 1.

        Args:
            history: all tokens of the session so far, the oldest first.

        Raises:
            SequenceError: if nothing was fitted.
        """
        if not hasattr(self, "size_"):
            raise SequenceError("fit the model first, on normal sessions")
        padded = [self.size_] * self.order + [token if token < self.size_ else 0 for token in history]
        before = [np.full(self.size_, padded[-k]) for k in range(1, self.order)]
        return self._probability(np.arange(self.size_), before)

    def score(self, tokens: np.ndarray, sessions: np.ndarray) -> np.ndarray:
        """One number for each session, float64 (S,) in the rising order of the session numbers.

        Raises:
            SequenceError: see :meth:`surprise`.
        """
        return session_scores(self.surprise(tokens, sessions), sessions, self.aggregate, self.top)


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted key stands among the rising keys; -1 where it does not."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, -1)


# ---------------------------------------------------------------- without an order


class BagOfEvents:
    """What happens in a session, whatever its order: the distance to the nearest normal sessions.

    A session is the square roots of how often it has each token; their Euclidean distance is Hellinger's
    without the division by the length, so that a frequent token does not drown the others. The nearest
    normal sessions are asked for, and not the probability of single events, because a session is strange
    by what it combines. An order alone it cannot see; if it tells order attacks, something else betrays them.

    Args:
        neighbours: how many count, see :class:`companion.detection.vectors.NeighborIndex`.

    Example:
        >>> bag = BagOfEvents(1).fit(np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1]))
        >>> bag.score(np.array([1, 0, 1, 1]), np.array([0, 0, 1, 1])).round(3).tolist()
        [0.0, 1.082]
    """

    def __init__(self, neighbours: int = 5) -> None:
        self.neighbours = neighbours

    def fit(self, tokens: np.ndarray, sessions: np.ndarray) -> Self:
        """Keep the counts of normal sessions; arguments as :meth:`NgramModel.fit`.

        Raises:
            SequenceError: if there are no events, or the arguments do not fit each other.
            VectorError: if there are fewer sessions than neighbours.
        """
        tokens, layout = checked_tokens(tokens, sessions, least=1)
        self.size_ = int(tokens.max()) + 1
        self.index_ = NeighborIndex(self.neighbours).fit(self._counts(tokens, layout))
        return self

    def _counts(self, tokens: np.ndarray, layout: Layout) -> np.ndarray:
        """float32 (S, tokens + 1), square roots of counts; the last is for tokens that training had not."""
        owner = np.repeat(np.arange(len(layout.names)), layout.lengths)
        known = np.minimum(tokens[layout.order], self.size_)
        width = self.size_ + 1
        counts = np.bincount(owner * width + known, minlength=width * len(layout.names))
        return np.sqrt(counts, dtype=np.float32).reshape(-1, width)

    def score(self, tokens: np.ndarray, sessions: np.ndarray) -> np.ndarray:
        """One number for each session, float64 (S,) in the rising order of the session numbers.

        Raises:
            SequenceError: if nothing was fitted, or the arguments do not fit each other.
        """
        if not hasattr(self, "index_"):
            raise SequenceError("fit the detector first, on normal sessions")
        tokens, layout = checked_tokens(tokens, sessions)
        return self.index_.score(self._counts(tokens, layout)) if len(tokens) else np.empty(0)
