"""Images from files and folders: decoding, what is left out, labels and splits."""

import hashlib
import io
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from companion.data import images as module
from companion.data.download import DataError
from companion.data.images import (
    ImageSet,
    check_not_sorted,
    deep_range,
    find_images,
    read_images,
    read_paths,
    share_by_hash,
    split_images,
)

RNG = np.random.default_rng(0)


def encoded(pixels: np.ndarray, kind: str = "png", mode: str | None = None, **options) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(file, kind, **options)
    return file.getvalue()


def decode_image(content, size, color=False, value_range=None) -> np.ndarray:
    images, skipped = read_images([("one", 0, lambda: content)], size, color, value_range)
    if len(images) == 0:
        raise DataError(skipped[0].reason)
    return images.images[0].numpy()


def picture(seed: int, size: tuple[int, int] = (6, 9)) -> bytes:
    return encoded(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def fill(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))


def small_set(hashes, labels=None) -> ImageSet:
    labels = torch.zeros(len(hashes), dtype=torch.int64) if labels is None else torch.tensor(labels)
    images = torch.arange(len(hashes), dtype=torch.uint8).view(-1, 1, 1, 1)
    return ImageSet(images, labels, tuple(f"{i}.png" for i in range(len(hashes))), tuple(hashes))


def test_an_image_of_the_right_size_comes_back_as_it_was():
    pixels = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(decode_image(encoded(pixels), (5, 7), color=True), pixels.transpose(2, 0, 1))
    assert np.array_equal(decode_image(encoded(pixels[..., 0]), (5, 7)), pixels[None, ..., 0])
    both = decode_image(encoded(pixels[..., 0]), (5, 7), color=True)
    assert np.array_equal(both, np.repeat(pixels[None, ..., 0], 3, axis=0))


def test_every_mode_becomes_grey_or_colour():
    pixels = np.full((4, 4, 3), (200, 100, 50), dtype=np.uint8)
    gray = decode_image(encoded(pixels), (4, 4))[0, 0, 0]
    for mode in ("P", "1", "L", "LA", "RGBA"):
        assert decode_image(encoded(pixels, mode=mode), (4, 4)).shape == (1, 4, 4)
        assert decode_image(encoded(pixels, mode=mode), (4, 4), color=True).shape == (3, 4, 4)
    for mode, kind in (("CMYK", "jpeg"), ("YCbCr", "jpeg"), ("L", "jpeg"), ("RGB", "bmp"), ("RGB", "webp")):
        assert abs(int(decode_image(encoded(pixels, kind, mode), (4, 4))[0, 0, 0]) - int(gray)) < 12
    see_through = np.dstack([pixels, np.array([[0, 255, 0, 255]] * 4, dtype=np.uint8)])
    row = decode_image(encoded(see_through), (4, 4), color=True)[:, 0]
    assert row[:, :2].T.tolist() == [[0, 0, 0], [200, 100, 50]]
    palette = Image.fromarray(pixels).convert("P")
    file = io.BytesIO()
    palette.save(file, "png", transparency=int(np.asarray(palette)[0, 0]))
    assert decode_image(file.getvalue(), (4, 4), color=True).max() == 0


def test_the_orientation_that_a_camera_noted_is_applied():
    pixels = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = decode_image(encoded(pixels, exif=exif), (6, 4))
    assert np.array_equal(turned[0], np.rot90(pixels, -1))


@pytest.mark.parametrize(
    ("kind", "dtype", "low", "high"),
    [
        ("png", np.uint16, 1700, 2300),  # 12 bits of a camera in a file of 16
        ("png", np.uint16, 0, 65535),
        ("tiff", np.int32, -70_000, 90_000),
        ("tiff", np.float32, -0.25, 1.5),
    ],
)
def test_images_deeper_than_8_bits_keep_their_levels_in_a_given_range(tmp_path, kind, dtype, low, high):
    values = np.linspace(low, high, 256).reshape(16, 16).astype(dtype)
    path = tmp_path / f"deep.{kind}"
    path.write_bytes(encoded(values, kind))
    (tmp_path / "flat.png").write_bytes(picture(0))
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=f"{np.dtype(dtype)} pixels from {low:g} to {high:g}: fit"):
        decode_image(path.read_bytes(), (16, 16))
    limits = deep_range(find_images(tmp_path)[0])
    assert limits == (low, high)
    gray = decode_image(path.read_bytes(), (16, 16), value_range=limits)[0]
    assert np.abs(gray.flatten().astype(int) - np.arange(256)).max() <= 1
    outside = decode_image(path.read_bytes(), (16, 16), value_range=(high, high + 1.0))
    assert outside.max() == 0
    assert deep_range([tmp_path / "flat.png"]) is None


def test_what_is_broken_is_refused_with_the_reason():
    whole = picture(0, (40, 40))
    jpeg = encoded(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), "jpeg")
    for broken in (b"", b"not an image", whole[:60], whole[: len(whole) // 2], jpeg[: len(jpeg) // 2]):
        with pytest.raises(DataError, match="cannot be read"):
            decode_image(broken, (8, 8))
    nan = encoded(np.full((3, 3), np.nan, dtype=np.float32), "tiff")
    with pytest.raises(DataError, match="no finite numbers"):
        decode_image(nan, (8, 8), value_range=(0, 1))


def test_colours_of_16_bits_are_refused_and_not_cut_to_8():
    png = bytearray(encoded(np.zeros((2, 2, 3), dtype=np.uint8)))
    png[24] = 16  # bits in each colour
    header = bytes(png[12:29])
    png[29:33] = crc32(header).to_bytes(4, "big")
    with pytest.raises(DataError, match="16 bits in each colour"):
        decode_image(bytes(png), (2, 2), color=True)


def test_too_many_pixels_are_refused_before_decoding_and_a_jpeg_is_shrunk(monkeypatch, tmp_path):
    pixels = np.full((160, 160), 77, dtype=np.uint8)
    monkeypatch.setattr(module, "LARGEST_PICTURE", 10_000)
    png = encoded(pixels)
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
        with pytest.raises(DataError, match="160 x 160 pixels are too many"):
            decode_image(png, (8, 8))
    assert (decode_image(encoded(pixels, "jpeg"), (8, 8)) == 77).all()
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(2**28 + 1)
    (skipped,) = read_paths([tmp_path / "sparse.png"], (8, 8), False, None)[1]
    assert "at most 268 MB are read" in skipped.reason


@pytest.mark.skipif(".avif" not in module.SUFFIXES, reason="Pillow without AVIF")
def test_no_damage_ends_a_run():
    whole = encoded(RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8), "avif")
    start = whole.index(b"mdat") + 4
    places = range(start, len(whole), 97)
    cuts = [whole[:p] + bytes(b ^ 255 for b in whole[p : p + 3]) + whole[p + 3 :] for p in places]

    def memory():
        raise MemoryError

    items = [("x.jpg", 0, partial(bytes, cut)) for cut in cuts] + [("m", 0, memory), ("ok", 0, lambda: whole)]
    images, skipped = read_images(items, (16, 16))
    assert images.names[-1] == "ok"
    assert len(images) + len(skipped) == len(items)
    assert ("m", "out of memory") in [(each.name, each.reason) for each in skipped]


def test_what_is_left_out_of_a_folder_is_told_and_the_rest_is_read(tmp_path):
    fill(tmp_path, "in/b.png", "in/a.PNG", "in/deep/er/c.jfif", "in/.hidden/d.png", "in/e.heic", "far/f.png")
    folder = tmp_path / "in"
    (folder / "cut.jpg").write_bytes(picture(9)[:40])
    (folder / "notes.txt").write_text("no image")
    (folder / "folder.png").mkdir()
    (folder / "linked.png").symlink_to(tmp_path / "far" / "f.png")
    (folder / "more").symlink_to(tmp_path / "far")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    pages = [Image.fromarray(np.full((6, 9), value, dtype=np.uint8)) for value in (1, 2, 3)]
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])
    paths, left_out = find_images(folder)
    assert [p.name for p in paths] == ["a.PNG", "b.png", "cut.jpg", "c.jfif", "linked.png", "pages.tif"]
    assert {Path(each.name).name: each.reason for each in left_out} == {
        "more": "a link to a folder, with 1 image files",
        "gone.png": "no file, or a link to one that is gone",
        "e.heic": "images that end in .heic are not read",
    }
    images, skipped = read_images([(p.name, 0, p.read_bytes) for p in paths], (8, 8))
    assert images.names == ("a.PNG", "b.png", "c.jfif", "linked.png", "pages.tif")
    assert (images.images[-1] == 1).all()
    assert [each.name for each in skipped] == ["cut.jpg", "pages.tif, pages 2 to 3"]
    assert torch.equal(read_paths(paths, (8, 8), False, None)[0].images, images.images)


def test_a_file_that_vanishes_is_skipped_and_folders_without_images_are_refused(tmp_path):
    images, skipped = read_images([("gone.png", 0, (tmp_path / "gone.png").read_bytes)])
    assert images.images.shape == (0, 1, 64, 64)
    assert "No such file" in skipped[0].reason
    with pytest.raises(DataError, match="is no folder"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no images"):
        find_images(tmp_path)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("OK", "NG"), "NG"),
        (("normal", "abnormal"), "abnormal"),
        (("good", "Defects"), "Defects"),
        (("line1/good", "line1/defects_2024"), "defects_2024"),
        (("good", "crack"), "crack"),
        (("a/b/not ok",), "not ok"),
        (("train/good", "test/good"), "test"),
    ],
)
def test_folders_named_by_verdict_are_not_learned_together(tmp_path, names, told):
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ValueError, match=f"would be learned as normal, also .*{told}"):
        check_not_sorted(tmp_path)
    check_not_sorted(tmp_path / names[0])
    for name in ("camera 1", "camera 2/monday", "line/defect_free", "one/good", "two/good", ".hidden/ng"):
        (tmp_path / "others" / name).mkdir(parents=True)
    check_not_sorted(tmp_path / "others")


hash_lists = st.lists(st.integers(0, 30).map(lambda n: hashlib.sha256(bytes([n])).hexdigest()), max_size=60)


@settings(max_examples=60, deadline=None)
@given(hash_lists, st.floats(0, 1), st.randoms())
def test_copies_stay_together_and_the_order_does_not_matter(hashes, share, random):
    chosen = share_by_hash(hashes, share)
    inside = {h for h, c in zip(hashes, chosen, strict=True) if c}
    assert inside.isdisjoint({h for h, c in zip(hashes, chosen, strict=True) if not c})
    assert len(inside) == round(share * len(set(hashes)))
    order = list(range(len(hashes)))
    random.shuffle(order)
    assert share_by_hash([hashes[i] for i in order], share).tolist() == chosen[order].tolist()


def test_the_share_is_taken_of_each_label():
    hashes = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(110)]
    labels = [0] * 100 + [1] * 10
    chosen = share_by_hash(hashes, 0.2, labels)
    assert (chosen[:100].sum(), chosen[100:].sum()) == (20, 2)
    assert not np.array_equal(chosen, share_by_hash(hashes, 0.2, labels, salt="other"))


def test_no_copy_stands_in_two_parts():
    train, tuning = small_set("abbcdefghijkl"), small_set("cxz", [1, 1, 1])
    test = small_set("dzmmnnop", [0, 1, 0, 1, 0, 0, 1, 0])
    assert test.distinct().names == ("0.png", "1.png", "2.png", "4.png", "6.png", "7.png")
    parts = split_images(train, tuning, test, name="n", source="s", digest="d", synthetic=True)
    every = [parts.train, parts.validation, parts.tuning, parts.development, parts.test]
    sets = [set(part.hashes) for part in every]
    assert sum(map(len, sets)) == len(set().union(*sets))
    assert set().union(*sets) == set("abefghijklcxdznop")
    assert len(sets[1]) == 2  # a fifth of ten
    assert sum(map(len, every)) == 19  # of 24, five are out
