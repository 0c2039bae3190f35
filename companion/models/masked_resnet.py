"""A residual network for tables that learns without labels: features to hide, and heads to guess them.

Sources: masking as in J. Yoon et al., "VIME", NeurIPS 2020, section 4.1, with a mask of its own in the place
of draws from the column; the projection as in T. Chen et al., "A Simple Framework for Contrastive Learning of
Visual Representations", ICML 2020, section 2.1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.models.tabular import PreNormTabularBlock

RESOLUTION = 0.1  # the least standard deviation of a number, as a share of its column's


@dataclass(frozen=True)
class Reconstruction:
    """What a net takes the features of its rows to be: a distribution for each."""

    mean: Tensor  # float32 (N, numbers that were asked for), of normal distributions
    scale: Tensor  # float32 (N, numbers), standard deviations, above RESOLUTION
    logits: Sequence[Tensor]  # float32 (N, size), of each categorical column that was asked for

    def nll(self, numerical: Tensor, categorical: Tensor) -> Tensor:
        """The negative log-likelihood of the true features in nats.

        For a category it is the cross-entropy, for a number x
        ``log(scale / RESOLUTION) + ((x - mean) / scale) ** 2 / 2``: that of the normal density without its
        constants, 0 for a number that is the mean where the net is as sure as it can be. Takes float (N,
        numbers) and int64 (N, columns), those that were asked for; gives float32 (N, numbers + columns).
        """
        error = (numerical.float() - self.mean) / self.scale  # (N, numbers)
        numbers = torch.log(self.scale / RESOLUTION) + error.square() / 2
        pairs = zip(self.logits, categorical.unbind(1), strict=True)
        return torch.column_stack([numbers, *(F.cross_entropy(*pair, reduction="none") for pair in pairs)])


class SelfSupervisedResNet(nn.Module):
    """A residual net for tables that may be asked about hidden features.

    A hidden category becomes an index of its own, one past the real ones. A hidden number becomes 0, and
    beside every number the net gets a second one, 1 where the number is hidden.

    The body is that of :class:`companion.models.tabular.TabularResNet` with pre-norm blocks, but categories
    are embedded in ``d_model`` features at once and added up, as a linear layer over embeddings side by side
    does, too. Linear heads give the logits of all categorical columns, and the mean and the standard
    deviation of each number. Numbers are expected to be standardised.

    ``categorical_cardinalities`` tells how many indices each categorical column has without the mask.
    ``d_projection`` is for contrastive learning, ``None`` for no projection.
    Shapes: float (N, numbers), no NaN except where hidden; int64 (N, columns); and a mask, bool (N, numbers +
    columns), true where a feature is hidden.
    """

    shared = "blocks"  # see companion.processes
    mask_index: Tensor  # int64 (columns,), the index of a hidden category in each column: its cardinality
    first: Tensor  # int64 (columns,), where each column begins in the table of embeddings
    ignorance: Tensor  # float32 (numbers + columns,), nats of one who knows nothing

    def __init__(
        self, num_numerical_features: int, categorical_cardinalities: Sequence[int], d_model: int = 128,
        num_blocks: int = 3, dropout: float = 0.1, *, d_projection: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_numerical_features, self.sizes = num_numerical_features, tuple(categorical_cardinalities)
        self.num_features = num_numerical_features + len(self.sizes)
        indices = torch.tensor(self.sizes, dtype=torch.int64)
        assert num_numerical_features, "a row needs a number; a constant will do"
        self.categories = nn.EmbeddingBag(max(1, int((indices + 1).sum())), d_model, mode="sum")
        nn.init.uniform_(self.categories.weight, -(d_model**-0.5), d_model**-0.5)
        self.numbers = nn.Linear(2 * num_numerical_features, d_model)
        self.blocks = nn.Sequential(
            *(PreNormTabularBlock(d_model, 2 * d_model, dropout) for _ in range(num_blocks))
        )
        self.norm = nn.LayerNorm(d_model)
        self.numerical_head = nn.Linear(d_model, 2 * num_numerical_features)
        self.categorical_head = nn.Linear(d_model, max(1, sum(self.sizes)))
        self.projector = None
        if d_projection is not None:
            self.projector = nn.Sequential(
                nn.Linear(d_model, d_model), nn.ReLU(), nn.Linear(d_model, d_projection)
            )
        nats = [0.5 - math.log(RESOLUTION)] * num_numerical_features
        nats += [math.log(max(2, cardinality)) for cardinality in self.sizes]
        buffers = {"mask_index": indices, "first": (indices + 1).cumsum(0) - indices - 1}
        for name, buffer in (buffers | {"ignorance": torch.tensor(nats, dtype=torch.float32)}).items():
            self.register_buffer(name, buffer, persistent=False)

    def embed(self, numerical: Tensor, categorical: Tensor, mask: Tensor | None = None) -> Tensor:
        """The rows' embeddings (N, ``d_model``)."""
        split = self.num_numerical_features
        hidden = torch.zeros_like(numerical, dtype=torch.bool)  # (N, numbers)
        if mask is not None:
            hidden = mask[:, :split]
            categorical = categorical.where(~mask[:, split:], self.mask_index)
        shown = numerical.masked_fill(hidden, 0)
        x = self.numbers(torch.cat([shown, hidden.to(shown.dtype)], dim=1))
        if self.sizes:
            x = x + self.categories(categorical + self.first)  # (N, d_model)
        return F.relu(self.norm(self.blocks(x)))

    def guess(self, embedding: Tensor, features: Tensor | None = None) -> Reconstruction:
        """What rows with these embeddings are taken to be, in these features: int64, rising, numbers first.

        ``None`` asks for all: with many categories the heads cost as much as the net.
        """
        body, head, split = self.numerical_head, self.categorical_head, self.num_numerical_features
        if features is None:
            whole = head(embedding)[:, : sum(self.sizes)].float()
            both, logits = body(embedding), whole.split(self.sizes, dim=1)
        else:
            numbers, columns = self.split(features)
            own = torch.cat([numbers, numbers + split])  # means, then scales
            both = F.linear(embedding, body.weight[own], body.bias[own])
            starts = [sum(self.sizes[:i]) for i in columns.tolist()]
            places = [slice(start, start + self.sizes[i]) for start, i in zip(starts, columns, strict=True)]
            logits = [F.linear(embedding, head.weight[at], head.bias[at]).float() for at in places]
        mean, raw = both.float().chunk(2, dim=1)  # (N, numbers) each
        return Reconstruction(mean, RESOLUTION + F.softplus(raw), logits)

    def split(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Which numbers, and which categorical columns, the features with these indices are: int64."""
        numbers = features < self.num_numerical_features
        return features[numbers], features[~numbers] - self.num_numerical_features

    def forward(self, numerical: Tensor, categorical: Tensor, mask: Tensor | None = None) -> Reconstruction:
        """What the rows' features are taken to be, from those that are not hidden."""
        return self.guess(self.embed(numerical, categorical, mask))

    def project(self, embedding: Tensor) -> Tensor:
        """Projections (N, ``d_projection``) of embeddings (N, ``d_model``), for contrastive learning only."""
        assert self.projector is not None, "made without d_projection"
        return cast(Tensor, self.projector(embedding))
