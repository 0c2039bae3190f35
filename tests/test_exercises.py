"""The checker of exercises: right answers pass whatever their names, and wrong ones hear what is wrong."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from companion.exercises import EXERCISES, check
from companion.models.blocks import BasicResidualBlock
from companion.models.resnet import CifarResNet, resnet18

HINTS = [(name, hint) for name, exercise in EXERCISES.items() for hint in exercise.mistakes]


def told(exercise, answer):
    """What the checks say of an answer that is not right."""
    report = check(exercise, answer)
    assert not report.right, report
    return " ".join(report.findings.values())


@pytest.mark.parametrize(("exercise", "hint"), HINTS)
def test_whoever_makes_a_likely_mistake_hears_its_hint(exercise, hint):
    assert hint in told(exercise, EXERCISES[exercise].mistakes[hint])


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_reference_is_right_and_what_is_no_answer_hears_it_in_words(exercise):
    right = check(exercise, EXERCISES[exercise].right)
    assert repr(right).startswith(f"{exercise}: all right\n  right:   ")
    assert len(EXERCISES[exercise].mistakes) <= 2
    call = f"called as {EXERCISES[exercise].call}, it raises TypeError: "
    assert f"{call}'int' object is not callable" in told(exercise, 7)
    assert call in told(exercise, lambda: 7)
    assert "of type str" in told(exercise, lambda *args: "seven")
    assert re.search("of type NoneType|has in the paper", told(exercise, print))


class Mine(nn.Module):
    """A right answer with other names, in another order; subclasses spoil it."""

    bias = False
    always = False
    stride_at = 1

    def __init__(self, in_channels, width, stride):
        super().__init__()
        if in_channels != width or stride != 1 or self.always:
            projection = nn.Conv2d(in_channels, width, 1, stride, bias=False)
            self.way = nn.Sequential(projection, nn.BatchNorm2d(width))
        else:
            self.way = nn.Identity()
        first, second = (stride, 1) if self.stride_at == 1 else (1, stride)
        self.b = nn.Conv2d(width, width, 3, second, 1, bias=self.bias)
        self.a = nn.Conv2d(in_channels, width, 3, first, 1, bias=self.bias)
        self.after_b, self.after_a = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def branch(self, x):
        return self.after_b(self.b(F.relu(self.after_a(self.a(x)))))

    def forward(self, x):
        return F.relu(self.branch(x) + self.way(x))


def stride_as_a_number(net):
    for stage in net.blocks()[1:]:
        stage[0].conv1.stride, stage[0].conv2.stride = 2, 1  # in place of (2, 2) and (1, 1)


def with_small_stem(num_classes):
    net = resnet18(num_classes, stem="cifar")
    net.conv1.stride = (2, 2)
    return net


def attention(Q, K, V, heads):
    n, t, d = Q.shape
    Q, K, V = (x.view(n, t, heads, d // heads) for x in (Q, K, V))
    weights = torch.einsum("nqhd,nkhd->nhqk", Q, K) / (d // heads) ** 0.5
    return torch.einsum("nhqk,nkhd->nqhd", weights.softmax(-1), V).reshape(n, t, d)


def contrastive(a, b, temperature):
    z = torch.cat([a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)])
    losses = []
    for i in range(len(z)):
        s = z @ z[i] / temperature
        rest = [j for j in range(len(z)) if j != i]
        losses.append(s[rest].logsumexp(0) - s[(i + len(a)) % len(z)])
    return torch.stack(losses).mean()


def answered(confidence, right, most_wrong, from_the_best=True):
    best = wrong = 0
    for many, place in enumerate(confidence.sort(descending=from_the_best).indices, start=1):
        wrong += not right[place]
        best = many if wrong <= most_wrong * many + 1e-9 else best
    return best


def cost(scores, anomalous, groups, threshold, miss_cost, harmless=False):
    total = 0
    for name in set(groups):
        flagged, inside = scores[groups == name] > threshold, anomalous[groups == name]
        found = flagged.any() if harmless else (flagged & inside).any()
        total += flagged.any() + miss_cost * (inside.any() and not found)
    return total


def cheapest(labels, scores, miss_cost, beyond=()):
    def cost(threshold):
        flagged = scores > threshold
        return miss_cost * sum(labels[~flagged]) + sum(1 - labels[flagged])

    return min([*scores, *beyond], key=cost)


def threshold_for(normals, fpr, least=1, error=ValueError):
    allowed = math.floor(fpr * (len(normals) + 1) + 1e-9)
    if allowed < least:
        raise error("too few normals")
    return sorted(normals, reverse=True)[allowed - 1]


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        ("residual-block", Mine),
        ("convolution", lambda maps, weight: F.conv2d(maps.double(), weight.double(), padding=1)),
        ("identity-weight", lambda c: np.eye(c)[:, :, None, None] * np.eye(3)[1][:, None] * np.eye(3)[1]),
        ("tokens", lambda x, w, b, c: torch.stack([torch.cat([c[None], row[:, None] * w + b]) for row in x])),
        ("paper-stride", stride_as_a_number),
        ("attention", attention),
        ("nt-xent", contrastive),
        ("refuse", answered),
        ("threshold", threshold_for),
        ("alert-cost", cost),
        ("cheapest-threshold", lambda *given: cheapest(*given, beyond=(-99, 0.05, 99))),
    ],
)
def test_right_answers_are_right(exercise, answer):
    report = check(exercise, answer)
    assert report.right, report


def spoilt(**changes):
    return type("Spoilt", (Mine,), changes)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (lambda *args: "block", "of type str; derive"),
        (lambda i, w, s: Mine(i, w, 1), r"into \(2, 32, 8, 8\), not \(2, 32, 4, 4\)"),
        (spoilt(forward=lambda self, x: F.relu(self.branch(x))), "is the shortcut added"),
        (spoilt(forward=lambda self, x: self.branch(x) + self.way(x)), "ReLUs and the stride"),
        (spoilt(forward=lambda self, x: F.relu(self.branch(x) + 2 * self.way(x))), "is the shortcut added"),
        (spoilt(bias=True), "a bias in front of a norm"),
        (spoilt(always=True), "a projection where the shape stays"),
        (spoilt(stride_at=2), "the stride where they belong"),
        (spoilt(branch=lambda self, x: self.after_b(self.b(self.after_a(F.relu(self.a(x)))))), "convs,"),
    ],
)
def test_a_wrong_block_hears_what_is_wrong(answer, fault):
    assert re.search(fault, told("residual-block", answer))


def strides(first, second, stages=slice(1, None)):
    def change(net):
        for stage in net.blocks()[stages]:
            stage[0].conv1.stride, stage[0].conv2.stride = (first, first), (second, second)

    return change


@pytest.mark.parametrize(
    ("exercise", "answer", "fault"),
    [
        ("pre-activated-block", BasicResidualBlock, "ReLUs and the stride"),
        ("paper-stride", strides(2, 2), "layer2.0.conv2 has in the paper a stride of 1"),
        ("paper-stride", strides(2, 1, slice(None)), "layer1.0.conv1 has in the paper a stride of 1"),
        ("paper-stride", lambda net: setattr(net, "fc", nn.Linear(9, 9, device="meta")), "with its layers"),
        ("resnet-18", lambda n: BasicResidualBlock(3, n), "not (2, 10)"),
        ("resnet-18", lambda n: CifarResNet(20, num_classes=n), "and not 11,173,962"),
        ("resnet-18", with_small_stem, "the stem keeps the size"),
        ("attention", lambda Q, K, V, heads: Q[:, :1], "shape (2, 1, 12), and not (2, 5, 12)"),
        ("attention", lambda Q, K, V, heads: attention(Q, K, V.mul_(2), heads), "changes what it is given"),
        ("attention", lambda Q, K, V, heads: attention(K, Q, V, heads), "and not tensor"),
        ("conv-weights", lambda depth: 7, "with 20 it gives 7, and not 267696"),
        ("refuse", lambda *args: answered(*args, from_the_best=False), "with 0.0625 it gives"),
        ("alert-cost", lambda *args: cost(*args, harmless=True), "it gives"),
        ("cheapest-threshold", lambda y, x, miss: cheapest(y, x, 1), "with 0.5 it gives"),
        ("precision", lambda recall, fpr, share: math.nan, "is something divided by 0"),
        ("threshold", lambda n, fpr: threshold_for(n, fpr, least=0), "50 normals cannot promise"),
        ("threshold", lambda n, fpr: threshold_for(n, fpr, error=IndexError), "raises IndexError"),
        ("nt-xent", lambda a, b, t: contrastive(a, b, t) / (t > 0.01), "do exponentials overflow?"),
        ("nt-xent", lambda a, b, t: contrastive(a, b, t).item(), "an `.item()`"),
        ("nt-xent", lambda a, b, t: contrastive(a.detach(), b, t), "something detached"),
    ],
)
def test_other_mistakes_are_found(exercise, answer, fault):
    assert fault in told(exercise, answer)


def test_checking_leaves_the_random_numbers_alone_and_names_are_checked():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check("residual-block", Mine)
    assert torch.equal(torch.rand(2), expected)
    with pytest.raises(ValueError, match="there are: residual-block, "):
        check("everything", Mine)
