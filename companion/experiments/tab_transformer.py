"""Chapter 8: TabTransformer once more on Adult, with twice the epochs and twice the learning rate.

In the runs of :mod:`companion.experiments.tables` it was still getting better when its training ended.
"""

from __future__ import annotations

from companion.experiments import tables
from companion.experiments.base import Experiment
from companion.experiments.tables import NetConfig, TablesConfig

_NET = NetConfig(kind="tab_transformer", num_epochs=16, lr=1e-3)
_SMALL = NetConfig(
    kind="tab_transformer", options={"d_token": 8, "num_layers": 1}, num_epochs=1, batch_size=64
)


def _config(net: NetConfig, train_size: int | None = None) -> TablesConfig:
    return TablesConfig(nets={"adult": {"tab_transformer": net}}, train_size=train_size, boosting=False)


TAB_TRANSFORMER = Experiment(
    name="tab_transformer",
    question="How good does TabTransformer get on Adult when it is given more time?",
    config_type=TablesConfig,
    scales={
        "smoke": _config(_SMALL, train_size=256),
        "live": _config(_NET.model_copy(update={"num_epochs": 1})),
        "full": _config(_NET),
    },
    run=tables.run,
    data=tables.data_info,
    replay=tables.replay,
)
