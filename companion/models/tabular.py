"""Residual networks for tables: linear layers where images have convolutions.

Source: Y. Gorishniy, I. Rubachev, V. Khrulkov and A. Babenko, "Revisiting Deep Learning Models for Tabular
Data", NeurIPS 2021, section 3.2; the classic block carries He et al. 2016 over to vectors.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormKind = Literal["layer", "batch"]
Norm = type[nn.LayerNorm | nn.BatchNorm1d]
NORMS: dict[str, Norm] = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}


class PreNormTabularBlock(nn.Module):
    """``x + linear(dropout(relu(linear(norm(x)))))`` (Gorishniy et al. 2021).

    ``d_hidden`` features are inside, of which a share ``dropout`` is dropped in training, and of what is
    added to the input a share ``residual_dropout``. Without ``residual`` the input is not added.
    """

    def __init__(
        self, d_model: int, d_hidden: int, dropout: float = 0.1,
        residual_dropout: float = 0.0, norm: NormKind = "layer",
        residual: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.make_norms(NORMS[norm], d_model, d_hidden)
        self.linear1 = nn.Linear(d_model, d_hidden)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(d_hidden, d_model)
        self.residual_dropout = nn.Dropout(residual_dropout)
        self.residual = residual

    def make_norms(self, norm: Norm, d_model: int, d_hidden: int) -> None:
        self.norm = norm(d_model)

    def forward(self, x: Tensor) -> Tensor:  # (N, d_model)
        out: Tensor = F.relu(self.linear1(self.norm(x)))  # (N, d_hidden)
        out = self.linear2(self.dropout(out))  # (N, d_model)
        out = self.residual_dropout(out)
        return out + x if self.residual else out


class ClassicTabularBlock(PreNormTabularBlock):
    """The basic block of He et al. 2016 over vectors, with dropout.

    ``relu(F(x) + x)``, F = ``norm(linear(dropout(relu(norm(linear(x))))))``; arguments of the pre-norm one.
    """

    def make_norms(self, norm: Norm, d_model: int, d_hidden: int) -> None:
        self.norm1, self.norm2 = norm(d_hidden), norm(d_model)

    def forward(self, x: Tensor) -> Tensor:  # (N, d_model)
        out = F.relu(self.norm1(self.linear1(x)))  # (N, d_hidden)
        out = self.norm2(self.linear2(self.dropout(out)))  # (N, d_model)
        out = self.residual_dropout(out)
        return F.relu(out + x if self.residual else out)


BLOCKS = {"classic": ClassicTabularBlock, "prenorm": PreNormTabularBlock}


def make_embedding(cardinality: int, features: int) -> nn.Embedding:
    """An embedding that starts uniform within ``features ** -0.5`` of 0, as in the paper's code.

    PyTorch's own start, a normal distribution of width 1, makes categories many times as loud as numbers.
    """
    embedding = nn.Embedding(cardinality, features)
    nn.init.uniform_(embedding.weight, -(features**-0.5), features**-0.5)
    return embedding


class TableInput(nn.Module):
    """Each category looked up in its own embedding, and the numbers put before them.

    An embedding has half as many features as its column has indices, but 2 to 32; ``width`` counts all that
    come out. An index out of range is PyTorch's ``IndexError`` on the CPU; the encoder makes none.

    Shapes: float (N, numbers) and int64 (N, columns) to (N, ``width``); either may be ``None`` if empty.
    """

    def __init__(self, num_numerical_features: int, categorical_cardinalities: Sequence[int]) -> None:
        super().__init__()
        sizes = [min(32, max(2, (c + 1) // 2)) for c in categorical_cardinalities]
        self.embeddings = nn.ModuleList(map(make_embedding, categorical_cardinalities, sizes))
        self.width = num_numerical_features + sum(sizes)

    def forward(self, numerical: Tensor | None, categorical: Tensor | None = None) -> Tensor:
        parts = [] if numerical is None else [numerical]
        if categorical is not None:
            columns = categorical.unbind(dim=1)  # one index a row
            for table, column in zip(self.embeddings, columns, strict=True):
                parts.append(table(column))  # (N, features of its embedding)
        return torch.cat(parts, dim=1)  # (N, width)


class TabularResNet(nn.Module):
    """A residual network for rows of numbers and categories.

    Embedded categories and numbers stand side by side, one linear layer takes them to ``d_model`` features,
    blocks with twice as many inside follow, then a norm, and a linear head.

    ``categorical_cardinalities`` tells how many indices each categorical column has, those for missing and
    unseen values included. ``num_classes`` is 1 for regression; without ``residual`` it is the plain twin.

    Shapes: float (N, numbers), without NaN, and int64 (N, columns) to logits (N, ``num_classes``), or to the
    rows' embeddings (N, ``d_model``) with ``return_embedding=True``.

    Differences from the paper: the norm may be a layer norm, which does not care how large a batch is. With
    ``block="prenorm", norm="batch"`` and no categories the net is the authors' ``ResNet``.
    """

    def __init__(
        self, num_numerical_features: int, categorical_cardinalities: Sequence[int],
        d_model: int = 256, num_blocks: int = 6, dropout: float = 0.1,
        num_classes: int = 1, *, block: Literal["classic", "prenorm"] = "prenorm",
        norm: NormKind = "layer", residual: bool = True, residual_dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.input = TableInput(num_numerical_features, categorical_cardinalities)
        self.projection = nn.Linear(self.input.width, d_model)
        self.blocks = nn.Sequential()
        for _ in range(num_blocks):
            sizes, shares = (d_model, 2 * d_model), (dropout, residual_dropout)
            self.blocks.append(BLOCKS[block](*sizes, *shares, norm, residual))
        self.norm = NORMS[norm](d_model)
        self.activation = nn.ReLU() if block == "prenorm" else nn.Identity()
        self.head = nn.Linear(d_model, num_classes)

    def forward(
        self, numerical: Tensor | None, categorical: Tensor | None = None, return_embedding: bool = False
    ) -> Tensor:
        x = self.projection(self.input(numerical, categorical))
        embedding: Tensor = self.activation(self.norm(self.blocks(x)))
        if return_embedding:
            return embedding  # (N, d_model)
        logits: Tensor = self.head(embedding)  # (N, num_classes)
        return logits
