"""Chapter 6: how fast the nearest of a million embeddings are found, and how many of them."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from companion.detection.store import EmbeddingStore
from companion.experiments.base import Config, Context, from_table
from companion.experiments.event_data import EventSetsConfig, Recipe, info, prepared, train
from companion.objectives.selfsupervised import embed
from companion.runs import SeedResult


class NeighborSearchConfig(Config):
    """What is searched for what."""

    data: EventSetsConfig = EventSetsConfig(sets=("generated",), num_events=1_010_000)
    recipe: Recipe = Recipe(num_steps=400, epochs=300, lr=5e-3, batch_size=256, patience=None)
    queries: int = 2000  #: the last events, which are not in the store
    count: int = 10  #: neighbours
    #: kinds of ``EmbeddingStore``, and the efforts to try with each
    searches: tuple[tuple[str, tuple[int, ...]], ...] = (
        ("exact", (0,)), ("hnsw", (16, 64, 256)), ("ivf", (1, 8, 64)),
    )  # fmt: skip


def run(config: NeighborSearchConfig, seed: int, context: Context) -> SeedResult:
    """Embed generated events, and search for the last ones among the others.

    Of each ``"<kind>.<effort>"``: ``recall``, the share of true neighbours that are found (one as near as the
    last of them counts), and of each kind ``bytes`` a vector on disk. What no seed decides is kept as curves:
    ``ms``, processor time a query, in milliseconds, and ``build``, processor seconds.
    """
    result = SeedResult(seed=seed)
    events = prepared("generated", config.data, seed)
    net = train(events, config.recipe, seed, context, "net", result)
    vectors = embed(net, events.numerical, events.categorical, compute=context.compute)
    kept, asked = vectors[: -config.queries], vectors[-config.queries :]
    times = events.events.frame["time"].to_numpy()[: len(kept)].astype("datetime64[ms]")
    truth = np.empty(0)
    for kind, efforts in config.searches:
        start = time.process_time()
        store = EmbeddingStore(kept.shape[1], kind).add(kept, np.arange(len(kept)), times)
        result.curves[f"{kind}.build"] = [round(time.process_time() - start, 1)]
        with TemporaryDirectory() as folder:
            store.save(Path(folder) / "store")
            size = (Path(folder) / "store").stat().st_size
        result.metrics[f"{kind}.bytes"] = round(size / len(kept), 1)
        for effort in efforts:
            store.effort, start = effort, time.process_time()
            _, ids, _ = store.nearest(asked, config.count)
            spent = time.process_time() - start
            # anew: the product form of the exact search rounds small distances; an id of -1 is far away
            distances = np.linalg.norm(asked[:, None] - kept[ids], axis=2) + np.where(ids < 0, np.inf, 0)
            truth = distances.max(axis=1, keepdims=True) if kind == "exact" else truth
            found = float((distances <= truth * (1 + 1e-5)).mean())
            result.metrics[f"{kind}.{effort}.recall"] = round(found, 4)
            result.curves[f"{kind}.{effort}.ms"] = [round(1000 * spent / len(asked), 4)]
    return result


NEIGHBOR_SEARCH = from_table("neighbor_search", NeighborSearchConfig, run, info, float32=True)
