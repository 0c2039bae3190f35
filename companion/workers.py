"""Work on many items one after another, or side by side on Ray: the same function, so the same results."""

import os
import secrets
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib import import_module, util
from pathlib import Path
from typing import Any

from tqdm import tqdm

from companion.files import atomic_path


def over(items: Sequence[Any], work: Callable[[Any], Any], engine: str, workers: int, unit: str) -> list[Any]:
    """What ``work`` gives for each item, in their order, under a progress bar.

    With the engine ``ray``, ``work`` is sent once, with the model that it holds, to each of ``workers``
    processes, which take item after item and share the GPUs. They run on this machine, or on the cluster at
    ``RAY_ADDRESS``, whose machines must see the same files under the same names.
    """
    if engine == "local":
        return [work(item) for item in tqdm(items, "scoring", unit=unit, disable=None)]
    if util.find_spec("ray") is None:
        raise RuntimeError("Ray is not installed; get it with pip install '.[scale]' in a clone of the book")
    alone = {"address": "local", "num_cpus": workers, "_system_config": {"worker_niceness": 0}}
    if "RAY_ADDRESS" in os.environ:
        alone = {}
    elif "ray" not in sys.modules:  # it reads these: nobody is told or may send work
        safe = {"USAGE_STATS_ENABLED": "0", "AUTH_MODE": "token", "AUTH_TOKEN": secrets.token_hex(32)}
        os.environ |= {f"RAY_{name}": value for name, value in safe.items()}
    ray: Any = import_module("ray")
    if starts := not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", **alone)
    try:
        gpus, sent = int(ray.cluster_resources().get("GPU", 0)), ray.put(work)
        share = 1e4 // -(-workers // gpus) / 1e4 if gpus else 0
        actor = ray.remote(num_cpus=1, num_gpus=share, max_restarts=2, max_task_retries=2)(_Worker)
        pool = import_module("ray.util").ActorPool([actor.remote(os.getcwd()) for _ in range(workers)])
        done = pool.map_unordered(lambda worker, item: worker.do.remote([sent], *item), enumerate(items))
        return [result for _, result in sorted(tqdm(done, "scoring", len(items), unit=unit, disable=None))]
    except ray.exceptions.RayError as error:
        lost = RuntimeError(f"a worker was lost; are --workers too many? {error}")
        raise getattr(error, "cause", None) or lost from None
    finally:
        if starts:
            ray.shutdown()


def over_parts(
    items: Sequence[Any], work: Callable[[Any], Any], kept: Path, files: Sequence[Path],
    engine: str, workers: int, unit: str,
) -> list[Any]:  # fmt: skip
    """As :func:`over`, with frames as results; each waits in the folder ``kept`` until all are there.

    A run that was stopped goes on with what is left, if the items are the same and ``files`` did not change.
    The caller removes the folder after use.
    """
    import pandas as pd

    seen = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()]
    own = kept / sha256(repr((items, seen)).encode()).hexdigest()[:16]
    if own.exists():
        print("going on with the parts that are left")
    parts = [own / f"part-{place}.parquet" for place in range(len(items))]

    def keep(place: int) -> None:
        frame = work(items[place])
        with atomic_path(parts[place]) as part:
            frame.to_parquet(part)

    over([place for place, part in enumerate(parts) if not part.exists()], keep, engine, workers, unit)
    return [pd.read_parquet(part) for part in parts]


class _Worker:
    def __init__(self, folder: str) -> None:
        os.chdir(folder)
        self.work: Any = None

    def do(self, sent: Sequence[Any], place: int, item: Any) -> tuple[int, Any]:
        self.work = self.work or import_module("ray").get(sent[0])
        return place, self.work(item)
