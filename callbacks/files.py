"""Files of results: they appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from typing_extensions import Buffer

OBJECT_PROBE_SUFFIX = "_object_probe.cxi"  # how results that look like measurements are told from them


class WriteError(OSError):
    """A result that could not be written; the message names the file and the reason."""


def write_atomically(path: Path, content: Buffer) -> None:
    """Write a file beside its final place, then rename it: readers never see a half-written one.

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
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(f"cannot write {path}: {reason}; expected a writable folder with space") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
