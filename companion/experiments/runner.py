"""Executing an experiment over seeds, with checkpoints, into a recorded run."""

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import companion
from companion import runs
from companion.compute import Compute, describe_hardware
from companion.data.download import CACHE_VARIABLE, cache_folder
from companion.experiments.base import C, Config, Context, Experiment
from companion.files import atomic_path
from companion.processes import agreed, is_first, join
from companion.runs import DataInfo, RecordedRun, RunError, SeedResult, library_versions


def conditions(config: Config, data: DataInfo, compute: Compute) -> dict[str, Any]:
    """All that the numbers of a seed depend on. Seeds of other conditions do not go into one record."""
    return {
        "config": config.model_dump(mode="json"), "data": data.digest,
        "source of companion": runs.source_digest(), "libraries": library_versions(),
        "hardware": describe_hardware(compute.device), "threads": torch.get_num_threads(),
        "processes": join(), "precision": "bfloat16" if compute.autocast_dtype else "float32",
    }  # fmt: skip


def work_folder(stem: str, today: dict[str, Any], resume: bool) -> Path:
    """The folder of a run's finished seeds and half-trained nets: under other conditions, another folder.

    Without ``resume`` older ones are deleted; with it, a run begun under other conditions is refused.
    """
    parent = cache_folder() / "checkpoints"
    key = hashlib.sha256(json.dumps(today, sort_keys=True).encode()).hexdigest()[:12]
    work, begun = parent / f"{stem}-{key}", list(parent.glob(f"{stem}-*"))
    if not resume:
        for folder in begun:
            shutil.rmtree(folder, ignore_errors=True)
    elif begun and work not in begun:
        import pandas as pd

        newest = max(begun, key=lambda folder: folder.stat().st_mtime)
        began = json.loads((newest / "conditions.json").read_text("utf8"))
        then, now = (pd.json_normalize(each).iloc[0] for each in (began, today))
        other = [name for name in then.index.union(now.index) if then.get(name) != now.get(name)]
        changes = "; ".join(f"{name} was {then.get(name)}, is {now.get(name)}" for name in other)
        raise RunError(
            f"the run in {newest} cannot be resumed, it was begun under other conditions: {changes}. "
            "Go back to those to continue it, or start anew without --resume, which deletes it."
        )
    try:
        with atomic_path(work / "conditions.json") as part:
            part.write_text(json.dumps(today, indent=1), encoding="utf8")
    except OSError as error:
        raise RunError(f"{parent} cannot be written ({error}); set {CACHE_VARIABLE}") from error
    return work


def execute(
    experiment: Experiment[C], scale: str, seeds: list[int],
    *, compute: Compute, out: Path, resume: bool = False, progress: bool = True,
) -> Path:  # fmt: skip
    """Run ``experiment`` once per seed, write the recorded run to the folder ``out``, and return its path.

    The first seed's weights, if kept, are written beside it. ``resume`` keeps the seeds that are finished.
    """
    compute = experiment.compute(compute)
    config, data = experiment.config(scale, compute.device.type), experiment.data()
    today = conditions(config, data, compute)
    stem = f"{experiment.name}-{scale}-{compute.device.type}"
    work = agreed(work_folder(stem, today, resume) if is_first() else out)
    commit = runs.package_commit()
    for seed in seeds:
        finished = work / f"seed-{seed}.json"
        if not agreed(finished.exists()):
            folder = work / f"seed-{seed}"
            kept = work if seed == seeds[0] and is_first() else None
            if cuda := compute.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            result = experiment.run(config, seed, Context(compute, folder, progress and is_first(), kept))
            if cuda:
                peak = round(torch.cuda.max_memory_allocated() / 2**30, 2)
                result = result.model_copy(update={"peak_gib": peak})
            if is_first():
                with atomic_path(finished) as part:
                    part.write_text(result.model_dump_json(), encoding="utf8")
                shutil.rmtree(folder, ignore_errors=True)
    if not is_first():
        return Path(agreed(out / f"{stem}.json"))  # once the first process has written it
    finished_seeds = [(work / f"seed-{seed}.json").read_text("utf8") for seed in seeds]
    results = [SeedResult.model_validate_json(each) for each in finished_seeds]
    recorded = RecordedRun(
        experiment=experiment.name, scale=scale, data=data, results=results, device=compute.device.type,
        commit=commit, package=companion.__version__,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_seconds=round(sum(sum(result.seconds.values()) for result in results), 1),
        **{name: value for name, value in today.items() if name not in ("data", "source of companion")},
    )  # fmt: skip
    return Path(agreed(recorded.save(out, weights=sorted(work.glob("*.safetensors")))))
