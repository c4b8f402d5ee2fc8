"""Work in threads ahead of the loop, and behind it: bounded, and in order.

What these threads do, to read and write pictures, Pillow and zlib do without Python's lock.
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


#: More would hold too many large pictures at once, and a GPU waits for none of what so many have read.
MOST_THREADS = 8
#: Between two looks at whether to go on waiting, seconds.
PATIENCE = 0.2


def count_threads() -> int:
    """How many can work at once: one for each processor that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)  # Linux's
    return min(MOST_THREADS, len(usable(0)) if usable else os.cpu_count() or 1)


def ahead(
    function: Callable[[T], R],
    items: Iterable[T],
    depth: Callable[[], int],
    check: Callable[[], None] = lambda: None,
    threads: int = 1,
) -> Generator[R, None, None]:
    """`function` of each item, computed by `threads` that are at most `depth()` items ahead.

    `check` is called while the loop waits and may raise: a thread may be blocked in a read for ever.
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
    """Calls that are worked off in order behind the loop, which takes their results.

    Each may have a part that is done before, by one of `threads` and in any order.
    """

    def __init__(self, threads: int = 1) -> None:
        self._parts = ThreadPoolExecutor(threads, "parts")
        self._calls = ThreadPoolExecutor(1, "behind")
        self._waiting: deque[Future[R]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for all that was submitted."""
        self._parts.shutdown()
        self._calls.shutdown()

    def submit(self, function: Callable[[], R]) -> None:
        self._waiting.append(self._calls.submit(function))

    def submit_in_parts(self, part: Callable[[], P], function: Callable[[Callable[[], P]], R]) -> None:
        """Call `function` with what gives the result of `part`, or raises what it raised."""
        result = self._parts.submit(part).result
        self.submit(lambda: function(result))

    def results(self, leave: int = 0) -> Iterator[R]:
        """The results in order, waiting until at most `leave` are to come."""
        while len(self._waiting) > leave:
            yield self._waiting.popleft().result()
