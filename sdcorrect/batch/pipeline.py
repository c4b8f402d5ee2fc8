"""Work in a thread ahead of the loop, and behind it: bounded, and in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(function: Callable[[T], R], items: Iterable[T], depth: int) -> Generator[R, None, None]:
    """`function` of each item, computed by a thread that is at most `depth` items ahead."""
    pool = ThreadPoolExecutor(1, "ahead")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


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
