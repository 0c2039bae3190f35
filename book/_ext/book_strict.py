"""Makes every build strict, whoever starts it: any warning ends it with exit status 1.

`jb build .` has options for this (``-n -W --keep-going``), which a reader would have to know. Two things that
Sphinx leaves out would let a later build pass over a fault: it does not repeat the warnings about
pages that it need not read again, and it does not see changes of static files and of extensions.
"""

import hashlib
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

FOLDERS = ("book/_static", "book/_ext")


def _digest_tools(app: Sphinx, config: Config) -> None:
    """Have all pages read again (not executed) after a change of what they are made with."""
    paths = (path for folder in FOLDERS for path in sorted(Path(app.srcdir, folder).rglob("*.*")))
    files = (path for path in paths if path.is_file() and path.suffix != ".pyc")
    content = b"\0".join(part for path in files for part in (path.name.encode(), path.read_bytes()))
    config.book_tools = hashlib.sha256(content).hexdigest()


def _forget_faulty_build(app: Sphinx, error: Exception | None) -> None:
    """Have the next build read all pages again, so that it shows this one's warnings again."""
    if app._warncount:  # after an exception Sphinx does the same
        Path(app.doctreedir, "environment.pickle").unlink(missing_ok=True)


def setup(app: Sphinx) -> None:
    """Turn warnings into errors, after all of them have been shown."""
    # it would stop at the first warning; keep_going counts them, in Sphinx 8.1 and later the third does
    vars(app).update(warningiserror=False, keep_going=True, _fail_on_warnings=True)
    app.add_config_value("book_tools", "", "env")
    app.connect("config-inited", _digest_tools)
    app.connect("build-finished", _forget_faulty_build, priority=999)
