"""Archives for tests."""

import gzip
import io
import tarfile


def tar_gz(files: dict[str, bytes]) -> bytes:
    """An archive of files by their paths, the same each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), 1, mtime=0)
