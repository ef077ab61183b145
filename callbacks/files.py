"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from typing_extensions import Buffer


class WriteError(OSError):
    """A result that could not be written; the message names the file and the reason."""


def write_atomically(path: Path, content: Buffer) -> None:
    """Write a file next to its final place, then rename it: readers never see a half-written one.

    Parameters
    ----------
    path : Path
        File to create or replace; its folder is made when it is not there.
    content : bytes-like

    Raises
    ------
    WriteError
        If the disk is full or the folder cannot be written; what was there before stays, nothing else does.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise WriteError(f"cannot write {path}: {reason}; expected a writable folder with free space") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
