"""Writing files so that a reader never sees half of one, and reading those of others with care."""

import hashlib
import os
import re
import secrets
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an error.

    The parent folder is made. What killed processes left of such files is removed after a day.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(".*.part"):
        with suppress(OSError):
            old = time.time() - left.stat().st_mtime > 86_400
            if old and re.fullmatch(r"\..+\.[0-9a-f]{16}\.part", left.name):
                left.unlink()
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        part.touch(0o666, exist_ok=False)  # less the umask
        mode = part.stat().st_mode
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.chmod(mode)  # which a writer may have changed
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def fingerprint(value: object) -> str:
    """A text that differs where values differ: tensors are told by their bytes, all else by its repr."""
    import torch

    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()[:16]
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return f"{tuple(value.shape)} {value.dtype} {fingerprint(content)}"
    if isinstance(value, tuple):
        return f"({', '.join(fingerprint(part) for part in value)})"
    if is_dataclass(value):
        return f"{type(value).__name__}({', '.join(f'{k}={fingerprint(v)}' for k, v in vars(value).items())})"
    return re.sub(r" at 0x\w+", "", repr(value))  # a function's address is another in each process


class StateError(RuntimeError):
    """A saved state that cannot be used; the message says what to do."""


def save_state(path: Path, kind: str, **state: Any) -> None:
    """Write tensors, numbers, text, and lists and dicts of them to one file, in one piece.

    ``kind`` is its content and version. Strides come back, too: they matter for equality to the last bit.
    """
    import torch

    with atomic_path(path) as part:
        torch.save({"kind": kind} | state, part)


def load_state(path: Path, kind: str) -> dict[str, Any]:
    """Read what :func:`save_state` wrote, onto the CPU, or raise a StateError; no code in the file is run."""
    import torch

    try:
        with zipfile.ZipFile(path) as archive:  # stored without compression, it is no larger than the file
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed")
        with path.open("rb") as file:  # by its name PyTorch would take a .safetensors for another format
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise StateError(f"there is no file {path}") from error
    except Exception as error:  # whatever a damaged file makes of the two readers
        raise StateError(f"{path} is damaged, or no file of this package: {error}") from error
    if not isinstance(state, dict) or state.get("kind") != kind:
        found = state.get("kind") if isinstance(state, dict) else None
        raise StateError(f"{path} holds {found or 'something else'}, not {kind}")
    return state


def save_weights(path: Path, weights: Mapping[str, Any], *, half: bool = False, **about: str) -> None:
    """Write a model's ``state_dict()`` as safetensors, with texts about it; with ``half`` as float16."""
    from safetensors.torch import save_file

    dense = {name: t.detach().cpu().contiguous() for name, t in weights.items()}
    if half:
        dense = {name: t.half() if t.is_floating_point() else t for name, t in dense.items()}
    with atomic_path(path) as part:
        save_file(dense, part, metadata=about)


def load_weights(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What :func:`save_weights` wrote: tensors by name, on the CPU, and the texts; or a StateError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise StateError(f"{path} is not a readable weight file ({error})") from error
