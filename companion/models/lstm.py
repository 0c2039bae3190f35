"""Nets that expect the next event of a session.

Sources: the LSTM is that of S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory", Neural Computation,
1997, with the forget gate of F. A. Gers, J. Schmidhuber and F. Cummins, "Learning to Forget", 2000, used as
in M. Du, F. Li, G. Zheng and V. Srikumar, "DeepLog", CCS 2017, section 3.1. The transformer is that of
A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def one_hot_past(tokens: Tensor, num_tokens: int) -> Tensor:
    """What a net reads at each step, the token before it: (N, T) to one-hot float32 (N, T, ``num_tokens``).

    Zeros stand at the first step, and where a token is negative, which means that there is no event.
    """
    past = F.pad(tokens[:, :-1], (1, 0), value=-1)  # (N, T)
    return F.one_hot(past.clamp(min=0), num_tokens).float() * (past >= 0)[..., None]


class NextEventLSTM(nn.Module):
    """Two layers of LSTM over one-hot tokens and a linear layer: logits of every token from those before it.

    Shapes: tokens int64 (N, T), negative where there is none, to logits (N, T, ``num_tokens``). Padding
    stands behind a session's events, so it cannot reach them; its logits are meaningless. The sizes are the
    paper's (L = 2, alpha = 64).
    """

    def __init__(self, num_tokens: int, hidden: int = 64, num_layers: int = 2) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.lstm = nn.LSTM(num_tokens, hidden, num_layers, batch_first=True)
        self.head = nn.Linear(hidden, num_tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        features, _ = self.lstm(one_hot_past(tokens, self.num_tokens))  # (N, T, hidden)
        return cast(Tensor, self.head(features))  # (N, T, num_tokens)


class NextEventTransformer(nn.Module):
    """A causal transformer for the same task: each step attends to itself and to those before it.

    The positions are sines and cosines (Vaswani et al. 2017, section 3.5), for sessions may be longer than
    any in training. Shapes as those of :class:`NextEventLSTM`.

    Differences from the paper: the encoder alone, with a causal mask; the norm before each sublayer.
    """

    def __init__(self, num_tokens: int, d_model: int = 64, num_heads: int = 4, num_layers: int = 2) -> None:
        super().__init__()
        self.num_tokens, self.d_model = num_tokens, d_model
        self.embed = nn.Linear(num_tokens, d_model)
        layer = nn.TransformerEncoderLayer(
            d_model, num_heads, 2 * d_model, dropout=0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(d_model), False)
        self.head = nn.Linear(d_model, num_tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        steps, device = tokens.shape[1], tokens.device
        rates = torch.exp(torch.arange(0, self.d_model, 2, device=device) * (-math.log(1e4) / self.d_model))
        angles = torch.arange(steps, device=device)[:, None] * rates  # (T, d_model / 2)
        features = self.embed(one_hot_past(tokens, self.num_tokens))  # (N, T, d_model)
        features = features + torch.cat([angles.sin(), angles.cos()], dim=1)
        mask = nn.Transformer.generate_square_subsequent_mask(steps, device)
        return cast(Tensor, self.head(self.encoder(features, mask, is_causal=True)))  # (N, T, num_tokens)
