"""Learning from sessions without labels: what comes next?

Source: M. Du, F. Li, G. Zheng and V. Srikumar, "DeepLog: Anomaly Detection and Diagnosis from System Logs
through Deep Learning", CCS 2017, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from companion.objectives.classification import Batch

STRETCH = 512
"""Events of a session that are looked at in one forward pass; the state is carried on."""
PADDING, START = -1, -2
"""What stands where a row has no event, and before a session's first event."""
_GROUPS = 4  # parts of a batch that are padded apart


def pieces(order: Tensor, starts: Tensor, lengths: Tensor, most: int) -> Tensor:
    """Sessions as rows of at most ``most`` event numbers, long ones in several rows.

    ``order``, ``starts`` and ``lengths`` are those of a :class:`companion.detection.sequences.Layout`.

    Returns:
        int64 (R, 1 + T), T at most ``most``: first the number of the event before, or ``START``; then those
        of the events; then ``PADDING``.

    Example:
        >>> pieces(torch.arange(4), torch.tensor([0, 1]), torch.tensor([1, 3]), 2).tolist()
        [[-2, 0, -1], [-2, 1, 2], [2, 3, -1]]
    """
    cuts = (lengths + most - 1) // most  # rows of each session
    session = torch.repeat_interleave(torch.arange(len(lengths)), cuts)
    nth = torch.arange(len(session)) - torch.repeat_interleave(cuts.cumsum(0) - cuts, cuts)
    longest = int(lengths.clamp(max=most).max()) if len(lengths) else 0
    place = nth[:, None] * most + torch.arange(-1, longest)  # in the session; (R, 1 + T)
    inside = (place >= 0) & (place < lengths[session][:, None])
    row = (starts[session][:, None] + place).clamp(0, max(len(order) - 1, 0))
    return torch.where(inside, order[row], torch.where(place < 0, START, PADDING))


@dataclass(frozen=True)
class NextEvent:
    """The negative log-likelihood of every event's token, given the events before it in its session.

    A batch is (rows,), int64 (N, 1 + T) as :func:`pieces` makes them: numbers of events whose vectors and
    tokens are kept here, once for all. The net, a ``NextEventLSTM``, reads the vectors of past events, or
    their tokens, one-hot, where there are no vectors; and it is told at every step how often the session has
    had each token so far.

    With ``task="next"`` the net has to find the token among all, as in the paper: what is rare
    surprises wherever it stands. With ``task="order"`` it is told the bag of the session's tokens and has
    to find which of those that are left comes now, so that the surprises of a session sum up to the negative
    logarithm of the probability of its order, given what it is made of. What is rare then surprises only if
    it stands in the wrong place. The bag is known when a session is over, so this judges afterwards.
    """

    tokens: Tensor  #: int64 (N,) of all events
    num_tokens: int  #: how many different ones there are
    vectors: Tensor | None = None  #: float (N, d) of all events; ``None`` for none
    task: Literal["next", "order"] = "next"

    @property
    def widths(self) -> tuple[int, int]:
        """Numbers in what the net reads of an event, and in its context."""
        read = self.num_tokens if self.vectors is None else self.vectors.shape[1]
        return read, self.num_tokens * (2 if self.task == "order" else 1)

    def logits(self, model: nn.Module, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and true tokens of rows (N, 1 + T), ``STRETCH`` events at a time.

        Yields:
            float32 (N, t, ``num_tokens``) and int64 (N, t), on the device of the model; ``PADDING`` where
            there is no event.
        """
        start: Tensor = model.start  # type: ignore[assignment]
        rows, state = rows.to(self.tokens.device), None
        begun = (rows[:, :1] >= 0).to(start.device)
        before = torch.where(begun, self._read(rows[:, :1], start.device)[0][:, 0], start)  # (N, d)
        whole = self._bag(rows[:, 1:]).to(start.device)  # (N, tokens)
        seen = torch.zeros_like(whole)
        for piece in torch.split(rows[:, 1:], STRETCH, dim=1):
            vectors, hot, tokens = self._read(piece, start.device)
            past = seen[:, None] + hot.cumsum(dim=1) - hot  # (N, t, tokens)
            left = (whole[:, None] - past).clamp(min=0)
            context = [past, left] if self.task == "order" else [past]
            told = torch.cat([_told(counts) for counts in context], dim=2)
            logits, state = model(vectors, told, before, state)
            logits = logits.float()
            yield (logits + left.log() if self.task == "order" else logits), tokens
            before, seen = vectors[:, -1], seen + hot.sum(dim=1)

    def _read(self, events: Tensor, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """What the net reads (N, t, d), tokens one-hot (N, t, tokens), and tokens (N, t)."""
        there, place = events >= 0, events.clamp(min=0)
        tokens = torch.where(there, self.tokens[place], PADDING).to(device)
        hot = F.one_hot(tokens.clamp(min=0), self.num_tokens).float() * (tokens >= 0)[:, :, None]
        read = hot if self.vectors is None else (self.vectors[place] * there[:, :, None]).to(device)
        return read, hot, tokens

    def _bag(self, events: Tensor) -> Tensor:
        """How often each token stands in each row: float32 (N, tokens)."""
        bag = torch.zeros(len(events), self.num_tokens, device=events.device)
        return bag.scatter_add_(1, self.tokens[events.clamp(min=0)], (events >= 0).float())

    def surprises(self, model: nn.Module, rows: Tensor) -> Tensor:
        """The negative log-likelihood of every event in nats: float64 (N, T) on the CPU, 0 for padding."""
        parts = [
            F.cross_entropy(logits.double().mT, tokens, ignore_index=PADDING, reduction="none").cpu()
            for logits, tokens in self.logits(model, rows)
        ]
        return torch.cat(parts, dim=1)

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss`` (nats per event) and ``error`` (share of events that were not thought likeliest)."""
        rows = batch[0]
        lengths = (rows[:, 1:] >= 0).sum(dim=1)
        total = wrong = torch.zeros((), device=rows.device)
        # sessions of about one length go together, so that little is padded
        for part in lengths.argsort(descending=True, stable=True).tensor_split(_GROUPS):
            if len(part) == 0:
                continue
            for logits, tokens in self.logits(model, rows[part, : 1 + int(lengths[part[0]])]):
                there = tokens >= 0
                total = total + F.cross_entropy(logits[there], tokens[there], reduction="sum")
                wrong = wrong + (logits.detach()[there].argmax(dim=1) != tokens[there]).sum()
        return {"loss": total / lengths.sum(), "error": wrong / lengths.sum()}


def _told(counts: Tensor) -> Tensor:
    """Counts as the net is told them: 0 for none, 1 for one, and from there their logarithm more."""
    return torch.where(counts > 0, 1 + counts.clamp(min=1).log(), 0.0)
