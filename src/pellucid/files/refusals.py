"""What the operating system refused, said so that one can act on it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pellucid.errors import DataError, PellucidError

if TYPE_CHECKING:
    from pathlib import Path

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EACCES, errno.EPERM}


def not_written(error: OSError, path: Path) -> PellucidError:
    """The error for a file or folder that could not be written; `path` is what should have been."""
    folder = path.parent
    code = error.errno
    if code in _FULL:
        why = f"no space left on the disk that holds {folder}: free some, or choose another --out"
    elif code in _FORBIDDEN:
        why = f"not allowed to write in {folder}: change its permissions, or choose another --out"
    elif code == errno.EROFS:
        why = f"the disk that holds {folder} is read-only: choose another --out"
    elif code == errno.ENOENT:
        why = f"the folder {folder} does not exist: make it first, or choose another --out"
    elif code == errno.ENOTDIR:
        why = f"a part of {folder} is a file, not a folder: choose another --out"
    elif code in {errno.EISDIR, errno.EEXIST}:
        why = "something else stands there under that name: move it away, or choose another --out"
    elif code == errno.ENAMETOOLONG:
        why = "the name is too long for this disk: choose a shorter --out"
    elif code == errno.EFBIG:
        why = f"the file is larger than the disk that holds {folder} allows: choose another --out"
    else:
        why = f"the system refused to write it ({error.strerror or error}): check the disk, or choose another --out"
    return PellucidError(f"{path}: {why}")


def not_read(error: OSError, path: Path) -> DataError:
    """The error for a file that could not be read."""
    code = error.errno
    if code in {errno.ENOENT, errno.ENOTDIR}:
        why = "there is no such file: check the path"
    elif code == errno.EISDIR:
        why = "is a folder, where a file was expected: name a file in it"
    elif code in _FORBIDDEN:
        why = "not allowed to read it: change its permissions"
    else:
        why = f"the system could not read it ({error.strerror or error}): check the disk, or take another copy"
    return DataError(f"{path}: {why}")
