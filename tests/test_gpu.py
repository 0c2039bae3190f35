"""What only a GPU can show: it computes what the CPU computes, and a run goes on as it began."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from companion.compute import Compute, agrees_with_cpu, pick_compute, seed_everything
from companion.experiments import NAMES, get_experiment
from companion.models.resnet import CifarResNet
from companion.objectives.classification import ImageClassification
from companion.training import FitConfig, TrainingRun, evaluate, fit
from tests.small_data import CPU, MOMENTS

CUDA = torch.device("cuda")
OBJECTIVE = ImageClassification(*MOMENTS, max_shift=2, flip=True, cutout=3, label_smoothing=0.1)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def images(n: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 10
    return torch.randint(0, 256, (n, 3, 16, 16), generator=generator).to(torch.uint8), labels


@needs_cuda
def test_a_run_that_was_stopped_continues(tmp_path):
    config = FitConfig(num_steps=12, batch_size=32, lr=0.01, checkpoint_every=4, schedule="linear")

    def train(**options) -> list[float]:
        seed_everything(0)
        around = {"compute": Compute(CUDA, None), **options}
        return fit(CifarResNet(8), images(), OBJECTIVE, config, **around).train["loss"]

    whole = train()
    train(checkpoint=tmp_path / "run.ckpt", stop_after=7)
    assert train(checkpoint=tmp_path / "run.ckpt") == pytest.approx(whole, rel=5e-3)
    assert len(set(whole)) == 12


@needs_cuda
def test_the_device_agrees_with_the_cpu():
    assert agrees_with_cpu(CUDA)
    config = FitConfig(num_steps=2, batch_size=96, lr=0.01)  # one batch of all: no draw but the augmentation
    plain = ImageClassification(*MOMENTS)
    losses = []
    for compute in (Compute(CUDA, None), CPU):
        seed_everything(0)
        model = CifarResNet(8)
        history = fit(model, images(), plain, config, compute=compute)
        losses.append(history.train["loss"] + [evaluate(model, images(), plain, compute)["loss"]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_gpu_with_wrong_gradients_is_not_used(monkeypatch, capsys):
    monkeypatch.setattr("companion.compute.pick_device", lambda name: torch.device("mps"))
    monkeypatch.setattr("companion.compute.agrees_with_cpu", lambda device: False)
    assert pick_compute().device.type == "cpu"
    assert "so the CPU is used" in capsys.readouterr().out
    monkeypatch.setattr("companion.compute.agrees_with_cpu", lambda device: True)
    assert pick_compute().memory_format == torch.contiguous_format
    assert agrees_with_cpu(torch.device("cpu"))


class Waits(TorchDispatchMode):
    """Counts operations that make the processor wait for a GPU, to learn a value or a shape."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "masked_select")
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_the_device():
    run = TrainingRun(CifarResNet(8).train(), images(), OBJECTIVE, FitConfig(num_steps=3), CPU, seed=0)
    with Waits() as waits:
        for _ in range(3):
            run.train_step()
        assert waits.count == 0
        run.flush()
        run.history.train["loss"] = [float(torch.tensor(value)) for value in run.history.train["loss"]]
    assert waits.count == 3  # and the count counts


def test_make_gpu_records_what_is_sized_for_a_gpu():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text("utf8")
    (names,) = re.findall(r"for name in (.*); do", makefile)
    sized = {name for name in NAMES if get_experiment(name).scales.keys() & {"full-cuda"}}
    assert set(names.split()) == sized
