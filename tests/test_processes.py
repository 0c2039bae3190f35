"""Two processes under torchrun: the numbers of one process, and an end that can be continued."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from companion import processes
from companion.compute import seed_everything
from companion.experiments import classifier, degradation
from companion.experiments.runner import execute
from companion.models.masked_resnet import SelfSupervisedResNet
from companion.models.resnet import CifarResNet
from companion.objectives.selfsupervised import Contrastive, MaskedFeatures
from companion.runs import RecordedRun, load_run
from companion.training import FitConfig, evaluate, fit
from tests.small_data import CPU, load_small
from tests.test_loop import OBJECTIVE, line_data, small_net, squared, toy_images

pytestmark = pytest.mark.xdist_group("processes")

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book/reference/beyond.md").read_text("utf8")
(COMMAND,) = re.findall(r"^torchrun --standalone --nproc-per-node=2 -m companion (.*)$", PAGE, re.MULTILINE)
STEPS = 4  # of the classifier at the scale "smoke"


def losses() -> dict[str, list[float]]:
    """Of 20 steps and two evaluations, of nets whose losses are and are not means over rows."""
    seed_everything(0)
    rows = torch.randn(60, 3), torch.randint(0, 4, (60, 2))
    encoders = [SelfSupervisedResNet(3, [4, 4], 16, 2, 0.2, d_projection=8) for _ in range(2)]
    jobs = {
        "batch norm and augmentation": (CifarResNet(8, num_classes=2), toy_images(), OBJECTIVE),
        "dropout": (small_net(), line_data(), squared),
        "masked features": (encoders[0], rows, MaskedFeatures()),
        "contrastive": (encoders[1], rows, Contrastive(*rows)),
    }
    found = {}
    for name, (model, data, objective) in jobs.items():
        judge = partial(evaluate, data=data, objective=objective, compute=CPU, batch_size=13)
        config = FitConfig(num_steps=20, batch_size=15, lr=0.02, eval_every=10)  # one part is larger
        history = fit(model, data, objective, config, compute=CPU, evaluation=judge)
        found[name] = history.train["loss"] + history.evaluations["loss"]
        assert not any("forward" in vars(module) for module in model.modules())
    return found


def worker(last: str, path: str, *arguments: str) -> None:
    """What each process does: run the command line until step ``last``, or write ``losses`` before."""
    if last == "none":
        found = losses()
        if processes.is_first():
            Path(path).write_text(json.dumps(found))
    degradation.load_cifar10 = classifier.load_cifar10 = load_small
    scales = classifier.CLASSIFIER.scales
    smoke = scales["smoke"]
    often = smoke.model_copy(update={"fit": smoke.fit.model_copy(update={"checkpoint_every": 1})})
    scales["smoke"] = often
    forward, steps, save = processes.DistributedDataParallel.forward, [], RecordedRun.save

    def counted(self, *asked):
        if str(len(steps)) == last and not processes.is_first():
            os.kill(os.getpid(), signal.SIGKILL)
        steps.append(print("one step", file=sys.stderr))
        return forward(self, *asked)

    processes.DistributedDataParallel.forward = counted
    RecordedRun.save = lambda *told, **named: time.sleep(1) or save(*told, **named)  # the others must wait
    sys.argv = ["companion", *arguments]
    runpy.run_module("companion", run_name="__main__")


def torchrun(cache: Path, *arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(
        [*command, "tests.test_processes", *map(str, arguments)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A folder, what was told when a process was killed in the second net, and by its continuation."""
    folder = tmp_path_factory.mktemp("processes")
    command = (folder / "losses", *COMMAND.split(), "--seeds", 2, "--out", folder, "--allow-synthetic")
    killed = torchrun(folder, STEPS + 2, *command)
    assert not list(folder.glob("*.json"))
    return folder, killed, torchrun(folder, "none", *command, "--resume")


def test_two_processes_have_the_losses_of_one(ended):
    folder, _, (_, told) = ended
    assert (folder / "losses").exists(), told
    two = json.loads((folder / "losses").read_text())
    for name, one in losses().items():
        assert len(one) == 22
        assert two[name] == pytest.approx(one, abs=1e-5), name


def test_a_killed_process_ends_the_run_with_a_message_and_resume_continues_it(ended, tmp_path, small):
    folder, (status, told), again = ended
    assert status != 0
    assert "error: a process of this run has ended" in told
    assert "Signal 9" in told  # in torchrun's report, which says whose
    status, told = again
    assert status == 0, told
    assert len(re.findall("one step", told)) == 2 * 2  # in each process what was left
    assert told.count("recorded in") == 1
    two = load_run(folder / "classifier-smoke-cpu.json")
    one = load_run(execute(classifier.CLASSIFIER, "smoke", [0, 1], compute=CPU, out=tmp_path / "one"))
    assert (one.processes, two.processes) == (1, 2)
    assert two.curve("loss") == pytest.approx(one.curve("loss"), abs=1e-2)  # bfloat16 where it is


if __name__ == "__main__":
    worker(*sys.argv[1:])
