"""Compare the pages of two builds of the book, their numbers and links: python tools/equal.py ONE OTHER."""

import re
import sys
from pathlib import Path

from bs4 import BeautifulSoup


def told(page: Path) -> tuple[list[str], list[str]]:
    """The numbers of a page's article, and where its links lead, each in order.

    Numbers of API pages are left out: newer versions of autodoc tell the bounds of arguments, too.
    """
    article = BeautifulSoup(page.read_text("utf8"), "html.parser").select_one("article") or BeautifulSoup("")
    links = (str(link["href"]) for link in article.select("a[href]"))
    numbers = [] if page.name.startswith("api-") else re.findall(r"\d[\d,.]*", article.get_text(" "))
    return numbers, [link for link in links if link[:1] != "#"]


def main() -> None:
    """Exit with 1 after naming the pages that differ."""
    one, other = map(Path, sys.argv[1:3])
    pages, theirs = ({p.relative_to(of) for p in of.rglob("*.html")} for of in (one, other))
    different = [page for page in sorted(pages & theirs) if told(one / page) != told(other / page)]
    for page in sorted(pages ^ theirs) + different:
        print(f"{page} is not the same in both", file=sys.stderr)
    print(f"{len(pages & theirs) - len(different)} pages have the same numbers and links in both builds")
    sys.exit(bool(pages ^ theirs or different))


if __name__ == "__main__":
    main()
