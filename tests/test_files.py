"""Files are written whole or not at all, with the permissions of any other file, and without litter."""

import os
import stat
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from companion.files import atomic_path


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic_path(path) as part:
        part.write_text("old")
    with suppress(ZeroDivisionError), atomic_path(path) as part:
        part.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["file.txt"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_others_may_read_what_the_umask_lets_them(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "file") as part:
            part.unlink()  # as a writer does that makes a file of its own and renames it
            part.touch(0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from companion.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as part: os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")])
    (left,) = tmp_path.iterdir()
    (tmp_path / ".notes.part").write_text("somebody's")
    old = tmp_path / ".file.elsewhere-1-00000000.part"
    for age, stays in ((10, True), (100_000, False)):  # of another machine, which may still be writing
        old.touch()
        os.utime(old, (time.time() - age,) * 2)
        with atomic_path(tmp_path / "other") as mine, atomic_path(tmp_path / "other"):
            assert mine.exists()
        assert old.exists() == stays
    assert not left.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".notes.part", "other"]
