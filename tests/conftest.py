from __future__ import annotations

from pathlib import Path

import pytest

from companion.data.cifar10 import Cifar10, load_cifar10


@pytest.fixture(scope="session")
def cifar10() -> Cifar10:
    """CIFAR-10 as readers get it here: real where a source is in reach, else the stand-in."""
    return load_cifar10()


@pytest.fixture
def real_cifar10(cifar10) -> Cifar10:
    if cifar10.synthetic:
        pytest.skip("real CIFAR-10 is out of reach here")
    return cifar10


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Path:
    """An empty mirror and an empty cache (the folder ``cache`` beside it), and no network."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("COMPANION_MIRROR", str(folder))
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("COMPANION_OFFLINE", "1")
    return folder


@pytest.fixture(autouse=True)
def _no_scale_from_outside(monkeypatch):
    monkeypatch.delenv("COMPANION_SCALE", raising=False)
