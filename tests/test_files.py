"""Files are written whole or not at all, with the permissions of any other file, and without litter."""

import os
import stat
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


def test_what_a_killed_process_left_goes_after_a_day(tmp_path):
    with atomic_path(tmp_path / "file") as part:
        left, notes = tmp_path / part.name, tmp_path / ".notes.part"  # these are somebody's
    for age, stays in ((10, True), (100_000, False)):  # a young one may still be written
        for path in (left, notes):
            path.touch()
            os.utime(path, (time.time() - age,) * 2)
        with atomic_path(tmp_path / "other") as mine, atomic_path(tmp_path / "other"):
            assert mine.exists()
        assert left.exists() == stays
    assert sorted(path.name for path in tmp_path.iterdir()) == [".notes.part", "file", "other"]
