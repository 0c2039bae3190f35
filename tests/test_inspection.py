import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from companion.data.download import DataError
from companion.experiments.classifier import RECIPE, VARIANTS, override
from companion.inspection import fit_temperature, grad_cam, load_image, predict
from companion.models.resnet9 import ResNet9
from companion.objectives.classification import ImageClassification
from tests.small_data import CPU, MOMENTS

OBJECTIVE = ImageClassification(*MOMENTS)


def test_predictions_do_not_depend_on_the_batch_and_leave_the_mode():
    net = ResNet9(4).train()
    images = torch.randint(0, 256, (1003, 3, 8, 8), dtype=torch.uint8)  # more than one batch
    whole, last = (predict(net, part, OBJECTIVE, CPU) for part in (images, images[998:]))
    torch.testing.assert_close(whole[998:], last)
    assert whole.shape == (1003, 10)
    assert net.training


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.05)


def test_grad_cam_of_one_linear_readout_is_that_map():
    # two maps and two classes: class c reads map c, so the evidence for c is map c where it is positive
    model = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2, 3).view(2, 3, 1, 1))
    pixels = torch.randn(4, 3, 6, 6)
    for c in (0, 1):
        heat = grad_cam(model, model[0], pixels, torch.full((4,), c))
        expected = pixels[:, c].relu()
        torch.testing.assert_close(heat, expected / expected.amax(dim=(1, 2), keepdim=True))
    nn.init.zeros_(model[0].weight)  # no evidence at all
    assert not grad_cam(model, model[0], pixels, torch.zeros(4, dtype=torch.long)).any()
    assert not model[0]._forward_hooks


def test_the_middle_square_is_taken_as_a_viewer_shows_it(tmp_path):
    picture = np.zeros((96, 32, 3), dtype=np.uint8)
    picture[32:64, :, 2] = 200
    picture[32:48] //= 2
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "up.png")
    turned = Image.fromarray(picture).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "phone.png", exif=exif)
    image = load_image(tmp_path / "up.png")
    assert (image.shape, image.dtype) == ((1, 3, 32, 32), torch.uint8)
    assert torch.equal(image[0], torch.from_numpy(picture[32:64]).permute(2, 0, 1))
    assert torch.equal(load_image(tmp_path / "phone.png"), image)


def test_files_that_are_no_images_are_named(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    for name, message in (("text.png", "cannot be read as an image"), ("missing.png", "No such file")):
        with pytest.raises(DataError, match=message) as caught:
            load_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_every_variant_changes_one_thing_and_sees_as_many_images():
    base = RECIPE.scales["full"].base
    configs = {variant: override(base, variant) for variant in VARIANTS}
    assert configs.pop("as it is") == base
    for variant, config in configs.items():
        assert config != base, variant
        assert config.fit.num_steps * config.fit.batch_size == base.fit.num_steps * base.fit.batch_size
