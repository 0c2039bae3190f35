"""The book from published outputs: nothing is executed that they hold, and a damaged archive is refused."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.site.test_book import CHAPTER, HEADER, PACKAGE, Book
from tools.outputs import NAME

ROOT = Path(__file__).parents[2]
WRITE = "from pathlib import Path; from tools.outputs import write; write(Path('_build/html'))"
pytestmark = pytest.mark.xdist_group("outputs")  # one after the other: they share a book


def outputs(book, *arguments, **variables):
    """The status and what the tool prints, and what it says."""
    paths = os.pathsep.join(map(str, (book.folder, book.folder / "book/_ext")))
    environment = os.environ | {"PYTHONPATH": paths, "BOOK_URL": ""} | variables
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=book.folder, env=environment, capture_output=True, text=True, timeout=180
    )
    return done.returncode, done.stdout.strip(), done.stderr


def reading(book, *place, **variables):
    return outputs(book, "-m", "tools.outputs", *place, **variables)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A clone of a book, with the site that others built of it in the folder ``site``."""
    book = Book(tmp_path_factory.mktemp("outputs"))
    shutil.copytree(ROOT / "tools", book.folder / "tools")
    status, output = book.build()
    assert status == 0, output
    status, _, said = outputs(book, "-c", WRITE)
    assert status == 0, said
    (book.folder / "_build/html").rename(book.folder / "site")
    shutil.rmtree(book.folder / "_build")
    return book


def test_without_a_place_it_says_what_to_do(book):
    status, _, said = reading(book)
    assert status == 1
    assert "No outputs to read: name a site, `make read BOOK_URL=" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("damage", ["cut", "changed", "other digest", "no digest", "no archive"])
def test_what_is_not_the_published_archive_is_refused(book, tmp_path, damage):
    path, digest = tmp_path / NAME, tmp_path / f"{NAME}.sha256"
    for each in (path, digest):
        shutil.copy(book.folder / "site" / each.name, each)
    content = json.loads(gzip.decompress(path.read_bytes()))
    content["pages"]["book/chapter"]["notebook"]["cells"][0]["outputs"] = []
    new = {"cut": path.read_bytes()[:-9], "changed": gzip.compress(json.dumps(content).encode())}
    if damage in new:
        path.write_bytes(new[damage])
    elif damage == "other digest":
        digest.write_text("0" * 64)
    else:
        (digest if damage == "no digest" else path).unlink()
    status, told, said = reading(book, str(path))
    assert (status, told) == (1, "")
    assert f"{path} cannot be read: " in said
    assert not (book.folder / "_build").exists()


def test_a_key_cannot_lead_out_of_the_cache(book, tmp_path):
    content = json.loads(gzip.decompress((book.folder / "site" / NAME).read_bytes()))
    page = content["pages"].pop("book/chapter")
    content["pages"] = {"../../book/chapter": page, "book/chapter": page | {"key": "../../../x"}}
    path = tmp_path / NAME
    path.write_bytes(gzip.compress(json.dumps(content).encode()))
    digest = subprocess.run(["sha256sum", NAME], cwd=tmp_path, capture_output=True, check=True).stdout
    (tmp_path / f"{NAME}.sha256").write_bytes(digest)
    status, _, said = reading(book, str(path))
    assert status == 0
    assert "executed here, for they differ: book/chapter." in said
    assert not (book.folder / "_build").exists()


def test_a_published_site_is_read_and_only_what_differs_is_executed(book):
    before = book.executions()
    handler = partial(SimpleHTTPRequestHandler, directory=str(book.folder / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        status, around, said = reading(book, BOOK_URL=url, NO_PROXY="127.0.0.1")
        server.shutdown()
    assert status == 0, said
    assert f"Outputs from {url}{NAME}; executed here, for they differ: none." in said
    base = "companion/experiments/base.py"  # what the page cannot reach, and what only an execution would ask
    book.write(base, "def current_scale():\n    raise AssertionError('the scale is asked for')\n")
    status, output = book.build(BOOK_CONDITIONS=around)
    assert status == 0, output
    book.write(base, PACKAGE["experiments/base.py"])
    assert "A share of 0.86." in book.html("book/chapter.html")
    assert book.executions() == before
    book.write("book/chapter.md", HEADER + CHAPTER.replace("answer() / 7", "answer() / 8"))
    status, _, said = reading(book, str(book.folder / "site" / NAME))
    assert (status, "differ: book/chapter." in said) == (0, True)
    status, output = book.build(BOOK_CONDITIONS=around)
    assert status == 0, output
    assert "A share of 0.75." in book.html("book/chapter.html")
    assert book.executions() == before + 1
