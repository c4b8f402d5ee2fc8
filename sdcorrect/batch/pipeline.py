"""Threads that work ahead of the loop and behind it, bounded and in order.

They read and write pictures, for which Pillow and zlib release Python's global lock.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

from typing_extensions import Self

P = TypeVar("P")
T = TypeVar("T")
R = TypeVar("R")


#: More would hold too many large pictures at once, and this many keep a GPU busy.
MOST_THREADS = 8
#: Seconds between two checks whether to go on waiting.
PATIENCE = 0.2


def count_threads() -> int:
    """The number of worker threads: one for each processor that this process may use, up to a limit."""
    usable = getattr(os, "sched_getaffinity", None)  # Linux's
    return min(MOST_THREADS, len(usable(0)) if usable else os.cpu_count() or 1)


def ahead(
    function: Callable[[T], R],
    items: Iterable[T],
    depth: Callable[[], int],
    check: Callable[[], None] = lambda: None,
    threads: int = 1,
) -> Generator[R, None, None]:
    """Yield `function` of each item, computed by threads that run at most `depth()` items ahead.

    `check` is called while the loop waits and may raise, because a thread may block in a read forever.
    """
    pool = ThreadPoolExecutor(threads, "ahead")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > depth():
                yield _result(waiting.popleft(), check)
        while waiting:
            yield _result(waiting.popleft(), check)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _result(future: Future[R], check: Callable[[], None]) -> R:
    while not wait([future], PATIENCE).done:
        check()
    return future.result()


class Behind(Generic[R]):
    """Runs calls in order behind the loop, which collects their results.

    A call may have a part that runs before it, in any order, in one of `threads`.
    """

    def __init__(self, threads: int = 1) -> None:
        self._parts = ThreadPoolExecutor(threads, "parts")
        self._calls = ThreadPoolExecutor(1, "behind")
        self._waiting: deque[Future[R]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for all calls."""
        self._parts.shutdown()
        self._calls.shutdown()

    def submit(self, function: Callable[[], R]) -> None:
        self._waiting.append(self._calls.submit(function))

    def submit_in_parts(self, part: Callable[[], P], function: Callable[[Callable[[], P]], R]) -> None:
        """Run `part`, and call `function` with a callable for its result, which raises its error."""
        result = self._parts.submit(part).result
        self.submit(lambda: function(result))

    def results(self, leave: int = 0) -> Iterator[R]:
        """Yield results in order, waiting until at most `leave` calls are unfinished."""
        while len(self._waiting) > leave:
            yield self._waiting.popleft().result()
