"""Learning from sessions without labels: what comes next?

Source: M. Du, F. Li, G. Zheng and V. Srikumar, "DeepLog: Anomaly Detection and Diagnosis from System Logs
through Deep Learning", CCS 2017, section 3.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from companion.objectives.classification import Batch

PADDING = -1  # what stands where a row has no event


def session_rows(sessions: Sequence[np.ndarray], end: int) -> Tensor:
    """Sessions as rows int64 (S, T): the events of each, the token ``end``, and ``PADDING``."""
    ended = [torch.from_numpy(np.append(session, end)) for session in sessions]
    return pad_sequence(ended, batch_first=True, padding_value=PADDING)


@dataclass(frozen=True)
class NextEvent:
    """The negative log-likelihood of every event, and of the session's end, given the events before it.

    A batch is (rows,) as :func:`session_rows` makes them.

    Differences from the paper: DeepLog sees the last ``history`` events only (h, there 10), and knows no end.
    """

    history: int | None = None  #: how many events before it the net sees; ``None`` for all

    def logits(self, model: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (M, ``num_tokens``) and true tokens (M,) of the M events and ends of rows (N, T)."""
        rows = rows[:, : int((rows >= 0).sum(dim=1).max())]
        there, past = rows >= 0, rows
        if self.history is not None:  # windows (M, history + 1), whose last token is to be found
            past = F.pad(rows, (self.history, 0), value=PADDING).unfold(1, self.history + 1, 1)[there]
        distinct, which = torch.unique(past, dim=0, return_inverse=True)  # many of a log are alike
        logits = model(distinct).float()  # (D, T or history + 1, num_tokens)
        return (logits[which][there] if self.history is None else logits[which, -1]), rows[there]

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss`` (nats per event) and ``error`` (share of events that were not thought likeliest)."""
        logits, tokens = self.logits(model, batch[0])
        wrong = (logits.detach().argmax(dim=1) != tokens).float().mean()
        return {"loss": F.cross_entropy(logits, tokens), "error": wrong}


@torch.inference_mode()
def judge(model: nn.Module, rows: Tensor, objective: NextEvent) -> tuple[np.ndarray, np.ndarray]:
    """How surprising each event of rows (S, T) is, and its place among all that might have come.

    Gives two float64 (S, T), 0 for padding: the negative log-likelihood in nats, and the rank, 1 for the
    likeliest token, where that of an event is among events and does not count the end.
    """
    model.eval()
    found, there = torch.zeros(2, *rows.shape, dtype=torch.float64), rows >= 0
    device = next(model.parameters()).device
    for chosen in torch.split(there.sum(dim=1).argsort(stable=True), 256):  # of about one length
        logits, tokens = objective.logits(model, rows[chosen].to(device))
        nats = F.cross_entropy(logits.double(), tokens, reduction="none")
        logits[tokens != logits.shape[1] - 1, -1] = -torch.inf  # the end is the last token
        rank = 1 + (logits > logits.gather(1, tokens[:, None])).sum(dim=1)
        row, place = there[chosen].nonzero(as_tuple=True)
        found[:, chosen[row], place] = torch.stack([nats, rank.double()]).cpu()
    return found[0].numpy(), found[1].numpy()
