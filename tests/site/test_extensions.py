"""Parts of the book's Sphinx extensions, without Sphinx."""

import hashlib
import os
from pathlib import Path

import book_assets
import nbformat
import pytest
from book_assets import Asset, unpack, vendor
from book_cache import damage, prune
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from sphinx.errors import ExtensionError

from companion.data.download import DataError
from tests.packing import tar_gz


def make_archive(path: Path, files: dict[str, bytes]) -> str:
    """Write an npm package with these files; return its digest."""
    path.write_bytes(tar_gz(files))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_only_named_members_are_unpacked(tmp_path):
    files = ("a.js", "b.js", "fonts/c.woff", "fonts/d.txt")
    digest = make_archive(tmp_path / "x.tgz", {f"package/{name}": b"x" for name in files})
    asset = Asset("x@1", digest, (("a.js", "x/a.js"), ("fonts/", "x/fonts/")))
    unpack(tmp_path / "x.tgz", asset, tmp_path / "out")
    found = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*"))
    assert found == ["x/a.js", "x/fonts/c.woff"]


def test_another_archive_is_refused_and_members_cannot_leave_the_folder(tmp_path):
    digest = make_archive(tmp_path / "x.tgz", {"package/fonts/../../../evil.woff": b"e"})
    for pinned, message in (("0" * 64, "not the pinned"), (digest, "outside")):
        with pytest.raises(ExtensionError, match=message):
            unpack(tmp_path / "x.tgz", Asset("x@1", pinned, (("fonts/", "fonts/"),)), tmp_path / "out/deep")
    assert not list(tmp_path.rglob("evil.woff"))


def test_assets_are_fetched_once(tmp_path, monkeypatch):
    digest = make_archive(tmp_path / "x.tgz", {"package/a.js": b"a"})
    asset = Asset("x@1", digest, (("a.js", "x/a.js"),))
    fetched = []

    def pack(package: str, folder: Path) -> Path:
        fetched.append(package)
        return tmp_path / "x.tgz"

    monkeypatch.setattr(book_assets, "npm_pack", pack)
    first = vendor((asset,), tmp_path / "cache")
    assert (first / "vendor/x/a.js").read_bytes() == b"a"
    assert vendor((asset,), tmp_path / "cache") == first
    assert fetched == ["x@1"]
    more = Asset("x@1", digest, (*asset.members, ("b.js", "x/b.js")))
    assert vendor((more,), tmp_path / "cache") != first, "other members are not taken from an older folder"


def test_a_missing_registry_is_explained_and_leaves_nothing(tmp_path, monkeypatch):
    def pack(package: str, folder: Path) -> Path:
        raise DataError("no route")

    monkeypatch.setattr(book_assets, "npm_pack", pack)
    with pytest.raises(ExtensionError, match=r"x@1 could not be fetched \(no route\).*afterwards"):
        vendor((Asset("x@1", "0", (("a.js", "a.js"),)),), tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_damage_of_a_cache_is_found(tmp_path):
    get_cache(tmp_path).cache_notebook_bundle(
        CacheBundleIn(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), "a.md"),
        check_validity=False,
    )
    assert damage(tmp_path) == ""
    database, (notebook,) = tmp_path / "global.db", tmp_path.glob("executed/*/base.ipynb")
    for path in (database, notebook):
        whole = path.read_bytes()
        for part in (whole[: len(whole) // 2], whole[:30] + b"x" * 200 + whole[230:], b""):
            path.write_bytes(part)
            assert damage(tmp_path), (path, part[:40])
        path.write_bytes(whole)
    assert damage(tmp_path) == ""


def test_old_caches_are_deleted_and_the_current_one_never(tmp_path):
    for age, name in enumerate(["current", "old", "older", "oldest"]):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    os.utime(tmp_path / "current", (0, 0))
    prune(tmp_path, "current", keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "old", "older"]
