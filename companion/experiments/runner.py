"""Executing an experiment over seeds, with checkpoints, into a recorded run."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pooch

import companion
from companion.compute import Compute, describe_hardware
from companion.experiments.base import C, Context, Experiment
from companion.files import atomic_path
from companion.runs import RecordedRun, SeedResult, library_versions, now, package_commit


def work_folder(experiment: Experiment[C], scale: str, config: C, compute: Compute, digest: str) -> Path:
    """Where the checkpoints of a run are kept: another config, data set or precision, another folder."""
    identity = f"{config.model_dump_json()} {digest} {compute.device.type} {compute.autocast_dtype}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return Path(pooch.os_cache("companion")) / "checkpoints" / f"{experiment.name}-{scale}-{key}"


def execute(
    experiment: Experiment[C],
    scale: str,
    seeds: list[int],
    *,
    compute: Compute,
    out: Path,
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """Run ``experiment`` once per seed and write the recorded run, and the first seed's weights if kept.

    Args:
        experiment: what to run.
        scale: one of :data:`companion.experiments.base.SCALES`.
        seeds: one run each, in this order.
        compute: device and precision; an experiment that wants float32 gets it.
        out: the folder for the JSON file.
        resume: continue a run that was stopped, and keep the seeds that it had finished. Without it,
            an older run's checkpoints are deleted first.
        progress: whether to show progress bars.

    Returns:
        The path of the JSON file. Once it is written, the checkpoints are kept only for a later
        ``resume`` with more seeds.

    Raises:
        ValueError: if no seed is given, or one twice.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"need different seeds, at least one, not {seeds}")
    compute = Compute(compute.device, None) if experiment.float32 else compute
    config = experiment.config(scale, compute.device.type)
    data = experiment.data()
    work = work_folder(experiment, scale, config, compute, data.digest)
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    commit, results = package_commit(), []
    for seed in seeds:
        finished = work / f"seed-{seed}.json"
        if not finished.exists():
            folder = work / f"seed-{seed}"
            kept = work if seed == seeds[0] else None
            result = experiment.run(config, seed, Context(compute, folder, progress, kept))
            with atomic_path(finished) as part:
                part.write_text(result.model_dump_json(), encoding="utf8")
            shutil.rmtree(folder, ignore_errors=True)
        results.append(SeedResult.model_validate_json(finished.read_text("utf8")))
    recorded = RecordedRun(
        experiment=experiment.name,
        scale=scale,
        config=config.model_dump(mode="json"),
        data=data,
        results=results,
        commit=commit,
        package=companion.__version__,
        libraries=library_versions(),
        hardware=describe_hardware(compute.device),
        device=compute.device.type,
        precision="bfloat16" if compute.autocast_dtype else "float32",
        wall_seconds=round(sum(sum(result.seconds.values()) for result in results), 1),
        finished=now(),
    )
    return recorded.save(out, weights=sorted(work.glob("*.safetensors")))
