"""Makes the built folder ready to upload: addresses, the 404 page, sitemap, robots and social tags.

The two public addresses, of the site and of its repository, are set in one place: ``html.baseurl`` and
``repository.url`` in ``_config.yml``. The variables ``BOOK_URL`` and ``BOOK_REPOSITORY`` go before them, so
that a fork needs no edit. Without addresses the site works from any server and from files,
and whatever needs one is left out.
"""

import os
import re
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from book_weight import when_built
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

CARD = "_static/social.png"
CARD_SIZE = (1200, 630)
CARD_ALT = (
    "The training error of plain nets and residual nets over training steps; the deep plain net is worst."
)
DESCRIPTION = re.compile(r'<meta content="([^"]*)"[^>]* name="description"')

NOT_FOUND, FRONT_PAGE, SITEMAP = (
    Path(__file__).with_name(name).read_text("utf8")
    for name in ("not_found.html", "front_page.html", "sitemap.xml")
)


def address(variable: str, configured: str) -> str:
    """A public address from the environment, else from the configuration; ``""`` if there is none."""
    url = (os.environ.get(variable) or configured or "").strip().rstrip("/")
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment):
        raise ExtensionError(f"{variable} should look like https://example.org/book/, and is {url!r}")
    return url


def _configure(app: Sphinx, config: Config) -> None:
    url = address("BOOK_URL", config.html_baseurl)
    base = f"{url}/" if url else ""
    prefix = f"{urlsplit(url).path}/"
    config.html_baseurl = config.ogp_site_url = base
    config.notfound_urls_prefix = prefix
    root = f"{prefix}{config.root_doc}.html"
    config.notfound_context = {"title": "Page not found", "body": NOT_FOUND.format(root=root, prefix=prefix)}
    if base:  # previews take whole addresses only
        config.ogp_image, config.ogp_image_alt = urljoin(base, CARD), CARD_ALT
        sides = zip(("width", "height"), CARD_SIZE, strict=True)
        sizes = [f'<meta property="og:image:{side}" content="{pixels}" />' for side, pixels in sides]
        config.ogp_custom_meta_tags = [*sizes, '<meta name="twitter:card" content="summary_large_image" />']
    options = config.html_theme_options
    repository = address("BOOK_REPOSITORY", options.get("repository_url", ""))
    options["repository_url"] = repository
    for button in ("use_repository_button", "use_source_button", "use_issues_button"):
        options[button] = bool(repository)


def _describe(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Have previews show a page's own description, where it has one, and not its first lines."""
    if own := DESCRIPTION.search(context.get("metatags") or ""):
        tag, shown = f'<meta property="og:description" content="{own[1]}" />', context["metatags"]
        context["metatags"] = re.sub('<meta property="og:description"[^>]*>', lambda _: tag, shown)


def _front_page(app: Sphinx) -> str:
    """The page that leads from ``index.html`` to the first page, which is in a folder."""
    url = app.builder.get_target_uri(app.config.root_doc)
    first = (Path(app.outdir) / url).read_text("utf8").partition("</head>")[0]
    tags = re.findall(r'<meta (?:[^>]*name="(?:description|twitter:card)"|property="og:)[^>]*>', first)
    if app.config.html_baseurl:
        tags.append(f'<link rel="canonical" href="{escape(urljoin(app.config.html_baseurl, url))}" />')
    title = escape(app.config.project)
    return FRONT_PAGE.format(language=app.config.language, title=title, url=url, tags="\n".join(tags))


def _write(app: Sphinx) -> None:
    base, out = app.config.html_baseurl, Path(app.outdir)
    files = {"index.html": _front_page(app), ".nojekyll": ""}  # Jekyll would leave out _static
    if base:
        pages = (urljoin(base, app.builder.get_target_uri(page)) for page in sorted(app.env.found_docs))
        locations = (f"<url><loc>{escape(page)}</loc></url>" for page in pages)
        files["sitemap.xml"] = SITEMAP.format(lines="\n".join(locations))
        files["robots.txt"] = f"User-agent: *\nAllow: /\n\nSitemap: {urljoin(base, 'sitemap.xml')}\n"
    for name in ("sitemap.xml", "robots.txt"):
        (out / name).unlink(missing_ok=True)  # of a build with another address
    for name, text in files.items():
        (out / name).write_text(text, "utf8")


def setup(app: Sphinx) -> None:
    """Connect the steps, after those of the extensions whose settings and tags they change."""
    app.connect("config-inited", _configure, priority=400)
    app.connect("html-page-context", _describe, priority=850)
    when_built(app, _write, priority=910)
