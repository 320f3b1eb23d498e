"""Moves a bundle's blobs, several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from threading import Event
from typing import TypeVar

T = TypeVar("T")
THREADS = 4


def in_parallel(calls: Iterable[Callable[[], T]], stop: Event) -> list[T]:
    """The results of the calls, in their order.

    Where one fails, or the user interrupts, `stop` is set for the others, and the first error is raised once they have
    ended.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        futures: list[Future[T]] = [pool.submit(call) for call in calls]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [one for one in futures if one in done and one.exception() is not None]
            if failed:
                failed[0].result()
            return [one.result() for one in futures]
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
