"""Threads that work ahead of a loop."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 32
"""Requests under way at once: a store takes long to answer one, but answers many."""


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The function's result on every item, in order; threads are busy with the next ones."""
    pool = ThreadPoolExecutor(THREADS)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def ahead(
    function: Callable[[T], R], items: Iterable[T], depth: int, threads: int = 1
) -> Generator[tuple[T, Callable[[], R]], None, None]:
    """Yield every item, in order, with what waits for the function's result on it.

    Threads call the function for up to ``depth`` further items while the caller is busy with one;
    an exception is raised where that item's result is asked for. Closing the generator ends the
    threads, and no further item is begun. With a depth of 0 there is no thread: the function is
    called when its result is asked for.
    """
    if not depth:
        yield from ((item, partial(function, item)) for item in items)
        return
    waiting: deque[tuple[T, Future[R]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > depth:
                first, future = waiting.popleft()
                yield first, future.result
        for first, future in waiting:
            yield first, future.result
    finally:
        pool.shutdown(cancel_futures=True)


def announced(announce: Callable[[T], object], items: Iterable[T], depth: int) -> Iterator[T]:
    """Yield every item, in order; each was announced ``depth`` items before its turn."""
    waiting: deque[T] = deque()
    for item in items:
        announce(item)
        waiting.append(item)
        if len(waiting) > depth:
            yield waiting.popleft()
    yield from waiting
