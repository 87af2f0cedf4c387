"""Ctrl-C and SIGTERM end a training between two iterations, and say at once that they will."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from shapeguide.cells import stop_request


@contextmanager
def stop_requests(tell: Callable[[], None]) -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into an event; a second one interrupts at once.

    In a thread of a worker, where signals cannot be caught, the event is that of its cell, which
    whoever handed it out asks to save and end.

    Args:
        tell: Called at the first request, to say what will happen.
    """
    stop = stop_request()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        tell()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
