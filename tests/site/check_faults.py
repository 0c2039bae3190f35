"""The page checks find the faults they are for: `make check`, after `make book`.

Pages of the built site are given one fault each, and looked at.
"""

import asyncio
import os
import random
from pathlib import Path

import pytest
from PIL import Image

from tests.site.browser import HTML, Visit, look_at_all, serving
from tests.site.check_weight import LIMIT, first_views

FORMULAS = "book/reference/notation.html"  # a short page with some
SHORT = "book/reference/citing.html"
HIDE_IN_LIGHT = '<style>html[data-theme="light"] .x { display: none }</style>'
WORDS = "<span>word</span> " * 9
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="40" height="20" fill="{}"/>'
    '<rect x="9" y="9" width="9" height="9" fill="{}"/></svg>'
)

BOTH, LIGHT, DARK, ONCE = ("light", "dark"), ("light",), ("dark",), ("once",)


def code(inner, style=""):
    return f'<div class="highlight"><pre style="{style}">{inner}</pre></div>'


def hard_to_read(rule):
    return f'<style>{rule}</style><p class="x">Hard to read.</p>'


# fault: what is put into the article of a page, what must be found, and in which schemes. What has nothing to
# do with colour is told in light mode; dark mode tells it again only if it shows anything else.
FAULTS = {
    "dark-text": (hard_to_read('html[data-theme="dark"] .x { color: #444 }'), "color-contrast", DARK),
    "light-text": (hard_to_read('html[data-theme="light"] .x { color: #ccc }'), "color-contrast", LIGHT),
    "narrow-text": (
        hard_to_read("@media (max-width: 400px) { .x { color: #888 !important; background: #777 } }"),
        "390 px: color-contrast", BOTH),
    "one-word-of-code": (
        code(f'{WORDS}<span style="color: #999; background: #888">odd</span> {WORDS}'),
        "color-contrast", BOTH),
    "many-words-of-code": (code(WORDS, "color: #888; background: #777"), "color-contrast", BOTH),
    "words-in-a-pale-line": (
        code(f'{WORDS}<b style="color: #999; background: #888">{WORDS}</b>'), "color-contrast", BOTH),
    "nameless-button-in-dark": (f'{HIDE_IN_LIGHT}<button class="x"></button>', "button-name", DARK),
    "nameless-button-when-narrow": (
        '<style>@media (min-width: 400px) { .x { display: none } }</style><button class="x"></button>',
        "390 px: button-name", ONCE),
    "image-without-text": (
        '<img class="photo" width="90" height="60" src="../../good.svg">', "image-alt", ONCE),
    "too-wide-when-narrow": (
        '<div style="width: 500px; height: 9px"></div>', "390 px: scrolls sideways", BOTH),
    "too-wide-in-dark": (
        f'{HIDE_IN_LIGHT}<div class="x" style="width: 3000px; height: 9px"></div>',
        "1280 px: scrolls sideways", DARK),
    "image-from-elsewhere": (
        '<img alt="Something" src="http://127.0.0.1:9/x.png">', "asks another host", BOTH),
    "missing-image-far-below": (
        '<div style="height: 9000px"></div><img loading="lazy" alt="Something" class="photo" src="none.png">',
        "broken image", BOTH),
    "missing-script": ('<script src="none.js"></script>', "status 404", BOTH),
    "console": ('<script>console.error("Oh")</script>', "console: Oh", BOTH),
    "script": ("<script>nothing.at.all</script>", "script error", BOTH),
    "formula": (
        r'<p><span class="math notranslate nohighlight">\(\left( x\)</span></p>', "mathematics", BOTH),
    "dark-ink-in-dark": (
        '<img class="photo" style="background: none !important" alt="Ink" src="../../ink.svg">',
        "a figure with a contrast of", DARK),
    "plot-that-stays-light": (
        '<img class="plot" style="filter: none !important" alt="A plot" src="../../good.svg">',
        "a plot on a light ground", DARK),
    "figure-of-no-class": ('<img alt="Something" src="../../good.svg">', "no class", DARK),
}  # fmt: skip
FINE = {
    "fine": "",
    "fine-figures": '<img class="plot" alt="Black on white" src="../../good.svg">'
    '<img class="photo" alt="Black on white" src="../../good.svg">',
    "fine-code": code(WORDS),
}

pytestmark = pytest.mark.site


def faulty(folder: Path, name: str, addition: str) -> str:
    """Write a copy of a page with an addition to its article; return its name."""
    page = FORMULAS if "math" in addition else SHORT
    text = (HTML / page).read_text("utf8")
    assert "</article>" in text
    copy = folder / Path(page).parent / f"{name}.html"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(text.replace("</article>", f"{addition}</article>"), "utf8")
    return copy.relative_to(folder).as_posix()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A site with the files that pages share."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("_static", "_images"):
        (folder / name).symlink_to(HTML / name)
    (folder / "good.svg").write_text(SVG.format("white", "black"), "utf8")
    (folder / "ink.svg").write_text(SVG.format("none", "black"), "utf8")
    return folder


@pytest.fixture(scope="module")
def visits(folder):
    """What was seen, by fault and scheme."""
    added = {name: addition for name, (addition, _, _) in FAULTS.items()} | FINE
    pages = {name: faulty(folder, name, addition) for name, addition in added.items()}
    with serving(folder) as site:
        found = asyncio.run(look_at_all(site, pages.values()))
    return {(name, scheme): found[page, scheme] for name, page in pages.items() for scheme in BOTH}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_where_it_is(visits, name):
    _, complaint, schemes = FAULTS[name]
    for scheme, wanted in [("light", LIGHT)] if schemes == ONCE else [(scheme, schemes) for scheme in BOTH]:
        visit = visits[name, scheme]
        seen = " | ".join([*visit.faults, *visit.violations])
        assert (complaint in seen) == (scheme in wanted), f"{scheme}: {seen}"


@pytest.mark.parametrize("name", FINE)
def test_what_is_fine_is_not_complained_of(visits, name):
    for scheme in BOTH:
        assert visits[name, scheme] == Visit()


def test_a_heavy_first_view_is_found(folder):
    noise = Image.frombytes("RGB", (500, 500), random.Random(0).randbytes(750_000))
    noise.save(folder / "noise.png")
    assert os.path.getsize(folder / "noise.png") > LIMIT
    image = '<img alt="Noise" src="../../noise.png" width="500" height="500"{}>'
    below = f'<div style="height: 3000px"></div>{image}'
    cases = {"at-once": image.format(""), "hasty": below.format(""), "waits": below.format(' loading="lazy"')}
    names = {name: faulty(folder, name, addition) for name, addition in cases.items()}
    text = (folder / names["at-once"]).read_text("utf8")
    (folder / names["at-once"]).write_text(text.replace("<article", image.format("") + "<article", 1), "utf8")
    with serving(folder) as site:
        found = asyncio.run(first_views(site, list(names.values())))
    assert "bytes, most of them" in found[names["at-once"]][0]
    assert "does not wait" in found[names["hasty"]][0]
    assert found[names["waits"]] == []
