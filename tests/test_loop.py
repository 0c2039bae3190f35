from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from companion.compute import pick_compute, seed_everything
from companion.files import StateError, fingerprint
from companion.models.resnet import CifarResNet
from companion.objectives.classification import ImageClassification
from companion.training import FitConfig, batch_indices, evaluate, fit, learning_rate
from tests.small_data import CPU, MOMENTS

OBJECTIVE = ImageClassification(*MOMENTS, max_shift=1, flip=True)


def toy_images(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes, dark and bright, uint8 (n, 3, 8, 8)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    noise = torch.randint(0, 100, (n, 3, 8, 8), generator=generator)
    return (noise + 100 * labels[:, None, None, None]).to(torch.uint8), labels


def squared(model, batch, generator):
    """A regression objective on (inputs, targets)."""
    inputs, targets = batch
    return {"loss": (model(inputs)[:, 0] - targets).square().mean()}


def line_data(n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-1, 1, n)[:, None]
    return x, 2 * x[:, 0] + 1


def small_net() -> nn.Module:
    seed_everything(0)
    return nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


# the schedule


@pytest.mark.parametrize(
    ("settings", "steps", "expected"),
    [
        ({"schedule": "constant"}, (0, 50, 99), (1.0, 1.0, 1.0)),
        ({"warmup_steps": 4}, (0, 1, 3, 4), (0.25, 0.5, 1.0, 1.0)),
        ({"schedule": "step", "milestones": (0.5, 0.75)}, (49, 50, 74, 75), (1.0, 0.1, 0.1, 0.01)),
        ({"schedule": "linear"}, (0, 50, 99), (1.0, 0.5, 0.01)),
        ({"schedule": "linear", "warmup_steps": 10}, (0, 9, 10, 55, 99), (0.1, 1.0, 1.0, 0.5, 1 / 90)),
        ({"schedule": "cosine"}, (0, 25, 50), (1.0, 0.853553, 0.5)),
    ],
)
def test_the_learning_rate_follows_its_schedule(settings, steps, expected):
    config = FitConfig(num_steps=100, lr=1.0, **settings)
    assert [learning_rate(config, step) for step in steps] == pytest.approx(expected)


def test_impossible_settings_are_refused():
    for settings in (
        {"lr": -1.0}, {"schedule": "step"}, {"milestones": (0.5,)}, {"learning_rate": 0.1},
        {"schedule": "step", "milestones": (0.7, 0.5)}, {"schedule": "step", "milestones": (1.5,)},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="validation error"):
            FitConfig(num_steps=10, **settings)


# the batches


def test_an_epoch_shows_every_example_once_in_an_order_of_its_own_and_leaves_the_last_few_out():
    epochs = [torch.cat([batch_indices(12, 4, 0, 3 * e + i) for i in range(3)]) for e in range(2)]
    assert all(sorted(epoch.tolist()) == list(range(12)) for epoch in epochs)
    assert not torch.equal(*epochs)
    # 13 examples in batches of 4: the thirteenth would be a batch of one, which batch norm cannot take
    assert [len(batch_indices(13, 4, 0, step)) for step in range(6)] == [4] * 6
    assert len(batch_indices(3, 4, 0, 5)) == 3


# training


def test_it_learns():
    model = CifarResNet(8, num_classes=2)
    config, images = FitConfig(num_steps=40, batch_size=16, lr=0.05, eval_every=10), toy_images()
    judge = partial(evaluate, data=images, objective=OBJECTIVE, compute=CPU)
    history = fit(model, images, OBJECTIVE, config, compute=CPU, evaluation=judge)
    assert len(history.train["loss"]) == len(history.train["error"]) == 40
    assert history.eval_steps == [10, 20, 30, 40]
    assert history.evaluations["error"][-1] == 0.0
    assert history.seconds > 0


def test_sgd_equals_pytorchs_own_loop():
    x, y = line_data(8)
    model, oracle = nn.Linear(1, 1), nn.Linear(1, 1)
    oracle.load_state_dict(model.state_dict())
    config = FitConfig(num_steps=5, batch_size=4, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.01)
    fit(model, (x, y), squared, config, compute=CPU, seed=3)
    optimizer = torch.optim.SGD(oracle.parameters(), 0.1, momentum=0.8, nesterov=True, weight_decay=0.01)
    for step in range(5):
        chosen = batch_indices(8, 4, 3, step)
        optimizer.zero_grad()
        squared(oracle, (x[chosen], y[chosen]), None)["loss"].backward()
        optimizer.step()
    torch.testing.assert_close(model.state_dict(), oracle.state_dict(), rtol=0, atol=0)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    weights, config = [], FitConfig(num_steps=10, batch_size=16)
    for seed in (0, 0, 1):
        model, state = small_net(), torch.get_rng_state()
        history = fit(model, line_data(), squared, config, compute=CPU, seed=seed, stop_after=7)
        assert len(history.train["loss"]) == 7
        assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers are left alone
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_label_smoothing_counts_only_while_training():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    smooth = ImageClassification(OBJECTIVE.mean, OBJECTIVE.std, label_smoothing=0.5)
    sharp = ImageClassification(OBJECTIVE.mean, OBJECTIVE.std)
    batch = toy_images()
    assert smooth(model, batch, None)["loss"] == sharp(model, batch, None)["loss"]
    assert smooth(model, batch, torch.Generator())["loss"] != sharp(model, batch, torch.Generator())["loss"]


def test_evaluation_does_not_depend_on_the_batch_size_and_keeps_the_mode():
    model = CifarResNet(8, num_classes=2).train()
    images = toy_images(13)
    one = evaluate(model, images, OBJECTIVE, CPU, batch_size=1)
    assert one == pytest.approx(evaluate(model, images, OBJECTIVE, CPU, batch_size=100), rel=1e-5)
    assert model.training


def test_early_stopping_restores_the_best_weights_and_survives_a_restart(tmp_path):
    values, kept = iter([3.0, 1.0, 2.0, 4.0]), []

    def evaluation(model):
        kept.append(model.weight.detach().clone())
        return {"error": next(values)}

    config = FitConfig(num_steps=100, eval_every=1, patience=2, monitor="error", checkpoint_every=1)
    around = {"compute": CPU, "evaluation": evaluation, "checkpoint": tmp_path / "run.ckpt"}
    for model in (nn.Linear(1, 1), nn.Linear(1, 1)):  # the second finds that the run has ended
        history = fit(model, line_data(), squared, config, **around)
        assert history.evaluations["error"] == [3.0, 1.0, 2.0, 4.0]
        assert torch.equal(model.weight, kept[1])


def test_a_loss_that_is_not_finite_stops_with_the_step():
    x, y = line_data()
    y[7] = float("nan")
    with pytest.raises(ArithmeticError, match=r"nan at step 0.*NaN in the data"):
        fit(nn.Linear(1, 1), (x, y), squared, FitConfig(num_steps=60, batch_size=64), compute=CPU)


# checkpoints


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_run_continues_to_the_same_bits(tmp_path, optimizer, precision):
    compute = pick_compute("cpu", precision)
    config = FitConfig(num_steps=9, batch_size=8, optimizer=optimizer, lr=0.01, checkpoint_every=4)
    images = toy_images()

    def train(path, stop_after=None):
        seed_everything(0)
        model = CifarResNet(8, num_classes=2)
        history = fit(
            model, images, OBJECTIVE, config, compute=compute, checkpoint=path, stop_after=stop_after
        )
        return model.state_dict(), history

    whole, history = train(None)
    train(tmp_path / "run.ckpt", stop_after=5)
    parts, continued = train(tmp_path / "run.ckpt")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert history.train == continued.train


IMAGES, LABELS = toy_images()
BEGUN = {
    "model": CifarResNet(8, num_classes=2), "data": (IMAGES, LABELS), "objective": OBJECTIVE,
    "config": FitConfig(num_steps=2, batch_size=8), "compute": CPU, "seed": 0,
}  # fmt: skip
OTHERS = {
    "config": FitConfig(num_steps=3, batch_size=8),
    "seed": 1,
    "data": (IMAGES.flip(0), LABELS),  # other pixels, as many
    "objective": replace(OBJECTIVE, mean=OBJECTIVE.mean + 1e-6),
    "model": CifarResNet(14, num_classes=2),
    "compute": pick_compute("cpu", "bfloat16"),
}


@pytest.mark.parametrize("other", [*OTHERS, "threads", None])
def test_a_run_is_continued_only_as_what_it_began(tmp_path, other, monkeypatch):
    path = tmp_path / "run.ckpt"
    fit(**BEGUN, checkpoint=path)
    before, asked = path.read_bytes(), BEGUN | {k: v for k, v in OTHERS.items() if k == other}
    if other == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    if other is None:
        fit(**asked, checkpoint=path)
    else:
        told = {"compute": "device or precision", "threads": "number of threads"}.get(other, other)
        with pytest.raises(StateError, match=f"another {told}.*delete it"):
            fit(**asked, checkpoint=path)
    assert path.read_bytes() == before


def test_an_objective_that_is_a_function_is_known_again_in_another_process():
    assert "0x" not in fingerprint(squared)
    assert fingerprint(squared) != fingerprint(line_data)


def test_a_damaged_checkpoint_is_named(tmp_path):
    path, config = tmp_path / "run.ckpt", FitConfig(num_steps=2)
    fit(nn.Linear(1, 1), line_data(), squared, config, compute=CPU, checkpoint=path)
    for damaged in (path.read_bytes()[:-10], b"\x00" * 100, b""):
        path.write_bytes(damaged)
        with pytest.raises(StateError, match=r"run.ckpt is damaged"):
            fit(nn.Linear(1, 1), line_data(), squared, config, compute=CPU, checkpoint=path)
