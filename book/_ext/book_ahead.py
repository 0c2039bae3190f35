"""Executes as many pages at a time as the variable BOOK_JOBS says, before the build reads them one by one.

Each has its share of the cores. So the book is there sooner, and what pages measure in seconds is not what an
idle machine needs: without the variable nothing happens here. A page that fails runs once more where the
build comes to it, which tells the error.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from book_cache import find_cache, usable
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.read import read_myst_markdown_notebook
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ConfigError
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)


def _execute(path: Path, cache: Path, timeout: int) -> None:
    """Execute a page in its folder and keep its outputs."""
    notebook = read_myst_markdown_notebook(path.read_text("utf8"))
    result = single_nb_execution(notebook, cwd=str(path.parent), timeout=timeout, allow_errors=False)
    LOGGER.info("%s %s in %.0f s", path.name, "failed" if result.err else "was executed", result.time)
    if not result.err:
        bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": result.time})
        get_cache(cache).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def _ahead(app: Sphinx, env: BuildEnvironment, pages: list[str]) -> None:
    told, cores = os.environ.get("BOOK_JOBS") or "1", os.cpu_count() or 1
    if not told.isdecimal() or not (jobs := int(told)):
        raise ConfigError(f"BOOK_JOBS is a number of pages to execute at a time, such as 2, not {told!r}")
    caches = {page: find_cache(app, page) for page in pages} if jobs > 1 else {}
    missing = {page: cache for page, cache in caches.items() if cache and not usable(cache)}
    if missing:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // jobs)))
    with ThreadPoolExecutor(jobs) as pool:
        paths = {Path(env.doc2path(page)): cache for page, cache in missing.items()}
        for path in sorted(paths, key=lambda path: -path.stat().st_size):  # the longest should not be last
            pool.submit(_execute, path, paths[path], env.mystnb_config.execution_timeout)


def setup(app: Sphinx) -> None:
    """Execute before the first page is read."""
    app.connect("env-before-read-docs", _ahead)
