import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import pytest

from sdcorrect.batch.pipeline import Behind, ahead


def test_ahead_keeps_the_order_and_its_distance() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    for index, square in enumerate(ahead(lambda number: number**2, numbers(), depth=lambda: 5)):
        assert square == index**2
        assert len(taken) <= index + 1 + 5
    assert taken == list(range(100))


def test_several_threads_keep_the_order_too() -> None:
    together = threading.Barrier(3)

    def work(number: int) -> int:
        together.wait(10)
        time.sleep(0.01 * (number % 3))
        return number

    assert list(ahead(work, range(9), depth=lambda: 3, threads=3)) == list(range(9))


def test_parts_are_done_together_and_what_they_raise_is_raised_in_its_place() -> None:
    together = threading.Barrier(2)

    def part(number: int) -> float:
        together.wait(10)
        return 1 / number

    def ending(result: Callable[[], float]) -> str:
        try:
            return str(result())
        except ZeroDivisionError:
            return "none"

    with Behind[str](threads=2) as behind:
        for number in (0, 2, 1, 0):
            behind.submit_in_parts(partial(part, number), ending)
        assert list(behind.results()) == ["none", "0.5", "1.0", "none"]


def test_ahead_works_while_the_loop_does() -> None:
    started = threading.Event()

    def work(number: int) -> int:
        if number == 1:
            started.set()
        return number

    with closing(ahead(work, range(3), depth=lambda: 1)) as results:
        assert next(results) == 0
        assert started.wait(10)


def test_ahead_raises_in_the_loop_what_is_raised_ahead() -> None:
    results = ahead(lambda number: 1 // number, [1, 0], depth=lambda: 1)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_behind_leaves_no_more_than_it_is_told_and_no_submitted_work_undone() -> None:
    done: list[int] = []
    with Behind[None]() as behind:
        for number in range(10):
            behind.submit(lambda number=number: done.append(number))
        assert len(list(behind.results(leave=3))) == 7
        assert done[:7] == list(range(7))
    assert done == list(range(10))
