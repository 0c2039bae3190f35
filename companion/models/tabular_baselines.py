"""The residual net's baselines on tables, all called as ``net(numerical, categorical)``.

FT-Transformer and the multilayer perceptron are their authors' code (``rtdl_revisiting_models``), and so is
TabM (``tabm``). TabTransformer is put together here from PyTorch's own transformer layers.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from rtdl_num_embeddings import PiecewiseLinearEmbeddings, compute_bins
from rtdl_revisiting_models import MLP, FTTransformer
from tabm import TabM
from torch import Tensor, nn

from companion.models.tabular import TableInput, TabularResNet, make_embedding


class TableMLP(nn.Module):
    """Embeddings and numbers side by side, then linear layers with ReLU and dropout: no shortcut, no norm."""

    def __init__(
        self, num_numerical_features: int, categorical_cardinalities: Sequence[int], num_outputs: int,
        *, d_model: int = 256, num_layers: int = 3, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.input = TableInput(num_numerical_features, categorical_cardinalities)
        sizes = {"d_in": self.input.width, "d_out": num_outputs, "n_blocks": num_layers, "d_block": d_model}
        self.mlp = MLP(**sizes, dropout=dropout)

    def forward(self, numerical: Tensor | None, categorical: Tensor | None = None) -> Tensor:
        return cast(Tensor, self.mlp(self.input(numerical, categorical)))  # (N, num_outputs)


class TabTransformer(nn.Module):
    """Attention between the categories of a row; the numbers pass beside it.

    Each category becomes a token of ``d_token`` features; transformer layers let them look at each other.
    An MLP with hidden layers of 4 and 2 times its input's width takes the tokens and the normalised numbers.

    Source: X. Huang, A. Khetan, M. Cvitkovic and Z. Karnin, "TabTransformer: Tabular Data Modeling Using
    Contextual Embeddings", 2020, section 2; sizes (8 heads among them) from its appendix.

    Differences from the paper: norms stand first, each column has its own table of embeddings, without a part
    that all values of a column share, and there is no pre-training.
    """

    def __init__(
        self, num_numerical_features: int, categorical_cardinalities: Sequence[int], num_outputs: int,
        *, d_token: int = 32, num_layers: int = 6, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embeddings = nn.ModuleList(make_embedding(c, d_token) for c in categorical_cardinalities)
        layer = nn.TransformerEncoderLayer(
            d_token, 8, 4 * d_token, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(num_numerical_features) if num_numerical_features else nn.Identity()
        width = num_numerical_features + d_token * len(categorical_cardinalities)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(4 * width, 2 * width), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(2 * width, num_outputs),
        )  # fmt: skip

    def forward(self, numerical: Tensor | None, categorical: Tensor | None = None) -> Tensor:
        parts = []
        if self.embeddings and categorical is not None:
            pairs = zip(self.embeddings, categorical.unbind(dim=1), strict=True)
            tokens = torch.stack([table(column) for table, column in pairs], 1)
            tokens = self.transformer(tokens)  # (N, columns, d_token)
            parts.append(tokens.flatten(1))  # (N, columns * d_token)
        if numerical is not None:
            parts.append(self.norm(numerical))  # (N, numbers)
        out: Tensor = self.mlp(torch.cat(parts, dim=1))
        return out  # (N, num_outputs)


class Published(nn.Module):
    """An author's net, which wants ``None`` where there are no columns of a kind."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, numerical: Tensor | None, categorical: Tensor | None = None) -> Tensor:
        given = (x if x is not None and x.shape[1] else None for x in (numerical, categorical))
        return cast(Tensor, self.net(*given))


class EmbeddedNumbers(nn.Module):
    """A net that sees the embeddings of a row's numbers, side by side, in their place."""

    def __init__(self, embeddings: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.embeddings, self.net = embeddings, net

    def forward(self, numerical: Tensor, categorical: Tensor | None = None) -> Tensor:
        vectors = self.embeddings(numerical).flatten(1)  # (N, numbers * d)
        return cast(Tensor, self.net(vectors, categorical))


def piecewise_linear(rows: Tensor, d_embedding: int = 8, n_bins: int = 32) -> PiecewiseLinearEmbeddings:
    """Embeddings of numbers that may bend at the quantiles of the training rows (N, numbers).

    Source: Y. Gorishniy, I. Rubachev and A. Babenko, "On Embeddings for Numerical Features in Tabular Deep
    Learning", NeurIPS 2022, section 3.2; version B of their package, which starts linear.
    """
    return PiecewiseLinearEmbeddings(compute_bins(rows, n_bins), d_embedding, activation=False, version="B")


class SoftNeighbors(nn.Module):
    """Training rows answer for a row: the nearer to it in the space of a net, the more.

    ``net`` gives places (N, d) in that space; ``rows`` are all training rows with their targets (numbers, or
    classes if ``num_classes`` are given). The output is that of a net: logarithms of probabilities
    (N, ``num_classes``), or numbers (N, 1). In training a random ``share`` of the training rows is asked,
    afresh in each step, and none answers for a row that is equal to it.

    Source: H.-J. Ye, H.-H. Yin, D.-C. Zhan and W.-L. Chao, "Revisiting Nearest Neighbor for Tabular Data: A
    Deep Tabular Baseline Two Decades Later", ICLR 2025, section 4.
    """

    def __init__(self, net: nn.Module, rows: Sequence[Tensor], num_classes: int | None, share: float) -> None:
        super().__init__()
        self.net, self.share, self.classify = net, share, num_classes is not None
        numbers, categories, target = rows
        answers = target[:, None] if num_classes is None else F.one_hot(target, num_classes).float()
        kept = (nn.Buffer(tensor, persistent=False) for tensor in (numbers, categories, answers))
        self.numbers, self.categories, self.answers = kept

    def forward(self, numerical: Tensor, categorical: Tensor) -> Tensor:
        count, asked = len(self.answers), torch.arange(len(self.answers), device=numerical.device)
        if self.training:
            asked = torch.randperm(count, device=numerical.device)[: int(self.share * count)]
        pairs = [(numerical, self.numbers[asked]), (categorical, self.categories[asked])]
        places = self.net(*map(torch.cat, pairs))  # (N + asked, d)
        distances = torch.cdist(places[: len(numerical)], places[len(numerical) :])  # (N, asked)
        if self.training:
            same = [(mine[:, None] == theirs).all(dim=2) for mine, theirs in pairs]  # (N, asked)
            distances = distances.masked_fill(same[0] & same[1], torch.inf)
        weights = distances.neg().softmax(dim=1)
        answer = weights @ self.answers[asked]  # (N, outputs)
        return answer.clamp_min(1e-7).log() if self.classify else answer


_FT_DEFAULTS = FTTransformer.get_default_kwargs() | {"_is_default": False}
NETS: dict[str, Callable[..., nn.Module]] = {
    "resnet": lambda n, sizes, outputs, **more: TabularResNet(n, sizes, num_classes=outputs, **more),
    "mlp": TableMLP,
    "ft_transformer": lambda n, sizes, outputs, **more: Published(
        FTTransformer(n_cont_features=n, cat_cardinalities=[*sizes], d_out=outputs, **_FT_DEFAULTS | more)
    ),
    "tab_transformer": TabTransformer,
    "tabm": lambda n, sizes, outputs, **more: Published(
        TabM.make(n_num_features=n, cat_cardinalities=[*sizes], d_out=outputs, **more)
    ),
}


def make_table_net(
    kind: str, numbers: int, cardinalities: Sequence[int], num_outputs: int,
    *, num_embeddings: PiecewiseLinearEmbeddings | None = None, **options: Any,
) -> nn.Module:  # fmt: skip
    """A net of a kind in ``NETS`` for rows of a table.

    ``num_embeddings``, such as ``piecewise_linear`` makes, embed the numbers of a ResNet, an MLP or TabM. The
    net takes float (N, ``numbers``) and int64 (N, columns) to (N, outputs), TabM, k nets, to (N, k, outputs).
    """
    if num_embeddings is None:
        return NETS[kind](numbers, cardinalities, num_outputs, **options)
    if kind == "tabm":  # has a place for them
        return NETS[kind](numbers, cardinalities, num_outputs, num_embeddings=num_embeddings, **options)
    width = num_embeddings.get_output_shape().numel()
    return EmbeddedNumbers(num_embeddings, NETS[kind](width, cardinalities, num_outputs, **options))
