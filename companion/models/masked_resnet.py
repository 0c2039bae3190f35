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
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.models.tabular import TabularResNet


@dataclass(frozen=True)
class Reconstruction:
    """What a net takes the features of its rows to be: a distribution for each.

    Attributes:
        mean: float32 (N, numbers); each number is thought to be normally distributed.
        scale: float32 (N, numbers), their standard deviations, above ``resolution``.
        logits: for each categorical column that was asked for, float32 (N, cardinality).
        resolution: the least that ``scale`` can be.
    """

    mean: Tensor
    scale: Tensor
    logits: tuple[Tensor, ...]
    resolution: float

    def surprise(self, numerical: Tensor, categorical: Tensor) -> Tensor:
        """The negative log-likelihood of the true features in nats, at least 0.

        For a category it is the cross-entropy. For a number x it is
        ``log(scale / resolution) + ((x - mean) / scale) ** 2 / 2``, the negative logarithm of the normal
        density without its constants. So it is 0 for a number that is exactly the mean where the net is as
        sure as it can be, as it is for a category of probability 1.

        Args:
            numerical: float (N, numbers).
            categorical: int64 (N, columns), those that were asked for.

        Returns:
            float32 (N, numbers + columns), numbers first.
        """
        error = (numerical.float() - self.mean) / self.scale  # (N, numbers)
        parts = [torch.log(self.scale / self.resolution) + error.square() / 2]
        parts += [
            F.cross_entropy(logits, categorical[:, i], reduction="none")[:, None]  # (N, 1)
            for i, logits in enumerate(self.logits)
        ]
        return torch.cat(parts, dim=1)


class SelfSupervisedResNet(nn.Module):
    """A :class:`companion.models.tabular.TabularResNet` that may be asked about hidden features.

    A hidden category becomes an index of its own, one past the real ones, for which the embedding has a row
    more. A hidden number becomes 0, and beside every number the net gets a second one, 1 where the number is
    hidden. Without it a hidden number could not be told from one that is 0. The projection to ``d_model``
    makes of this second number a learned vector, as the embedding does for a category. Features are hidden
    before they are embedded, so no trace of them is left.

    The row's embedding goes to linear heads: one for each categorical column, to its logits, and one for all
    numbers, to the mean and the standard deviation of each. Numbers are expected to be standardised, as
    ``companion.objectives.encoding`` leaves them.

    Args:
        num_numerical_features: numbers in a row; may be 0.
        categorical_cardinalities: for each categorical column, how many indices there are, those for
            missing and unseen values included, that of the mask not; may be empty.
        d_model: features of a row's embedding.
        num_blocks: how many blocks.
        dropout: inside the blocks.
        d_projection: features of the projection for contrastive learning; ``None`` for none.
        resolution: the least standard deviation of a number, as a share of its column's. It bounds what can
            be won on a number that is easily told.
        **options: other arguments of the residual network.

    Attributes:
        net: the residual network.
        mask_index: int64 (columns,), the index of a hidden category in each column.
        ignorance: float32 (numbers + columns,), nats of surprise for one who knows nothing: for a number
            the expected surprise of the standard normal distribution, for a category the logarithm of the
            cardinality, as if each index were equally likely.

    Raises:
        ValueError: if there is no input at all, or a size is out of range.

    Example:
        >>> import torch
        >>> net = SelfSupervisedResNet(3, [4, 7], d_model=16, num_blocks=2)
        >>> numbers, categories = torch.zeros(8, 3), torch.zeros(8, 2, dtype=torch.long)
        >>> net.embed(numbers, categories).shape
        torch.Size([8, 16])
        >>> [logits.shape[1] for logits in net(numbers, categories).logits]
        [4, 7]
    """

    mask_index: Tensor
    ignorance: Tensor

    def __init__(
        self,
        num_numerical_features: int,
        categorical_cardinalities: Sequence[int],
        d_model: int = 256,
        num_blocks: int = 6,
        dropout: float = 0.1,
        *,
        d_projection: int | None = None,
        resolution: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__()
        if not 0 < resolution < 1:
            raise ValueError(f"the resolution must be between 0 and 1, not {resolution}")
        if d_projection is not None and d_projection < 1:
            raise ValueError(f"d_projection must be at least 1, not {d_projection}")
        if min(categorical_cardinalities, default=1) < 1:
            raise ValueError("every cardinality must be at least 1")
        self.num_numerical_features = num_numerical_features
        self.categorical_cardinalities = tuple(categorical_cardinalities)
        self.resolution = resolution
        with_mask = [cardinality + 1 for cardinality in categorical_cardinalities]
        self.net = TabularResNet(
            2 * num_numerical_features, with_mask, d_model, num_blocks, dropout, num_classes=None, **options
        )
        self.numerical_head = (
            nn.Linear(d_model, 2 * num_numerical_features) if num_numerical_features else None
        )
        self.categorical_heads = nn.ModuleList(nn.Linear(d_model, c) for c in categorical_cardinalities)
        self.projector = (
            None
            if d_projection is None
            else nn.Sequential(nn.Linear(d_model, d_model), nn.ReLU(), nn.Linear(d_model, d_projection))
        )
        self.register_buffer(
            "mask_index", torch.tensor(self.categorical_cardinalities, dtype=torch.int64), persistent=False
        )
        nats = [0.5 - math.log(resolution)] * num_numerical_features
        nats += [math.log(max(2, cardinality)) for cardinality in categorical_cardinalities]
        self.register_buffer("ignorance", torch.tensor(nats, dtype=torch.float32), persistent=False)

    @property
    def num_features(self) -> int:
        """Numbers and categorical columns of a row, in this order."""
        return self.num_numerical_features + len(self.categorical_cardinalities)

    def _check(self, numerical: Tensor, categorical: Tensor, mask: Tensor | None) -> None:
        shapes = [tuple(numerical.shape), tuple(categorical.shape)]
        rows = numerical.shape[0] if numerical.ndim else 0
        wanted = [(rows, self.num_numerical_features), (rows, len(self.categorical_cardinalities))]
        if shapes != wanted:
            raise ValueError(f"numbers and categories must have the shapes {wanted}, not {shapes}")
        if mask is not None and (mask.shape != (rows, self.num_features) or mask.dtype != torch.bool):
            raise ValueError(
                f"the mask must be bool ({rows}, {self.num_features}), not {mask.dtype} {tuple(mask.shape)}"
            )
        if categorical.device.type == "cpu" and bool(
            ((categorical < 0) | (categorical >= self.mask_index)).any()
        ):
            limits = (self.mask_index - 1).tolist()
            raise ValueError(f"a category's index is outside 0 to {limits} (one limit for each column)")

    def embed(self, numerical: Tensor, categorical: Tensor, mask: Tensor | None = None) -> Tensor:
        """The rows' embeddings (N, ``d_model``).

        Args:
            numerical: float (N, numbers), no NaN except where hidden; (N, 0) if there are none.
            categorical: int64 (N, columns); (N, 0) if there are none.
            mask: bool (N, numbers + columns), true where a feature is hidden; ``None`` for nowhere.

        Raises:
            ValueError: if a shape is wrong or, on the CPU, an index out of range, as the mask's own is.
        """
        self._check(numerical, categorical, mask)
        hidden = torch.zeros_like(numerical, dtype=torch.bool)  # (N, numbers)
        if mask is not None:
            hidden = mask[:, : self.num_numerical_features]
            categorical = torch.where(mask[:, self.num_numerical_features :], self.mask_index, categorical)
        numbers = torch.cat([numerical.masked_fill(hidden, 0), hidden.to(numerical.dtype)], dim=1)
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

        Args:
            numerical: see :meth:`embed`.
            categorical: likewise.
            mask: likewise.
            columns: the categorical columns that are asked for; ``None`` for all. With many categories the
                heads cost as much as the net.

        Raises:
            ValueError: as :meth:`embed`.
        """
        embedding = self.embed(numerical, categorical, mask)  # (N, d_model)
        mean = raw = embedding.new_empty(len(embedding), 0, dtype=torch.float32)
        if self.numerical_head is not None:
            mean, raw = self.numerical_head(embedding).float().chunk(2, dim=1)  # (N, numbers) each
        columns = range(len(self.categorical_heads)) if columns is None else columns
        logits = tuple(self.categorical_heads[i](embedding).float() for i in columns)
        return Reconstruction(mean, self.resolution + F.softplus(raw), logits, self.resolution)

    def project(self, embedding: Tensor) -> Tensor:
        """Projections (N, ``d_projection``) of embeddings (N, ``d_model``), for contrastive learning only.

        Raises:
            ValueError: if the net was made without a projection.
        """
        if self.projector is None:
            raise ValueError("this net has no projection; make it with d_projection, such as 128")
        projection: Tensor = self.projector(embedding)
        return projection
