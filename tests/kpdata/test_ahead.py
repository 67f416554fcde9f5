"""Work ahead of a loop: in order, bounded, and gone when the loop ends."""

import threading
import time
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpdata.storage.parallel import ahead, announced

DEPTHS = st.integers(0, 4)


def until(condition):
    """Wait for another thread, for a second at most."""
    deadline = time.monotonic() + 1
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


@given(st.lists(st.integers()), DEPTHS)
def test_items_and_results_come_in_order(items, depth):
    found = [(item, result()) for item, result in ahead(lambda x: x * 2, items, depth)]
    assert found == [(item, item * 2) for item in items]


@given(st.lists(st.integers(-1, 9)), DEPTHS)
def test_an_exception_waits_for_its_items_turn_and_spares_the_others(items, depth):
    def root(x):
        if x < 0:
            raise ValueError(x)
        return x**0.5

    for item, result in ahead(root, items, depth):
        if item < 0:
            with pytest.raises(ValueError, match="-1"):
                result()
        else:
            assert result() == item**0.5


def test_several_threads_work_at_once():
    both = threading.Barrier(2, timeout=5)
    found = [result() for _, result in ahead(lambda _: both.wait() >= 0, range(6), 3, threads=2)]
    assert found == [True] * 6


def test_the_thread_works_while_the_caller_is_busy_and_no_further_than_the_depth():
    done, taken = [], []

    def items():
        for item in range(10):
            taken.append(item)
            yield item

    with closing(ahead(done.append, items(), 3)) as results:
        for turn in range(3):
            next(results)
            expected = list(range(turn + 4))
            assert until(lambda expected=expected: done == expected)
            assert taken == expected


def test_without_depth_there_is_no_thread_and_nothing_is_done_early():
    threads = []
    for _, result in ahead(lambda x: threads.append(threading.current_thread()), "abc", 0):
        before = len(threads)
        result()
        assert len(threads) == before + 1
    assert set(threads) == {threading.current_thread()}


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_no_thread_is_left_and_nothing_more_begins_once_closed(error):
    before, begun, go_on = threading.active_count(), [], threading.Event()

    def work(item):
        begun.append(item)
        if item:
            go_on.wait(1)

    def leave():
        with closing(ahead(work, range(10), 4)) as results:
            for _ in results:
                assert until(lambda: begun == [0, 1])
                threading.Timer(0.01, go_on.set).start()
                if error:
                    raise error
                return

    if error:
        with pytest.raises(error):
            leave()
    else:
        leave()
    assert begun == [0, 1]
    assert until(lambda: threading.active_count() == before)


def test_an_exception_in_the_items_comes_through_and_leaves_no_thread():
    before = threading.active_count()

    def items():
        yield 1
        raise OSError("the plan is damaged")

    with pytest.raises(OSError, match="the plan is damaged"):
        list(ahead(str, items(), 2))
    assert threading.active_count() == before


@given(st.lists(st.integers(), max_size=12), DEPTHS)
def test_every_item_is_announced_so_many_turns_before_its_own(items, depth):
    heard = []
    for turn, item in enumerate(announced(heard.append, items, depth)):
        assert item == items[turn]
        assert heard == items[: turn + depth + 1]
    assert heard == items
