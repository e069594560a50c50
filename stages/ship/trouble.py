"""What an ``OSError`` of the state folder means: the one place that puts it in words."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from stages.errors import FULL, BackstayError, NoSpace, OutOfMemory, StateError

P = ParamSpec("P")
R = TypeVar("R")


class _HasFolder(Protocol):
    @property
    def folder(self) -> str: ...


S = TypeVar("S", bound=_HasFolder)


@contextmanager
def in_words(operation: str, folder: str) -> Iterator[None]:
    """Raise ``NoSpace``, ``OutOfMemory`` or ``StateError`` for an ``OSError`` of ``folder``."""
    try:
        yield
    except OSError as error:
        raise _explain(error, operation, folder) from error


def state_call(
    operation: str,
) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R]]:
    """``in_words`` around a method of something that has a ``folder``."""

    def wrap(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
        @wraps(method)
        def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return method(self, *args, **kwargs)
            except OSError as error:
                raise _explain(error, operation, self.folder) from error

        return call

    return wrap


def _explain(error: OSError, operation: str, folder: str) -> BackstayError:
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in FULL:
        return NoSpace(
            reason,
            operation=operation,
            subject=folder,
            hint="make room on the state folder's file system: the next run goes on from there",
        )
    if error.errno == errno.ENOMEM:
        return OutOfMemory(reason, operation=operation, subject=folder, hint="free some memory")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        hint = "give the path of a folder, or of none yet: something else is there"
        return StateError(reason, operation=operation, subject=folder, hint=hint)
    denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    return StateError(
        reason,
        operation=operation,
        subject=folder,
        hint="the folder must be writable for the user that runs Backstay"
        if denied
        else "check the disk under the state folder and the kernel log; the next run goes on from "
        "what is durable",
    )
