"""Look over the folder that is to be uploaded, and say what is in it: python -m tools.site _build/html."""

import sys
from pathlib import Path
from urllib.parse import urljoin
from xml.etree import ElementTree

from bs4 import BeautifulSoup

from tools.outputs import write

PICTURES = ("_static/favicon.svg", "_static/social.png")
WANTED = ("index.html", "404.html", ".nojekyll", "book/index.html", *PICTURES)
LOCATION = "{http://www.sitemaps.org/schemas/sitemap/0.9}loc"


def execution(folder: Path) -> dict[str, str]:
    """What the page on the execution says: hardware, scale, data and so on."""
    page = BeautifulSoup((folder / "book/reference/execution.html").read_text("utf8"), "html.parser")
    rows = (row.find_all("td") for row in page.select("table tr"))
    return {row[0].get_text(strip=True): row[1].get_text(strip=True) for row in rows if len(row) == 2}


def faults(folder: Path) -> list[str]:
    """Why the folder should not be uploaded."""
    found = [f"{name} is missing" for name in WANTED if not (folder / name).is_file()]
    if found:
        return found
    about = execution(folder)
    if about.get("scale") == "smoke":
        found.append("the chapters were executed at smoke scale, which is for tests; unset COMPANION_SCALE")
    if any("synthetic" in value for value in about.values()):
        found.append("the chapters show synthetic stand-ins; see that the data can be fetched")
    sitemap = folder / "sitemap.xml"
    if sitemap.is_file():
        first = BeautifulSoup((folder / "book/index.html").read_text("utf8"), "html.parser")
        canonical = first.select_one("link[rel=canonical]")
        base = str(canonical["href"]).removesuffix("book/index.html") if canonical else ""
        listed = {element.text for element in ElementTree.parse(sitemap).iter(LOCATION)}
        pages = {path.relative_to(folder).as_posix() for path in (folder / "book").rglob("*.html")}
        if listed != {urljoin(base, page) for page in pages}:
            found.append("sitemap.xml does not list the pages that are there")
    return found


def main() -> None:
    """Print what was found; exit with 1 if the folder is not fit to be read by others."""
    folder = Path(sys.argv[1])
    found = faults(folder)
    for fault in found:
        print(f"Not yet: {fault}.", file=sys.stderr)
    if found:
        sys.exit(1)
    write(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    print(f"Upload the folder {folder} ({len(files)} files, {size:.0f} MB).")
    if not (folder / "sitemap.xml").is_file():
        print("It has no sitemap and no pictures for previews: they need the public address, BOOK_URL.")


if __name__ == "__main__":
    main()
