"""Residual networks for tables: linear layers where images have convolutions.

Source: Y. Gorishniy, I. Rubachev, V. Khrulkov and A. Babenko, "Revisiting Deep Learning Models for Tabular
Data", NeurIPS 2021, section 3.2; the classic block carries He et al. 2016 over to vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BlockKind = Literal["classic", "prenorm"]
NormKind = Literal["layer", "batch"]


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of vectors that also takes a batch of one while training.

    One row has no spread to normalise by. It is normalised with the running statistics, which stay as
    they are; PyTorch's own layer raises an error there.

    Shapes: (N, features) to the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(x)


def make_norm(kind: NormKind, features: int) -> nn.Module:
    """A norm over vectors of ``features`` numbers.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in ("layer", "batch"):
        raise ValueError(f"the norm is 'layer' or 'batch', not {kind!r}")
    return nn.LayerNorm(features) if kind == "layer" else BatchNorm(features)


class ClassicTabularBlock(nn.Module):
    """``relu(F(x) + x)`` with ``F = norm(linear(dropout(relu(norm(linear(x))))))``.

    Args:
        d_model: features of input and output.
        d_hidden: features inside.
        dropout: share of the hidden features that are dropped while training.
        norm: the kind of norm.
        residual: whether the input is added.
        residual_dropout: share of ``F(x)`` that is dropped while training, before it is added.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        dropout: float = 0.1,
        norm: NormKind = "layer",
        residual: bool = True,
        residual_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_hidden)
        self.norm1 = make_norm(norm, d_hidden)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(d_hidden, d_model)
        self.norm2 = make_norm(norm, d_model)
        self.residual_dropout = nn.Dropout(residual_dropout)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:  # (N, d_model)
        out = self.dropout(F.relu(self.norm1(self.linear1(x))))  # (N, d_hidden)
        out = self.residual_dropout(self.norm2(self.linear2(out)))  # (N, d_model)
        return F.relu(out + x if self.residual else out)


class PreNormTabularBlock(nn.Module):
    """``x + linear(dropout(relu(linear(norm(x)))))`` (Gorishniy et al. 2021, section 3.2).

    Args:
        d_model: features of input and output.
        d_hidden: features inside.
        dropout: share of the hidden features that are dropped while training.
        norm: the kind of norm; the paper's is ``"batch"``.
        residual: whether the input is added.
        residual_dropout: share of the output that is dropped while training, before it is added.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        dropout: float = 0.1,
        norm: NormKind = "layer",
        residual: bool = True,
        residual_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = make_norm(norm, d_model)
        self.linear1 = nn.Linear(d_model, d_hidden)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(d_hidden, d_model)
        self.residual_dropout = nn.Dropout(residual_dropout)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:  # (N, d_model)
        out: Tensor = self.dropout(F.relu(self.linear1(self.norm(x))))  # (N, d_hidden)
        out = self.residual_dropout(self.linear2(out))  # (N, d_model)
        return out + x if self.residual else out


def make_embedding(cardinality: int, features: int) -> nn.Embedding:
    """An embedding whose weights start uniform within ``features ** -0.5`` of 0, as the paper's code has it.

    PyTorch's own start, a normal distribution of width 1, makes categories many times as loud as numbers.
    """
    embedding = nn.Embedding(cardinality, features)
    nn.init.uniform_(embedding.weight, -(features**-0.5), features**-0.5)
    return embedding


class TableInput(nn.Module):
    """Each category looked up in its own embedding, and the numbers put before them.

    Args:
        num_numerical_features: numbers in a row; may be 0.
        categorical_cardinalities: how many indices each categorical column has; may be empty.
        d_embedding: features of each embedding; by default half the cardinality, but 2 to 32.

    Attributes:
        width: features that come out.

    Raises:
        ValueError: if there is no input at all, or a cardinality is not positive.
    """

    def __init__(
        self,
        num_numerical_features: int,
        categorical_cardinalities: Sequence[int],
        d_embedding: int | None = None,
    ) -> None:
        super().__init__()
        if num_numerical_features < 0 or num_numerical_features + len(categorical_cardinalities) == 0:
            raise ValueError("a row needs at least one numerical or categorical feature")
        if min(categorical_cardinalities, default=1) < 1:
            raise ValueError("every cardinality must be at least 1")
        self.num_numerical_features = num_numerical_features
        self.categorical_cardinalities = tuple(categorical_cardinalities)
        sizes = [d_embedding or min(32, max(2, (c + 1) // 2)) for c in categorical_cardinalities]
        self.embeddings = nn.ModuleList(
            make_embedding(c, size) for c, size in zip(categorical_cardinalities, sizes, strict=True)
        )
        self.width = num_numerical_features + sum(sizes)

    def _check(self, numerical: Tensor | None, categorical: Tensor | None) -> None:
        for name, given, columns in (
            ("numerical", numerical, self.num_numerical_features),
            ("categorical", categorical, len(self.categorical_cardinalities)),
        ):
            found = 0 if given is None else given.shape[-1]
            if found != columns or (given is not None and given.ndim != 2):
                shape = "none" if given is None else str(tuple(given.shape))
                raise ValueError(f"{name} features must have the shape (rows, {columns}), not {shape}")
        if categorical is not None and categorical.device.type == "cpu" and categorical.numel():
            limits = torch.tensor(self.categorical_cardinalities)
            if bool((categorical < 0).any()) or bool((categorical >= limits).any()):
                raise ValueError(
                    f"a category's index is outside 0 to {(limits - 1).tolist()} (one limit for each column)"
                )

    def forward(self, numerical: Tensor | None, categorical: Tensor | None = None) -> Tensor:
        """(N, ``width``) of float (N, numbers) and int64 (N, columns); either may be ``None`` if empty.

        Raises:
            ValueError: if a shape is wrong or, on the CPU, an index out of range.
        """
        self._check(numerical, categorical)
        parts = [] if numerical is None else [numerical]
        if categorical is not None:
            parts += [each(categorical[:, i]) for i, each in enumerate(self.embeddings)]  # (N, d_embedding)
        return torch.cat(parts, dim=1)


BLOCKS = {"classic": ClassicTabularBlock, "prenorm": PreNormTabularBlock}


class TabularResNet(nn.Module):
    """A residual network for rows of numbers and categories.

    Each category is looked up in its own embedding. Embeddings and numbers stand side by side, one linear
    layer takes them to ``d_model`` features, blocks follow, then a norm, and a linear head.

    Args:
        num_numerical_features: numbers in a row; may be 0.
        categorical_cardinalities: for each categorical column, how many indices there are, those for
            missing and unseen values included; may be empty.
        d_model: features between the blocks.
        num_blocks: how many blocks; 0 leaves a linear model with a norm.
        dropout: inside the blocks.
        num_classes: outputs of the head; 1 for regression; ``None`` for no head.
        block: ``"prenorm"`` or ``"classic"``.
        norm: ``"layer"`` or ``"batch"``.
        residual: ``False`` for the plain twin.
        d_embedding: features of each embedding; by default half the cardinality, but 2 to 32.
        hidden_multiplier: features inside a block, as a multiple of ``d_model``.
        residual_dropout: at the end of the blocks.

    Raises:
        ValueError: if there is no input at all, or a size is not positive.

    Differences from the paper: the norm may be a layer norm, which does not care how large a batch is. With
    ``block="prenorm", norm="batch"`` and no categories the net is the authors' ``ResNet``.

    Example:
        >>> import torch
        >>> net = TabularResNet(3, [4, 7], d_model=16, num_blocks=2, num_classes=5)
        >>> net(torch.zeros(8, 3), torch.zeros(8, 2, dtype=torch.long)).shape
        torch.Size([8, 5])
    """

    def __init__(
        self,
        num_numerical_features: int,
        categorical_cardinalities: Sequence[int],
        d_model: int = 256,
        num_blocks: int = 6,
        dropout: float = 0.1,
        num_classes: int | None = None,
        *,
        block: BlockKind = "prenorm",
        norm: NormKind = "layer",
        residual: bool = True,
        d_embedding: int | None = None,
        hidden_multiplier: float = 2.0,
        residual_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if d_model < 1 or num_blocks < 0:
            raise ValueError("d_model must be at least 1 and num_blocks at least 0")
        if block not in BLOCKS:
            raise ValueError(f"the block is one of {', '.join(BLOCKS)}, not {block!r}")
        self.input = TableInput(num_numerical_features, categorical_cardinalities, d_embedding)
        self.projection = nn.Linear(self.input.width, d_model)
        d_hidden = int(d_model * hidden_multiplier)
        self.blocks = nn.Sequential(
            *(
                BLOCKS[block](d_model, d_hidden, dropout, norm, residual, residual_dropout)
                for _ in range(num_blocks)
            )
        )
        self.prenorm = block == "prenorm"
        self.norm = make_norm(norm, d_model)
        self.head = None if num_classes is None else nn.Linear(d_model, num_classes)

    def forward(
        self, numerical: Tensor | None, categorical: Tensor | None = None, return_embedding: bool = False
    ) -> Tensor:
        """Logits (N, ``num_classes``), or the rows' embeddings (N, ``d_model``).

        Args:
            numerical: float (N, ``num_numerical_features``), no NaN; ``None`` or (N, 0) if there are none.
            categorical: int64 (N, columns); ``None`` or (N, 0) if there are none.
            return_embedding: whether to return what the head would get; a net without a head does so always.

        Raises:
            ValueError: if a shape is wrong or, on the CPU, an index out of range.
        """
        x = self.projection(self.input(numerical, categorical))  # (N, d_model)
        embedding: Tensor = self.norm(self.blocks(x))  # (N, d_model)
        if self.prenorm:
            embedding = F.relu(embedding)
        if return_embedding or self.head is None:
            return embedding
        logits: Tensor = self.head(embedding)  # (N, num_classes)
        return logits
