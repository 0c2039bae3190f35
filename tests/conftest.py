import warnings
from functools import cache, partial
from pathlib import Path

import pytest

from companion.data.cifar10 import Cifar10, load_cifar10
from tests import fake_cifar10
from tests.small_data import SMALL_TABLES, load_small


@pytest.fixture(scope="session")
def cifar10() -> Cifar10:
    """CIFAR-10 as readers get it here: real where a source is in reach, else the stand-in."""
    return load_cifar10()


@pytest.fixture
def real(monkeypatch):
    """Loads a data set, and skips the test where there is only a stand-in; a test downloads nothing."""
    monkeypatch.setenv("COMPANION_OFFLINE", "1")

    def loaded(load):
        with warnings.catch_warnings(action="ignore"):
            data = load()
        if data.synthetic:
            pytest.skip("the real data are out of reach here")
        return data

    return loaded


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Path:
    """An empty mirror and an empty cache (the folder ``cache`` beside it), and no network."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("COMPANION_MIRROR", str(folder))
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("COMPANION_OFFLINE", "1")
    return folder


@pytest.fixture(scope="session")
def archives(tmp_path_factory) -> fake_cifar10.Fake:
    """Tiny archives in the formats of CIFAR-10's two sources."""
    return fake_cifar10.make(tmp_path_factory.mktemp("archives"))


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> None:
    """Checkpoints of experiments go to a folder of the test's own."""
    monkeypatch.setattr("companion.experiments.runner.cache_folder", lambda: tmp_path / "work")


@pytest.fixture
def small(own_cache, monkeypatch):
    """Few images in the place of CIFAR-10 and of casting, and generated rows in the place of the tables."""
    from companion.experiments import casting, casting_detectors, classifier, degradation, tables
    from tests.few_moulds import few_moulds

    for module in (degradation, classifier):
        monkeypatch.setattr(module, "load_cifar10", load_small)
    for module in (casting, casting_detectors):
        monkeypatch.setattr(module, "load_casting", partial(few_moulds, normal=700))
    monkeypatch.setattr(tables, "LOADERS", SMALL_TABLES)
    cached = (degradation._splits, tables.prepared, casting_detectors.load)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.fixture(scope="session", autouse=True)
def _casting_images_are_decoded_once():
    from companion.experiments import casting, casting_detectors

    kept = cache(casting.load_casting)
    with pytest.MonkeyPatch.context() as patch:
        for module in (casting, casting_detectors):
            patch.setattr(module, "load_casting", kept)
        yield


@pytest.fixture(autouse=True)
def _no_scale_from_outside(monkeypatch):
    monkeypatch.delenv("COMPANION_SCALE", raising=False)
