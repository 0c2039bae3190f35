"""Chapter 2's experiment: does the order of norm, activation and addition matter?"""

from __future__ import annotations

from companion.experiments import degradation
from companion.experiments.base import Experiment
from companion.experiments.degradation import DegradationConfig
from companion.training import FitConfig

_FULL_FIT = FitConfig(num_steps=600, batch_size=128, lr=0.1, warmup_steps=50, schedule="linear")

SCALES = {
    "smoke": degradation.SCALES["smoke"].model_copy(update={"nets": ("resnet-8", "preact-8")}),
    "live": DegradationConfig(
        nets=("resnet-20", "preact-20"),
        image_size=16,
        eval_size=2000,
        augment=False,
        fit=_FULL_FIT.model_copy(update={"num_steps": 150}),
        points=30,
    ),
    "full": DegradationConfig(
        nets=tuple(f"{kind}-{depth}" for depth in (20, 56, 110) for kind in ("resnet", "preact")),
        image_size=16,
        augment=False,
        fit=_FULL_FIT,
    ),
}

BLOCK_ORDER = Experiment(
    name="block_order",
    question="Do pre-activated residual nets train better than the original ones?",
    config_type=DegradationConfig,
    scales=SCALES,
    run=degradation.run,
    data=degradation.data_info,
    replay=degradation.replay,
)
