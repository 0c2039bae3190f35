"""A static server and a real browser, with which the page checks look at a built site."""

import asyncio
import gzip
import io
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO, ClassVar

import pytest
from book_assets import AXE, vendor
from playwright.async_api import Browser, Page, Request, async_playwright

ROOT = Path(__file__).parents[2]
HTML = ROOT / os.environ.get("BOOK_HTML", "_build/html")  # the pages to look at
PICTURES = ROOT / "_build" / "screenshots"
SCHEMES = ("light", "dark")
WIDTHS = (1280, 390)
AT_ONCE = 3  # pages open at the same time
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]

# images, diagrams and formulas are all there
READY = """() => {
    dispatchEvent(new Event("scroll")); // what waits for the reader is fetched
    for (const image of document.images) image.loading = "eager";
    const whole = [...document.images].every(image => image.complete);
    const drawn = [...document.querySelectorAll("pre.mermaid")].every(d => d.querySelector("svg"));
    const formulas = document.querySelectorAll(".math").length;
    return whole && drawn && document.querySelectorAll("mjx-container").length >= formulas;
}"""
# what a change of the width sets in motion has come to rest
SETTLED = """async () => {
    await document.fonts.ready;
    for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
    const running = document.getAnimations().filter(a => a.effect.getComputedTiming().endTime < Infinity);
    await Promise.allSettled(running.map(a => a.finished));
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
# Each figure is painted as the page shows it, with its filter and on its ground. Its ground is the colour of
# its edge, and something in it must stand out from the ground.
FIGURES = """() => {
    const found = [];
    const light = ([r, g, b]) => [[r, 0.2126], [g, 0.7152], [b, 0.0722]].reduce((sum, [value, weight]) => {
        const c = value / 255;
        return sum + weight * (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    }, 0);
    for (const image of document.querySelectorAll("article img:not(.toggler)")) {
        if (!image.naturalWidth) continue; // that is another fault
        const style = getComputedStyle(image);
        const name = image.src.split("/").pop();
        if (!image.matches(".plot, .photo, .sd-card img")) found.push(`a figure of no class: ${name}`);
        const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
        const paint = canvas.getContext("2d", {willReadFrequently: true});
        const grounds = ["white"];
        for (let e = image; e; e = e.parentElement) grounds.splice(1, 0, getComputedStyle(e).backgroundColor);
        for (const ground of grounds) {
            paint.fillStyle = ground;
            paint.fillRect(0, 0, canvas.width, canvas.height);
        }
        paint.filter = style.filter;
        paint.drawImage(image, 0, 0);
        const {data} = paint.getImageData(0, 0, canvas.width, canvas.height);
        const lights = new Float32Array(data.length / 4);
        for (let i = 0; i < lights.length; i++) lights[i] = light(data.subarray(4 * i, 4 * i + 3));
        const edge = lights.slice(0, canvas.width).sort()[canvas.width >> 1];
        const extremes = [Math.max, Math.min].map(most => lights.reduce((a, b) => most(a, b)));
        const against = l => (Math.max(l, edge) + 0.05) / (Math.min(l, edge) + 0.05);
        const contrast = Math.max(...extremes.map(against));
        if (!(contrast >= 4.5)) found.push(`a figure with a contrast of ${contrast.toFixed(1)}: ${name}`);
        if (image.matches(".plot") && edge > 0.2) found.push(`a plot on a light ground: ${name}`);
        if (image.matches(".photo") && style.filter !== "none") found.push(`a filtered photograph: ${name}`);
    }
    return found;
}"""
# A digest of all that rules other than those of colour can look at: elements, what they say, where and how
# they are shown. Left out are the name of the colour scheme and classes, which only matter through the style.
SHOWN = """async () => {
    const parts = [document.body.innerText];
    for (const e of document.querySelectorAll("*")) {
        const style = getComputedStyle(e), box = e.getBoundingClientRect();
        const own = [...e.attributes].filter(
            a => !/^(class|data-seen|data-theme|data-mode)$/.test(a.name));
        parts.push(
            e.tagName, ...own.flatMap(a => [a.name, a.value]), e.children.length ? "" : e.textContent,
            style.display, style.visibility, style.opacity, style.position, style.overflowX, style.overflowY,
            style.clip, style.clipPath, style.pointerEvents, style.textDecorationLine, style.zIndex,
            box.x, box.y, box.width, box.height, e.scrollWidth, e.scrollHeight);
    }
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(parts.join("\\0")));
    return [...new Uint8Array(digest)].join();
}"""
# Code has thousands of words in a few colours. In each block of code three words of each kind have their
# contrast measured. Words are of a kind if they, and all they are in, have the same style.
RUN_AXE = """async ([tags, all]) => {
    const kinds = new Map();
    for (const block of document.querySelectorAll("div.highlight pre, dt.sig")) {
        kinds.clear();
        const styles = new Map([[block, ""]]);
        for (const e of block.querySelectorAll("*")) {
            const s = getComputedStyle(e);
            const kind = [
                styles.get(e.parentElement), e.tagName, s.color, s.backgroundColor, s.backgroundImage,
                s.fontSize, s.fontWeight, s.opacity, s.filter, s.textShadow, s.position, s.display,
                s.visibility,
            ].join();
            styles.set(e, kind);
            kinds.set(kind, (kinds.get(kind) || 0) + 1);
            e.toggleAttribute("data-seen", kinds.get(kind) > 3);
        }
    }
    axe.configure({rules: [{id: "color-contrast", selector: "*:not([data-seen])"}]});
    const colour = axe.getRules(["cat.color"]).filter(r => r.tags.some(t => tags.includes(t)));
    const runOnly = all ? tags : {type: "rule", values: colour.map(r => r.ruleId)};
    const result = await axe.run(document, {runOnly, resultTypes: ["violations"]});
    const where = v => v.nodes.slice(0, 3).map(n => n.html.slice(0, 200)).join(" ... ");
    return result.violations.map(v => `${v.id} (${v.impact}): ${v.help}; ${where(v)}`);
}"""


@dataclass
class Visit:
    """What was seen at one page in one colour scheme."""

    faults: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def note(self, fault: str) -> None:
        if fault not in self.faults:
            self.faults.append(fault)


def built_pages(folder: Path) -> list[str]:
    """The pages of a built site, without the front page, which only leads to the first."""
    pages = (path.relative_to(folder) for path in folder.rglob("*.html"))
    return sorted(
        path.as_posix() for path in pages if "_static" not in path.parts and str(path) != "index.html"
    )


# ---------------------------------------------------------------- the server


@cache
def packed(path: Path) -> bytes:
    """A file as it travels."""
    return gzip.compress(path.read_bytes(), 6)


class Static(SimpleHTTPRequestHandler):
    """A static server like those of the web: it compresses text, and lets the browser keep what it has."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    text: ClassVar = {".html", ".js", ".mjs", ".css", ".svg", ".json", ".txt", ".xml"}

    def __init__(self, *args: Any, prefix: str, **options: Any) -> None:
        self.prefix = prefix
        super().__init__(*args, **options)

    def translate_path(self, path: str) -> str:
        return super().translate_path("/" + path.removeprefix(self.prefix))

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        path = Path(self.translate_path(self.path))
        if path.suffix not in self.text or not path.is_file():
            return super().send_head()
        body = packed(path)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return io.BytesIO(body)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "max-age=3600")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(folder: Path, prefix: str = "/") -> Iterator[str]:
    """The address of a server of a built site, as long as it runs."""
    handler = partial(Static, directory=str(folder), prefix=prefix)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{prefix}"
        server.shutdown()


# ---------------------------------------------------------------- the browser


def launch_options() -> dict[str, Any]:
    """How Chromium is started."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, (shutil.which(name) for name in names if name)), None)
    if found is None:
        pytest.exit("no Chromium found: install it (apt install chromium), or set CHROMIUM=/path/to/it", 1)
    flags = ["--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--disable-component-update"]
    # its sandbox does not work for root
    return {"executable_path": found, "args": flags, "chromium_sandbox": os.geteuid() != 0}


class Visitor:
    """A window of the browser that opens one page after another, and so fetches what they share once."""

    def __init__(self, window: Page, site: str) -> None:
        self.window, self.site = window, site
        self.axe = (vendor((AXE,)) / "vendor" / "axe" / "axe.min.js").read_text("utf8")
        self.visit = Visit()
        window.on("request", self.asked)
        window.on("requestfailed", lambda r: self.visit.note(f"failed request: {r.url} {r.failure}"))
        window.on(
            "response", lambda r: self.visit.note(f"status {r.status}: {r.url}") if r.status >= 400 else None
        )
        window.on(
            "console",
            lambda m: self.visit.note(f"console: {m.text}") if m.type in ("error", "warning") else None,
        )
        window.on("pageerror", lambda error: self.visit.note(f"script error: {error}"))

    def asked(self, request: Request) -> None:
        if not request.url.startswith((self.site, "data:", "blob:")):
            self.visit.note(f"asks another host: {request.url}")

    async def look(self, name: str) -> dict[str, Visit]:
        """Open a page in each scheme, and note all that is wrong with it.

        Each of axe's rules is run wherever its result can differ: those of colour in every view, the others
        again in dark mode only where the page shows anything else, or elsewhere, than in light mode.
        """
        visits, shown = {}, {}
        for scheme in SCHEMES:
            visits[scheme] = self.visit = Visit()
            await self.open(name, scheme)
            await self.window.evaluate(self.axe)
            for width in WIDTHS:
                await self.window.set_viewport_size({"width": width, "height": 900})
                await self.window.evaluate(SETTLED)
                for fault in await self.window.evaluate(FAULTS):
                    self.visit.note(f"{width} px: {fault}")
                view = await self.window.evaluate(SHOWN)
                everything = shown.setdefault(width, view) != view or scheme == SCHEMES[0]
                found = await self.window.evaluate(RUN_AXE, [AXE_TAGS, everything])
                self.visit.violations += [f"{width} px: {violation}" for violation in found]
                if os.environ.get("SCREENSHOTS", "") not in ("", "0"):
                    picture = f"{name.removesuffix('.html').replace('/', '-')}-{scheme}-{width}.png"
                    await self.window.screenshot(path=PICTURES / picture, full_page=True)
        return visits

    async def open(self, name: str, scheme: Any) -> None:
        """Open a page in a scheme and wait until all of it is there."""
        await self.window.emulate_media(color_scheme=scheme)
        await self.window.set_viewport_size({"width": WIDTHS[0], "height": 900})
        await self.window.goto(self.site + name, wait_until="load")
        try:
            await self.window.wait_for_function(READY, timeout=20_000)
        except Exception:
            self.visit.note(
                "an image was not loaded, a diagram not drawn or a formula not typeset within 20 s"
            )
        theme = await self.window.evaluate("document.documentElement.dataset.theme")
        if theme != scheme:
            self.visit.note(f"shows the {theme} theme, not {scheme}")
        if scheme == "dark":
            for fault in await self.window.evaluate(FIGURES):
                self.visit.note(fault)


async def look_at_all(site: str, names: Iterable[str]) -> dict[tuple[str, str], Visit]:
    """Open pages in every scheme, a few at a time."""
    visits = {}
    waiting = list(names)

    async def work(browser: Browser) -> None:
        visitor = Visitor(await browser.new_page(), site)
        while waiting:
            name = waiting.pop()
            for scheme, visit in (await visitor.look(name)).items():
                visits[name, scheme] = visit

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**launch_options())
        await asyncio.gather(*(work(browser) for _ in range(AT_ONCE)))
        await browser.close()
    return visits
