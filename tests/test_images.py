"""Images from folders: decoding, labels, splits by content, and the files that trip others."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from companion.data.download import DataError
from companion.data.image_folders import load_image_folder, parse_annotation
from companion.data.images import (
    ImageSet,
    Skipped,
    decode_image,
    find_images,
    image_batches,
    read_images,
    share_by_hash,
    split_images,
)

RNG = np.random.default_rng(0)


def encoded(pixels: np.ndarray, kind: str = "png", mode: str | None = None, **options) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(file, kind, **options)
    return file.getvalue()


def picture(seed: int, size: tuple[int, int] = (6, 9)) -> bytes:
    return encoded(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def fill(folder: Path, names, first: int = 0) -> None:
    for number, name in enumerate(names, first):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))


def small_set(hashes, labels=None) -> ImageSet:
    labels = torch.zeros(len(hashes), dtype=torch.int64) if labels is None else torch.tensor(labels)
    images = torch.arange(len(hashes), dtype=torch.uint8).view(-1, 1, 1, 1)
    return ImageSet(images, labels, tuple(f"{i}.png" for i in range(len(hashes))), tuple(hashes))


# ---------------------------------------------------------------- decoding


def test_an_image_of_the_right_size_comes_back_as_it_was():
    pixels = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(decode_image(encoded(pixels), (5, 7), color=True), pixels.transpose(2, 0, 1))
    gray = decode_image(encoded(pixels[..., 0]), (5, 7))
    assert np.array_equal(gray, pixels[None, ..., 0])
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
    assert row[:, 0].tolist() == [0, 0, 0]
    assert row[:, 1].tolist() == [200, 100, 50]
    palette = Image.fromarray(pixels).convert("P")
    file = io.BytesIO()
    palette.save(file, "png", transparency=int(np.asarray(palette)[0, 0]))
    assert decode_image(file.getvalue(), (4, 4), color=True).max() == 0
    deep = decode_image(encoded(np.full((4, 4), 40_000, dtype=np.uint16)), (4, 4))
    assert deep.flatten().tolist() == [40_000 >> 8] * 16


def test_the_orientation_that_a_camera_noted_is_applied():
    pixels = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = decode_image(encoded(pixels, exif=exif), (6, 4))
    assert np.array_equal(turned[0], np.rot90(pixels, -1))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 20), st.integers(1, 20), st.booleans())
def test_any_size_becomes_the_one_asked_for(high, wide, height, width, color):
    flat = encoded(np.full((high, wide, 3), 77, dtype=np.uint8))
    pixels = decode_image(flat, (height, width), color)
    assert pixels.shape == (3 if color else 1, height, width)
    assert (pixels == 77).all()


def test_what_is_broken_is_refused_with_the_reason():
    whole = picture(0, (40, 40))
    jpeg = encoded(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), "jpeg")
    floats = io.BytesIO()
    Image.fromarray(np.ones((3, 3), dtype=np.float32)).save(floats, "tiff")
    for broken in (b"", b"not an image", whole[:60], whole[: len(whole) // 2], jpeg[: len(jpeg) // 2]):
        with pytest.raises(DataError, match="cannot be read"):
            decode_image(broken, (8, 8))
    with pytest.raises(DataError, match="floating-point"):
        decode_image(floats.getvalue(), (8, 8))


def test_a_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="DecompressionBomb"):
        decode_image(encoded(np.zeros((40, 40), dtype=np.uint8)), (8, 8))


# ---------------------------------------------------------------- folders


def test_unreadable_files_are_listed_and_the_others_read(tmp_path):
    fill(tmp_path, ["b.png", "a.PNG", "deep/er/c.png", ".hidden/d.png"])
    (tmp_path / "cut.jpg").write_bytes(picture(9)[:40])
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    paths = find_images(tmp_path)
    assert [p.name for p in paths] == ["a.PNG", "b.png", "cut.jpg", "c.png"]
    images, skipped = read_images(((p.name, 0, p.read_bytes) for p in paths), (8, 8))
    assert images.names == ("a.PNG", "b.png", "c.png")
    assert images.images.shape == (3, 1, 8, 8)
    assert [s.name for s in skipped] == ["cut.jpg"]
    batches = list(image_batches(paths, (8, 8), batch_size=3))
    assert [len(images) for images, _ in batches] == [2, 1]
    assert torch.equal(torch.cat([images.images for images, _ in batches]), images.images)


def test_a_file_that_vanishes_or_may_not_be_read_is_skipped(tmp_path):
    images, skipped = read_images([("gone.png", 0, (tmp_path / "gone.png").read_bytes)])
    assert images.images.shape == (0, 1, 64, 64)
    assert "No such file" in skipped[0].reason


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no images"):
        find_images(tmp_path)
    (tmp_path / "only.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="none of the images"):
        load_image_folder(tmp_path)
    with pytest.raises(ValueError, match="positive"):
        read_images([], (0, 8))
    with pytest.raises(ValueError, match="positive"):
        list(image_batches([], batch_size=0))


def test_the_layout_of_the_casting_images_is_understood(tmp_path):
    fill(tmp_path / "train", [f"{i}.png" for i in range(20)])
    fill(tmp_path / "proliv", ["x.png", "y.png"], first=100)
    fill(tmp_path / "test" / "imgs", [f"t{i} b.png" for i in range(10)], first=200)
    (tmp_path / "train" / "copy.png").write_bytes(picture(100))  # one of the spills
    (tmp_path / "train" / "again.png").write_bytes(picture(3))
    lines = [f"t{i} b.png {int(i < 4)}" for i in range(9)] + ["lost.png 1", ""]
    (tmp_path / "test" / "test_annotation.txt").write_bytes("\r\n".join(lines).encode())
    found = load_image_folder(tmp_path, size=(8, 12), color=True, development_share=0.5)
    assert len(found.train) + len(found.validation) == 21
    assert not set(found.train.hashes) & set(found.validation.hashes)
    assert found.tuning.labels.tolist() == [1, 1]
    assert sorted(found.development.labels.tolist()) == [0, 0, 1, 1]
    assert len(found.test) == 5
    assert set(found.skipped) == {
        Skipped("copy.png", "a copy of a known anomaly"),
        Skipped("lost.png", "the annotation names it, and it is not there"),
        Skipped("t9 b.png", "the annotation does not name it"),
    }
    assert found.train.images.shape[1:] == (3, 8, 12)
    assert not found.synthetic
    again = load_image_folder(tmp_path, size=(8, 12), color=True, development_share=0.5)
    assert again.digest == found.digest
    assert again.development.names == found.development.names


def test_any_folder_of_normal_images_will_do(tmp_path):
    fill(tmp_path / "mine", [f"{i}.png" for i in range(10)])
    alone = load_image_folder(tmp_path / "mine", validation_share=0.3)
    assert (len(alone.train), len(alone.validation)) == (7, 3)
    assert len(alone.tuning) == len(alone.development) == len(alone.test) == 0
    fill(tmp_path / "bad", ["b.png"], first=50)
    fill(tmp_path / "checks", ["good/a.png", "crack/b.png", "hole/deep/c.png"], first=60)
    full = load_image_folder(
        tmp_path / "mine", tmp_path / "bad", tmp_path / "checks", development_share=0, validation_share=0
    )
    assert len(full.tuning) == 1
    assert dict(zip(full.test.names, full.test.labels.tolist(), strict=True)) == {
        str(Path("crack/b.png")): 1,
        str(Path("good/a.png")): 0,
        str(Path("hole/deep/c.png")): 1,
    }


def test_test_images_without_labels_are_refused(tmp_path):
    fill(tmp_path, ["train/a.png", "test/a.png"])
    with pytest.raises(DataError, match="have no labels"):
        load_image_folder(tmp_path)
    (tmp_path / "test" / "test_annotation.txt").write_text("other.png 1\n")
    with pytest.raises(DataError, match="names none"):
        load_image_folder(tmp_path)


def test_annotations():
    assert parse_annotation("\ufeffa.jpg 0\r\n\r\nb c.jpg\t 1\n") == {"a.jpg": 0, "b c.jpg": 1}
    assert parse_annotation("") == {}
    for bad in ("a.jpg 2", "a.jpg", "1", "a.jpg,1"):
        with pytest.raises(DataError, match="line 2"):
            parse_annotation(f"ok.jpg 0\n{bad}\n")
    with pytest.raises(DataError, match="both labels"):
        parse_annotation("a 0\na 1")


# ---------------------------------------------------------------- splitting

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
    with pytest.raises(ValueError, match="share"):
        share_by_hash(hashes, 1.2)


def test_no_copy_stands_in_two_parts():
    train, tuning = small_set("abbcdef"), small_set("cxz", [1, 1, 1])
    test = small_set("dzmmnnop", [0, 1, 0, 1, 0, 0, 1, 0])
    parts = split_images(
        train, tuning, test, name="n", source="s", digest="d", validation_share=0.5, development_share=0.5
    )
    every = [parts.train, parts.validation, parts.tuning, parts.development, parts.test]
    sets = [set(part.hashes) for part in every]
    assert sum(map(len, sets)) == len(set().union(*sets))
    assert set().union(*sets) == set("abefcxdznop")
    assert {(s.name, s.reason) for s in parts.skipped} == {
        ("2.png", "its copies have both labels"),
        ("3.png", "its copies have both labels"),
        ("2.png", "a copy of a test image"),
        ("4.png", "a copy of a test image"),
        ("3.png", "a copy of a known anomaly"),
    }
    with pytest.raises(DataError, match="no normal image left"):
        split_images(small_set("d"), tuning, test, name="n", source="s", digest="d")
    with pytest.raises(ValueError, match="share"):
        split_images(train, tuning, test, name="n", source="s", digest="d", validation_share=2)


def test_distinct_images_and_sets_that_do_not_fit():
    images = small_set("abacb")
    assert images.distinct().names == ("0.png", "1.png", "3.png")
    assert len(small_set("").distinct()) == 0
    with pytest.raises(ValueError, match="equally many"):
        ImageSet(images.images, images.labels, images.names[:2], images.hashes)
