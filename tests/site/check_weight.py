"""How much a reader's browser fetches for the first view of a chapter: `make check`, after `make book`."""

import asyncio
from typing import Any

import pytest
from playwright.async_api import Browser, async_playwright

from tests.site.browser import HTML, SETTLED, built_pages, launch_options, serving

LIMIT = 500_000
"""Bytes as they travel from a server that compresses text, with their headers, to an empty cache."""
VIEWS = ((1280, 900), (390, 844))

CHAPTERS = [name for name in built_pages(HTML) if name.startswith("book/") and name.count("/") == 1]

pytestmark = pytest.mark.site

# the addresses of images that begin below the window, and of those among them that do not wait until they
# are near, or have no size until then
BELOW = """() => {
    const below = [...document.images].filter(e => e.getBoundingClientRect().top >= innerHeight);
    const above = new Set([...document.images].filter(e => !below.includes(e)).map(e => e.src));
    const waits = e => e.loading === "lazy" && e.hasAttribute("width") && e.hasAttribute("height");
    const hasty = below.filter(e => !waits(e));
    return [below.map(e => e.src).filter(src => !above.has(src)), hasty.map(e => e.src)];
}"""
# diagrams and formulas of which a quarter is seen are drawn
DRAWN = """() => {
    const shown = box => box.height && (Math.min(box.bottom, innerHeight) - box.top) / box.height;
    const seen = [...document.querySelectorAll("pre.mermaid, .math")].filter(
        e => e.checkVisibility() && shown(e.getBoundingClientRect()) > 0.25);
    return seen.every(e => e.querySelector("svg, mjx-container"));
}"""


async def first_view(browser: Browser, url: str, width: int, height: int) -> tuple[dict[str, int], list[str]]:
    """What is fetched for the first view of a page.

    Returns:
        The bytes of each answer, without those for images below the window, and the addresses of images
        below the window that are fetched before they come near.
    """
    context = await browser.new_context(viewport={"width": width, "height": height})
    page = await context.new_page()
    network = await context.new_cdp_session(page)
    urls: dict[str, str] = {}
    sizes: dict[str, int] = {}

    def sent(event: dict[str, Any]) -> None:
        urls[event["requestId"]] = event["request"]["url"]

    def received(event: dict[str, Any]) -> None:
        url = urls[event["requestId"]]
        sizes[url] = sizes.get(url, 0) + int(event["encodedDataLength"])

    network.on("Network.requestWillBeSent", sent)
    network.on("Network.loadingFinished", received)
    await network.send("Network.enable")
    await page.goto(url, wait_until="load")
    await page.wait_for_function(DRAWN, timeout=20_000)
    await page.evaluate(SETTLED)
    await page.wait_for_load_state("networkidle")
    below, hasty = await page.evaluate(BELOW)
    await context.close()
    return {url: size for url, size in sizes.items() if url not in below}, hasty


async def first_views(site: str, names: list[str]) -> dict[str, list[str]]:
    """What is wrong with the first view of pages, in a wide and in a narrow window."""
    faults: dict[str, list[str]] = {name: [] for name in names}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**launch_options())

        async def look(name: str, width: int, height: int) -> None:
            sizes, hasty = await first_view(browser, site + name, width, height)
            total = sum(sizes.values())
            if total >= LIMIT:
                heavy = sorted(sizes.items(), key=lambda item: -item[1])[:5]
                faults[name].append(f"{width} px: {total} bytes, most of them {heavy}")
            if not sizes:
                faults[name].append(f"{width} px: nothing was fetched")
            faults[name] += [f"{width} px: does not wait or has no size: {url}" for url in hasty]

        for name in names:
            await asyncio.gather(*(look(name, *view) for view in VIEWS))
        await browser.close()
    return faults


@pytest.fixture(scope="module")
def faults():
    """What is wrong with each chapter's first view."""
    assert CHAPTERS
    with serving(HTML) as site:
        return asyncio.run(first_views(site, CHAPTERS))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_first_view_of_a_chapter_is_light(faults, chapter):
    assert faults[chapter] == []
