"""Time limits: seconds from the caller, moments of time.perf_counter() inside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from numbers import Real
from typing import Any

from constrint.errors import ConstrintError, TimeLimit
from constrint.integers import is_truth, shown

PASSED = "the time limit passed before the answer was known"


def deadline_in(time_limit: float | None) -> float | None:
    """The moment at which ``time_limit`` seconds from now have passed; None where there is no limit.

    Raises ConstrintError for what is no number of seconds, such as nan.
    """
    if time_limit is None:
        return None
    if is_truth(time_limit) or not isinstance(time_limit, Real) or time_limit != time_limit:
        raise ConstrintError(f"a time limit is a number of seconds, or None for no limit, not {shown(time_limit)}")
    return time.perf_counter() + float(min(time_limit, 1e9))


def seconds_left(deadline: float | None) -> float | None:
    """How long it is until a deadline, at least 0."""
    return None if deadline is None else max(0.0, deadline - time.perf_counter())


def passed(deadline: float | None) -> bool:
    """Whether a deadline has passed, or the race that this thread runs in is over."""
    race = _running.race
    return (race is not None and race.look()) or (deadline is not None and time.perf_counter() > deadline)


def check_time(deadline: float | None) -> None:
    """Raise TimeLimit where a deadline has passed, or the race that this thread runs in is over."""
    if passed(deadline):
        raise TimeLimit(PASSED)


class Race:
    """Within it (``with race: ...``) an engine stops as at a time limit once ``stop`` was called by another thread.

    wake: called once, in this thread, when the engine has not answered after so many seconds. core: the C++ core, if
    it takes part.
    """

    def __init__(self, seconds: float, wake: Callable[[], None], core: Any = None) -> None:
        self.stopped = self.woken = False
        self.start, self.wake = time.perf_counter() + seconds, wake
        self.core = None if core is None else core.Race(seconds, self.wake_up)

    def stop(self) -> None:
        """The other was first."""
        self.stopped = True
        if self.core is not None:
            self.core.stop()

    def look(self) -> bool:
        """Whether to stop."""
        if not self.woken and time.perf_counter() >= self.start:
            self.wake_up()
        return self.stopped

    def wake_up(self) -> None:
        """Call ``wake``, unless it was."""
        if not self.woken:
            self.woken = True
            self.wake()

    def __enter__(self) -> Race:
        _running.race = self
        if self.core is not None:
            self.core.enter()
        return self

    def __exit__(self, *error: object) -> None:
        _running.race = None
        if self.core is not None:
            self.core.leave()


class _Running(threading.local):
    race: Race | None = None


_running = _Running()
