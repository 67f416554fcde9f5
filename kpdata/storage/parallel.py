"""Threads that prepare the next items of a loop."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 32
"""Requests at once: a store takes long for each, but answers many at the same time."""


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield the function's result for every item, in order; threads compute the next ones."""
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
    """Yield (item, wait) for every item, in order; ``wait()`` returns the function's result.

    While the caller works on an item, threads call the function for up to ``depth`` further items.
    ``wait()`` raises what the function raised. Closing the generator ends the threads and starts no
    further item. With a depth of 0 there are no threads, and ``wait()`` calls the function.
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
    """Yield every item, in order; ``announce`` is called for each, ``depth`` items earlier."""
    waiting: deque[T] = deque()
    for item in items:
        announce(item)
        waiting.append(item)
        if len(waiting) > depth:
            yield waiting.popleft()
    yield from waiting
