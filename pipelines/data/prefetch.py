"""Items made ahead by one thread through a bounded queue."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Made = TypeVar("Made")
Item = TypeVar("Item")


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class _End:
    """What follows the last item."""


class Prefetched(Iterator[Item], Generic[Made, Item]):
    """Items made ahead by one thread; counts the seconds that its consumer waited.

    An error in the thread is raised where the item was to come. `close` ends the thread; so does the end.

    Args:
        source: Makes the items, in the thread.
        depth: Items that wait, at most; one more is being made.
        hand_over: What the consumer is given for an item; called in the consumer's thread when it takes it.
    """

    def __init__(self, source: Iterator[Made], depth: int, hand_over: Callable[[Made], Item]) -> None:
        self.waited_s = 0.0
        self._hand_over = hand_over
        self._queue: queue.Queue[tuple[Made] | _Failure | _End] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(source,), name="prefetch", daemon=True)
        self._thread.start()

    def __next__(self) -> Item:
        began = time.perf_counter()
        taken = self._queue.get()
        self.waited_s += time.perf_counter() - began
        if isinstance(taken, tuple):
            return self._hand_over(taken[0])
        self._queue.put(taken)  # whoever asks again gets the same answer
        if isinstance(taken, _End):
            raise StopIteration
        raise taken.error

    def close(self) -> None:
        """End the thread and let go of what it made."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        while not self._queue.empty():
            self._queue.get()
        self._queue.put(_End())

    def _fill(self, source: Iterator[Made]) -> None:
        try:
            for item in source:
                self._queue.put((item,))
                if self._stopped.is_set():
                    return
            self._queue.put(_End())
        except BaseException as error:  # noqa: BLE001 - it is raised in the consumer
            self._queue.put(_Failure(error))
