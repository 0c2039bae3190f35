"""Learning from sessions without labels: what comes next?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from companion.learning.objectives import Batch

PADDING = -1
"""Stands where a piece of a session has no event."""
START = -2
"""Stands before a session's first event."""


def pieces(order: Tensor, starts: Tensor, lengths: Tensor, most: int) -> Tensor:
    """Sessions as rows of event numbers, long ones in several rows.

    Args:
        order: int64 (N,), event numbers session by session.
        starts: int64 (S,), where in ``order`` each session begins.
        lengths: int64 (S,), each at least 1.
        most: events in a row.

    Returns:
        int64 (R, 1 + T), T at most ``most``: first the number of the event before, or ``START``; then those of
        the events; then ``PADDING``.

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
    events = torch.where(inside, order[row], torch.where(place < 0, START, PADDING))
    return events


@dataclass(frozen=True)
class NextEvent:
    """The cross-entropy of every event's token, given the events before it in its session.

    A batch is (events,), int64 (B, 1 + T) as :func:`pieces` makes them: numbers of events whose vectors and
    tokens are kept here, once for all.

    Attributes:
        vectors: float (N, d) of all events.
        tokens: int64 (N,), likewise.
        input_dropout: the share of the events whose vector the net is not shown while training; zeros stand
            in its place.
    """

    vectors: Tensor
    tokens: Tensor
    input_dropout: float = 0.0

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss`` (nats per event) and ``error`` (share of events that were not thought likeliest)."""
        rows = batch[0].cpu()
        there = rows[:, 1:] != PADDING  # (B, T)
        longest = int(there.sum(dim=1).max())
        rows, there = rows[:, : 1 + longest], there[:, :longest]
        device = batch[0].device
        vectors = self.vectors[rows[:, 1:].clamp(min=0)].to(device)  # (B, T, d)
        if generator is not None and self.input_dropout > 0:
            shown = torch.rand(there.shape, generator=generator) >= self.input_dropout
            vectors = vectors * shown[:, :, None].to(device)
        continued = (rows[:, :1] >= 0).to(device)  # (B, 1)
        before = self.vectors[rows[:, 0].clamp(min=0)].to(device)  # (B, d)
        before = torch.where(continued, before, model.start.to(before.dtype))
        logits = model(vectors, before)[0][there.to(device)].float()  # (events, tokens)
        targets = self.tokens[rows[:, 1:][there]].to(device)
        loss = F.cross_entropy(logits, targets)
        error = (logits.detach().argmax(dim=1) != targets).float().mean()
        return {"loss": loss, "error": error}
