"""The API pages: every module that readers may call is on one of them, once."""

import re
from pathlib import Path

from book_indexes import modules

ROOT = Path(__file__).parents[1]


def test_every_module_is_on_one_page():
    pages = [path.read_text("utf8") for path in (ROOT / "book/reference").glob("api-*.md")]
    packages = re.findall(r"\{modules\} (\S+)", "\n".join(pages))
    shown = sorted(name for package in packages for name in modules(package))
    files = [path for path in (ROOT / "companion").rglob("*.py") if not path.stem.startswith(("__", "cli"))]
    assert shown == sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files)


def test_every_page_is_in_the_table_of_contents():
    contents = (ROOT / "_toc.yml").read_text("utf8")
    for path in (ROOT / "book/reference").glob("*.md"):
        assert f"file: book/reference/{path.stem}\n" in contents
