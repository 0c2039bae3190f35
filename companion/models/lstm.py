"""A recurrent net that expects the next event of a session.

Sources: the LSTM is that of S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory", Neural Computation,
1997, with the forget gate of F. A. Gers, J. Schmidhuber and F. Cummins, "Learning to Forget: Continual
Prediction with LSTM", 2000. To find anomalies by an event that it did not expect is M. Du, F. Li, G. Zheng
and V. Srikumar, "DeepLog", CCS 2017, section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]


class NextEventLSTM(nn.Module):
    """Logits of the token of every event of a session, from the events before it.

    At step t the LSTM reads the vector of event t - 1, and at the first step a learned ``start``, so that the
    first event too has a probability. There may be a context, c numbers that are known at step t itself, such
    as counts of what the session has had so far; it goes into the LSTM and, past it, into the logits. Padding
    stands behind a session's events, so it cannot reach them and no packing is needed; logits of
    padding are meaningless.

    Shapes: vectors (N, T, d) and context (N, T, c) to logits (N, T, ``num_tokens``), and the state after the
    last step, to go on with the next chunk of a longer session: give it with ``before``, (N, d), the vectors
    of the last events of the chunk before.

    Differences from the paper: DeepLog looks at a window of the last events; this net reads the session from
    its first one.

    Example:
        >>> net = NextEventLSTM(5, 7, hidden=4)
        >>> net(torch.zeros(2, 3, 5))[0].shape
        torch.Size([2, 3, 7])
    """

    def __init__(
        self,
        num_features: int,
        num_tokens: int,
        hidden: int = 128,
        dropout: float = 0.0,
        num_context: int = 0,
    ) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(num_features))
        self.lstm = nn.LSTM(num_features + num_context, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden + num_context, num_tokens)
        with torch.no_grad():  # remember at first: a forget gate of about 0.73
            self.lstm.get_parameter("bias_ih_l0")[hidden : 2 * hidden] = 1.0

    def forward(
        self,
        vectors: Tensor,
        context: Tensor | None = None,
        before: Tensor | None = None,
        state: State | None = None,
    ) -> tuple[Tensor, State]:
        if context is None:
            context = vectors.new_empty(*vectors.shape[:2], 0)
        first = self.start.expand(len(vectors), -1) if before is None else before  # (N, d)
        shifted = torch.cat([first[:, None].to(vectors.dtype), vectors[:, :-1]], dim=1)  # (N, T, d)
        features, after = self.lstm(torch.cat([shifted, context], dim=2), state)  # (N, T, hidden)
        logits: Tensor = self.head(torch.cat([self.dropout(features), context], dim=2))
        return logits, after
