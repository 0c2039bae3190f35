"""Makes every build strict, whoever starts it: any warning ends it with exit status 1.

`jb build .` has options for this (``-n -W --keep-going``), which a reader would have to know.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Turn warnings into errors, after all of them have been shown."""
    app.warningiserror = False  # it would stop at the first warning; keep_going counts them
    app.keep_going = True
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
