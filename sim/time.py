"""Virtual time: a clock that moves only when somebody sleeps.

Alone it is a plain clock. With threads it is their scheduler: one runs at a time,
and a thread that sleeps gives the turn to the one that wakes first, so that a run is the same
for its seed and hours pass in seconds.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections.abc import Callable, Sequence

START = 1_790_000_000.0
STAGGER = 0.001  # seconds between the starts of two works

Work = Callable[[], None]


class Over(Exception):
    """Virtual time has come to its end."""


class Time:
    """Epoch seconds from ``start`` to ``end``; called, it is a clock.

    A thread that sleeps at or past ``end`` gets an ``Over``, which ends a work of ``run``.
    """

    def __init__(self, start: float = START, end: float = math.inf) -> None:
        self.now = start
        self.end = end
        self._waiting: list[tuple[float, int, threading.Event | Work]] = []
        self._count = 0
        self._faults: list[BaseException] = []

    def __call__(self) -> float:
        """Return epoch seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Give the turn to the thread that wakes first, and return when that is the caller.

        Raises
        ------
        ValueError
            ``seconds`` is negative, as ``time.sleep`` raises it.
        Over
            There is no time left.
        """
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        if self.now >= self.end:
            raise Over
        moment = self.now + seconds
        if not self._waiting or self._waiting[0][0] > moment:
            self.now = moment  # nobody comes before: no other thread needs the turn
            return
        wake = threading.Event()
        self._push(moment, wake)
        self._next()
        wake.wait()

    def until(self, moment: float) -> None:
        """Sleep until ``moment``; not at all if that is past."""
        self.sleep(max(0.0, moment - self.now))

    def call(self, moment: float, work: Work) -> None:
        """Call ``work`` at ``moment``; it must not sleep."""
        self._push(moment, work)

    def spawn(self, work: Work) -> None:
        """Run ``work`` in a thread that takes its turn now."""
        self._start(work, self.now, self._next).start()

    def run(self, works: Sequence[Work]) -> None:
        """Run ``works``, each in a thread, until they have ended; raise the first of what any work raised.

        What was called or spawned and is not done by then goes on with the next ``run`` or ``sleep``.
        """
        left = len(works)

        def ended() -> None:
            nonlocal left
            left -= 1
            if left:
                self._next()

        threads = [self._start(work, self.now + number * STAGGER, ended) for number, work in enumerate(works)]
        for thread in threads:
            thread.start()
        self._next()
        for thread in threads:
            thread.join()
        if self._faults:
            raise self._faults[0]

    def _start(self, work: Work, moment: float, ended: Work) -> threading.Thread:
        wake = threading.Event()
        self._push(moment, wake)
        return threading.Thread(target=self._guarded, args=(work, wake, ended), daemon=True)

    def _push(self, moment: float, wake: threading.Event | Work) -> None:
        self._count += 1
        heapq.heappush(self._waiting, (moment, self._count, wake))

    def _next(self) -> None:
        while self._waiting:
            moment, _, wake = heapq.heappop(self._waiting)
            self.now = max(self.now, moment)
            if isinstance(wake, threading.Event):
                wake.set()
                return
            wake()

    def _guarded(self, work: Work, wake: threading.Event, ended: Work) -> None:
        wake.wait()
        try:
            work()
        except Over:
            pass
        except BaseException as fault:  # noqa: BLE001 (raised again by ``run``)
            self._faults.append(fault)
        finally:
            ended()
