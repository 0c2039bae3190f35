"""What keeps pages light, without Sphinx."""

from book_weight import with_waiting_images
from PIL import Image


def test_images_wait_and_keep_their_place(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    page = '<img src="logo.png"><article><img alt="A" src="a.png" /><img alt="B" src="b.svg"></article>'
    light = with_waiting_images(page, tmp_path)
    assert light == (
        '<img src="logo.png"><article><img alt="A" src="a.png" width="30" height="20" loading="lazy" />'
        '<img alt="B" src="b.svg" loading="lazy"></article>'
    )
    assert with_waiting_images(light, tmp_path) == light


def test_the_size_that_a_page_gives_an_image_goes_before_its_own(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    image = '<img src="a.png" style="width: 15px; height: 10px;" />'
    assert 'width="15" height="10" loading="lazy"' in with_waiting_images(f"<article>{image}", tmp_path)
    sized = with_waiting_images('<article><img src="a.png" width="7" height="5">', tmp_path)
    assert sized == '<article><img src="a.png" width="7" height="5" loading="lazy">'
