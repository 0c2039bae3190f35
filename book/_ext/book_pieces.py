"""Puts interactive pieces into pages: ``{piece} NAME What the button says``.

Their data and nets are made by ``companion.pieces`` and kept in ``_build/pieces``; a net that differs from
PyTorch ends the build. Readers' browsers fetch nothing of a piece before its button is pressed. Where the
libraries or the data are out of reach, the page says that a piece is left out, and why.
"""

import re
from html import escape
from pathlib import Path

from book_assets import PLAY, vendor
from book_cache import prune
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

PLACE = re.compile(r"^```\{piece\} (\w+)", re.MULTILINE)
HTML = '<div class="piece" id="piece-{0}" data-piece="{0}" data-title="{1}" data-megabytes="{2}"></div>'


class Piece(SphinxDirective):
    """The place of a piece, which has a button where scripts run, and its content where they do not."""

    required_arguments, optional_arguments, final_argument_whitespace, has_content = 1, 1, True, True

    def run(self) -> list[nodes.Node]:
        """Leave the place, or say why there is none."""
        name, title = self.arguments
        instead, megabytes = nodes.container(), self.config.book_pieces[name]
        self.state.nested_parse(self.content, self.content_offset, instead)
        if isinstance(megabytes, str):
            return [nodes.paragraph("", f"A piece is left out of this build: {megabytes}"), instead]
        instead["classes"] = ["piece-instead"]
        return [nodes.raw("", HTML.format(name, escape(title), f"{megabytes:.1f}"), format="html"), instead]


def _make(name: str, folder: Path, vendored: Path) -> float | str:
    """How many megabytes a piece takes, or why it cannot be made."""
    try:
        from companion import pieces
        from companion.data.download import DataError

        if not (folder / f"{name}.json").is_file():  # which is written last
            getattr(pieces, name)(folder)
    except (ImportError, DataError) as error:
        return str(error)
    library = "onnxruntime-web" if (folder / f"{name}.onnx").is_file() else "uplot"
    files = [*folder.glob(f"{name}.*"), *(vendored / "vendor" / library).iterdir()]
    return sum(path.stat().st_size for path in files) / 1e6


def _configure(app: Sphinx, config: Config) -> None:
    texts = (path.read_text("utf8") for path in sorted(Path(app.srcdir, "book").glob("*.md")))
    names = [name for text in texts for name in PLACE.findall(text)]
    if not names:
        return
    folder = Path(app.outdir).parent / "pieces" / config.book_fingerprint
    try:
        vendored = vendor(PLAY)
    except ExtensionError as error:
        config.book_pieces = dict.fromkeys(names, str(error))
        return
    config.book_pieces = {name: _make(name, folder / "pieces", vendored) for name in names}
    config.html_static_path += [str(vendored), str(folder)]
    prune(folder.parent, folder.name)


def setup(app: Sphinx) -> None:
    """Add the directive; pages are read again when there are other pieces."""
    app.add_config_value("book_pieces", {}, "env")
    app.connect("config-inited", _configure, priority=600)
    app.add_directive("piece", Piece)
