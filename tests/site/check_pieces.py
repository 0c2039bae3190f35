"""The interactive pieces in a real browser: `make check`, after `make book`.

Each is opened and played with by pointer and by keyboard, and its numbers are compared with those that the
package computes of the same inputs.
"""

import json
import re
import statistics
import time

import numpy as np
import pytest
import torch
from book_assets import AXE, vendor
from PIL import Image
from playwright.sync_api import sync_playwright

from companion.compute import Compute
from companion.estimators import FaultClassifier
from companion.experiments.classifier import trained_classifier
from companion.experiments.optimisation import without
from companion.experiments.waveforms import recorded_detector
from companion.inspection import predict
from companion.runs import load_run, weights_path
from tests.site import browser as views
from tests.site.browser import HTML, launch_options, serving

CHAPTERS = {
    "depth": "book/degradation.html",
    "heartbeat": "book/waveforms.html",
    "desk": "book/casting.html",
    "photograph": "book/resnet18.html",
}
PIXELS = """e => { // what a canvas shows, by colour
    const {data, width, height} = e.getContext("2d").getImageData(0, 0, e.width, e.height);
    return [0, 1, 2].map(c => Array.from({length: width * height}, (_, i) => data[4 * i + c]));
}"""
FETCHED = re.compile(r"_static/(pieces|vendor/(onnxruntime-web|uplot))/")
PATIENCE = 60_000  # milliseconds

pytestmark = pytest.mark.site


@pytest.fixture(scope="module")
def site():
    """The address of a server of the built site."""
    with serving(HTML) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    """A browser, in which each test has a window without a past."""
    with sync_playwright() as playwright:
        options = launch_options()
        options["args"] += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        yield playwright.chromium.launch(**options)


class Reader:
    """Someone who opens a piece in a window of their own."""

    def __init__(self, browser, site, name, query="", **options):
        if not (HTML / f"_static/pieces/{name}.json").is_file():
            pytest.skip("the piece was left out of this build")
        self.window = browser.new_context(**options).new_page()
        self.name, self.asked, self.faults = name, [], []
        self.window.on("request", lambda request: self.asked.append(request.url))
        self.window.on("console", lambda m: m.type in ("error", "warning") and self.faults.append(m.text))
        self.window.on("pageerror", lambda error: self.faults.append(str(error)))
        self.window.goto(site + CHAPTERS[name] + query, wait_until="load")
        self.root = self.window.locator(f"#piece-{name}")

    def open(self):
        self.root.locator(".piece-button").first.scroll_into_view_if_needed()
        self.window.wait_for_load_state("networkidle")
        self.before, clock = list(self.asked), time.perf_counter()
        self.root.locator(".piece-button").first.focus()
        self.window.keyboard.press("Enter")
        self.window.wait_for_selector(f"#piece-{self.name}[data-open=true]", timeout=PATIENCE)
        self.seconds = time.perf_counter() - clock
        return self

    def data(self):
        return json.loads((HTML / f"_static/pieces/{self.name}.json").read_text("utf8"))

    def milliseconds(self):
        """How long the net took for an answer, in the middle."""
        code = "name => performance.getEntriesByName(name).map(each => each.duration)"
        return statistics.median(self.window.evaluate(code, self.name))

    def picture(self):
        """The pixels of the first canvas, uint8 (1, 3, height, width)."""
        canvas = self.root.locator("canvas").first
        sides = canvas.get_attribute("height"), canvas.get_attribute("width")
        return torch.tensor(canvas.evaluate(PIXELS), dtype=torch.uint8).view(1, 3, *map(int, sides))

    def control(self, name):
        return self.root.locator(f"[name={name}]")

    def says(self):
        return self.root.locator(".piece-result").inner_text()

    def numbers(self):
        """What the piece says, in full, once it has come to rest."""
        self.window.evaluate(views.SETTLED)
        self.window.wait_for_function("document.querySelectorAll('.piece-body[aria-busy]').length === 0")
        return json.loads(self.root.locator(".piece-result").get_attribute("data-numbers"))

    def press(self, name, key, times=1):
        """Move a control by the keyboard, and wait for the answer."""
        self.control(name).focus()
        for _ in range(times):
            self.window.keyboard.press(key)
        return self.numbers()


@pytest.fixture(params=CHAPTERS)
def reader(request, browser, site):
    """A reader of each piece, before the button."""
    return Reader(browser, site, request.param)


def test_nothing_is_fetched_before_the_button_and_no_other_host_is_asked(reader, site):
    reader.open()
    assert not [url for url in reader.before if FETCHED.search(url)]
    assert [url for url in reader.asked if FETCHED.search(url)]
    assert [url for url in reader.asked if not url.startswith((site, "data:", "blob:"))] == []
    assert reader.faults == []
    print(f"{reader.name}: {reader.seconds:.2f} s from the button to the first answer")


@pytest.mark.parametrize("scheme", views.SCHEMES)
@pytest.mark.parametrize("width", views.WIDTHS)
@pytest.mark.parametrize("name", CHAPTERS)
def test_an_open_piece_is_accessible(browser, site, name, scheme, width):
    view = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}, "reduced_motion": "reduce"}
    reader = Reader(browser, site, name, **view).open()
    reader.window.evaluate((vendor((AXE,)) / "vendor/axe/axe.min.js").read_text("utf8"))
    reader.window.add_style_tag(content="#pst-back-to-top { display: none !important; }")  # it fades
    reader.window.evaluate(views.SETTLED)
    assert reader.window.evaluate(views.RUN_AXE, [views.AXE_TAGS, True]) == []
    assert [fault for fault in reader.window.evaluate(views.FAULTS) if "sideways" in fault] == []
    assert reader.root.locator(".piece-result").get_attribute("aria-live") == "polite"


def test_without_scripts_a_page_has_its_pictures_and_tables_and_no_button(browser, site):
    for name, page in CHAPTERS.items():
        window = browser.new_context(java_script_enabled=False).new_page()
        window.goto(site + page)
        assert window.locator(f"#piece-{name}").inner_text() == ""
        assert window.locator("article img").count()
        assert window.locator("article table").count()


def test_depth_shows_what_was_recorded(browser, site):
    reader = Reader(browser, site, "depth").open()
    run, near = load_run("degradation-live-cpu"), load_run("starts-full-cpu")

    def recorded(run, net):
        names = ("train_loss", "fixed_train_error", "test_error")
        return {name: run.metric(f"{net}.{name}").mean() for name in names}

    assert reader.numbers() == pytest.approx(recorded(run, "plain-56"))
    assert reader.press("shortcuts", "Space") == pytest.approx(recorded(run, "resnet-56"))
    assert reader.press("shortcuts", "Space") == pytest.approx(recorded(run, "plain-56"))
    assert reader.press("depth", "Home") == pytest.approx(recorded(load_run("depths-full-cpu"), "plain-8"))
    assert reader.press("depth", "End") == pytest.approx(recorded(run, "plain-56"))
    reader.control("training").select_option("long")
    assert reader.numbers() == pytest.approx(recorded(load_run("degradation-full-cpu"), "plain-56"))
    reader.control("training").select_option("short")
    reader.control("start").select_option("near")
    assert reader.numbers() == pytest.approx(recorded(near, "plain-56~0.1"))
    box = reader.control("depth").bounding_box()
    reader.window.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
    assert "No such run of plain-8 was recorded" in reader.says()
    reader.control("depth").press("ArrowRight")
    here = reader.window.url
    again = Reader(browser, site, "depth", "?" + here.partition("?")[2]).open()
    assert again.numbers() == reader.numbers() == pytest.approx(recorded(run, "plain-20"))


def test_heartbeat_scores_as_the_package_does(browser, site):
    reader = Reader(browser, site, "heartbeat").open()
    detector = recorded_detector()
    beats = {name: np.array(beat) for name, beat in reader.data()["beats"].items()}
    *_, last = beats

    def expected(beat, place=60, lift=0.0, width=6):
        bump = lift * np.exp(-0.5 * ((np.arange(len(beat)) - place) / width) ** 2)
        window = (beat + bump)[None].astype(np.float32)
        return float(detector.decision_function(window)[0]), detector.reconstruct(window)[0]

    def agrees(**how):
        score, made = expected(beats[reader.control("beat").input_value()], **how)
        found = reader.numbers()
        np.testing.assert_allclose(found["reconstruction"], made, atol=1e-3)
        assert found["score"] == pytest.approx(score, abs=1e-3)
        verdict = "flagged as unusual" if score > detector.threshold_ else "not flagged"
        assert verdict in reader.says()

    agrees()
    reader.press("lift", "ArrowRight", 15)
    reader.press("place", "ArrowLeft", 20)
    reader.press("width", "PageUp")
    width = int(reader.control("width").input_value())
    agrees(lift=1.5, place=40, width=width)
    box = reader.root.locator(".u-over").bounding_box()
    reader.window.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    reader.window.mouse.down()
    reader.window.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.2 * box["height"], steps=5)
    reader.window.mouse.up()
    place, lift = (float(reader.control(name).input_value()) for name in ("place", "lift"))
    assert 60 < place < 80
    assert lift > 1
    agrees(lift=lift, place=place, width=width)
    print(f"{reader.name}: {reader.milliseconds():.0f} ms an answer")
    reader.control("beat").select_option(last)
    agrees(lift=lift, place=place, width=width)
    again = Reader(browser, site, "heartbeat", "?" + reader.window.url.partition("?")[2]).open()
    assert again.numbers()["score"] == pytest.approx(reader.numbers()["score"], abs=1e-6)


def test_desk_scores_paint_as_the_package_does_and_counts_on_the_real_test_images(browser, site):
    reader = Reader(browser, site, "desk").open()
    detector = FaultClassifier.load(weights_path(load_run("casting_controls-full-cpu"), "net"))
    clean = reader.numbers()
    assert clean["score"] == pytest.approx(detector.decision_function(reader.picture())[0], abs=1e-3)
    assert clean["score"] < detector.threshold_
    canvas = reader.root.locator("canvas").first
    box = canvas.bounding_box()
    reader.window.mouse.move(box["x"] + box["width"] / 3, box["y"] + 2)
    reader.window.mouse.down()
    reader.window.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 3, steps=25)
    reader.window.mouse.up()
    by_pointer = reader.numbers()
    assert by_pointer["score"] == pytest.approx(detector.decision_function(reader.picture())[0], abs=1e-3)
    assert by_pointer["score"] > clean["score"] + 1
    canvas.focus()
    for key in ("ArrowLeft", "ArrowLeft", " ", "ArrowUp", "ArrowUp", " "):
        reader.window.keyboard.press(key)
    reader.control("threshold").focus()  # the brush is no part of the image
    by_keyboard = reader.numbers()
    assert by_keyboard["score"] != by_pointer["score"]
    assert by_keyboard["score"] == pytest.approx(detector.decision_function(reader.picture())[0], abs=1e-3)
    found = reader.press("threshold", "ArrowRight", 12)
    scores, labels = (np.array(reader.data()[name]) for name in ("scores", "labels"))
    limit, cost = (float(reader.control(name).input_value()) for name in ("threshold", "cost"))
    flagged = scores > limit
    missed, false = ((labels == 1) & ~flagged).sum(), ((labels == 0) & flagged).sum()
    assert found["tpr"] == pytest.approx(flagged[labels == 1].mean())
    assert found["tnr"] == pytest.approx((~flagged)[labels == 0].mean())
    assert (found["alerts"], found["cost"]) == (flagged.sum(), cost * missed + false)
    print(f"{reader.name}: {reader.milliseconds():.0f} ms an answer")
    again = Reader(browser, site, "desk", "?" + reader.window.url.partition("?")[2]).open()
    assert again.numbers() == pytest.approx(found)


def test_photograph_answers_as_the_package_does(browser, site, tmp_path):
    reader = Reader(browser, site, "photograph", permissions=["camera"]).open()
    compute = Compute(torch.device("cpu"), None)
    trained = trained_classifier(compute)

    def shares(images, *off):
        logits = predict(without(trained.model, off), images, trained.objective, compute)
        return (logits / reader.data()["temperature"]).softmax(dim=1)

    def agrees(*off):
        found, expected = reader.numbers()["shares"], shares(reader.picture(), *off)[0]
        torch.testing.assert_close(torch.tensor(found), expected, atol=1e-3, rtol=0)
        return found

    whole = agrees()
    reader.window.wait_for_selector("#piece-photograph[data-map]", timeout=PATIENCE)
    lost = torch.tensor(json.loads(reader.root.get_attribute("data-map"))).view(32, 32)
    covered = reader.picture()
    covered[:, :, :8, :8] = 127  # no other place of the square covers the corner
    best = int(torch.tensor(whole).argmax())
    assert float(lost[0, 0]) == pytest.approx(whole[best] - float(shares(covered)[0, best]), abs=1e-3)
    for name, place in (("first", (1, 1)), ("second", (3, 1))):
        reader.press(name, "Space")
        assert agrees(place) != whole
        assert f"Without its {name} residual block" in reader.says()
        reader.control(name).click()
    for name in ("shift", "blur", "noise"):
        reader.press(name, "ArrowRight", 6)
        assert agrees() != whole
    reader.press("second", "Space")
    box = reader.control("sample").bounding_box()
    reader.window.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    sample = agrees((3, 1))
    print(f"{reader.name}: {reader.milliseconds():.0f} ms an answer")
    again = Reader(browser, site, "photograph", "?" + reader.window.url.partition("?")[2]).open()
    assert again.numbers()["shares"] == pytest.approx(sample, abs=1e-5)
    for name, key in (("shift", "Home"), ("blur", "Home"), ("noise", "Home"), ("second", "Space")):
        reader.press(name, key)
    reader.press("shift", "ArrowRight", 12)
    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    reader.root.locator("input[type=file]").set_input_files(tmp_path / "photo.png")
    reader.window.wait_for_timeout(1000)
    assert np.array_equal(reader.picture()[0].permute(1, 2, 0), photo)
    own = agrees()
    reader.root.get_by_text("Use the camera").click()
    reader.window.wait_for_timeout(2000)
    assert agrees() != own
    assert not [url for url in reader.asked if not url.startswith((site, "data:", "blob:"))]
