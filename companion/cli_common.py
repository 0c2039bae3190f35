"""What the modules of the command line share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Show an expected error as one message and exit with status 1, without a traceback."""
    try:
        yield
    except (ValueError, RuntimeError, ArithmeticError, OSError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def check_writable(path: Path) -> None:
    """Find out before the work, and not after it, whether a file can be written.

    Raises:
        OSError: if it cannot.
    """
    import tempfile

    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass
