"""Work in a thread ahead of the loop, and behind it: bounded, and in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


#: Between two looks at whether to go on waiting, seconds.
PATIENCE = 0.2


def ahead(
    function: Callable[[T], R],
    items: Iterable[T],
    depth: int,
    check: Callable[[], None] = lambda: None,
) -> Generator[R, None, None]:
    """`function` of each item, computed by a thread that is at most `depth` items ahead.

    `check` is called while the loop waits and may raise: a thread may be blocked in a read for ever.
    """
    pool = ThreadPoolExecutor(1, "ahead")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > depth:
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
    """Calls that the thread of `pool` works off behind the loop, which takes their results."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._waiting: deque[Future[R]] = deque()

    def submit(self, function: Callable[[], R]) -> None:
        self._waiting.append(self._pool.submit(function))

    def results(self, leave: int = 0) -> Iterator[R]:
        """The results in order, waiting until at most `leave` are to come."""
        while len(self._waiting) > leave:
            yield self._waiting.popleft().result()
