"""Keys the execution cache by everything that decides a chapter's outputs.

Jupyter Book's own key is the cells alone. Here the cache lives in a folder named after a digest of the
package's source (docstrings and comments too, as chapters show it), the recorded runs, the pinned
environment, which data sets are in reach (for the others there are stand-ins; the content of the real ones is
verified), the scale and the kind of device. A change in any of these executes every chapter again; undoing it
finds the old outputs again. A cache that a crash or a full disk has damaged is deleted with a word, and the
chapters are executed once more.
"""

import hashlib
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from jupyter_cache import get_cache
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)

KEEP = 3  # caches: the current one and the last ones before it
READ = (".py", ".json", ".md", ".sql", ".toml", ".yaml", ".safetensors")  # of the package: chapters show them


def fingerprint(root: Path, data: str, scale: str, device: str = "cpu") -> str:
    """A digest, 16 hexadecimal digits, of what chapters depend on beside their own cells."""
    digest = hashlib.sha256(f"{data}\0{scale}\0{device}\0".encode())
    files = [path for path in (root / "companion").rglob("*") if path.suffix in READ]
    for path in [*sorted(files), root / "requirements.txt"]:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


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
        return f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"
    return ""


def _configure(app: Sphinx, config: Config) -> None:
    from companion.compute import pick_device
    from companion.data import available
    from companion.experiments.base import current_scale

    data = " ".join(name for name, source in available().items() if source)
    key = fingerprint(Path(app.srcdir), data, current_scale(), pick_device().type)
    folder = Path(app.outdir).parent / ".jupyter_cache"  # `jb clean` keeps it
    cache = folder / key
    fault = damage(cache) if cache.is_dir() else ""
    if fault:
        LOGGER.info(
            "the execution cache %s is damaged (%s); it is deleted, all chapters run again", cache, fault
        )
        shutil.rmtree(cache)
    if not cache.is_dir():  # pages that were read with the outputs of a lost cache are read again
        Path(app.doctreedir, "environment.pickle").unlink(missing_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    os.utime(cache)
    prune(folder, key)
    config.nb_execution_cache_path = str(cache)
    # a page that Sphinx need not read again would keep outputs that are out of date
    config.book_fingerprint = key


def setup(app: Sphinx) -> dict[str, Any]:
    """Set the cache's folder, and make Sphinx read all pages again when the key changes."""
    app.add_config_value("book_fingerprint", "", "env", types=frozenset({str}))
    app.connect("config-inited", _configure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
