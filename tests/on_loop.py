"""An event loop of its own thread, for tests that talk to servers through plain sockets."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import uvloop

Result = TypeVar("Result")


class Loop:
    """Call it with a coroutine to have its result; `unexpected` is what reached the loop's exception handler."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.unexpected: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.unexpected.append(context))
        self.thread = threading.Thread(target=self.loop.run_forever)

    def __call__(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)


@contextmanager
def running_loop() -> Iterator[Loop]:
    """Run a loop; nothing unexpected may be left in `unexpected` at the end."""
    on = Loop()
    on.thread.start()
    try:
        yield on
        on(asyncio.sleep(0))
    finally:
        on.loop.call_soon_threadsafe(on.loop.stop)
        on.thread.join()
        on.loop.close()
    assert on.unexpected == []
