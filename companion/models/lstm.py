"""A recurrent net that expects the next event of a session.

Sources: the LSTM is that of S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory", Neural Computation,
1997, with the forget gate of F. A. Gers, J. Schmidhuber and F. Cummins, "Learning to Forget: Continual
Prediction with LSTM", 2000; to find anomalies by an event that it did not expect is M. Du, F. Li, G. Zheng
and V. Srikumar, "DeepLog: Anomaly Detection and Diagnosis from System Logs through Deep Learning",
CCS 2017, section 3.1. DeepLog looks at a window of the last events; this net reads the session from its
first one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]


class NextEventLSTM(nn.Module):
    """Logits of the token of every event of a session, from the events before it.

    At step t the LSTM reads the vector of event t - 1, and at the first step a learned vector in its place,
    so that the first event too has a probability. The vector of event t itself is not read before its token
    is judged. There may be a context, numbers that are known at step t itself, such as what the session has
    had so far; it goes into the LSTM and, past it, straight into the logits. Since time runs one way only
    and padding stands behind a session's events, nothing that it holds can reach them, and no packing is
    needed; logits of padding are meaningless.

    Args:
        num_features: d, of an event's vector.
        num_tokens: how many tokens there are.
        hidden: features of the LSTM's state.
        layers: how many LSTMs stand on one another.
        dropout: share of the features that are dropped, while training, behind every LSTM.
        num_context: c, numbers of the context; 0 for none.

    Attributes:
        start: float32 (d,), what stands in the place of an event before the first.

    Shapes: (N, T, d) and (N, T, c) to (N, T, ``num_tokens``).

    Raises:
        ValueError: if a size is out of range, or dropout is not from 0 to below 1.

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
        layers: int = 1,
        dropout: float = 0.0,
        num_context: int = 0,
    ) -> None:
        super().__init__()
        if min(num_features, num_tokens, hidden, layers, num_context + 1) < 1 or not 0 <= dropout < 1:
            raise ValueError(
                "sizes must be at least 1 and dropout from 0 to below 1, not "
                f"{num_features}, {num_tokens}, {hidden}, {layers}, {num_context} and {dropout}"
            )
        self.num_features, self.num_tokens, self.num_context = num_features, num_tokens, num_context
        self.start = nn.Parameter(torch.zeros(num_features))
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(num_features + num_context, hidden, layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden + num_context, num_tokens)
        with torch.no_grad():  # remember at first: a forget gate of about 0.73
            for name, bias in self.lstm.named_parameters():
                if name.startswith("bias_ih"):
                    bias[hidden : 2 * hidden] = 1.0

    def forward(
        self,
        vectors: Tensor,
        context: Tensor | None = None,
        before: Tensor | None = None,
        state: State | None = None,
    ) -> tuple[Tensor, State]:
        """Logits of every event's token.

        Args:
            vectors: float (N, T, d), of the events; padding behind them may hold anything finite.
            context: float (N, T, c), if the net has one.
            before: float (N, d), of the events before these, in pieces of longer sessions; the learned start
                if not given.
            state: what an earlier call returned for the piece before; fresh if not given.

        Returns:
            Logits (N, T, ``num_tokens``), and the state after the last step, which is of use where no session
            is padded.

        Raises:
            ValueError: if the vectors are not (N, T, d) with at least one event, or the context is not
                (N, T, c).
        """
        if vectors.ndim != 3 or vectors.shape[2] != self.num_features or 0 in vectors.shape:
            raise ValueError(f"need vectors (N, T, {self.num_features}), not {tuple(vectors.shape)}")
        if context is None:
            context = vectors.new_empty(*vectors.shape[:2], 0)
        if context.shape != (*vectors.shape[:2], self.num_context):
            raise ValueError(f"need a context (N, T, {self.num_context}), not {tuple(context.shape)}")
        first = self.start.expand(len(vectors), -1) if before is None else before  # (N, d)
        shifted = torch.cat([first[:, None].to(vectors.dtype), vectors[:, :-1]], dim=1)  # (N, T, d)
        features, state = self.lstm(torch.cat([shifted, context], dim=2), state)  # (N, T, hidden)
        logits: Tensor = self.head(torch.cat([self.dropout(features), context], dim=2))
        assert state is not None
        return logits, state  # (N, T, num_tokens)
