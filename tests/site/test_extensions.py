"""The book's Sphinx extensions, and strict builds of a tiny book with them."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import nbformat
import pooch
import pytest
from book_assets import Asset, unpack, vendor
from book_cache import fingerprint, prune
from book_pages import FIXES, check_executed, fill_in, glued_values
from sphinx.errors import ExtensionError

ROOT = Path(__file__).parents[2]

# ---------------------------------------------------------------- assets


def package(path: Path, members: dict[str, bytes]) -> Asset:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return Asset("toy@1", pooch.file_hash(str(path)), (("dist/a.mjs", "toy/a.mjs"), ("fonts/", "toy/fonts/")))


def test_only_the_wanted_members_are_unpacked(tmp_path):
    members = {"package/dist/a.mjs": b"a", "package/fonts/x.woff": b"x", "package/secret.sh": b"rm", "other": b"o"}
    asset = package(tmp_path / "toy.tgz", members)
    unpack(tmp_path / "toy.tgz", asset, tmp_path / "out")
    files = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*"))
    assert files == ["toy/a.mjs", "toy/fonts/x.woff"]


def test_an_archive_that_is_not_the_pinned_one_is_refused(tmp_path):
    asset = package(tmp_path / "toy.tgz", {"package/dist/a.mjs": b"a"})
    with pytest.raises(ExtensionError, match="not the pinned"):
        unpack(tmp_path / "toy.tgz", replace(asset, sha256="0" * 64), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_member_that_points_outside_is_refused(tmp_path):
    asset = package(tmp_path / "toy.tgz", {"package/fonts/../../../../evil.woff": b"x"})
    with pytest.raises(ExtensionError, match="outside"):
        unpack(tmp_path / "toy.tgz", asset, tmp_path / "out")


def test_assets_are_fetched_once_and_whole_or_not_at_all(tmp_path, monkeypatch):
    asset = package(tmp_path / "toy.tgz", {"package/dist/a.mjs": b"a"})
    calls = []

    def fetch(name, folder):
        calls.append(name)
        return Path(shutil.copy(tmp_path / "toy.tgz", folder))

    monkeypatch.setattr("book_assets.npm_pack", fetch)
    bad = replace(asset, sha256="0" * 64)
    with pytest.raises(ExtensionError, match="pinned"):
        vendor((bad,), tmp_path / "cache")
    assert [p for p in (tmp_path / "cache").iterdir() if p.is_dir()] == []
    first = vendor((asset,), tmp_path / "cache")
    assert (first / "vendor" / "toy" / "a.mjs").read_bytes() == b"a"
    assert vendor((asset,), tmp_path / "cache") == first
    assert calls == ["toy@1", "toy@1"]


def test_without_a_registry_the_error_says_what_to_do(tmp_path, monkeypatch):
    from companion.data.sources import DataError

    def fail(name, folder):
        raise DataError("no network")

    monkeypatch.setattr("book_assets.npm_pack", fail)
    with pytest.raises(ExtensionError, match="toy@1 could not be fetched.*registry once"):
        vendor((Asset("toy@1", "0", ()),), tmp_path)


# ---------------------------------------------------------------- staleness


@pytest.fixture
def project(tmp_path):
    (tmp_path / "companion").mkdir()
    (tmp_path / "companion" / "a.py").write_text("x = 1\n")
    (tmp_path / "companion" / "run.json").write_text("{}")
    (tmp_path / "requirements.txt").write_text("torch==1\n")
    return tmp_path


def test_the_fingerprint_follows_everything_that_decides_outputs(project):
    def now(data="d", scale="live"):
        return fingerprint(project, data, scale)

    first = now()
    assert now() == first
    assert now(data="other") != first
    assert now(scale="smoke") != first
    for path, text in (
        ("companion/a.py", "x = 2\n"),
        ("companion/a.py", '"""Shown in chapters."""\nx = 1\n'),
        ("companion/b.py", ""),
        ("companion/run.json", "[]"),
        ("requirements.txt", "torch==2\n"),
    ):
        file = project / path
        before = file.read_text() if file.exists() else None
        file.write_text(text)
        assert now() != first, path
        file.unlink() if before is None else file.write_text(before)
        assert now() == first
    (project / "README.md").write_text("not a part of it")
    assert now() == first


def test_old_caches_are_pruned_and_the_current_one_is_kept(tmp_path):
    for age, name in enumerate(["current", "d", "c", "b", "a"]):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1000 - 100 * (age == 0), 1000 + age * (1 if age else -100)))
    prune(tmp_path, "current", keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "current"]


# ---------------------------------------------------------------- pages


def test_numbers_are_filled_into_downloaded_notebooks(tmp_path):
    values = {"e": "12.34", "word": "'higher'"}
    assert fill_in("{glue:text}`e:.1f` % is {glue:text}`word`", values) == "12.3 % is higher"
    with pytest.raises(KeyError):
        fill_in("{glue:text}`missing`", values)
    assert glued_values(tmp_path / "none.glue.json") == {}


@pytest.mark.parametrize("execution", [None, {}, {"succeeded": False}, {"succeeded": False, "error": "KeyError"}])
def test_a_notebook_that_did_not_run_ends_the_build(execution):
    with pytest.raises(ExtensionError, match="book/x: (its cells were not executed|KeyError)"):
        check_executed("book/x", execution)
    check_executed("book/x", {"succeeded": True})


def test_the_fixes_still_find_what_they_mend():
    from importlib.resources import files

    theme = "".join(
        path.read_text("utf8")
        for name in ("sphinx_book_theme", "pydata_sphinx_theme")
        for path in Path(str(files(name))).rglob("*.html")
    )
    for word in ("search-button-field", "theme-switch", "sidebar-primary-items__start"):
        assert word in theme
    assert len(FIXES) == 9


# ---------------------------------------------------------------- a tiny book, built strictly

CHAPTER = """\
---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
# Chapter

```{code-cell} ipython3
import time
print("executed at", time.time_ns())
CODE
```
"""


@pytest.fixture
def book(tmp_path):
    for name in ("_config.yml", "requirements.txt", "references.bib"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "companion", tmp_path / "companion", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, tmp_path / "book" / name)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/index\nchapters:\n- file: book/chapter\n")
    (tmp_path / "book" / "index.md").write_text("# Title\n\nText.\n")
    (tmp_path / "book" / "chapter.md").write_text(CHAPTER.replace("CODE", "2 + 2"))
    return tmp_path


def build(book: Path) -> tuple[int, str]:
    command = [str(Path(sys.executable).parent / "jb"), "build", "."]
    environment = os.environ | {"COMPANION_SCALE": "smoke", "PYTHONPATH": str(book)}
    done = subprocess.run(command, cwd=book, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def executed_at(book: Path) -> str:
    notebook = nbformat.read(book / "_build/html/_sources/book/chapter.ipynb", as_version=4)
    return next(cell for cell in notebook.cells if cell.cell_type == "code").outputs[0].text


def test_a_tiny_book_executes_only_what_is_stale(book):
    status, output = build(book)
    assert status == 0, output
    first = executed_at(book)
    assert build(book)[0] == 0
    assert executed_at(book) == first
    shutil.rmtree(book / "_build" / "html")
    assert build(book)[0] == 0
    assert executed_at(book) == first  # from the cache
    with (book / "companion" / "files.py").open("a") as file:
        file.write("\nCHANGED = True\n")
    assert build(book)[0] == 0
    assert executed_at(book) != first


@pytest.mark.parametrize(
    ("code", "expected"),
    [("1 / 0", "ZeroDivisionError"), ("2\n```\n\nSee {doc}`nowhere`.\n\n```{code-cell}", "nowhere")],
)
def test_a_cell_that_raises_or_a_warning_ends_the_build(book, code, expected):
    (book / "book" / "chapter.md").write_text(CHAPTER.replace("CODE", code))
    status, output = build(book)
    assert status != 0
    assert expected in output
