"""The exercises that can be checked: ``check("name", answer)`` says whether it is right, and if not, why."""

import math
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.checker import BLOCK, Answer, Exercise, NotYet, Report, kind, near, normals
from companion.detection.thresholds import fixed_fpr
from companion.models.blocks import BasicResidualBlock, BottleneckBlock, PreActResidualBlock
from companion.models.cost import multiply_adds
from companion.models.resnet import CifarResNet, ResNet, count_parameters, resnet18, resnet50
from companion.models.tabular import PreNormTabularBlock
from companion.objectives.encoding import TableEncoder
from companion.objectives.selfsupervised import nt_xent


def check(exercise: str, answer: Any) -> Report:
    """Say whether your answer, a class or a function, is right, and if not, what is wrong.

    Example:
        >>> check("precision", lambda recall, fpr, share: recall / (recall + fpr))
        precision: not yet right
          not yet: precision(recall, fpr, share) gives the numbers of the reference
                   the share of unusual beats is not used
    """
    if exercise not in EXERCISES:
        raise ValueError(f"there is no exercise {exercise!r} to check; there are: {', '.join(EXERCISES)}")
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        return Report(exercise, EXERCISES[exercise].findings(answer))


def _paper_stride(net: ResNet) -> ResNet:
    for stage in net.blocks()[1:]:
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return net


def _moves_stride(answer: Answer, right: Answer) -> None:
    with torch.device("meta"):
        net, wanted = resnet50(), right(resnet50())
    net = net if (given := answer(net)) is None else given  # changed in place, or another one made
    if not isinstance(net, ResNet) or count_parameters(net) != count_parameters(wanted):
        raise NotYet(f"it gives {kind(net)}; give the ResNet that it is given, with its layers")
    layers: dict[str, Any] = dict(net.named_modules())
    for name, conv in wanted.named_modules():  # a stride may be 2, or (2, 2)
        if isinstance(conv, nn.Conv2d) and np.ravel(layers[name].stride)[0] != conv.stride[0]:
            raise NotYet(f"the convolution {name} has in the paper a stride of {conv.stride[0]}")


def _is_resnet18(answer: Answer, right: Answer) -> None:
    with torch.device("meta"):
        mine, theirs = answer(10), right(10)
        if not isinstance(mine, nn.Module):
            raise NotYet(f"it makes {kind(mine)}; derive the class from nn.Module")
        shape = getattr(mine(torch.empty(2, 3, 32, 32)), "shape", None)
    if shape != (2, 10):
        raise NotYet(f"from two images of (3, 32, 32) it makes {shape and tuple(shape)}, not (2, 10)")
    if (many := count_parameters(mine)) != (few := count_parameters(theirs)):
        raise NotYet(f"it has {many:,} weights and not {few:,}; two blocks a stage, one linear layer last")
    if multiply_adds(mine, (1, 3, 32, 32)) != multiply_adds(theirs, (1, 3, 32, 32)):
        raise NotYet("the weights work at other positions; the stem keeps the size, stages 2 to 4 halve it")


def _nesterov(w: Tensor, g: Tensor, v: Tensor, lr: float, m: float, *, ahead: bool = True) -> Tensor:
    v = m * v + g
    return torch.stack([w - lr * (g + m * v if ahead else v), v])


def _convs(make: Answer, biases: bool = False) -> int:
    with torch.device("meta"):
        convs = [m for m in make().modules() if isinstance(m, nn.Conv2d)]
    return sum(conv.weight.numel() + biases * conv.out_channels for conv in convs)


def _price(option: Any) -> int:
    of = {o: _convs(partial(ResNet, BasicResidualBlock, (2,) * 4, shortcut=o)) for o in ("A", option)}
    return of[option] - of["A"]


def _widths(c: float, ones: int = 2, threes: int = 2) -> tuple[float, float]:
    """Where 9 w^2 = ones * c * w, and where 9 w^2 + 2 c w = threes * 9 c^2."""
    return ones * c / 9, (math.sqrt(1 + 81 * threes) - 1) / 9 * c


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int, *, swap: bool = True, **options: Any) -> Tensor:
    one, two, three = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))
    mixed = F.scaled_dot_product_attention(one, two, three, **options)
    return (mixed.transpose(1, 2) if swap else mixed).reshape(q.shape)


def _tokens(x: Tensor, weight: Tensor, bias: Tensor, cls: Tensor) -> Tensor:
    return torch.cat([cls.expand(len(x), 1, -1), x[:, :, None] * weight + bias], dim=1)


def _itself(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    z = F.normalize(torch.cat([a, b]))
    return F.cross_entropy(z @ z.T / temperature, torch.arange(len(z)).roll(len(a)))


def _has_gradients(answer: Answer, right: Answer) -> None:
    gradients: list[list[Tensor]] = []
    for of in (answer, right):
        views = [x.clone().requires_grad_() for x in normals(2, 6, 4)]
        out = of(*views, 0.5)
        if not isinstance(out, Tensor) or out.grad_fn is None:
            raise NotYet("it gives no tensor that gradients could flow back from; is there an `.item()`?")
        out.backward()  # type: ignore[no-untyped-call]
        gradients.append([torch.zeros_like(x) if x.grad is None else x.grad for x in views])
    if not all(map(near, *gradients)):
        raise NotYet("they differ from the original's; is something detached?")


def _index(training: list[Any], values: list[Any], min_count: int) -> np.ndarray:
    encoder = TableEncoder([], ["job"], min_count=min_count).fit(pd.DataFrame({"job": training}))
    return np.ravel(encoder.transform(pd.DataFrame({"job": values}))[1])


def _answered(confidence: Tensor, right: Tensor, most_wrong: float, *, of_all: bool = False) -> int:
    wrong = (~right)[confidence.argsort(descending=True)].cumsum(0)
    given = len(right) if of_all else torch.arange(1, len(right) + 1)
    return max((int(place) + 1 for place in (wrong <= most_wrong * given + 1e-9).nonzero()), default=0)


def _refusals() -> list[tuple[Any, ...]]:
    confidence, right = normals(64).sigmoid(), torch.ones(64, dtype=torch.bool)
    right[confidence.argsort(descending=True)[[2, 24, 32, 36, 40, 44, 48, 49, 50, 51]]] = False
    return [(confidence, right, most) for most in (0.0625, 0.125, 0.09)] + [(confidence, ~right, 0.1)]


def _level(normals: np.ndarray, scores: np.ndarray) -> np.ndarray:
    reach = (normals >= scores[:, None]).sum(axis=1)
    return np.asarray(-np.log10((1 + reach) / (len(normals) + 1)))


def _refuses(answer: Answer, _: Answer) -> None:
    try:
        found = answer(normals(50).numpy(), 0.01)
    except ValueError:
        return
    raise NotYet(f"50 normals cannot promise a rate of 0.01, and it gives {found}; raise a ValueError")


def _lower(threshold: Any, labels: np.ndarray, scores: np.ndarray, of: Answer = min) -> float:
    flagged = scores > float(threshold)
    return float(of([flagged[labels == 1].mean(), (~flagged)[labels == 0].mean()]))


def _best(labels: np.ndarray, scores: np.ndarray, of: Answer = min) -> float:
    return float(max(np.unique(scores), key=lambda t: _lower(t, labels, scores, of)))


def _saved(labels: np.ndarray, miss: float) -> Answer:
    return lambda rates: np.dot(rates, [miss * labels.sum(), (1 - labels).sum()])


def _labelled() -> list[tuple[np.ndarray, np.ndarray]]:
    labels = np.arange(85) % 10 // 7  # three of ten are anomalies
    return [(labels, (normals(85).numpy() * (s + 2 * labels) + 2 * labels).round(1)) for s in (1, 2)]


def _cost(x: Any, anomalous: Any, groups: Any, limit: float, price: float, *, alerts: Any = set) -> float:
    flagged = x > limit
    missed = set(groups[anomalous]) - set(groups[flagged & anomalous])
    return len(alerts(groups[flagged])) + len(missed) * price


def _sessions() -> list[tuple[Any, ...]]:
    groups, scores = np.arange(60) % 12, (normals(60).numpy() * 2).round()
    anomalous = (groups % 3 == 0) & (normals(60, 2)[:, 1].numpy() > 0)
    return [(scores, anomalous, groups, t, cost) for t in (-2.0, 0.0, 1.0, 2.0, 9.0) for cost in (20.0, 3.0)]


_JOBS = ["nurse", "cook", None, "diver", "cook", "nurse", "nurse", "baker", "cook", "nurse", "baker"]
_ASKED = ["cook", None, "astronaut", "diver", "nurse", "baker", ""]
_CALL = "Block(in_channels, width, stride)"
# fmt: off
EXERCISES = {
    "residual-block": Exercise(_CALL, BasicResidualBlock, properties=BLOCK),
    "pre-activated-block": Exercise(_CALL, PreActResidualBlock, properties=BLOCK),
    "bottleneck-block": Exercise(_CALL, BottleneckBlock, properties=BLOCK),
    "paper-stride": Exercise(
        "paper_stride(net)", _paper_stride, properties={"the net is the paper's": _moves_stride}),
    "resnet-18": Exercise(
        "ResNet18(num_classes)", partial(resnet18, stem="cifar"), properties={"it is as ours": _is_resnet18}),
    "nesterov": Exercise(
        "step(weight, gradient, buffer, lr, momentum)", _nesterov,
        lambda: [(*normals(3, 5), lr, m) for lr, m in ((0.1, 0.9), (0.5, 0.5))],
        {"that is plain momentum; look ahead with g + m v": lambda *a: _nesterov(*a, ahead=False),
         "the new gradient counts in full: the buffer is a sum, not a mean":
             lambda w, g, v, lr, m: _nesterov(w, (1 - m) * g, v, lr, m)}),
    "convolution": Exercise(
        "conv(maps, weight)", lambda x, w: F.conv2d(x, w, padding=1),
        lambda: [(normals(2, 3, 7, 5), normals(4, 3, 3, 3))],
        {"here no kernel is turned upside down": lambda x, w: F.conv2d(x, w.flip(2, 3), padding=1)}),
    "identity-weight": Exercise(
        "identity_weight(channels)", lambda c: nn.init.dirac_(torch.empty(c, c, 3, 3)), lambda: [(4,), (7,)],
        {"each channel gets the sum of all": lambda c: F.pad(torch.ones(c, c, 1, 1), (1, 1, 1, 1))},
        lambda weight, c: F.conv2d(normals(2, c, 6, 6).double(), weight, padding=1)),
    "near-identity": Exercise(
        "near_identity(weight, scale)", lambda w, s: nn.init.dirac_(torch.empty_like(w)) + s * w,
        lambda: [(normals(4, 4, 3, 3), 0.1), (normals(7, 7, 3, 3), 0.5)],
        {"only the random weights are scaled": lambda w, s: s * (nn.init.dirac_(torch.empty_like(w)) + w)}),
    "conv-weights": Exercise(
        "weights(depth)", lambda n: _convs(partial(CifarResNet, n)), lambda: [(20,), (8,), (32,), (110,)],
        {"you count biases; a convolution in front of a norm has none":
             lambda n: _convs(partial(CifarResNet, n), biases=True),
         "the first convolution, from 3 channels to 16, is missing":
             lambda n: _convs(partial(CifarResNet, n)) - 3 * 16 * 9}),
    "projections": Exercise(
        "price(option)", _price, lambda: [("A",), ("B",), ("C",)],
        {"B projects where the shape changes, C in every block": lambda o: _price("B" if o == "C" else o)}),
    "projection-growth": Exercise(
        "growth(channels, width)", lambda c, w: (1 + c**2 / (2 * c * w + 9 * w**2), 19 / 18),
        lambda: [(256, 64), (100, 30)]),
    "intensity": Exercise(
        "intensity(batch, channels, side)", lambda n, c, s: 9 * c * n * s**2 / (2 * n * s**2 + 9 * c),
        lambda: [(1, 512, 7), (64, 512, 7), (8, 64, 56)],
        {"the weights are read, too": lambda n, c, s: 4.5 * c}),
    "bottleneck-widths": Exercise(
        "widths(channels)", _widths, lambda: [(288,), (100,)],
        {"there are two 1x1 convolutions, one at each end": lambda c: _widths(c, ones=1),
         "a basic block has two 3x3 convolutions over C channels, not one": lambda c: _widths(c, threes=1)}),
    "block-weights": Exercise(
        "block_weights(d, h)", lambda d, h: count_parameters(PreNormTabularBlock(d, h)),
        lambda: [(128, 256), (100, 37)],
        {"the linear layers have biases, too": lambda d, h: 2 * d * h + 2 * d,
         "a pre-norm block has one norm, not two": lambda d, h: 2 * d * h + 3 * h + 3 * d}),
    "attention": Exercise(
        "attention(Q, K, V, heads)", _attention, lambda: [(*normals(3, 2, 5, 12), heads) for heads in (1, 3)],
        {"the root is of d / heads, a head's length": lambda *a: _attention(*a, scale=12**-0.5),
         "a token's heads stand together; transpose, then reshape": lambda *a: _attention(*a, swap=False)}),
    "tokens": Exercise(
        "tokens(x, weight, bias, cls)", _tokens, lambda: [(normals(4, 3), *normals(2, 3, 6), normals(6))],
        {"each column has vectors of its own": lambda x, w, b, c: _tokens(x, w[:1], b[:1], c),
         "CLS comes first": lambda *a: _tokens(*a).roll(-1, dims=1)}),
    "nt-xent": Exercise(
        "contrastive_loss(a, b, temperature)", nt_xent,
        lambda: [(*normals(2, 6, 4).double(), t) for t in (0.5, 1.0, 0.1, 0.001)],
        {"a view is compared with itself: leave j = i out of the sum": _itself,
         "that is the sum; take the mean over the 2N views": lambda a, b, t: nt_xent(a, b, t) * 2 * len(a)},
        properties={"its gradients are right, for both views": _has_gradients}),
    "category-index": Exercise(
        "indices(training, values, min_count)", _index,
        lambda: [(_JOBS, _ASKED, 1), (_JOBS, _ASKED, 2), (["cook", None, None], [None], 2)],
        {"0 and 1 are taken: the first value gets 2": lambda *a: _index(*a) - (_index(*a) > 1),
         "a value seen `min_count` times has its own index": lambda t, v, many: _index(t, v, many + 1)}),
    "refuse": Exercise(
        "kept(confidence, right, most_wrong)", _answered, _refusals,
        {"the share is of the predictions kept, not of all": lambda *a: _answered(*a, of_all=True)}),
    "precision": Exercise(
        "precision(recall, fpr, share)", lambda r, f, s: r * s / (r * s + f * (1 - s)),
        lambda: [(0.9, 0.01, 0.3), (0.7, 0.05, 0.001), (0.5, 0.0, 0.1), (0.5, 0.1, 1.0)],
        {"the share of unusual beats is not used": lambda r, f, s: r / (r + f),
         "false positives come from the others, a share of 1 - share": lambda r, f, s: r * s / (r * s + f)}),
    "level": Exercise(
        "level(normal_scores, scores)", _level,
        lambda: [(normals(99).numpy(), np.r_[normals(99)[:5].numpy(), 9, -9].astype("f4"))],
        {"that is the natural logarithm; take the logarithm to base 10": lambda *a: _level(*a) * math.log(10),
         "a normal that equals it reaches it": lambda n, x: _level(n, np.nextafter(x, np.float32(99)))}),
    "threshold": Exercise(
        "threshold_for(normal_scores, fpr)", fixed_fpr,
        lambda: [(normals(n).numpy(), fpr) for n, fpr in ((999, 0.01), (250, 0.03), (199, 0.005))],
        {"that is a plain quantile, which promises too much": lambda x, fpr: np.quantile(x, 1 - fpr),
         "a new normal makes n + 1": lambda x, fpr: np.sort(x)[-max(1, math.floor(fpr * len(x) + 1e-9))]},
        properties={"it refuses to promise what too few normals cannot": _refuses}),
    "best-threshold": Exercise(
        "best_threshold(labels, scores)", _best, _labelled,
        {"that is the rate; give the threshold that reaches it": lambda y, x: _lower(_best(y, x), y, x),
         "the sum of both rates is high, but the lower is not": lambda y, x: _best(y, x, sum)}, _lower),
    "cheapest-threshold": Exercise(
        "cheapest(labels, scores, miss_cost)", lambda y, x, miss: _best(y, x, _saved(y, miss)),
        lambda: [(*given, miss) for given in _labelled() for miss in (0.5, 3.0)],
        {"a miss costs miss_cost, a false alarm 1": lambda y, x, miss: _best(y, x, _saved(y, 1 / miss))},
        lambda found, y, x, miss: _lower(found, y, x, _saved(y, miss))),
    "alert-cost": Exercise(
        "cost(scores, anomalous, groups, threshold, miss_cost)", _cost, _sessions,
        {"flagged events of one group are one alert": lambda *a: _cost(*a, alerts=list),
         "a score equal to the threshold is not flagged": lambda x, a, g, t, m: _cost(x, a, g, t - 0.1, m)}),
}
# fmt: on
