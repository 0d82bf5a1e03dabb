"""The option working_dir: a current directory for one job (daemon; a process of its own too).

A process has one current directory, and ten threads. Linux can give a thread one of its own.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .exceptions import BrokenJob

CLONE_FS: Final = 0x200
"""From Linux's sched.h: do not share the current directory (and root and umask) any more."""

_apart = threading.local()


@contextmanager
def working_dir(folder: str) -> Iterator[None]:
    """Be in ``folder`` for a with block, and back where one was after it.

    In the main thread it is the process's directory that changes: a process for one job at a time,
    or a command, is its own. Any other thread first gets a directory of its own, which needs no
    privilege, and keeps it.

    Raises BrokenJob, naming the folder, where there is none, or no thread can have one here.
    """
    if threading.current_thread() is not threading.main_thread():
        _be_apart(folder)
    before = _current(folder)
    try:
        os.chdir(folder)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BrokenJob(
            f"its working_dir {folder!r} cannot be entered ({reason}); expected a folder that every "
            "daemon of its queue can enter"
        ) from error
    try:
        yield
    finally:
        os.chdir(before)


def _current(folder: str) -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - chdir takes it back as it is
    except OSError as error:
        raise BrokenJob(
            f"its working_dir {folder!r} is not entered: the daemon's own directory is gone "
            f"({error.strerror}), and there would be no way back"
        ) from error


def _be_apart(folder: str) -> None:
    """Give this thread a current directory of its own, once."""
    if getattr(_apart, "done", False):
        return
    try:
        _unshare()
    except (OSError, AttributeError) as error:
        raise BrokenJob(
            f"its working_dir {folder!r} would be that of all threads of the process: it needs "
            f"executor='process' on this system ({_why(error)})"
        ) from error
    _apart.done = True


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        # Containers forbid this system call to unprivileged processes unless told otherwise.
        return f"unshare(CLONE_FS): {error.strerror}"
    return f"{sys.platform} has no unshare()"


def _unshare() -> None:
    if sys.version_info >= (3, 12):
        os.unshare(CLONE_FS)
        return
    # Raises AttributeError, as above, where there is no such function.
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    if unshare(CLONE_FS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
