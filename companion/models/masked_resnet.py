"""A residual network for tables that learns without labels: features to hide, and heads to guess them.

Sources: masking as in J. Yoon et al., "VIME: Extending the Success of Self- and Semi-supervised Learning to
Tabular Domain", NeurIPS 2020, section 4.1, with a mask of its own in the place of draws from the column;
the projection as in T. Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations",
ICML 2020, section 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.models.tabular import TabularResNet

RESOLUTION = 0.1
"""The least standard deviation of a number, as a share of its column's: a bound for what can be won."""


@dataclass(frozen=True)
class Reconstruction:
    """What a net takes the features of its rows to be: a distribution for each."""

    mean: Tensor  # float32 (N, numbers); each number is thought to be normally distributed
    scale: Tensor  # float32 (N, numbers), standard deviations, above RESOLUTION
    logits: tuple[Tensor, ...]  # for each categorical column that was asked for, float32 (N, cardinality)

    def nll(self, numerical: Tensor, categorical: Tensor) -> Tensor:
        """The negative log-likelihood of the true features in nats.

        For a category it is the cross-entropy, for a number x
        ``log(scale / RESOLUTION) + ((x - mean) / scale) ** 2 / 2``: that of
        the normal density without its constants, 0 for a number that is the
        mean where the net is as sure as it can be.

        Takes float (N, numbers) and int64 (N, columns), those that were asked
        for; gives float32 (N, numbers + columns), numbers first.
        """
        error = (numerical.float() - self.mean) / self.scale  # (N, numbers)
        parts = [torch.log(self.scale / RESOLUTION) + error.square() / 2]
        for i, logits in enumerate(self.logits):
            one = F.cross_entropy(logits, categorical[:, i], reduction="none")
            parts.append(one[:, None])  # (N, 1)
        return torch.cat(parts, dim=1)


class SelfSupervisedResNet(nn.Module):
    """A residual net for tables that may be asked about hidden features.

    A hidden category becomes an index of its own, one past the real ones, for which the embedding has a row
    more. A hidden number becomes 0, and beside every number the net gets a second one, 1 where the number is
    hidden; without it a hidden number could not be told from one that is 0. Features are hidden before they
    are embedded, so no trace of them is left.

    The row's embedding goes to linear heads: one for each categorical column, to its logits, and one for all
    numbers, to the mean and the standard deviation of each. Numbers are expected to be standardised.

    Sizes are those of :class:`companion.models.tabular.TabularResNet`; cardinalities do not count the mask.
    ``d_projection`` features has the projection for contrastive learning; ``None`` for none.

    Shapes: float (N, numbers), no NaN except where hidden; int64 (N, columns); and a mask, bool (N, numbers +
    columns), true where a feature is hidden.

    Example:
        >>> net = SelfSupervisedResNet(3, [4, 7], d_model=16, num_blocks=2)
        >>> numbers, categories = torch.zeros(8, 3), torch.zeros(8, 2, dtype=torch.long)
        >>> net.embed(numbers, categories).shape
        torch.Size([8, 16])
        >>> [logits.shape[1] for logits in net(numbers, categories).logits]
        [4, 7]
    """

    mask_index: Tensor  # int64 (columns,), the index of a hidden category in each column
    ignorance: Tensor  # float32 (numbers + columns,), nats of one who knows nothing

    def __init__(
        self,
        num_numerical_features: int,
        categorical_cardinalities: Sequence[int],
        d_model: int = 256,
        num_blocks: int = 6,
        dropout: float = 0.1,
        *,
        d_projection: int | None = None,
    ) -> None:
        super().__init__()
        self.num_numerical_features = num_numerical_features
        self.num_features = num_numerical_features + len(categorical_cardinalities)
        with_mask = [cardinality + 1 for cardinality in categorical_cardinalities]
        self.net = TabularResNet(2 * num_numerical_features, with_mask, d_model, num_blocks, dropout)
        self.numerical_head = (
            nn.Linear(d_model, 2 * num_numerical_features) if num_numerical_features else None
        )
        self.categorical_heads = nn.ModuleList(nn.Linear(d_model, c) for c in categorical_cardinalities)
        self.projector = None
        if d_projection is not None:
            self.projector = nn.Sequential(
                nn.Linear(d_model, d_model), nn.ReLU(), nn.Linear(d_model, d_projection)
            )
        nats = [0.5 - math.log(RESOLUTION)] * num_numerical_features
        nats += [math.log(max(2, cardinality)) for cardinality in categorical_cardinalities]
        indices = torch.tensor(list(categorical_cardinalities), dtype=torch.int64)
        self.register_buffer("mask_index", indices, persistent=False)
        self.register_buffer("ignorance", torch.tensor(nats, dtype=torch.float32), persistent=False)

    def embed(
        self,
        numerical: Tensor,
        categorical: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The rows' embeddings (N, ``d_model``)."""
        split = self.num_numerical_features
        hidden = torch.zeros_like(numerical, dtype=torch.bool)  # (N, numbers)
        if mask is not None:
            hidden = mask[:, :split]
            categorical = categorical.where(~mask[:, split:], self.mask_index)
        shown = numerical.masked_fill(hidden, 0)
        numbers = torch.cat([shown, hidden.to(numerical.dtype)], dim=1)
        embedding: Tensor = self.net(numbers, categorical)
        return embedding

    def forward(
        self,
        numerical: Tensor,
        categorical: Tensor,
        mask: Tensor | None = None,
        columns: Sequence[int] | None = None,
    ) -> Reconstruction:
        """What the rows' features are taken to be, from those that are not hidden.

        ``columns`` are the categorical columns that are asked for, ``None`` for all: with many categories the
        heads cost as much as the net.
        """
        embedding = self.embed(numerical, categorical, mask)  # (N, d_model)
        mean = raw = embedding.new_empty(len(embedding), 0, dtype=torch.float32)
        if self.numerical_head is not None:
            mean, raw = self.numerical_head(embedding).float().chunk(2, dim=1)  # (N, numbers) each
        columns = range(len(self.categorical_heads)) if columns is None else columns
        logits = tuple(self.categorical_heads[i](embedding).float() for i in columns)
        return Reconstruction(mean, RESOLUTION + F.softplus(raw), logits)

    def project(self, embedding: Tensor) -> Tensor:
        """Projections (N, ``d_projection``) of embeddings (N, ``d_model``), for contrastive learning only."""
        assert self.projector is not None, "made without d_projection"
        projection: Tensor = self.projector(embedding)
        return projection
