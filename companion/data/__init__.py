"""Data sets: one registry, and loaders that give real data or a labelled synthetic stand-in."""

from contextlib import suppress
from importlib import import_module

from companion.data.download import CACHE_VARIABLE, REGISTRY, DataError, Dataset, cache_folder, read_published

#: the modules, imported only when needed, that read what is not kept as one file that was published
READERS = {"cifar10": "cifar10", "casting": "casting", "cloudtrail": "security", "skab": "skab"}


def fetch(dataset: Dataset) -> str:
    """Make sure that a verified copy of a data set is in the cache; return where it came from."""
    module = READERS.get(dataset.name)
    read = import_module(f"companion.data.{module}").read_real if module else read_published
    source: str = read(dataset)[1]
    if not (cache_folder() / dataset.cached).is_file():
        raise DataError(f"the cache folder {cache_folder()} cannot be written; set {CACHE_VARIABLE}")
    return source


def available() -> dict[str, str]:
    """Where each data set comes from, by name, fetched if need be; ``""`` if a stand-in takes its place."""
    found = dict.fromkeys(REGISTRY, "")
    for dataset in REGISTRY.values():
        with suppress(DataError):
            found[dataset.name] = fetch(dataset)
    return found
