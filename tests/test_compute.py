import random

import numpy as np
import pytest
import torch
from torch import nn

from companion import compute
from companion.compute import Compute, describe_hardware, pick_compute, pick_device, seed_everything


def test_an_explicit_device_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("COMPANION_DEVICE", "no-such-device")
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["no-such-device", "cuda:99"])
def test_a_device_that_is_not_there_is_named_with_a_way_out(monkeypatch, name):
    monkeypatch.setenv("COMPANION_DEVICE", name)
    with pytest.raises(ValueError, match=f"{name}.*use 'cpu'"):
        pick_device()


def test_cuda_comes_before_mps_before_cpu(monkeypatch):
    monkeypatch.delenv("COMPANION_DEVICE", raising=False)
    for cuda, mps, expected in [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert pick_device().type == expected


@pytest.mark.parametrize(("has_bfloat16", "expected"), [(True, torch.bfloat16), (False, None)])
def test_bfloat16_is_used_only_where_the_processor_has_it(monkeypatch, has_bfloat16, expected):
    monkeypatch.setattr(compute, "cpu_has_bfloat16", lambda: has_bfloat16)
    assert pick_compute("cpu").autocast_dtype is expected
    assert pick_compute("cpu", "float32").autocast_dtype is None
    assert pick_compute("cpu", "bfloat16").autocast_dtype is torch.bfloat16


@pytest.mark.parametrize(("capability", "expected"), [((8, 0), torch.bfloat16), ((7, 5), None)])
def test_bfloat16_on_a_gpu_depends_on_its_generation(monkeypatch, capability, expected):
    monkeypatch.setattr(compute, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_compute().autocast_dtype is expected


def test_the_policy_decides_dtype_and_layout():
    layer = nn.Conv2d(3, 4, 3)
    images = torch.rand(2, 3, 8, 8)
    for dtype in (None, torch.bfloat16):
        policy = Compute(torch.device("cpu"), dtype)
        with policy.autocast():
            out = policy.model(layer)(images)
        assert out.dtype == (dtype or torch.float32)
        assert layer.weight.dtype == torch.float32
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_one_seed_sets_all_generators():
    def draw():
        seed_everything(7)
        numpys = float(np.random.rand())  # noqa: NPY002  the global generator is what is tested
        return random.random(), numpys, float(torch.rand(()))

    assert draw() == draw()


def test_the_hardware_line_names_processor_cores_and_memory(monkeypatch):
    assert "cores" in describe_hardware(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    assert describe_hardware(torch.device("cuda")).startswith("Some GPU; ")
    assert describe_hardware(torch.device("mps")).startswith("Apple GPU; ")
