"""What the single experiments promise beyond running, see also test_runs.py."""

import pytest
import torch
from torch import nn

from companion.compute import seed_everything
from companion.experiments import classifier, get_experiment
from companion.experiments.optimisation import gradient_flow, shuffled, unchanging, without
from companion.experiments.runner import execute
from companion.files import StateError, load_weights
from companion.models.blocks import PreActResidualBlock
from companion.models.resnet import CifarResNet
from companion.objectives.classification import ImageClassification
from companion.runs import RunError, load_run, weights_path
from tests.small_data import CONTEXT, CPU, MOMENTS, load_small

OBJECTIVE = ImageClassification(*MOMENTS)


def eight_images():
    return torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8), torch.arange(8)


def test_a_block_that_is_taken_out_passes_its_input_on():
    net = CifarResNet(14).eval()
    assert unchanging(net) == [(0, 0), (0, 1), (1, 1), (2, 1)]
    images = torch.randn(2, 3, 16, 16)
    lesioned = without(net, [(1, 1)])
    maps = []
    lesioned.stages[1][0].register_forward_hook(lambda module, inputs, output: maps.append(output))
    lesioned.stages[2][0].register_forward_hook(lambda module, inputs, output: maps.append(inputs[0]))
    changed = lesioned(images)
    assert maps[0] is maps[1]
    assert not torch.allclose(net(images), changed)
    assert all(isinstance(block, nn.Module) and not isinstance(block, nn.Identity) for block in net.stages[1])


def test_shuffling_the_same_pair_twice_changes_nothing():
    net = CifarResNet(20).eval()
    images, pair = torch.randn(2, 3, 16, 16), ((2, 1), (2, 2))
    assert not torch.allclose(shuffled(net, [pair])(images), net(images))
    assert torch.equal(shuffled(net, [pair, pair])(images), net(images))


def test_the_gradient_flow_is_that_of_the_chain_rule():
    seed_everything(0)
    net, batch, kept = CifarResNet(14, block=PreActResidualBlock), eight_images(), {}
    net.stages[1][1].register_forward_hook(
        lambda module, inputs, output: kept.update(before=output, after=inputs[0])
    )
    loss = OBJECTIVE(net, batch, None)["loss"]
    before, after = torch.autograd.grad(loss, [kept["before"], kept["after"]])
    flow = gradient_flow(net, batch, OBJECTIVE, CONTEXT)
    assert len(flow["cosine"]) == len(flow["ratio"]) == 4  # the blocks that keep the shape
    assert flow["ratio"][2] == pytest.approx(float((after - before).norm() / before.norm()), rel=1e-4)
    cosine = nn.functional.cosine_similarity(before.flatten(), after.flatten(), dim=0)
    assert flow["cosine"][2] == pytest.approx(float(cosine), rel=1e-4)


def test_a_run_keeps_the_weights_of_its_first_seed_and_others_are_refused(small, tmp_path, monkeypatch):
    out = tmp_path / "runs"
    path = execute(get_experiment("classifier"), "smoke", [0, 1], compute=CPU, out=out, progress=False)
    run = load_run(path)
    weights = weights_path(run, "net", out)
    tensors, about = load_weights(weights)
    assert about["net"] == "resnet9-4"
    model = classifier.build("resnet9-4")
    model.load_state_dict(tensors)
    config = get_experiment("classifier").config("smoke")
    trained, result = classifier.train(config, 0, CONTEXT)
    assert result.metrics["validation_error"] == run.results[0].metrics["validation_error"]
    assert len(result.curves["seconds"]) == len(result.curves["validation_error"]) == 2
    assert 0 < result.curves["seconds"][0] < result.curves["seconds"][1] <= result.seconds["net"]
    for name, tensor in trained.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)

    monkeypatch.setattr(classifier, "load_run", lambda name: run)
    monkeypatch.setattr(classifier, "weights_path", lambda run, part: weights)
    kept = classifier.trained_classifier(CPU)
    assert kept.class_names == load_small().class_names
    torch.testing.assert_close(kept.objective.mean, load_small().moments[0])
    assert not kept.model.training

    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(RunError, match="not the file"):
        weights_path(run, "net", out)
    with pytest.raises(StateError, match="readable"):
        load_weights(weights)
    weights.unlink()
    with pytest.raises(RunError, match="missing"):
        weights_path(run, "net", out)


def test_mirrored_views_average_the_logits():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5))
    images, labels = batch = torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8), torch.arange(6) % 5
    both = ImageClassification(*MOMENTS, mirrored_views=True)
    pixels = (images.float() / 255 - 0.5) / 0.25
    expected = nn.functional.cross_entropy((model(pixels) + model(pixels.flip(3))) / 2, labels)
    torch.testing.assert_close(both(model, batch, None)["loss"], expected)
    trained = both(model, batch, torch.Generator())["loss"]  # while training, one view
    torch.testing.assert_close(trained, OBJECTIVE(model, batch, None)["loss"])
