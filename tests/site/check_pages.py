"""Checks of the built site in a real browser: `make check`, after `make book`.

Every page is opened in light and in dark mode, at the width of a desktop and of a phone, from a plain static
server on this machine. `CHROMIUM` names the browser if it is not in the path, and `SCREENSHOTS=1` writes
a picture of each view into `_build/screenshots`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from book_assets import AXE, vendor
from bs4 import BeautifulSoup
from playwright.async_api import Browser, Page, async_playwright
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
PICTURES = ROOT / "_build" / "screenshots"
SCHEMES = ("light", "dark")
WIDTHS = (1280, 390)
AT_ONCE = 3  # pages open at the same time
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
SEARCH_TERM = "residual"

FRONT = "index.html"  # it only leads to the first page


def site_prefix() -> str:
    """The path below which the site will be published, which its 404 page counts on; ``"/"`` if unknown."""
    first = HTML / "book" / "index.html"
    link = first.is_file() and BeautifulSoup(first.read_text("utf8"), "html.parser").select_one(
        "[rel=canonical]"
    )
    return urlsplit(str(link["href"])).path.removesuffix("book/index.html") if link else "/"


PAGES = sorted(
    path.relative_to(HTML).as_posix()
    for path in HTML.rglob("*.html")
    if "_static" not in path.parts and path != HTML / FRONT
)
PREFIX = site_prefix()
NOTEBOOKS = sorted(path.relative_to(HTML).as_posix() for path in (HTML / "_sources").rglob("*.ipynb"))

pytestmark = pytest.mark.site

READY = """() => {
    const drawn = [...document.querySelectorAll("pre.mermaid")].every(d => d.querySelector("svg"));
    const formulas = document.querySelectorAll(".math").length;
    return drawn && document.querySelectorAll("mjx-container").length >= formulas;
}"""
FAULTS = """() => {
    const found = [];
    const root = document.documentElement;
    if (root.scrollWidth > root.clientWidth + 1) {
        const wide = [...document.querySelectorAll("body *")].filter(
            e => e.getBoundingClientRect().right > root.clientWidth + 1 && e.checkVisibility());
        const names = wide.slice(-3).map(e => e.outerHTML.slice(0, 100));
        found.push(`scrolls sideways, ${root.scrollWidth} of ${root.clientWidth} px: ${names.join(" ... ")}`);
    }
    for (const e of document.querySelectorAll("mjx-merror, [data-mjx-error]"))
        found.push("mathematics: " + (e.dataset.mjxError || e.textContent));
    for (const e of document.querySelectorAll("pre.mermaid"))
        if (/syntax error/i.test(e.textContent)) found.push("mermaid: " + e.textContent.slice(0, 100));
    for (const e of document.images)
        if (e.complete && !e.naturalWidth) found.push("broken image: " + e.src);
    return found;
}"""
RUN_AXE = """async tags => {
    const result = await axe.run(document, {runOnly: tags, resultTypes: ["violations"]});
    const where = v => v.nodes.slice(0, 3).map(n => n.html.slice(0, 200)).join(" ... ");
    return result.violations.map(v => `${v.id} (${v.impact}): ${v.help}; ${where(v)}`);
}"""


@dataclass
class Visit:
    """What was seen at one page in one colour scheme."""

    faults: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


class Quiet(SimpleHTTPRequestHandler):
    """A static server that does not log."""

    protocol_version = "HTTP/1.1"

    def translate_path(self, path: str) -> str:
        return super().translate_path("/" + path.removeprefix(PREFIX))

    def log_message(self, format: str, *args: Any) -> None:
        pass


def chromium() -> str:
    """The path of the browser."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, (shutil.which(name) for name in names if name)), None)
    if found is None:
        pytest.exit("no Chromium found: install it (apt install chromium), or set CHROMIUM=/path/to/it", 1)
    return found


def launch_options() -> dict[str, Any]:
    """How the browser is started."""
    flags = ["--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--disable-component-update"]
    # its sandbox does not work for root
    return {"executable_path": chromium(), "args": flags, "chromium_sandbox": os.geteuid() != 0}


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """The address of a server of the built site."""
    if not PAGES:
        pytest.exit("there is no site in _build/html: make book", 1)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(HTML))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
        server.shutdown()


async def look(page: Page, site: str, name: str, scheme: str, axe: str) -> Visit:
    """Open a page and note all that is wrong with it."""
    visit = Visit()

    def note(fault: str) -> None:
        if fault not in visit.faults:
            visit.faults.append(fault)

    def asked(url: str) -> None:
        if not url.startswith((site, "data:", "blob:")):
            note(f"asks another host: {url}")

    page.on("request", lambda request: asked(request.url))
    page.on("requestfailed", lambda request: note(f"failed request: {request.url} {request.failure}"))
    page.on("response", lambda r: note(f"status {r.status}: {r.url}") if r.status >= 400 else None)
    page.on("console", lambda m: note(f"console: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: note(f"script error: {error}"))

    await page.goto(site + name, wait_until="load")
    try:
        await page.wait_for_function(READY, timeout=20_000)
    except Exception:
        note("a diagram was not drawn or a formula not typeset within 20 s")
    shown = await page.evaluate("document.documentElement.dataset.theme")
    if shown != scheme:
        note(f"shows the {shown} theme, not {scheme}")
    await page.evaluate(axe)
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": 900})
        await page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")
        for fault in await page.evaluate(FAULTS):
            note(f"{width} px: {fault}")
        visit.violations += [f"{width} px: {v}" for v in await page.evaluate(RUN_AXE, AXE_TAGS)]
        if os.environ.get("SCREENSHOTS", "") not in ("", "0"):
            picture = f"{name.removesuffix('.html').replace('/', '-')}-{scheme}-{width}.png"
            await page.screenshot(path=PICTURES / picture, full_page=True)
    return visit


async def look_at_all(site: str) -> dict[tuple[str, str], Visit]:
    """Open every page in every scheme, a few at a time."""
    axe = (vendor((AXE,)) / "vendor" / "axe" / "axe.min.js").read_text("utf8")
    visits = {}
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(browser: Browser, name: str, scheme: Any) -> None:
        async with gate:
            page = await browser.new_page(color_scheme=scheme, viewport={"width": WIDTHS[0], "height": 900})
            visits[name, scheme] = await look(page, site, name, scheme, axe)
            await page.close()

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**launch_options())
        await asyncio.gather(*(one(browser, name, scheme) for scheme in SCHEMES for name in PAGES))
        await browser.close()
    return visits


@pytest.fixture(scope="session")
def visits(site: str) -> dict[tuple[str, str], Visit]:
    """What was seen, by page and scheme."""
    return asyncio.run(look_at_all(site))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole_and_stays_on_this_host(
    visits: dict[tuple[str, str], Visit], name: str, scheme: str
) -> None:
    assert visits[name, scheme].faults == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", PAGES)
def test_page_is_accessible(visits: dict[tuple[str, str], Visit], name: str, scheme: str) -> None:
    assert visits[name, scheme].violations == []


def test_search_finds_a_chapter(site: str) -> None:
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(**launch_options()).new_page()
        page.goto(f"{site}search.html?q={SEARCH_TERM}")
        page.wait_for_selector("#search-results li a", timeout=20_000)


@pytest.mark.parametrize("protocol", ["http", "file"])
def test_front_page_leads_to_the_book(site: str, protocol: str) -> None:
    address = site if protocol == "http" else f"{HTML.as_uri()}/{FRONT}"
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(**launch_options()).new_page()
        page.goto(address)
        page.wait_for_selector("article h1", timeout=20_000)


@cache
def soup(name: str) -> BeautifulSoup:
    """A page's document tree."""
    return BeautifulSoup((HTML / name).read_text("utf8"), "html.parser")


@cache
def anchors(name: str) -> frozenset[str]:
    """What links can point to in a page."""
    return frozenset(tag[kind] for kind in ("id", "name") for tag in soup(name).find_all(attrs={kind: True}))


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
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
        if not target.is_file() or (
            fragment
            and target.suffix == ".html"
            and fragment not in anchors(target.relative_to(HTML).as_posix())
        ):
            broken.append(str(link["href"]))
    assert broken == []


@pytest.mark.parametrize("name", PAGES)
def test_pictures_have_alternative_texts(name: str) -> None:
    bad = []
    for image in soup(name).select("article img:not(.toggler)"):
        text = str(image.get("alt", ""))
        if len(text) < 5 or text.endswith((".png", ".svg", ".jpg", ".jpeg")) or "/" in text.split(" ")[0]:
            bad.append(f"{image.get('src')}: alt={text!r}")
    assert bad == []


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_loaded_from_elsewhere(name: str) -> None:
    """Also what a browser would load only later, or only in some circumstances."""
    loaded = [tag["src"] for tag in soup(name).select("script[src], img[src], iframe[src], source[src]")]
    loaded += [
        tag["href"]
        for tag in soup(name).select("link[href]")
        if not {"canonical", "next", "prev"} & set(tag.get("rel") or [])
    ]
    assert [url for url in loaded if urlsplit(str(url)).netloc] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_downloads_are_executed_notebooks(name: str) -> None:
    notebook = nbformat.read(HTML / name, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in code)
    assert all(output.output_type != "error" for cell in code for output in cell.outputs)
    assert "{glue:" not in "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    page = name.removeprefix("_sources/").replace(".ipynb", ".html")
    links = [str(link["href"]) for link in soup(page).select("a[href$='.ipynb']")]
    assert any(link.endswith(name) for link in links), f"{page} does not offer its notebook"
    assert notebook.metadata.kernelspec.name == "python3"
