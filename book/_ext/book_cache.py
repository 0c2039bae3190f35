"""Keys the execution cache by everything that decides a page's outputs, and by nothing else.

Jupyter Book's own key is the cells alone. Here each page has a folder, and in it a cache for each digest of
its cells, the modules that it can reach (docstrings and comments too, as chapters show them) with the files
they read, the pinned environment, which data sets are in reach (for the others there are stand-ins; the
content of the real ones is verified), the scale and the kind of device. A change in any of these executes the
page again; undoing it finds the old outputs again. A cache that a crash or a full disk has damaged is deleted
with a word, and the page is executed once more.
"""

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from functools import cache
from pathlib import Path

from book_reach import Package
from jupyter_cache import get_cache
from myst_nb.core.read import is_myst_markdown_notebook, read_myst_markdown_notebook
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
KEEP = 3  # caches of a page: the current one and the last ones before it


@cache
def conditions() -> str:
    """What decides all outputs beside the code: the data sets in reach, the scale, and the kind of device."""
    from companion.compute import pick_device
    from companion.data import available
    from companion.experiments.base import current_scale

    data = " ".join(name for name, source in available().items() if source)
    return f"{data}; {current_scale()}; {pick_device().type}"


@cache
def read_package(root: str) -> Package:
    """The package, whose source is read once in each build."""
    return Package(Path(root))


def digest(package: Package, files: Iterable[Path], *parts: str) -> str:
    """A digest, 16 hexadecimal digits, of files of the package, the pinned environment, and more."""
    pins = (package.root / "requirements.txt").read_bytes()
    found = hashlib.sha256("\0".join([*parts, ""]).encode() + pins)
    for path in sorted(files):
        content = path.read_bytes()
        found.update(f"{path.relative_to(package.root).as_posix()}\0{len(content)}\0".encode() + content)
    return found.hexdigest()[:16]


def page_key(package: Package, page: Path, around: str) -> str:
    """A digest of all that a page's outputs depend on; ``""`` if it has no cells."""
    text = page.read_text("utf8")
    if not is_myst_markdown_notebook(text):
        return ""
    cells = [cell for cell in read_myst_markdown_notebook(text).cells if cell.cell_type == "code"]
    own = json.dumps([(cell.source, cell.metadata) for cell in cells], sort_keys=True)
    return digest(package, package.reached([cell.source for cell in cells]), around, own)


def prune(folder: Path, current: str, keep: int = KEEP) -> None:
    """Delete all but the ``keep`` most recently used caches in ``folder``, never the current one."""
    others = [path for path in folder.glob("*") if path.is_dir() and path.name != current]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[keep - 1 :]:
        shutil.rmtree(path, ignore_errors=True)


def damage(cache: Path) -> str:
    """Why a cache cannot be used, or ``""``."""
    try:
        with closing(sqlite3.connect(cache / "global.db")) as database:
            found = database.execute("PRAGMA quick_check").fetchone()[0]
            if found != "ok":
                return str(found)
        store = get_cache(cache)
        for record in store.list_cache_records():
            store.get_cache_bundle(record.pk)
    except Exception as error:  # sqlite's, SQLAlchemy's, nbformat's, json's
        return f"{type(error).__name__}: {error}".splitlines()[0][:120]
    return ""


def usable(cache: Path) -> bool:
    """Whether there is a cache; one that is damaged is deleted."""
    if cache.is_dir() and (why := damage(cache)):
        LOGGER.info("the execution cache %s is damaged (%s); it is deleted, its page runs again", cache, why)
        shutil.rmtree(cache)
    return cache.is_dir()


def cache_of(app: Sphinx, page: str) -> Path:
    """The cache with the outputs of a page that has been read."""
    return _folder(app, page) / app.env.metadata[page]["book_key"]


def _folder(app: Sphinx, page: str) -> Path:
    return Path(app.outdir).parent / ".jupyter_cache" / page  # `jb clean` keeps it


def find_cache(app: Sphinx, page: str) -> Path | None:
    """The cache, there or not, in which a page finds or puts its outputs; none if it has no cells."""
    path, package, folder = Path(app.env.doc2path(page)), read_package(app.srcdir), _folder(app, page)
    key = page_key(package, path, app.config.book_conditions)
    if key and "BOOK_CONDITIONS" in os.environ and not usable(folder / key):
        key = page_key(package, path, conditions())
    return folder / key if key else None


def _configure(app: Sphinx, config: Config) -> None:
    # `make read` says under what others made the outputs; what they lack is executed under this machine's
    config.book_conditions = os.environ.get("BOOK_CONDITIONS") or conditions()
    # a page that Sphinx need not read again would keep outputs that are out of date
    package = read_package(app.srcdir)
    config.book_fingerprint = digest(package, [*package.texts, *package.data], config.book_conditions)


def _lost(app: Sphinx, env: BuildEnvironment, *changes: set[str]) -> list[str]:
    """The pages that were read with outputs of which there is no cache any more."""
    return [
        page for page in env.metadata if "book_key" in env.metadata[page] and not usable(cache_of(app, page))
    ]


def _choose(app: Sphinx, page: str, source: list[str]) -> None:
    """Have a page that is about to be read look for its outputs in its own cache."""
    if not (cache := find_cache(app, page)):
        return
    app.env.metadata[page]["book_key"] = cache.name
    if usable(cache):
        os.utime(cache)
    prune(cache.parent, cache.name)
    app.env.mystnb_config = app.env.mystnb_config.copy(execution_cache_path=str(cache))


def setup(app: Sphinx) -> None:
    """Choose a cache for each page, and have all pages read again when anything that they show changes."""
    app.add_config_value("book_fingerprint", "", "env")
    app.add_config_value("book_conditions", "", "")
    app.connect("config-inited", _configure)
    app.connect("env-get-outdated", _lost)
    app.connect("source-read", _choose)
