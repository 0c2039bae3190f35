"""Chapter 6: masking rate, corruption rate, temperature and depth, one at a time."""

from __future__ import annotations

import numpy as np

from companion.experiments import self_supervised
from companion.experiments.base import Config, Context, Experiment
from companion.experiments.event_data import EventDataConfig, generated_info, prepared
from companion.experiments.event_detection import neighbor_scores, rank
from companion.experiments.self_supervised import (
    SMOKE_DATA,
    SMOKE_NET,
    PretrainConfig,
    SelfSupervisedConfig,
    look,
    looked_at,
    train,
    vectors,
)
from companion.runs import SeedResult


class SslAblationConfig(Config):
    """What is varied around one net.

    Attributes:
        data: which events.
        net: the centre.
        mask_rates: tried with masked features.
        corruption_rates: tried with contrastive learning.
        temperatures: likewise.
        depths: numbers of blocks, tried with both.
        probe_rows: see :class:`companion.experiments.self_supervised.SelfSupervisedConfig`.
        purity_rows: likewise.
        reference: normal events that others are compared with.
    """

    data: EventDataConfig = EventDataConfig(num_events=100_000, days=28.0)
    net: PretrainConfig = PretrainConfig(num_steps=400)
    mask_rates: tuple[float, ...] = (0.1, 0.3, 0.6)
    corruption_rates: tuple[float, ...] = (0.1, 0.3, 0.6)
    temperatures: tuple[float, ...] = (0.05, 0.1, 0.5)
    depths: tuple[int, ...] = (1, 3, 6)
    probe_rows: int = 6000
    purity_rows: int = 4000
    reference: int = 10_000

    def nets(self) -> dict[str, PretrainConfig]:
        """All nets by name; the centre of each objective stands only once."""
        varied = [("masked", "mask_rate", self.mask_rates), ("masked", "num_blocks", self.depths)]
        varied += [("contrastive", "corruption_rate", self.corruption_rates)]
        varied += [
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
        """The name under which a net's numbers stand.

        Raises:
            KeyError: if no such net is trained.
        """
        wanted = self.net.model_copy(update={"objective": objective, field: value})
        for name, net in self.nets().items():
            if net == wanted:
                return name
        raise KeyError(f"{objective} with {field} = {value} is not among the nets")


def run(config: SslAblationConfig, seed: int, context: Context) -> SeedResult:
    """Train every net, and look at its space on validation events only.

    Returns:
        For each of :meth:`SslAblationConfig.nets` ``probe`` and ``purity`` as
        :func:`companion.experiments.self_supervised.look` gives them, and ``point`` and ``context``: the
        ROC-AUC of the distance to the nearest normal training events.
    """
    events = prepared(config.data, seed)
    shape = SelfSupervisedConfig(
        data=config.data, probe_rows=config.probe_rows, purity_rows=config.purity_rows
    )
    rows = looked_at(events, shape, seed)
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
    result.metrics.update(look(events, shape, seed, spaces))
    return result


SSL_ABLATION = Experiment(
    name="ssl_ablation",
    question="What do masking rate, corruption rate, temperature and depth do?",
    config_type=SslAblationConfig,
    scales={
        "smoke": SslAblationConfig(
            data=SMOKE_DATA,
            net=SMOKE_NET,
            mask_rates=(0.3,),
            corruption_rates=(0.5,),
            temperatures=(0.1,),
            depths=(1,),
            probe_rows=300,
            purity_rows=200,
            reference=200,
        ),
        "live": SslAblationConfig(
            data=self_supervised.LIVE_DATA,
            net=PretrainConfig(num_steps=150),
            mask_rates=(0.1, 0.7),
            corruption_rates=(),
            temperatures=(0.1,),
            depths=(),
        ),
        "full": SslAblationConfig(),
    },
    run=run,
    data=generated_info,
)
