"""A timer of the kernel's own that comes round without being set anew: cheaper than one set for each tick."""

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable

TFD_NONBLOCK = 0o4000  # man 2 timerfd_create, linux/time.h
TFD_TIMER_ABSTIME = 1
CLOCK_MONOTONIC = 1
NANO = 1_000_000_000

_libc = ctypes.CDLL(None, use_errno=True)  # Python has these calls from 3.13 on


class Ticker:
    """Call `call` on the loop at each whole multiple of `interval` (seconds) of the monotonic clock, until `close`.

    Times that passed while nobody looked make one call. Raises OSError where there can be no such timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float, call: Callable[[], None], now: float) -> None:
        self._loop = loop
        self._call = call
        self._file = _made(interval, now)
        loop.add_reader(self._file, self._tick)

    def _tick(self) -> None:
        os.read(self._file, 8)
        self._call()

    def close(self) -> None:
        self._loop.remove_reader(self._file)
        os.close(self._file)


def _made(interval: float, now: float) -> int:
    every = round(interval * NANO)
    first = (int(now * NANO) // every + 1) * every
    file: int = _libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | os.O_CLOEXEC)
    setting = struct.pack("@llll", *divmod(every, NANO), *divmod(first, NANO))  # struct itimerspec: interval, value
    if file < 0 or _libc.timerfd_settime(file, TFD_TIMER_ABSTIME, setting, None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return file
