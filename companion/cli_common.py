"""What the modules of the command line share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Show an expected error as one message and exit with status 1, without a traceback."""
    try:
        yield
    except (ValueError, RuntimeError, ArithmeticError, OSError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
