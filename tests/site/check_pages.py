"""Checks of the built site in a real browser: `make check`, after `make book`.

Every page is opened in light and in dark mode, at the width of a desktop and of a phone, from a plain static
server on this machine. Of the listings of modules, which are all alike, only the longest are. `CHROMIUM`
names the browser if it is not in the path, and `SCREENSHOTS=1` writes a picture of each view into
`_build/screenshots`.
"""

import asyncio
import re
from functools import cache
from urllib.parse import unquote, urlsplit

import jupytext
import nbformat
import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

from tests.site.browser import HTML, ROOT, SCHEMES, built_pages, launch_options, look_at_all, serving

FRONT = "index.html"  # it only leads to the first page
TERMS = {
    "book/blocks.html": "shortcut",
    "book/bottleneck.html": "bottleneck",
    "book/casting.html": "casting",
    "book/degradation.html": "degradation",
    "book/detection.html": "threshold",
    "book/index.html": "residual",
    "book/resnet18.html": "augmentation",
    "book/selfsupervised.html": "contrastive",
    "book/tables.html": "Adult",
    "book/transformers.html": "attention",
    "book/waveforms.html": "ECG5000",
}
"""What a reader may search for, by the chapter that has it."""


@cache
def soup(name: str) -> BeautifulSoup:
    """A page's document tree."""
    return BeautifulSoup((HTML / name).read_text("utf8"), "html.parser")


def site_prefix() -> str:
    """The path below which the site will be published, which its 404 page counts on; ``"/"`` if unknown."""
    first = "book/index.html"
    link = (HTML / first).is_file() and soup(first).select_one("[rel=canonical]")
    return urlsplit(str(link["href"])).path.removesuffix(first) if link else "/"


PAGES = built_pages(HTML)
LISTINGS = [name for name in PAGES if name.startswith("_modules/")]
LISTINGS.sort(key=lambda name: (HTML / name).stat().st_size)
LOOKED_AT = [name for name in PAGES if name not in LISTINGS[:-4]]
PREFIX = site_prefix()
NOTEBOOKS = sorted(path.relative_to(HTML).as_posix() for path in (HTML / "_sources").rglob("*.ipynb"))

pytestmark = pytest.mark.site


@pytest.fixture(scope="module")
def site():
    """The address of a server of the built site."""
    if not PAGES:
        pytest.exit("there is no site in _build/html: make book", 1)
    with serving(HTML, PREFIX) as address:
        yield address


@pytest.fixture(scope="module")
def visits(site):
    """What was seen, by page and scheme."""
    return asyncio.run(look_at_all(site, LOOKED_AT))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", LOOKED_AT)
def test_page_is_whole_and_stays_on_this_host(visits, name, scheme):
    assert visits[name, scheme].faults == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", LOOKED_AT)
def test_page_is_accessible(visits, name, scheme):
    assert visits[name, scheme].violations == []


@pytest.fixture(scope="module")
def window():
    """A window of the browser."""
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(**launch_options()).new_page()


@pytest.mark.parametrize("chapter", [name for name in PAGES if re.match("book/[^/]*$", name)])
def test_search_finds_a_term_of_each_chapter(site, window, chapter):
    window.goto(f"{site}search.html?q={TERMS[chapter]}")
    window.wait_for_selector(f"#search-results li a[href*='{chapter}']", timeout=20_000)


def test_a_question_says_whether_a_choice_is_right(site, window):
    window.goto(f"{site}book/blocks.html")
    for place, said in enumerate(("No.", "Right.")):
        window.locator(".question-choice").nth(place).click()
        assert window.locator(".question-told").first.inner_text().startswith(said)
    assert window.locator("details.sd-dropdown").first.evaluate("answer => answer.open")


@pytest.mark.parametrize("protocol", ["http", "file"])
def test_front_page_leads_to_the_book(site, window, protocol):
    window.goto(site if protocol == "http" else f"{HTML.as_uri()}/{FRONT}")
    window.wait_for_selector("article h1", timeout=20_000)


def test_a_diagram_that_cannot_be_drawn_says_what_it_shows(window):
    window.goto(f"{HTML.as_uri()}/book/blocks.html")
    told = window.inner_text("pre.mermaid >> nth=0")
    assert told.startswith("A plain block, the original residual block")
    assert "flowchart" not in told


@cache
def anchors(name: str) -> frozenset[str]:
    """What links can point to in a page."""
    return frozenset(tag[kind] for kind in ("id", "name") for tag in soup(name).find_all(attrs={kind: True}))


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    broken = []
    for link in soup(name).select("a[href]"):
        url = urlsplit(str(link["href"]))
        if url.scheme or url.netloc:
            continue
        path = unquote(url.path)
        base = HTML if path.startswith(PREFIX) else (HTML / name).parent
        target = (base / path.removeprefix(PREFIX)).resolve() if path else HTML / name
        if target.is_dir():
            target /= "index.html"
        fragment = unquote(url.fragment)
        inside = fragment and target.is_file() and target.suffix == ".html"
        if not target.is_file() or (inside and fragment not in anchors(target.relative_to(HTML).as_posix())):
            broken.append(str(link["href"]))
    assert broken == []


@pytest.mark.parametrize("name", PAGES)
def test_pictures_have_alternative_texts(name):
    bad = []
    for image in soup(name).select("article img:not(.toggler)"):
        text = str(image.get("alt", ""))
        if len(text) < 5 or text.endswith((".png", ".svg", ".jpg", ".jpeg")) or "/" in text.split(" ")[0]:
            bad.append(f"{image.get('src')}: alt={text!r}")
    assert bad == []


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_loaded_from_elsewhere(name):
    """Also what a browser would load only later, or only in some circumstances."""
    loaded = [tag["src"] for tag in soup(name).select("script[src], img[src], iframe[src], source[src]")]
    leads = {"canonical", "next", "prev"}
    loaded += [
        tag["href"] for tag in soup(name).select("link[href]") if not leads & set(tag.get("rel") or [])
    ]
    assert [url for url in loaded if urlsplit(str(url)).netloc] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_downloads_are_executed_notebooks(name):
    notebook = nbformat.read(HTML / name, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in code)
    assert all(output.output_type != "error" for cell in code for output in cell.outputs)
    for cell in code:
        streams = [output.name for output in cell.outputs if output.output_type == "stream"]
        assert streams in ([], ["stdout"]), f"printed twice, or a progress bar: {cell.source}"
    assert "{glue:" not in "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    page = name.removeprefix("_sources/").replace(".ipynb", ".html")
    links = [str(link["href"]) for link in soup(page).select("a[href$='.ipynb']")]
    assert any(link.endswith(name) for link in links), f"{page} does not offer its notebook"
    assert notebook.metadata.kernelspec.name == "python3"
    source = jupytext.read(ROOT / name.removeprefix("_sources/").replace(".ipynb", ".md"))
    asked = [cell.source for cell in source.cells if cell.cell_type == "code"]
    ran = [cell.source for cell in code[1:] if "# Write your code here" not in cell.source]
    assert ran == asked, "not the code that `make test` runs"
