from __future__ import annotations

import pytest

from companion.data import Cifar10, load_cifar10


@pytest.fixture(scope="session")
def cifar10() -> Cifar10:
    """CIFAR-10 as readers get it here: real where a source is in reach, else the stand-in."""
    return load_cifar10()


@pytest.fixture
def real_cifar10(cifar10) -> Cifar10:
    if cifar10.synthetic:
        pytest.skip("real CIFAR-10 is out of reach here")
    return cifar10


@pytest.fixture(autouse=True)
def _no_scale_from_outside(monkeypatch):
    monkeypatch.delenv("COMPANION_SCALE", raising=False)
