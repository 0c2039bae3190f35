"""What single choices of chapter 9 are worth: each detector here differs from one there in one thing."""

from __future__ import annotations

from collections.abc import Iterator

from companion.experiments.base import Context, Experiment
from companion.experiments.casting import SCALES, data_info, measure
from companion.experiments.casting_systems import (
    Casting,
    CastingConfig,
    Fitted,
    discrimination,
    error_scores,
    fit_autoencoder,
    fit_discriminator,
    load,
    moved_autoencoder,
)
from companion.objectives.reconstruction import STILL, FaultKind
from companion.runs import SeedResult
from companion.training import History

KINDS: dict[str, tuple[FaultKind, ...]] = {
    "without-spills": ("known", "empty"),
    "only-empties": ("empty",),
}
"""Faults that the classifier learns from; in all else it is the recommended one."""


def arms(config: CastingConfig, data: Casting, seed: int, context: Context) -> Iterator[tuple[str, Fitted]]:
    """Fit one detector after the other.

    Yields:
        ``still``, the detector ``moved`` without a moving camera, and ``still-coarse``, its scores at coarse
        scales; then a classifier for each of :data:`KINDS`.
    """
    still = moved_autoencoder(config, seed, camera=STILL)
    fit_autoencoder(still, "still", config.moved_epochs, data, context)
    yield "still", Fitted(error_scores(still, "l1", (1,)), still.history_)
    yield "still-coarse", Fitted(error_scores(still, "l1", (4, 8)), History())
    for name, kinds in KINDS.items():
        objective = discrimination(data, kinds)
        yield name, fit_discriminator(config, data, seed, context, objective, name)[1]


def run(config: CastingConfig, seed: int, context: Context) -> SeedResult:
    """What :func:`companion.experiments.casting.measure` returns for these detectors."""
    data = load(config.share)
    return measure(arms(config, data, seed, context), data, config, seed)


CASTING_ABLATION = Experiment(
    "casting_ablation", "What are a moving camera and painted spills worth by themselves?",
    SCALES, run, data_info,
)  # fmt: skip
