"""Compare the pages of two builds of the book, their numbers and links: python tools/equal.py ONE OTHER."""

import re
import sys
from pathlib import Path

from bs4 import BeautifulSoup


def told(page: Path) -> tuple[list[str], list[str]]:
    """The numbers of a page's article, and where its links lead, each in order."""
    article = BeautifulSoup(page.read_text("utf8"), "html.parser").select_one("article") or BeautifulSoup("")
    links = (str(link["href"]) for link in article.select("a[href]"))
    # newer versions of autodoc tell the bounds of arguments, too
    numbers = [] if page.name.startswith("api-") else re.findall(r"\d[\d,.]*", article.get_text(" "))
    return numbers, [link for link in links if link[:1] != "#"]


one, other = map(Path, sys.argv[1:])
pages, theirs = ({page.relative_to(of) for page in of.rglob("*.html")} for of in (one, other))
different = pages ^ theirs | {page for page in pages & theirs if told(one / page) != told(other / page)}
print(f"{len(pages - different)} pages have the same numbers and links in both builds")
sys.exit("\n".join(f"{page} is not the same in both" for page in sorted(different)) or 0)
