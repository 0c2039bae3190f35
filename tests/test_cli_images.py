"""``companion fit images``, ``score images``, ``evaluate images`` and ``calibrate images``."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

from companion.cli_common import load
from companion.cli_images import KINDS, halves, read_sample
from companion.data.casting import synthetic_moulds
from companion.data.images import find_images, read_images
from companion.detection.metrics import confusion, pr_auc
from companion.estimators import FaultClassifier, ImageAE, ImageBaseline
from companion.estimators.baselines import METHODS, choose_image_detector
from companion.objectives.synthetic_anomalies import STILL
from tests.test_cli import bad, good

SIZE = (16, 24)
FAST = ("--size", 16, 24, "--epochs", 2, "--method", "net")


def write(folder, kind="normal", count=40, seed=0, name="{:03d}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(synthetic_moulds(kind, count, (20, 32), seed)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name.format(index))
    return folder


def spoil(folder):
    """Add files that cannot be read."""
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "cut.png")
    os.truncate(folder / "cut.png", 2000)
    return folder


@pytest.fixture(scope="module")
def normal(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "normal", count=60)


@pytest.fixture(scope="module")
def model(normal):
    path = normal.parent / "model"
    told = good("fit", "images", normal, "--out", path, "--fpr", 0.1, *FAST)
    assert "60 image files, 60 different images" in told
    assert "learned from 48 images of 16x24 colour pixels" in told
    assert "from 12 held out: of new normal data it flags at most 10 %" in told
    return path


def score(folder, model, out):
    told = good("score", "images", folder, "--model", model, "--out", out)
    return pd.read_csv(out / "scores.csv"), told


def test_images_are_learned_scored_and_shown(tmp_path, model):
    folder = spoil(write(tmp_path / "new", count=12, seed=1))
    write(folder / "deep" / "er", "spill", 4, name="spill {}.bmp")
    table, told = score(folder, model, tmp_path / "report")
    assert f"left out in {folder}: 3" in told
    assert "empty.png: cannot be read as an image (the file is empty)" in told
    assert "16 images scored" in told
    assert table["file"].tolist() == [str(p.relative_to(folder)) for p in find_images(folder)[0]]
    assert list(table.columns) == ["file", "score", "flagged", "error"]
    detector = ImageAE.load(model)
    images = read_images([(str(p), 0, p.read_bytes) for p in find_images(folder)[0]], SIZE, color=True)[0]
    scored = table[table["error"].isna()]
    np.testing.assert_allclose(scored["score"], detector.decision_function(images.images), 1e-5)
    assert scored["flagged"].astype(bool).tolist() == detector.predict(images.images).tolist()
    assert table.loc[table["error"].notna(), ["score", "flagged"]].isna().all(axis=None)
    with Image.open(tmp_path / "report" / "unusual.png") as picture:
        assert picture.size[0] == 1100
    first = (tmp_path / "report" / "scores.csv").read_bytes()
    score(folder, model, tmp_path / "report")
    assert (tmp_path / "report" / "scores.csv").read_bytes() == first
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == ["scores.csv", "unusual.png"]


def test_few_images_give_a_threshold_and_what_it_can_promise(tmp_path):
    folder = write(tmp_path / "fifty", count=50)
    (folder / "copy.png").write_bytes((folder / "000.png").read_bytes())
    told = good("fit", "images", folder, "--out", tmp_path / "m", "--gray", *FAST[:-1], "still")
    assert "51 image files, 50 different images; copies left out: 1" in told
    assert "for 1 % take more data (99 have to be held out), or take --fpr 0.091" in told
    assert "from 10 held out: of new normal data it flags at most 9.09 %" in told
    detector = ImageAE.load(tmp_path / "m")
    assert detector.fpr_ == pytest.approx(1 / 11)
    assert (detector.shape_, detector.camera) == ((1, *SIZE), STILL)


def test_the_best_of_four_is_kept_and_scores(tmp_path, normal):
    spills = write(tmp_path / "spills", "spill", 12, seed=3)
    fit = ("fit", "images", normal, "--out", tmp_path / "m", "--fpr", 0.1, *FAST[:-2])
    told = good(*fit)
    found = re.findall(r"(\w+(?:, worst place)?): PR-AUC ([\d.]+) on normals and pasted", told)
    simple = {*METHODS} - {"classifier"}
    assert {name for name, _ in found} == simple | {f"{name}, worst place" for name in simple}
    assert found == sorted(found, key=lambda each: -float(each[1]))
    kept = load(tmp_path / "m", KINDS)
    assert kept.compared_ == pytest.approx({name: float(value) for name, value in found}, abs=1e-3)
    told = good(*fit, "--known", spills, "--method", "neighbours")
    found = re.findall(r"PR-AUC (\S+) on normals and known faults", told)
    assert float(found[0]) > 0.9, told
    table, _ = score(spills, tmp_path / "m", tmp_path / "report")
    images = read_images([(str(p), 0, p.read_bytes) for p in find_images(spills)[0]], SIZE, color=True)[0]
    own = ImageBaseline.load(tmp_path / "m")
    np.testing.assert_allclose(table["score"], own.decision_function(images.images), 1e-5)
    assert "warning: no method tells them" in good(*fit, "--known", normal)  # they are normal


def test_a_small_fault_is_found_at_its_place():
    rng = np.random.default_rng(0)  # more or less noise makes the mean of a map vary
    pixels = 128 + rng.uniform(5, 20, (120, 1, 1, 1)) * rng.normal(size=(120, 1, 32, 32))
    spots = pixels[90:].copy()
    spots[:, :, 8:10, 20:22] = 250
    learn, held, spots = (torch.from_numpy(x).byte() for x in (pixels[:60], pixels[60:90], spots))
    kept = choose_image_detector(learn, held, spots[:0], spots, names=("pca",))
    assert kept.compared_["pca, worst place"] > 0.99 > 0.8 > kept.compared_["pca"]
    np.testing.assert_allclose(kept.decision_function(held), kept.maps(held).amax(dim=(1, 2)))
    assert kept.fit(learn).worst_ is False


def test_a_classifier_learns_from_half_of_the_known_faults_and_is_chosen_by_the_rest(tmp_path, normal):
    for kind in ("spill", "empty"):
        write(tmp_path / "known" / kind, kind, 9, seed=3)
    fit = ("fit", "images", normal, "--out", tmp_path / "m", "--fpr", 0.1, *FAST[:-1])
    told = good(*fit, "classifier", "--known", tmp_path / "known")
    assert "classifier: PR-AUC" in told
    kept = FaultClassifier.load(tmp_path / "m")
    assert kept.num_steps == 20
    parts = halves(read_sample(tmp_path / "known", SIZE, True)[0])
    assert [len(part) for part in parts] == [8, 10]
    score(tmp_path / "known", tmp_path / "m", tmp_path / "report")
    assert "learns from known faults" in bad(*fit, "classifier")


def test_a_model_is_measured_on_labelled_folders_and_gets_another_threshold(tmp_path, model, normal):
    write(tmp_path / "test" / "good", count=12, seed=8)
    spoil(write(tmp_path / "test" / "rust", "spill", 10, seed=9))
    evaluate = ("evaluate", "images", "--model", tmp_path / "m")
    (tmp_path / "m").write_bytes(model.read_bytes())
    told = good(*evaluate, tmp_path / "test", "--out", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert "left out: 3" in told
    assert f"12 normal, 10 faulty, 0 left out; threshold {found['threshold']:.4g}, set to flag" in told
    paths = find_images(tmp_path / "test")[0]
    images = read_images([(str(p), int(p.parent.name == "rust"), p.read_bytes) for p in paths], SIZE, True)[0]
    detector = ImageAE.load(model)
    labels, scores = images.labels.numpy(), detector.decision_function(images.images)
    assert found["pr_auc"]["value"] == pytest.approx(pr_auc(labels, scores))
    assert found["tpr"] == vars(confusion(labels, scores, detector.threshold_).tpr)
    parts = (tmp_path / "test" / "good", "--faults", tmp_path / "test" / "rust")
    assert good(*evaluate, *parts) == told
    assert "the model separates nothing" in good(*evaluate, normal, "--faults", tmp_path / "test" / "good")
    assert "no folder tells" in bad(*evaluate, normal)

    calibrate = ("calibrate", "images", "--model", tmp_path / "m", "--fpr", 0.25)
    assert "from 12 held out: of new normal data it flags at most 25 %" in good(*calibrate)
    assert ImageAE.load(tmp_path / "m").threshold_ < detector.threshold_
    assert "from 60 held out" in good(*calibrate, "--normal", normal)
    assert ImageAE.load(tmp_path / "m").fpr_ == 0.25
    assert "needs at least 99 normals" in bad(*calibrate[:-1], 0.01)


def test_an_image_is_compared_with_components_or_with_its_neighbours(monkeypatch):
    images = synthetic_moulds("normal", 12, SIZE, 0)
    rows = images.flatten(1).double().numpy() / 255
    pca = PCA(3, svd_solver="full").fit(rows)
    expected = ((rows - pca.inverse_transform(pca.transform(rows))) ** 2).mean(axis=1)
    np.testing.assert_allclose(ImageBaseline("pca", 3).fit(images).decision_function(images), expected, 1e-4)
    near = ImageBaseline("neighbours", 2).fit(images).fit(images[:4])  # anew
    order = ((rows[5] - rows[:4]) ** 2).sum(axis=1).argsort()[:2]
    expected = ((rows[5] - rows[order].mean(axis=0)) ** 2).mean()
    assert near.decision_function(images[5:6])[0] == pytest.approx(expected, rel=1e-4)
    monkeypatch.setattr("companion.estimators.baselines._NUMBERS", 30 * images[0].numel())
    many = synthetic_moulds("normal", 50, SIZE, 1)
    assert near.fit(many).fit(many).kept_ == (30, images[0].numel())


def test_more_alarms_than_promised_are_remarked_upon(tmp_path, model, normal):
    assert "warning" not in score(normal, model, tmp_path / "report")[1]
    detector = ImageAE.load(model)
    detector.threshold_ = 0.0  # nothing is as usual as that
    detector.save(tmp_path / "nervous")
    told = score(normal, tmp_path / "nervous", tmp_path / "report")[1]
    assert "warning: 100 % are flagged, where 10 % are expected" in told


def test_names_that_are_formulas_or_cannot_be_printed_are_escaped(tmp_path, model):
    folder = write(tmp_path / "names", count=5)
    for place, new in enumerate(["=cmd|' '!A0", "@SUM(1+1)", "two\nlines\x1b[31m", "$a_$"]):
        (folder / f"{place:03d}.png").rename(folder / f"{new}.png")
    if os.name == "posix":
        (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"no image")
    table, told = score(folder, model, tmp_path / "report")
    assert "\x1b" not in told
    assert {"'=cmd|' '!A0.png", "'@SUM(1+1).png", "two\\nlines\\x1b[31m.png"} <= set(table["file"])


def test_memory_holds_the_worst_only(tmp_path, model, monkeypatch):
    monkeypatch.setattr("companion.cli_images.BATCH", 5)
    folder, seen, maps = write(tmp_path / "many", count=31), [], ImageAE.maps
    monkeypatch.setattr(ImageAE, "maps", lambda self, x: (seen.append(len(x)), maps(self, x))[1])
    table, _ = score(folder, model, tmp_path / "report")
    assert seen == [5] * 6 + [1, 12]  # the twelve that are shown once more
    assert len(table) == 31


KILLED = """
import os, signal, sys
from companion import cli, cli_images
cli_images.BATCH, read, asked = 8, cli_images.read_as, []

def read_as(detector, paths):
    asked.append(paths)
    if len(asked) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(detector, paths)

cli_images.read_as = read_as
cli.app()
"""


def test_a_run_that_was_killed_goes_on_with_what_is_left(tmp_path, model, monkeypatch):
    monkeypatch.setattr("companion.cli_images.BATCH", 8)
    folder, out, seen, maps = spoil(write(tmp_path / "many", count=37)), tmp_path / "out", [], ImageAE.maps
    whole, told = score(folder, model, tmp_path / "whole")
    words = ("score", "images", folder, "--model", model, "--out", out)
    assert subprocess.run([sys.executable, "-c", KILLED, *map(str, words)]).returncode == -signal.SIGKILL
    kept = sorted(path.name for path in (out / "scores.csv.parts").glob("*/*.parquet"))
    assert kept == ["part-0.parquet", "part-1.parquet"]
    assert not (out / "scores.csv").exists()
    monkeypatch.setattr(ImageAE, "maps", lambda self, x: (seen.append(len(x)), maps(self, x))[1])
    found, again = score(folder, model, out)
    assert again == f"going on with the parts that are left\n{told}".replace("whole", "out")
    assert sum(seen) == 37 - 16 + 12  # the twelve that are shown once more
    pd.testing.assert_frame_equal(found, whole)
    assert sorted(path.name for path in out.iterdir()) == ["scores.csv", "unusual.png"]


def test_parts_of_other_images_are_not_taken(tmp_path, model, monkeypatch):
    folder = write(tmp_path / "many", count=20)
    monkeypatch.setattr("companion.cli_images.draw_unusual", lambda *_: 1 / 0)  # after all parts
    assert "division by zero" in bad("score", "images", folder, "--model", model, "--out", tmp_path / "out")
    monkeypatch.undo()
    write(folder, "spill", 1)
    assert "going on" not in score(folder, model, tmp_path / "out")[1]


def test_nothing_that_can_be_read_is_said_by_score_and_an_error_to_fit(tmp_path, model):
    (tmp_path / "bad").mkdir()
    table, told = score(spoil(tmp_path / "bad"), model, tmp_path / "report")
    assert "0 images scored, 0 flagged" in told
    assert table["score"].isna().all()
    assert "none of the 3 images" in bad("fit", "images", tmp_path / "bad", "--out", tmp_path / "m", *FAST)


def test_what_is_left_out_is_told_and_sorted_folders_are_refused(tmp_path, model):
    folder = write(tmp_path / "in", count=12)
    write(tmp_path / "far", count=5, seed=2)
    (folder / "more").symlink_to(tmp_path / "far")
    (folder / "photo.heic").write_bytes(b"")
    fit = ("fit", "images", folder, "--out", tmp_path / "m", *FAST)
    for told in (good(*fit), score(folder, model, tmp_path / "report")[1]):
        assert "2\n  more: a link to a folder, with 5 image files\n  photo.heic: images that end in" in told
    write(folder / "line" / "NG", count=1)
    assert "would be learned as normal, also" in bad(*fit)


def test_the_range_of_deep_images_is_learned_and_kept(tmp_path):
    (tmp_path / "deep").mkdir()
    for i, image in enumerate(synthetic_moulds("normal", 30, SIZE, 0)):
        Image.fromarray(1700 + 2 * image[0].numpy().astype(np.uint16)).save(tmp_path / "deep" / f"{i}.png")
    told = good("fit", "images", tmp_path / "deep", "--out", tmp_path / "m", "--gray", *FAST)
    low, high = ImageAE.load(tmp_path / "m").value_range_
    assert 1700 <= low < high <= 1700 + 2 * 255
    assert f"{low:g} is taken for black and {high:g} for white" in told
    table, _ = score(tmp_path / "deep", tmp_path / "m", tmp_path / "report")
    assert table["score"].notna().all()


def test_mistakes_end_with_status_1_and_a_message(tmp_path, model):
    few = write(tmp_path / "few", count=2)
    (tmp_path / "none").mkdir()
    (tmp_path / "text").write_text("nothing")
    fit, score, out = ("fit", "images"), ("score", "images"), ("--out", tmp_path / "out")
    for arguments, message in [
        ((*fit, tmp_path / "nothing[/x]", *out), "nothing[/x] is no folder"),
        ((*fit, tmp_path / "none", *out), "holds no images"),
        ((*fit, few, *out, *FAST), "too few images: 2 to learn from and 0 held out"),
        ((*fit, few, *out, "--size", 60, 60), "3 halvings"),
        ((*fit, few, "--out", tmp_path / "none"), "is a folder"),
        ((*score, few, *out, "--model", tmp_path / "text"), "text is not a readable"),
        ((*score, few, "--out", tmp_path / "text", "--model", model), "File exists"),
    ]:
        assert message in bad(*arguments)
        assert not (tmp_path / "out").exists()
