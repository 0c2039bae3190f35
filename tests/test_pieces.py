import json

import pytest
import torch
from torch import nn

from companion import pieces
from companion.pieces import export_onnx


def through(net, values):
    return {"output": net(values)}


def test_an_exported_net_answers_as_pytorch_does_for_any_number_of_examples(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    net, path = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), tmp_path / "net.onnx"
    export_onnx(net, path, through, input=torch.randn(64, 3, 5, 5))
    images = torch.randn(2, 3, 5, 5)
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
