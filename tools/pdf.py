"""Print the built book into one PDF with working links: python -m tools.pdf _build/html book.pdf.

A browser prints the front page, the chapters and the shorter reference pages, in their order and in the style
for print; the pages are then joined. Links between them lead to pages of the PDF. Links to what is left out,
such as the package, lead to the public site if the pages know its address, and nowhere otherwise.
"""

from __future__ import annotations

import argparse
import io
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urldefrag, urljoin

from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, NameObject, TextStringObject
from tqdm import tqdm

from companion.files import atomic_path
from tools.browser import READY, launch_options

FRONT = "book/index.html"
LEFT_OUT = ("reference/api", "reference/contributing", "reference/changelog", "reference/figures")


class Quiet(SimpleHTTPRequestHandler):
    """A static server that does not log."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def pages_in_order(folder: Path) -> dict[str, str]:
    """The pages to print, from the table of contents beside the front page: path and title."""
    soup = BeautifulSoup((folder / FRONT).read_text("utf8"), "html.parser")
    heading = soup.select_one("article h1")
    pages = {FRONT: heading.get_text().rstrip("#") if heading else "The book"}
    for link in soup.select("nav.bd-links a.reference.internal"):
        path = urldefrag(urljoin(FRONT, str(link["href"])))[0]
        if not any(part in path for part in LEFT_OUT) and path.startswith("book/"):
            pages.setdefault(path, " ".join(link.get_text().split()))
    return pages


def print_pages(folder: Path, pages: dict[str, str]) -> tuple[dict[str, bytes], str]:
    """Each page as PDF, and the address at which the browser saw the folder."""
    printed = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        site = f"http://127.0.0.1:{server.server_port}/"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(**launch_options())
            page = browser.new_page(color_scheme="light")
            for path in tqdm(pages, desc="printing", unit="page", disable=None):
                page.goto(site + path, wait_until="load")
                page.wait_for_function(READY, timeout=60_000)
                page.wait_for_timeout(500)  # the last diagram is still being drawn
                printed[path] = page.pdf(format="A4", tagged=True, prefer_css_page_size=True)
            browser.close()
        server.shutdown()
    return printed, site


def _lead_by_place(reader: PdfReader) -> None:
    """Have links within a page lead to places and not to names, which pages have in common."""
    named = reader.named_destinations
    for page in reader.pages:
        for reference in page.get("/Annots", ArrayObject()):
            link = reference.get_object()
            if link.get("/Dest") in named:
                link[NameObject("/Dest")] = named[link["/Dest"]].dest_array


def join(printed: dict[str, bytes], titles: dict[str, str], site: str, public: str = "") -> PdfWriter:
    """One document with an outline, whose links lead to its own pages.

    Args:
        printed: each page as PDF, by path, in order.
        titles: by path.
        site: the address at which they were printed.
        public: the address of the published site, or ``""``.
    """
    writer = PdfWriter()
    first = {}
    for path, content in printed.items():
        first[path] = len(writer.pages)
        reader = PdfReader(io.BytesIO(content))
        _lead_by_place(reader)
        writer.append(reader, outline_item=titles[path])
    for page in writer.pages:
        kept = ArrayObject()
        for reference in page.get("/Annots", ArrayObject()):
            link = reference.get_object()
            address = str(link.get("/A", {}).get("/URI", ""))
            if address.startswith(site):
                path, _ = urldefrag(address.removeprefix(site))
                if path in first:
                    link.pop("/A")
                    target = writer.pages[first[path]].indirect_reference
                    link[NameObject("/Dest")] = ArrayObject([target, NameObject("/Fit")])
                elif public:
                    action = DictionaryObject({NameObject("/S"): NameObject("/URI")})
                    action[NameObject("/URI")] = TextStringObject(address.replace(site, public, 1))
                    link[NameObject("/A")] = action
                else:
                    continue
            kept.append(reference)
        if kept:
            page[NameObject("/Annots")] = kept
        elif "/Annots" in page:
            del page["/Annots"]
    return writer


def main() -> None:
    """Write the PDF."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the built site")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    pages = pages_in_order(arguments.folder)
    try:
        printed, site = print_pages(arguments.folder, pages)
    except FileNotFoundError as error:
        sys.exit(str(error))
    soup = BeautifulSoup((arguments.folder / FRONT).read_text("utf8"), "html.parser")
    canonical = soup.select_one("link[rel=canonical]")
    public = str(canonical["href"]).removesuffix(FRONT) if canonical else ""
    writer = join(printed, pages, site, public)
    writer.add_metadata({"/Title": pages[FRONT]})
    with atomic_path(arguments.out) as part, part.open("wb") as file:
        writer.write(file)
    print(f"{arguments.out}: {len(writer.pages)} pages, {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
