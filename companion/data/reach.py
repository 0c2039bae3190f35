"""Which data sets can be had: what a reader fetches, and what decides whether a chapter shows stand-ins."""

from __future__ import annotations

from companion.data import casting, cifar10, plain
from companion.data.registry import OCSF_LOGS, Dataset
from companion.data.sources import REGISTRY, DataError


def fetch(dataset: Dataset) -> str:
    """Make sure that a verified copy is in the cache; return where it came from.

    Raises:
        DataError: if it cannot be had, or cannot be kept.
    """
    unpacked = {"cifar10": cifar10.fetch, "casting": casting.fetch}
    return unpacked[dataset.name]() if dataset.name in unpacked else plain.fetch(dataset)


def in_reach() -> dict[str, str]:
    """Where each data set that chapters load comes from, by name; ``""`` where a stand-in takes its place.

    A data set that cannot be kept in the cache counts as out of reach, too. What is not in the cache is
    fetched. The OCSF logs are left out: chapters show a recorded run on them.
    """
    found = {}
    for dataset in REGISTRY.values():
        if dataset.name != OCSF_LOGS.name:
            try:
                found[dataset.name] = fetch(dataset)
            except DataError:
                found[dataset.name] = ""
    return found
