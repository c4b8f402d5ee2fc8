import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from sdcorrect.batch.pipeline import Behind, ahead


def test_ahead_keeps_the_order_and_its_distance() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    for index, square in enumerate(ahead(lambda number: number**2, numbers(), depth=5)):
        assert square == index**2
        assert len(taken) <= index + 1 + 5
    assert taken == list(range(100))


def test_ahead_works_while_the_loop_does() -> None:
    started = threading.Event()

    def work(number: int) -> int:
        if number == 1:
            started.set()
        return number

    with closing(ahead(work, range(3), depth=1)) as results:
        assert next(results) == 0
        assert started.wait(10)


def test_ahead_raises_in_the_loop_what_is_raised_ahead() -> None:
    results = ahead(lambda number: 1 // number, [1, 0], depth=1)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_behind_leaves_no_more_than_it_is_told_and_no_submitted_work_undone() -> None:
    done: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        behind = Behind[None](pool)
        for number in range(10):
            behind.submit(lambda number=number: done.append(number))
        assert len(list(behind.results(leave=3))) == 7
        assert done[:7] == list(range(7))
    assert done == list(range(10))
