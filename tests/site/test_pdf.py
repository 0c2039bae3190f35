"""The printed book: which pages it has, and where its links lead."""

from __future__ import annotations

import io
from pathlib import Path

from pypdf import PdfReader, PdfWriter
from pypdf.annotations import Link
from pypdf.generic import NameObject, RectangleObject, TextStringObject

from tools.pdf import join, pages_in_order

SITE = "http://127.0.0.1:1/"


def printed(pages: int, *addresses: str) -> bytes:
    """A PDF of empty pages, with links on its first one."""
    writer = PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(100, 100)
    for address in addresses:
        writer.add_annotation(0, Link(rect=RectangleObject((0, 0, 9, 9)), url=address))
    stream = io.BytesIO()
    writer.write(stream)
    return stream.getvalue()


def links(document: PdfReader, number: int) -> list[str | int]:
    """Where the links of a page lead: an address, or the number of a page."""
    found: list[str | int] = []
    for reference in document.pages[number].get("/Annots", []):
        link = reference.get_object()
        if "/A" in link:
            found.append(str(link["/A"]["/URI"]))
        else:
            target = link["/Dest"][0]
            found.append([page.indirect_reference for page in document.pages].index(target))
    return found


def test_links_between_pages_lead_into_the_document() -> None:
    contents = {
        "book/a.html": printed(2, f"{SITE}book/b.html#x", "https://example.org/", f"{SITE}book/api.html"),
        "book/b.html": printed(1, f"{SITE}book/a.html"),
    }
    titles = {"book/a.html": "A", "book/b.html": "B"}
    for public, api in (("", []), ("https://a.test/", ["https://a.test/book/api.html"])):
        stream = io.BytesIO()
        join(contents, titles, SITE, public).write(stream)
        document = PdfReader(stream)
        assert len(document.pages) == 3
        assert links(document, 0) == [2, "https://example.org/", *api]
        assert links(document, 2) == [0]
        assert [entry["/Title"] for entry in document.outline] == ["A", "B"]


def test_names_that_pages_have_in_common_are_kept_apart() -> None:
    def page(pages: int) -> bytes:
        writer = PdfWriter(io.BytesIO(printed(pages)))
        writer.add_named_destination("id17", pages - 1)
        link = Link(rect=RectangleObject((0, 0, 9, 9)), target_page_index=0)
        link[NameObject("/Dest")] = TextStringObject("id17")
        writer.add_annotation(0, link)
        stream = io.BytesIO()
        writer.write(stream)
        return stream.getvalue()

    stream = io.BytesIO()
    join({"a": page(2), "b": page(3)}, {"a": "A", "b": "B"}, SITE).write(stream)
    document = PdfReader(stream)
    assert [links(document, number) for number in (0, 2)] == [[1], [4]]


def test_the_pages_come_from_the_table_of_contents(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "book/index.html").write_text(
        '<nav class="bd-links"><a class="reference internal" href="a.html">1. A</a>'
        '<a class="reference internal" href="reference/api.html">API</a>'
        '<a class="reference internal" href="#">here</a></nav><article><h1>The book#</h1></article>'
    )
    assert pages_in_order(tmp_path) == {"book/index.html": "The book", "book/a.html": "1. A"}
