"""Files appear whole or not at all: written under a temporary name beside the target, synced, renamed."""

from __future__ import annotations

import errno
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from splat.errors import UserError

_counter = itertools.count()
_USER_ERRNOS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS,
    errno.EIO, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EEXIST,
}  # fmt: skip
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def atomic_path(path: str | Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success it is synced and renamed to ``path``.

    On any failure the temporary file is removed and whatever stood at ``path`` before stays. A full disk, a
    read-only folder and their like become one-line ``UserError``. Missing parent folders are made. The
    temporary name keeps the suffix of ``path``, for writers that look at it. ``sync=False`` skips waiting for
    the disk, for files that are cheap to make again.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}-{next(_counter)}.partial{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        yield temporary
        if sync:
            sync_file(temporary)
        os.replace(temporary, target)
        if sync:
            _sync_folder(target.parent)
    except OSError as error:
        _unlink_quietly(temporary)
        raise write_error(error, target) from error
    except BaseException:
        _unlink_quietly(temporary)
        raise


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_bytes(path: str | Path, data: bytes, *, sync: bool = True) -> Path:
    """Write bytes atomically."""
    with atomic_path(path, sync=sync) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_error(error: OSError, target: Path) -> Exception:
    """The ``UserError`` for a failed write, or ``error`` itself when it is not about the disk."""
    if error.errno not in _USER_ERRNOS:
        return error
    if error.errno in _NO_SPACE:
        return UserError(
            f"{target}: no space left to write it; the previous file, if any, is untouched. "
            "Free some space or choose another folder with -o"
        )
    reason = (os.strerror(error.errno) or str(error)).lower()
    return UserError(f"{target}: cannot be written ({reason}); choose another folder with -o")


def sync_file(path: Path) -> None:
    """Force the bytes of ``path`` to the disk, so that a rename never outruns them."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; not every file system can, and then the file is still whole."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _remove_leftovers(target: Path) -> None:
    """Delete temporary files of ``target`` whose process was killed: they can be as large as a checkpoint."""
    pattern = re.compile(rf"\.{re.escape(target.stem)}\.(\d+)-\d+\.partial{re.escape(target.suffix)}")
    for entry in os.scandir(target.parent):
        match = pattern.fullmatch(entry.name)
        if match and not _is_running(int(match.group(1))):
            _unlink_quietly(Path(entry.path))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _unlink_quietly(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass
