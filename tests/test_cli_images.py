"""``companion fit images`` and ``companion score images``."""

from __future__ import annotations

import csv
import html
import io
import os
import re

import numpy as np
import pytest
import torch
from PIL import Image

from companion import cli_images, image_report
from companion.cli_images import check_normal, parse_scales, parse_size, read_sample
from companion.data.casting_synthetic import synthetic_moulds
from companion.data.images import Skipped, decode_thumbnail, find_images, read_images
from companion.data.sources import DataError
from companion.estimators import ImageAE
from companion.files import atomic_folder
from companion.image_report import Findings, check_report_folder, histogram_svg, map_uri
from companion.objectives.reconstruction import STILL
from companion.training import save_weights
from tests.test_cli import call

SIZE = (16, 24)
FAST = ("--size", "16x24", "--epochs", "2", "--latent", "4", "--device", "cpu")


def good(*arguments):
    result = call(*map(str, arguments))
    assert result.exit_code == 0, result.output
    return result.output


def write(folder, kind="normal", count=40, seed=0, name="{:03d}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(synthetic_moulds(kind, count, (20, 32), seed)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name.format(index))
    return folder


def spoil(folder):
    """Add files that cannot be read."""
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(whole, "png")
    (folder / "cut.png").write_bytes(whole.getvalue()[:2000])
    return folder


def rows(report):
    with (report / "scores.csv").open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def normal(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "normal", count=60)


@pytest.fixture(scope="module")
def model(normal):
    path = normal.parent / "model.safetensors"
    told = good("fit", "images", normal, "--out", path, "--fpr", 0.1, *FAST)
    assert "learned from 48 images of 16x24 colour pixels, held out 12" in told
    assert "for a false-positive rate of 0.1" in told
    assert not path.with_name(f".{path.name}.checkpoint").exists()
    return path


def score(folder, model, out, *options):
    return good("score", "images", folder, "--model", model, "--out", out, "--device", "cpu", *options)


# ---------------------------------------------------------------- round trip


def test_images_are_learned_scored_and_shown(tmp_path, model):
    folder = spoil(write(tmp_path / "new", count=12, seed=1))
    write(folder / "deep" / "er", "spill", 4, name="spill {}.bmp")
    told = score(folder, model, tmp_path / "report", "--worst", 5, "--batch", 6)
    assert "3 of the image files" in told
    assert "empty.png: cannot be read as an image (the file is empty)" in told
    assert "16 images scored at" in told
    table = rows(tmp_path / "report")
    assert [row["file"] for row in table] == [str(p.relative_to(folder)) for p in find_images(folder)]
    assert list(table[0]) == ["file", "score", "flagged", "error"]
    detector = ImageAE.load(model)
    items = [(str(p), 0, p.read_bytes) for p in find_images(folder)]
    images, unread = read_images(items, SIZE, color=True)
    scored = [row for row in table if not row["error"]]
    np.testing.assert_allclose(
        [float(row["score"]) for row in scored], detector.decision_function(images.images), 1e-5
    )
    assert [row["flagged"] == "1" for row in scored] == [
        float(row["score"]) > detector.threshold_ for row in scored
    ]
    assert [row["error"] for row in table if row["error"]] == [each.reason for each in unread]
    page = (tmp_path / "report" / "index.html").read_text("utf8")
    assert page.count('alt="The image ') == page.count('alt="Error map of ') == 5
    worst = sorted(scored, key=lambda row: -float(row["score"]))[:5]
    assert re.findall(r"<figcaption>\d. (.*?)<br>", page) == [row["file"] for row in worst]
    assert "aspect-ratio:32/20" in page
    assert page.count("cannot be read as an image") == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "report"]


def test_the_model_scores_as_an_estimator_made_by_hand(normal, tmp_path):
    told = good("fit", "images", normal, "--out", tmp_path / "m", "--gray", "--still", "--scales", "2", *FAST)
    assert "no threshold: a false-positive rate of 0.01 needs at least 99" in told
    detector = ImageAE.load(tmp_path / "m")
    assert detector.shape_ == (1, *SIZE)
    assert detector.camera == STILL
    assert detector.scales == (2,)
    score(normal, tmp_path / "m", tmp_path / "report")
    assert {row["flagged"] for row in rows(tmp_path / "report")} == {""}
    page = (tmp_path / "report" / "index.html").read_text("utf8")
    assert "no threshold, so nothing is flagged" in page


def test_known_anomalies_choose_the_threshold(normal, tmp_path):
    known = write(tmp_path / "known", "spill", 10)
    (known / "a normal one.png").write_bytes((normal / "000.png").read_bytes())
    out = tmp_path / "model"
    told = good("fit", "images", normal, "--known", known, "--out", out, "--fpr", 0.2, *FAST)
    assert "of 11 known anomalies" in told
    assert "copies of known anomalies, left out: 1" in told
    assert "learned from 47 images" in told


def test_more_alarms_than_promised_are_remarked_upon(tmp_path, model, normal):
    detector = ImageAE.load(model)
    assert detector.promised_fpr_ == 0.1
    assert "warning" not in score(normal, model, tmp_path / "report")
    detector.threshold_ = 0.0  # nothing is as usual as that
    detector.save(tmp_path / "nervous.safetensors")
    sentence = "100 % of these images are flagged, and of normal ones it should be 10 %"
    assert f"warning: {sentence}" in score(normal, tmp_path / "nervous.safetensors", tmp_path / "report")
    assert sentence in (tmp_path / "report" / "index.html").read_text("utf8")


def test_a_sample_is_drawn_without_copies_and_without_what_cannot_be_read(tmp_path):
    folder = spoil(write(tmp_path / "many", count=30))
    for index in range(10):
        (folder / f"copy{index}.png").write_bytes((folder / "000.png").read_bytes())
    whole = read_sample(folder, SIZE, True, 100, 0)
    assert (len(whole.images), len(whole.skipped), whole.copies, whole.files) == (30, 3, 10, 43)
    assert whole.images.distinct().names == whole.images.names
    first, again, other = (read_sample(folder, SIZE, True, 20, seed).images for seed in (0, 0, 1))
    assert len(set(first.hashes)) == 20
    assert torch.equal(first.images, again.images)
    assert set(other.hashes) != set(first.hashes)
    assert "copies of other images, left out: 10" in good(
        "fit", "images", folder, "--out", tmp_path / "m", *FAST
    )
    told = good("fit", "images", folder, "--out", tmp_path / "model", "--most", 20, *FAST)
    assert "a sample of 20 distinct images was drawn from 43 files" in told
    assert "learned from 16 images" in told


def test_a_stopped_training_continues(normal, tmp_path, monkeypatch, model):
    fit = ImageAE.fit
    with monkeypatch.context() as patch:
        patch.setattr(ImageAE, "fit", lambda self, images, **rest: fit(self, images, **rest, stop_after=3))
        patch.setattr(ImageAE, "calibrate", lambda *_: (_ for _ in ()).throw(RuntimeError("stopped")))
        result = call("fit", "images", str(normal), "--out", str(tmp_path / "m"), "--fpr", "0.1", *FAST)
        assert result.exit_code == 1
    assert (tmp_path / ".m.checkpoint").is_file()
    good("fit", "images", normal, "--out", tmp_path / "m", "--fpr", 0.1, "--resume", *FAST)
    images = read_images([(p.name, 0, p.read_bytes) for p in find_images(normal)], SIZE, color=True)[0].images
    whole, again = ImageAE.load(model), ImageAE.load(tmp_path / "m")
    assert np.array_equal(again.score(images), whole.score(images))
    assert again.threshold_ == whole.threshold_


# ---------------------------------------------------------------- the report


def test_names_are_escaped(tmp_path, model):
    folder = write(tmp_path / "<i>&", count=3)
    (folder / "000.png").rename(folder / "<b>&.png")
    (folder / "001.png").rename(folder / "two\nlines\x1b[31m.png")
    (folder / '"><script>.png').write_text("no image")
    if os.name == "posix":
        (folder / os.fsdecode(b"caf\xe9.png")).write_bytes((folder / "002.png").read_bytes())
    told = score(folder, model, tmp_path / "report")
    assert "\x1b" not in told
    page = (tmp_path / "report" / "index.html").read_text("utf8")
    assert 'alt="The image &lt;b&gt;&amp;.png"' in page
    assert "two\\nlines\\x1b[31m.png" in page
    assert "&quot;&gt;&lt;script&gt;.png" in page
    assert "<b>" not in page
    assert "<script" not in page
    assert f"<title>Unusual images in {html.escape(str(folder))}</title>" in page
    names = {row["file"] for row in rows(tmp_path / "report")}
    assert {"<b>&.png", "two\\nlines\\x1b[31m.png"} <= names


def test_the_page_asks_for_nothing_else(tmp_path, model, normal):
    score(normal, model, tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text("utf8")
    assert '<html lang="en">' in page
    assert all(link.startswith("data:") for link in re.findall(r'(?:src|href)="(.*?)"', page))
    assert "url(" not in page
    assert len(re.findall("<img ", page)) == len(re.findall(r'<img [^>]*alt="[^"]+"', page))


def test_scoring_twice_gives_the_same_bytes(tmp_path, model):
    folder = spoil(write(tmp_path / "new", count=10))
    contents = []
    for _ in range(2):  # the second replaces the first
        score(folder, model, tmp_path / "report")
        contents.append([(p.name, p.read_bytes()) for p in sorted((tmp_path / "report").iterdir())])
    assert contents[0] == contents[1]
    assert [name for name, _ in contents[0]] == ["index.html", "scores.csv"]


def test_a_failure_midway_leaves_the_old_report(tmp_path, model, normal, monkeypatch):
    out = tmp_path / "report"
    score(normal, model, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_):
        raise OSError("the disk is full")

    for module, name in ((image_report, "write_page"), (image_report, "picture_uri"), (ImageAE, "maps")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            result = call("score", "images", str(normal), "--model", str(model), "--out", str(out))
        assert result.exit_code == 1
        assert "the disk is full" in result.output
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_folder_is_swapped_or_stays(tmp_path, monkeypatch):
    target = tmp_path / "report"
    target.mkdir()
    (target / "old").write_text("old")
    replace, calls = os.replace, []

    def second_fails(source, goal):
        calls.append(goal)
        if len(calls) == 2:
            raise OSError("no")
        replace(source, goal)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(OSError, match="no"), atomic_folder(target) as part:
        (part / "new").write_text("new")
    assert [path.name for path in target.iterdir()] == ["old"]
    with atomic_folder(target) as part:
        (part / "new").write_text("new")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_only_a_report_is_replaced(tmp_path, model, normal):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    score(normal, model, tmp_path / "empty")
    check_report_folder(tmp_path / "empty")
    for name, content, message in [
        ("notes", {"notes.txt": "mine"}, "holds notes.txt"),
        ("page", {"index.html": "mine"}, "holds a index.html of another kind"),
        ("table", {"scores.csv": "mine"}, "holds a scores.csv of another kind"),
        ("file", {}, "is a file"),
    ]:
        for file, text in content.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / file).write_text(text)
        result = call("score", "images", str(normal), "--model", str(model), "--out", str(tmp_path / name))
        assert result.exit_code == 1
        assert message in result.output
        for file, text in content.items():
            assert (tmp_path / name / file).read_text() == text


def test_memory_holds_the_worst_only(tmp_path, model, monkeypatch):
    folder = tmp_path / "tiny"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(1200):
        Image.fromarray(rng.integers(0, 255, (4, 4), dtype=np.uint8)).save(folder / f"{index}.pgm")
    add, seen = Findings.add, []

    def watched(self, paths, images, *rest):
        yield from add(self, paths, images, *rest)
        kept = [part for each in self.worst for part in (each.image, each.error)]
        seen.append((len(images), len(self.worst), sum(part.nbytes for part in kept)))
        assert all(part.base is None or part.base.nbytes == part.nbytes for part in kept)

    monkeypatch.setattr(Findings, "add", watched)
    score(folder, model, tmp_path / "report", "--worst", 7, "--batch", 50)
    assert len(seen) == 24
    assert max(count for count, _, _ in seen) == 50
    assert seen[-1][1:] == (7, 7 * 16 * 24 * (3 + 4))
    assert len(rows(tmp_path / "report")) == 1200


def test_of_equal_scores_the_first_are_kept(tmp_path):
    found = Findings(tmp_path, None, 2)
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path in paths:
        path.write_bytes(b"")
    images = read_images([], SIZE)[0]
    assert list(found.add([], images, np.empty(0), np.empty((0, *SIZE)), [])) == []
    fake = type(images)(
        torch.zeros(5, 1, *SIZE, dtype=torch.uint8), torch.zeros(5), tuple(map(str, paths)), tuple("abcde")
    )
    list(found.add(paths, fake, np.array([1.0, 2, 1, 2, 2]), np.zeros((5, *SIZE), np.float32), []))
    assert [each.name for each in found.worst] == ["1.png", "3.png"]


def test_nothing_that_can_be_read_is_a_warning_to_score_and_an_error_to_fit(tmp_path, model, normal):
    folder = tmp_path / "bad"
    folder.mkdir()
    spoil(folder)
    assert "warning: no image could be read" in score(folder, model, tmp_path / "report")
    assert [row["score"] for row in rows(tmp_path / "report")] == [""] * 3
    assert "3 files could not be read" in (tmp_path / "report" / "index.html").read_text("utf8")
    result = call("fit", "images", str(folder), "--out", str(tmp_path / "m"), *FAST)
    assert result.exit_code == 1
    assert "none of the 3 images" in result.output


def test_a_long_list_of_unreadable_files_is_capped(tmp_path, model, monkeypatch):
    folder = tmp_path / "bad"
    folder.mkdir()
    for index in range(130):
        (folder / f"{index:03d}.png").write_bytes(b"")
    told = score(folder, model, tmp_path / "report")
    assert "130 of the image files" in told
    assert "and 120 more" in told
    page = (tmp_path / "report" / "index.html").read_text("utf8")
    assert page.count("the file is empty") == 100
    assert "and 30 more, in scores.csv" in page
    assert len(rows(tmp_path / "report")) == 130


def test_a_picture_that_is_gone_is_shown_as_the_model_took_it(tmp_path):
    image = np.full((1, 8, 16), 7, dtype=np.uint8)
    gone = image_report.WorstImage("gone.png", tmp_path / "gone.png", 1.0, image, np.zeros((8, 16)))
    uri, size = image_report.picture_uri(gone)
    assert uri.startswith("data:image/png;base64,")
    assert size == (16, 8)


# ---------------------------------------------------------------- parts


def test_thumbnails_keep_their_shape():
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (600, 300), (250, 0, 0)).save(file, "jpeg", exif=exif)
    assert decode_thumbnail(file.getvalue(), 100).shape == (3, 100, 50)
    assert decode_thumbnail(file.getvalue(), 1000).shape == (3, 600, 300)
    for content in (b"", b"nothing"):
        with pytest.raises(DataError, match="cannot be read") as caught:
            decode_thumbnail(content, 100)
        assert "0x" not in str(caught.value)


def test_maps_share_a_scale_and_histograms_hold_all_scores():
    ramp = np.linspace(0, 2, 12, dtype=np.float32).reshape(3, 4)
    assert map_uri(ramp, 1.0) == map_uri(ramp.clip(0, 1), 1.0)
    assert map_uri(ramp, 2.0) != map_uri(ramp, 1.0)
    assert map_uri(0 * ramp, 0.0) == map_uri(0 * ramp, 1.0)
    text = histogram_svg(np.array([1.0, 2, 3]), 2.5)
    assert 'aria-label="Histogram of 3 scores from 1 to 3; the threshold is 2.5, and 1 are above it"' in text
    assert (text.count('class="usual"'), text.count('class="flag"')) == (2, 1)
    assert histogram_svg(np.array([0.5, 0.5]), None).count("<rect") == 1
    assert "threshold 9" in histogram_svg(np.array([1.0]), 9.0)


def test_sizes_and_scales_are_parsed():
    assert parse_size("24X16") == (24, 16)
    for text in ("64x", "a", "8x8x8", "60x64", "0", "-8"):
        with pytest.raises(ValueError, match="--size"):
            parse_size(text)
    assert parse_scales(" 1, 8", (8, 16)) == (1, 8)
    for text in ("", "0", "9", "1;2"):
        with pytest.raises(ValueError, match="--scales"):
            parse_scales(text, (8, 16))


def test_a_data_set_is_not_taken_for_normal_images(tmp_path):
    for name in ("train", "test", "proliv"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=r"holds a folder 'proliv'.*name .*train"):
        check_normal(tmp_path)
    with pytest.raises(ValueError, match="holds a folder 'test'"):
        check_normal(tmp_path, tmp_path / "proliv")
    check_normal(tmp_path / "train")
    (tmp_path / "train").rmdir()
    check_normal(tmp_path, tmp_path / "proliv")


def test_unread_files_are_told_with_their_number(capsys, tmp_path):
    cli_images.tell_skipped([Skipped(f"{i}.png", "why") for i in range(12)], tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == "  and 2 more"


def test_mistakes_end_with_status_1_and_a_message(tmp_path, model, normal):
    few = write(tmp_path / "few", count=2)
    (tmp_path / "none").mkdir()
    (tmp_path / "text").write_text("nothing")
    save_weights(tmp_path / "other", torch.nn.Linear(1, 1), kind="ResNetAE")
    fit, score = ("fit", "images"), ("score", "images")
    out = ("--out", tmp_path / "out")
    for arguments, message in [
        ((*fit, tmp_path / "nothing[/x]", *out), "nothing[/x] is no folder"),
        ((*fit, tmp_path / "none", *out), "holds no images"),
        ((*fit, few, *out, *FAST), "too few images: 2 distinct ones to learn from and 0 held out"),
        ((*fit, few, *out, "--size", "60x60"), "--size"),
        ((*fit, few, *out, "--scales", "x"), "--scales"),
        ((*fit, few, *out, "--validation", 1), "--validation"),
        ((*fit, few, *out, "--fpr", 0), "--fpr"),
        ((*fit, few, *out, "--known", tmp_path / "none"), "holds no images"),
        ((*fit, few, "--out", tmp_path / "none"), "is a folder"),
        ((*score, tmp_path / "none", *out, "--model", model), "holds no images"),
        ((*score, few, *out, "--model", tmp_path / "text"), "not a readable"),
        ((*score, few, *out, "--model", tmp_path / "other"), "holds no ImageAE"),
        ((*score, few, *out, "--model", tmp_path / "nothing"), "not a readable"),
    ]:
        result = call(*map(str, arguments))
        assert result.exit_code == 1, arguments
        assert message in result.output
        assert "Traceback" not in result.output
        assert not (tmp_path / "out").exists()
