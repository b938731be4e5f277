"""The stack on which a thread handles signals stays its own, whatever a library sets."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator


class _Stack(ctypes.Structure):
    """``stack_t`` of Linux, sigaltstack(2)."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Put back this thread's signal stack after the block; does nothing but on Linux.

    OpenVINO sets one of its own where it compiles a model and takes it down with the model. Where another thread does
    the latter, as the garbage collector may, the first is left with a stack that is gone, and the next signal that
    Python handles, such as SIGCHLD of a program that ends, kills the process.

    Examples:
        >>> with signal_stack_kept():
        ...     pass
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    library, before = ctypes.CDLL(None), _Stack()
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(before), None)
