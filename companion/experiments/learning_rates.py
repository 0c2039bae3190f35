"""Chapter 1's control: is the deep plain net only trained with the wrong learning rate?"""

from __future__ import annotations

from companion.experiments import degradation
from companion.experiments.base import Config, Context, Experiment
from companion.runs import SeedResult


class LearningRatesConfig(Config):
    """What is trained and how.

    Attributes:
        lrs: the learning rates that every net is trained with.
        base: everything else.
    """

    lrs: tuple[float, ...] = (0.01, 0.03, 0.1)
    base: degradation.DegradationConfig = degradation.SCALES["live"]


def run(config: LearningRatesConfig, seed: int, context: Context) -> SeedResult:
    """Run the degradation experiment once per learning rate.

    Returns:
        Its metrics, curves and seconds, under ``"<net>@<lr>"`` in place of ``"<net>"``.
    """
    metrics: dict[str, float] = {}
    curves: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for lr in config.lrs:
        base = config.base.model_copy(update={"fit": config.base.fit.model_copy(update={"lr": lr})})
        folder = None if context.checkpoints is None else context.checkpoints / str(lr)
        result = degradation.run(base, seed, Context(context.compute, folder, context.progress))
        metrics |= {name.replace(".", f"@{lr}.", 1): value for name, value in result.metrics.items()}
        curves |= {name.replace(".", f"@{lr}.", 1): values for name, values in result.curves.items()}
        seconds |= {f"{net}@{lr}": value for net, value in result.seconds.items()}
    return SeedResult(seed=seed, metrics=metrics, curves=curves, seconds=seconds)


LEARNING_RATES = Experiment(
    name="learning_rates",
    question="Does any learning rate make the deep plain net train as well as the shallow one?",
    config_type=LearningRatesConfig,
    scales={
        "smoke": LearningRatesConfig(lrs=(0.01, 0.1), base=degradation.SCALES["smoke"]),
        "live": LearningRatesConfig(lrs=(0.03,)),
        "full": LearningRatesConfig(),
    },
    run=run,
    data=degradation.data_info,
)
