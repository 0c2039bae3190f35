import json

import pytest
import torch
from torch import nn

from companion import pieces
from companion.experiments.optimisation import without
from companion.models.resnet9 import ResNet9
from companion.pieces import export_onnx, switched


def through(net, values):
    return {"output": net(values)}


def test_an_exported_net_answers_as_pytorch_does_for_any_number_of_examples(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    net, path = nn.Sequential(nn.Conv2d(64, 128, 3), nn.BatchNorm2d(128), nn.ReLU()), tmp_path / "net.onnx"
    export_onnx(net.half().float(), path, through, input=torch.randn(64, 64, 5, 5))
    assert path.stat().st_size < 2.5 * net[0].weight.numel()  # as float16 holds them
    images = torch.randn(2, 64, 5, 5)
    (found,) = onnxruntime.InferenceSession(path).run(["output"], {"input": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), net(images))


def test_a_net_that_differs_from_pytorch_is_not_written(tmp_path):
    pytest.importorskip("onnxruntime")
    calls = []

    def drifting(net, values):
        calls.append(net)
        return {"output": net(values) + len(calls)}

    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        export_onnx(nn.Linear(2, 1), tmp_path / "net.onnx", drifting, input=torch.randn(64, 2))
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_is_switched_off_is_a_block_that_chapter_2_takes_out():
    net, images = ResNet9(4).eval(), torch.randn(3, 3, 8, 8)
    found = switched(net, images, torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]))["logits"]
    cut = [without(net, places)(images)[n] for n, places in enumerate(([], [(1, 1)], [(3, 1)]))]
    torch.testing.assert_close(found, torch.stack(cut))


@pytest.mark.xdist_group("casting")  # of which the desk has images
@pytest.mark.parametrize("name", ["depth", "heartbeat", "desk", "photograph"])
def test_a_piece_is_made_of_recorded_numbers_and_nets(name, tmp_path, monkeypatch):
    asked = []

    def keep(net, path, calculate, **inputs):
        asked.append(calculate(net, *inputs.values()))

    monkeypatch.setattr(pieces, "export_onnx", keep)
    try:
        getattr(pieces, name)(tmp_path)
    except pieces.DataError:
        pytest.skip("the data are out of reach here")
    assert json.loads((tmp_path / f"{name}.json").read_text("utf8"))
    assert all(torch.isfinite(value).all() for answers in asked for value in answers.values())
