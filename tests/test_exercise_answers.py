"""The exercises with a definite answer: right answers pass, and each likely mistake hears its hint."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from companion.models.resnet import resnet50
from tests.exercise_reports import right, told

# ---------------------------------------------------------------- counts


def conv_weights(depth, kernel=9, first=1, halves=1, half=1):
    n = (depth - 2) // 6 * 2 // half
    total = first * 3 * 16 * kernel + n * 16 * 16 * kernel
    for w in (32, 64):
        total += kernel * (w * w // 2 + (n - 1) * w * w) if halves else kernel * n * w * w
    return total


def test_counted_convolutions():
    right("conv-weights", conv_weights, lambda depth: torch.tensor(conv_weights(depth)))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda depth: conv_weights(depth) + 0.5, "whole numbers"),
        (lambda depth: -conv_weights(depth), "whole numbers"),
        (lambda depth: conv_weights(depth) + 16 + (depth - 2) // 3 * 112, "you count the biases"),
        (lambda depth: conv_weights(depth) + 32 + (depth - 2) // 3 * 224, "you count the norms"),
        (lambda depth: conv_weights(depth) + 640, "linear layer at the end, too"),
        (lambda depth: conv_weights(depth) + 650, "with its biases"),
        (lambda depth: conv_weights(depth) + 682 + (depth - 2) // 3 * 224, "the whole net"),
        (lambda depth: conv_weights(depth, first=0), "from 3 channels to 16"),
        (lambda depth: conv_weights(depth, halves=0), "as many input channels as the stage before"),
        (lambda depth: conv_weights(depth, kernel=1), "a kernel has 9 weights"),
        (lambda depth: conv_weights(depth, half=2), "each block has two convolutions"),
        (lambda depth: 7, "for 20 layers it gives 7, not 267,696"),
        (lambda depth: conv_weights(20), "for 8 layers it gives 267,696"),
    ],
)
def test_miscounted_convolutions(answer, hint):
    assert hint in told("conv-weights", answer)


AS_DEAR = (163**0.5 - 1) / 9


def widths(c, first=2 / 9, second=AS_DEAR):
    return c * first, c * second


def test_widths_of_a_bottleneck():
    right("bottleneck-widths", widths, lambda c: torch.tensor(widths(c)))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda c: widths(c)[0], "numbers of shape (), and not (2,)"),
        (lambda c: widths(c, second=(-math.sqrt(163) - 1) / 9), "a square has two roots"),
        (lambda c: widths(c, 1 / 9), "two 1x1 convolutions, one at each end"),
        (lambda c: widths(c)[::-1], "this one comes first"),
        (lambda c: widths(c, 1 / 4), "the usual quarter"),
        (lambda c: [round(w) for w in widths(c)], "rounded"),
        (lambda c: widths(c, 1), "the 3x3 convolution has 746,496 weights, the others have 165,888"),
        (lambda c: widths(c, second=(math.sqrt(82) - 1) / 9), "a basic block has two 3x3"),
        (lambda c: widths(c, second=(math.sqrt(649) - 1) / 18), "both 1x1 convolutions count"),
        (lambda c: widths(c, second=math.sqrt(2)), "cost something, too"),
        (lambda c: (widths(c)[0], round(widths(c)[1])), "rounded"),
        (lambda c: widths(c, second=1), "has 912,384 weights, not 1,492,992"),
    ],
)
def test_wrong_widths(answer, hint):
    assert hint in told("bottleneck-widths", answer)


def moved(net, stages=slice(1, None), first=2, second=1, third=1):
    for stage in net.blocks()[stages]:
        for conv, stride in ((stage[0].conv1, first), (stage[0].conv2, second), (stage[0].conv3, third)):
            conv.stride = (stride, stride)


def moved_by_numbers(net):
    for stage in net.blocks()[1:]:
        stage[0].conv1.stride, stage[0].conv2.stride = 2, 1  # in place of (2, 2) and (1, 1)


def test_the_stride_of_the_paper():
    def afresh(net):
        with torch.device("meta"):
            other = resnet50()
        moved(other)
        return other

    right("paper-stride", moved, afresh, moved_by_numbers)


def padded(net):
    moved(net)
    net.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False, groups=1, dilation=1, device="meta")
    net.maxpool = nn.MaxPool2d(5, 2, 2)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda net: "paper", "of type str; change the ResNet"),
        (lambda net: setattr(net, "fc", nn.Linear(2048, 9, device="meta")), "weights have other shapes"),
        (lambda net: moved(net, second=2), "has it a stride of 2 twice"),
        (lambda net: moved(net, first=1), "or none"),
        (lambda net: moved(net, slice(None)), "as in the first stage"),
        (lambda net: setattr(net.conv1, "stride", (1, 1)), "the stages give maps of"),
        (lambda net: None, "nothing has changed"),
        (lambda net: moved(net, first=1, third=2), "last convolution; it belongs into the first"),
        (lambda net: moved(net, slice(2, None)), "2 blocks have the stride of 2"),
        (padded, "what else has changed?"),
    ],
)
def test_misplaced_strides(answer, hint):
    assert hint in told("paper-stride", answer)


def block_weights(d, h):
    return 2 * d * h + h + 3 * d


def test_counted_weights_of_a_block():
    right("block-weights", block_weights)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda d, h: 2 * d * h + 2 * d, "the linear layers have biases"),
        (lambda d, h: 2 * d * h + 3 * d, "the first linear layer has a bias"),
        (lambda d, h: 2 * d * h + h + 2 * d, "d are missing"),
        (lambda d, h: 2 * d * h + 2 * h + 2 * d, "as many numbers as its layer has outputs"),
        (lambda d, h: 2 * d * h + h + d, "the layer norm has weights"),
        (lambda d, h: 2 * d * h + 3 * h + d, "over the d features outside"),
        (lambda d, h: 2 * d * h + 3 * h + 3 * d, "one norm, not two"),
        (lambda d, h: d * h + h + 2 * d, "there are two linear layers"),
        (lambda d, h: 66176, "for d = 100 and h = 37 it gives 66,176, not 7,737"),
        (lambda d, h: d, "for d = 128 and h = 256 it gives 128, not 66,176"),
    ],
)
def test_miscounted_weights_of_a_block(answer, hint):
    assert hint in told("block-weights", answer)


# ---------------------------------------------------------------- attention


def attention(Q, K, V, heads, root=0.5, dim=-1, soft=1, length=None, transpose=True, apart=False):
    n, t, d = Q.shape
    shape = (n, t, d // heads, heads) if apart else (n, t, heads, d // heads)
    Q, K, V = ((x.view(shape).mT if apart else x.view(shape)).transpose(1, 2) for x in (Q, K, V))
    weights = torch.einsum("nhqd,nhkd->nhqk", Q, K) / (length or d // heads) ** root
    for _ in range(soft):
        weights = weights.softmax(dim)
    mixed = torch.einsum("nhqk,nhkd->nhqd", weights, V)
    mixed = mixed.transpose(1, 2) if transpose else mixed
    return (mixed.mT if apart else mixed).reshape(n, t, d)


def test_attention_by_hand():
    right("attention", attention)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"length": 12}, "the length of one head's queries"),
        ({"root": 0}, "not divided by the root"),
        ({"root": 1}, "not by the length"),
        ({"dim": -2}, "the wrong axis"),
        ({"soft": 2}, "two softmaxes"),
        ({"soft": 0}, "no softmax"),
        ({"apart": True}, "stand together, not one here"),
        ({"transpose": False}, "transpose before you reshape"),
    ],
)
def test_wrong_attention(change, hint):
    assert hint in told("attention", lambda Q, K, V, heads: attention(Q, K, V, heads, **change))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda Q, K, V, heads: Q[:, :1], "shape (2, 1, 12), and not (2, 5, 12)"),
        (lambda Q, K, V, heads: attention(K, Q, V, heads), "have changed places"),
        (lambda Q, K, V, heads: attention(Q, K, V, 1), "one head over all d numbers"),
        (lambda Q, K, V, heads: Q + K + V, "print the weights of one head"),
        (lambda Q, K, V, heads: attention(Q, K, V, heads) * V.div_(1), "numbers differ"),
        (lambda Q, K, V, heads: attention(Q, K, V.mul_(2), heads), "changes what it is given"),
        (lambda Q, K, V, heads: attention(Q, K, V, heads) * (len(Q) > 1), "to those of other rows"),
    ],
)
def test_other_mistakes_in_attention(answer, hint):
    assert hint in told("attention", answer)


# ---------------------------------------------------------------- NT-Xent


def contrastive(a, b, temperature, itself=False, norm=True, log=True, first=None, partner=True):
    z = torch.cat([a, b])
    if norm:
        z = z / z.norm(dim=1, keepdim=True)
    losses = []
    for i in range(len(z))[:first]:
        p = (i + len(a)) % len(z)
        s = z @ z[i] / temperature
        rest = [j for j in range(len(z)) if (itself or j != i) and (partner or j != p)]
        logarithm = s[p] - s[rest].logsumexp(0)
        losses.append(-logarithm if log else logarithm.exp())
    return torch.stack(losses).mean()


def one_way(a, b, temperature):
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    return F.cross_entropy(a @ b.T / temperature, torch.arange(len(a)))


def overflowing(a, b, temperature):
    z = F.normalize(torch.cat([a, b]), dim=1)
    terms = (z @ z.T / temperature).exp() * (1 - torch.eye(len(z)))
    partner = torch.cat([terms.diagonal(len(a)), terms.diagonal(-len(a))])
    return -(partner / terms.sum(1)).log().mean()


def test_nt_xent_by_hand():
    right("nt-xent", contrastive)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda a, b, t: contrastive(a, b, t, itself=True), "compared with itself"),
        (lambda a, b, t: contrastive(a, b, t, norm=False), "not normalised"),
        (lambda a, b, t: contrastive(a, b, 1 / t), "divided by the temperature"),
        (lambda a, b, t: contrastive(a, b, 1), "temperature is not used"),
        (lambda a, b, t: contrastive(a, b, t) * 2 * len(a), "the mean over the views"),
        (lambda a, b, t: contrastive(a, b, t) * 2, "2N views divided by N"),
        (lambda a, b, t: -contrastive(a, b, t), "the sign is wrong"),
        (one_way, "all 2N - 1 others count"),
        (lambda a, b, t: contrastive(a, b, t, first=len(a)), "only the first N views"),
        (lambda a, b, t: contrastive(a, b, t, partner=False), "belongs into the sum below"),
        (lambda a, b, t: -contrastive(a, b, t, log=False).log(), "before the mean, not after"),
        (lambda a, b, t: contrastive(a, b, t, log=False), "the logarithm is missing"),
        (lambda a, b, t: 1 + contrastive(a, b, t), "at temperature 0.5 it gives"),
        (lambda a, b, t: contrastive(a, b, t) + F.relu(a.norm() - 6), "longer vectors"),
        (overflowing, "exponentials of large numbers overflow"),
        (lambda a, b, t: contrastive(a, b, t) + (t < 0.01), "at temperature 0.001 it gives"),
        (lambda a, b, t: contrastive(a, b, t).item(), "an `.item()`"),
        (lambda a, b, t: contrastive(a.detach(), b, t) + 0 * a.sum(), "something detached"),
        (lambda a, b, t: contrastive(a, b.detach(), t), "something detached"),
        (lambda a, b, t: contrastive(a.clone().detach(), b.requires_grad_(), t), "something detached"),
    ],
)
def test_wrong_nt_xent(answer, hint):
    assert hint in told("nt-xent", answer)


# ---------------------------------------------------------------- indices


def indices(training, asked, min_count, order=sorted, first=2, unseen=1, missing=0, more=0, of=None):
    known = [value for value in training if value is not None]
    kept = [value for value in dict.fromkeys(known) if known.count(value) >= min_count + more]
    kept = order(kept) if of is None else [value for value in order(kept) if value in of]
    return [missing if v is None else first + kept.index(v) if v in kept else unseen for v in asked]


def gaps(training, asked, min_count):
    found, kept = indices(training, asked, 1), indices(training, asked, min_count)
    return [min(k, 1) if k < 2 else f for f, k in zip(found, kept, strict=True)]


def test_indices_by_hand():
    right("category-index", indices, lambda *args: np.array(indices(*args)))


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda t, v, m: dict.fromkeys(v, 1), "of type dict"),
        (lambda t, v, m: indices(t, v, m)[:-1], "shape (6,), and not (7,)"),
        (lambda t, v, m: np.array(indices(t, v, m)) / 2, "an index is a whole number"),
        (lambda t, v, m: indices(t, v, m, first=1), "the first value gets 2"),
        (lambda t, v, m: indices(t, v, m, first=0), "gets 2 and not 0"),
        (lambda t, v, m: indices(t, v, m, unseen=0), "never saw gets index 1"),
        (lambda t, v, m: indices(t, v, m, missing=1), "a missing value gets index 0"),
        (lambda t, v, m: indices(t, v, m, missing=1, unseen=0), "missing and unseen have changed places"),
        (lambda t, v, m: indices(t, v, m, more=1), "exactly `min_count` times"),
        (lambda t, v, m: indices(t, v, 1), "`min_count` is not used"),
        (lambda t, v, m: indices(t, v, m, order=list), "in which values occur"),
        (
            lambda t, v, m: indices(t, v, m, order=lambda kept: sorted(kept, key=t.count, reverse=True)),
            "of how often values occur",
        ),
        (gaps, "rare values left gaps"),
        (lambda t, v, m: indices(t, [x or None for x in v], m), "an empty text is a text"),
        (lambda t, v, m: indices(t, v, m, of=v), "whatever is asked for"),
        (lambda t, v, m: [5 for _ in v], "get [5, 5, 5, 5, 5, 5, 5], not [3, 0, 1, 4, 5, 2, 1]"),
        (lambda t, v, m: [2, 2] if len(v) == 2 else indices(t, v, m), "['astronaut', 'diver'] get"),
        (lambda t, v, m: [2] if v == [None] else indices(t, v, m), "missing values are no category"),
        (lambda t, v, m: t.sort(key=str) or indices(t, v, m), "changes what it is given"),
    ],
)
def test_wrong_indices(answer, hint):
    assert hint in told("category-index", answer)


# ---------------------------------------------------------------- guesses and refusals


def top_k(logits, labels, k):
    rank = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
    return (rank < k).float().mean()


def hits(logits, labels, k, **options):
    return logits.topk(k, dim=1, **options).indices == labels[:, None]


def test_the_first_k_guesses():
    right("top-k", top_k)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda x, y, k: 100 * top_k(x, y, k), "a share lies between 0 and 1"),
        (lambda x, y, k: hits(x, y, k).any(1), "shape (40,), and one number"),
        (lambda x, y, k: hits(x, y, k)[:, -1].float().mean(), "the k-th guess alone"),
        (lambda x, y, k: hits(x, y, k, largest=False).any(1).float().mean(), "the k smallest logits"),
        (lambda x, y, k: top_k(x, y, k - 1), "one guess less"),
        (lambda x, y, k: top_k(x, y, k + 1), "one guess more"),
        (lambda x, y, k: hits(x, y, k).float().mean(), "ask first whether `any`"),
        (lambda x, y, k: 0.5, "for k = 2 it gives 0.5, not"),
        (lambda x, y, k: min(top_k(x, y, k), 0.9), "with all 6 classes as guesses"),
    ],
)
def test_wrong_guesses(answer, hint):
    assert hint in told("top-k", answer)


def answered(confidence, right, most_wrong, descending=True, sort=True):
    order = confidence.sort(descending=descending).indices if sort else range(len(right))
    best = wrong = 0
    for many, place in enumerate(order, start=1):
        wrong += not right[place]
        if wrong <= most_wrong * many + 1e-9:
            best = many
    return best


def stopping(confidence, right, most_wrong):
    wrong = (~right)[confidence.argsort(descending=True)].cumsum(0)
    for many, count in enumerate(wrong.tolist(), start=1):
        if count > most_wrong * many + 1e-9:
            return many - 1
    return len(right)


def of_all(confidence, right, most_wrong):
    wrong = (~right)[confidence.argsort(descending=True)].cumsum(0)
    return int((wrong <= most_wrong * len(right)).sum())


def test_answers_and_refusals():
    right("refuse", answered)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda c, r, m: 65, "it gives 65, and there are 64 images"),
        (stopping, "it stops at the first excess"),
        (of_all, "of the answers that are given"),
        (lambda c, r, m: answered(c, r, m - 1e-6), "at most, not less"),
        (lambda c, r, m: max(answered(c, r, m) - 1, 0), "counted from 0"),
        (lambda c, r, m: len(r) - answered(c, r, m), "how many it passes on"),
        (lambda c, r, m: answered(c, r, m) / len(r), "that is a share"),
        (lambda c, r, m: answered(c, r, m, descending=False), "the least confident"),
        (lambda c, r, m: answered(c, r, m, sort=False), "in no order"),
        (lambda c, r, m: 64, "it answers 64 of 64 images, and not 32"),
        (lambda c, r, m: answered(c, r, m) or 1, "where every answer is wrong it gives 1"),
        (lambda c, r, m: min(answered(c, r, m), len(c) - 1), "where all of 5 answers are right it gives 4"),
    ],
)
def test_wrong_refusals(answer, hint):
    assert hint in told("refuse", answer)
