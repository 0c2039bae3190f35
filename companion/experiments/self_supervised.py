"""Chapter 6: what a net learns of security events without labels, and what each choice does to it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from companion.compute import seed_everything
from companion.detection.detectors import NeighborIndex
from companion.detection.rows import one_hot_vectors
from companion.experiments.base import Config, Context, Experiment, window_means
from companion.experiments.event_data import EventDataConfig, PreparedEvents, generated_info, prepared, rank
from companion.models.masked_resnet import SelfSupervisedResNet
from companion.objectives.classification import Objective
from companion.objectives.selfsupervised import (
    Combined,
    Contrastive,
    MaskedFeatures,
    embed,
    linear_probe,
    neighbor_agreement,
    neighbor_purity,
)
from companion.runs import SeedResult
from companion.training import FitConfig, History, evaluate

ObjectiveName = Literal["masked", "contrastive", "combined"]
OBJECTIVES: tuple[ObjectiveName, ...] = ("masked", "contrastive", "combined")


class PretrainConfig(Config):
    """The net, its objective and its recipe: AdamW with a warm-up and a cosine."""

    objective: ObjectiveName = "masked"  #: what is learned
    mask_rate: float = 0.3  #: of :class:`companion.objectives.selfsupervised.MaskedFeatures`
    corruption_rate: float = 0.3  #: of :class:`companion.objectives.selfsupervised.Contrastive`
    temperature: float = 0.1  #: likewise
    weight: float = 0.5  #: of the contrastive loss beside the masked one
    d_model: int = 128  #: features of an embedding
    num_blocks: int = 3  #: of the net
    dropout: float = 0.1  #: in its blocks
    num_steps: int = 1000  #: optimizer steps
    batch_size: int = 512  #: events in a step
    lr: float = 1e-2  #: the highest learning rate

    def fit(self) -> FitConfig:
        """The recipe."""
        return FitConfig(
            num_steps=self.num_steps, batch_size=self.batch_size, lr=self.lr, optimizer="adamw",
            weight_decay=1e-4, warmup_steps=min(50, self.num_steps // 10), schedule="cosine",
        )  # fmt: skip


class SelfSupervisedConfig(Config):
    """What is trained and how the embeddings are looked at."""

    data: EventDataConfig = EventDataConfig()  #: which events
    net: PretrainConfig = PretrainConfig()  #: the net and its recipe; the objective is set from outside
    members: int = 2  #: trainings of each objective on the same events, from other initial weights
    #: training events that a linear probe learns from, and validation events that test it
    probe_rows: int = 8000
    purity_rows: int = 5000  #: validation events whose neighbours are looked at
    points: int = 60  #: how many points a training curve is averaged down to


def make_net(events: PreparedEvents, config: PretrainConfig, seed: int) -> SelfSupervisedResNet:
    """The untrained net for these events."""
    seed_everything(seed)
    sizes = config.d_model, config.num_blocks, config.dropout
    return SelfSupervisedResNet(events.numerical.shape[1], events.cardinalities, *sizes, d_projection=64)


def make_objective(events: PreparedEvents, config: PretrainConfig) -> Objective:
    """The objective of ``config``; families of fields are hidden or replaced as one."""
    groups = events.features.groups()
    masked = MaskedFeatures(config.mask_rate, groups=groups)
    if config.objective == "masked":
        return masked
    training = events.numerical[events.train], events.categorical[events.train]
    contrastive = Contrastive(*training, config.corruption_rate, config.temperature, groups)
    return contrastive if config.objective == "contrastive" else Combined(masked, contrastive, config.weight)


def train(
    events: PreparedEvents,
    config: PretrainConfig,
    seed: int,
    context: Context,
    name: str,
    result: SeedResult | None = None,
) -> tuple[SelfSupervisedResNet, History]:
    """Train a net on the normal training events."""
    net = make_net(events, config, seed)
    rows = events.numerical[events.train], events.categorical[events.train]
    history = context.fit(name, net, rows, make_objective(events, config), config.fit(), seed, result=result)
    return net.eval(), history


def vectors(
    net: SelfSupervisedResNet, events: PreparedEvents, rows: np.ndarray, context: Context
) -> np.ndarray:
    """The embeddings of some events: float32 (rows, ``d_model``)."""
    return embed(net, events.numerical[rows], events.categorical[rows], compute=context.compute)


def neighbor_scores(reference: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """float64 (N,): the mean distance to the five nearest vectors of ``reference``."""
    return NeighborIndex(min(5, len(reference))).fit(reference).score(asked)


def normal_rows(events: PreparedEvents, rows: np.ndarray) -> np.ndarray:
    """Those of ``rows`` that belong to no attack."""
    normal = events.labels["attack"].isna().to_numpy(dtype=bool)
    return np.asarray(rows[normal[rows]])


def evaluate_embeddings(
    events: PreparedEvents, config: SelfSupervisedConfig, seed: int, spaces: dict[str, list[np.ndarray]]
) -> dict[str, float]:
    """Measure spaces by what they tell of the kind of session that an event belongs to.

    No field holds it, and no net was told. Chance is one over the number of kinds for the probe, and the sum
    of their squared shares for purity. ``spaces`` are by name the vectors of the rows of :func:`probe_rows`.

    Returns:
        ``"<space>.probe"`` and ``"<space>.purity"``, and ``"chance.probe"`` and ``"chance.purity"``.
    """
    known, asked = probe_rows(events, config, seed)
    kinds = events.labels["kind"].to_numpy(dtype=object)
    few = config.purity_rows
    shares = np.unique(kinds[asked[:few]].astype(str), return_counts=True)[1] / len(asked[:few])
    metrics = {"chance.probe": 1 / len(shares), "chance.purity": float(np.square(shares).sum())}
    for name, (a, b) in spaces.items():
        metrics[f"{name}.probe"] = linear_probe(a, kinds[known], b, kinds[asked], seed)
        metrics[f"{name}.purity"] = neighbor_purity(b[:few], kinds[asked[:few]])
    return metrics


def probe_rows(
    events: PreparedEvents, config: SelfSupervisedConfig, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of training events for a probe to learn from, and of normal validation events to test it."""
    known = events.sample(events.train, config.probe_rows, seed)
    asked = normal_rows(events, events.validation)
    return known, np.random.default_rng(seed).permutation(asked)[: config.probe_rows]


def one_hot(events: PreparedEvents, *rows: np.ndarray) -> list[np.ndarray]:
    """Rows as vectors without any learning."""
    return [one_hot_vectors(*events.arrays(part), events.cardinalities) for part in rows]


def run(config: SelfSupervisedConfig, seed: int, context: Context) -> SeedResult:
    """Train every objective ``members`` times, and look at the spaces beside an untrained net and raw fields.

    Returns:
        For each of ``masked``, ``contrastive``, ``combined``, and for ``untrained`` and ``one_hot``, what
        :func:`evaluate_embeddings` gives, for nets of the first member. For the objectives ``agreement`` (of
        the members' neighbourhoods), ``validation_loss`` on normal validation events, and the curve of the
        training loss.
    """
    events = prepared(config.data, seed)
    rows = probe_rows(events, config, seed)
    result = SeedResult(seed=seed)
    untrained = make_net(events, config.net, seed).eval()
    spaces = {"one_hot": one_hot(events, *rows)}
    spaces["untrained"] = [vectors(untrained.to(context.compute.device), events, r, context) for r in rows]
    asked = torch.from_numpy(rows[1])
    for objective in OBJECTIVES:
        net_config = config.net.model_copy(update={"objective": objective})
        found = []
        for member in range(config.members):
            name = f"{objective}-{member}"
            net, history = train(events, net_config, seed * config.members + member, context, name, result)
            found.append([vectors(net, events, r, context) for r in rows])
            if member == 0:
                data = events.numerical[asked], events.categorical[asked]
                judged = evaluate(net, data, make_objective(events, net_config), context.compute, 512)
                for key, value in judged.items():
                    result.metrics[f"{objective}.validation_{key}"] = value
                for key, values in history.train.items():
                    result.curves[f"{objective}.{key}"] = window_means(values, config.points)
        spaces[objective] = found[0]
        few = config.purity_rows
        if config.members > 1:
            agreement = neighbor_agreement(found[0][1][:few], found[1][1][:few])
            result.metrics[f"{objective}.agreement"] = agreement
    result.metrics.update(evaluate_embeddings(events, config, seed, spaces))
    return result


SMOKE_DATA = EventDataConfig(num_events=2500, days=7.0, attack_share=0.1)
SMOKE_NET = PretrainConfig(d_model=8, num_blocks=1, num_steps=6, batch_size=64)
LIVE_DATA = EventDataConfig(num_events=60_000, days=14.0)

SELF_SUPERVISED = Experiment("self_supervised", "What does a net learn of security events without labels?", {
    "smoke": SelfSupervisedConfig(data=SMOKE_DATA, net=SMOKE_NET, probe_rows=300, purity_rows=200, points=4),
    "live": SelfSupervisedConfig(data=LIVE_DATA, net=PretrainConfig(num_steps=400), members=1),
    "full": SelfSupervisedConfig(),
}, run, generated_info)  # fmt: skip


# ---------------------------------------------------------------- one choice at a time


class SslAblationConfig(Config):
    """What is varied around one net."""

    data: EventDataConfig = EventDataConfig(num_events=100_000, days=28.0)  #: which events
    net: PretrainConfig = PretrainConfig(num_steps=400)  #: the centre
    mask_rates: tuple[float, ...] = (0.1, 0.3, 0.6)  #: tried with masked features
    corruption_rates: tuple[float, ...] = (0.1, 0.3, 0.6)  #: tried with contrastive learning
    temperatures: tuple[float, ...] = (0.05, 0.1, 0.5)  #: likewise
    depths: tuple[int, ...] = (1, 3, 6)  #: numbers of blocks, tried with both
    probe_rows: int = 6000  #: see :class:`SelfSupervisedConfig`
    purity_rows: int = 4000  #: likewise
    reference: int = 10_000  #: normal events that others are compared with

    def nets(self) -> dict[str, PretrainConfig]:
        """All nets by name; the centre of each objective stands only once."""
        varied = [
            ("masked", "mask_rate", self.mask_rates),
            ("masked", "num_blocks", self.depths),
            ("contrastive", "corruption_rate", self.corruption_rates),
            ("contrastive", "temperature", self.temperatures),
            ("contrastive", "num_blocks", self.depths),
        ]
        nets: dict[str, PretrainConfig] = {}
        for objective, name, values in varied:
            for value in values:
                net = self.net.model_copy(update={"objective": objective, name: value})
                if net not in nets.values():
                    nets[f"{objective}-{name}-{value:g}"] = net
        return nets

    def name_of(self, objective: str, field: str, value: float) -> str:
        """The name under which a net's numbers stand."""
        wanted = self.net.model_copy(update={"objective": objective, field: value})
        return next(name for name, net in self.nets().items() if net == wanted)


def run_ablation(config: SslAblationConfig, seed: int, context: Context) -> SeedResult:
    """Train every net, and look at its space on validation events only.

    Returns:
        For each of :meth:`SslAblationConfig.nets` ``probe`` and ``purity`` as
        :func:`evaluate_embeddings` gives them, and ``point`` and ``context``: the
        ROC-AUC of the distance to the nearest normal training events.
    """
    events = prepared(config.data, seed)
    shape = SelfSupervisedConfig(probe_rows=config.probe_rows, purity_rows=config.purity_rows)
    rows = probe_rows(events, shape, seed)
    reference = events.sample(events.train, config.reference, seed)
    spaces: dict[str, list[np.ndarray]] = {}
    result = SeedResult(seed=seed)
    for name, net_config in config.nets().items():
        net, _ = train(events, net_config, seed, context, name, result)
        spaces[name] = [vectors(net, events, r, context) for r in rows]
        near = neighbor_scores(*(vectors(net, events, r, context) for r in (reference, events.validation)))
        aucs = rank(events, events.validation, near)
        for kind in ("point", "context"):
            result.metrics[f"{name}.{kind}"] = aucs[f"{kind}_roc_auc"]
    result.metrics.update(evaluate_embeddings(events, shape, seed, spaces))
    return result


SSL_ABLATION = Experiment(
    "ssl_ablation", "What do masking rate, corruption rate, temperature and depth do?", {
    "smoke": SslAblationConfig(
        data=SMOKE_DATA, net=SMOKE_NET, mask_rates=(0.3,), corruption_rates=(0.5,), temperatures=(0.1,),
        depths=(1,), probe_rows=300, purity_rows=200, reference=200,
    ),
    "live": SslAblationConfig(
        data=LIVE_DATA, net=PretrainConfig(num_steps=150), mask_rates=(0.1, 0.7), corruption_rates=(),
        temperatures=(0.1,), depths=(),
    ),
    "full": SslAblationConfig(),
}, run_ablation, generated_info)  # fmt: skip
