"""Ctrl-C, SIGTERM and a closed terminal between two steps instead of in the middle of one."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Self

#: What a terminal sends when it is closed; a command begun with nohup is meant to outlive it.
_HANGUP = (
    (signal.SIGHUP,) if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else ()
)


class Interrupt:
    """While entered, the first SIGINT, SIGTERM or SIGHUP sets `asked`; a second one acts as if nobody listened.

    In a thread other than the main one Python allows no signal handlers, and this does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        """Listen."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, *_HANGUP):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._restore()

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
