"""Time limits: seconds from the caller, moments of time.perf_counter() inside."""

from __future__ import annotations

import time
from numbers import Real

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
    """Whether a deadline has passed."""
    return deadline is not None and time.perf_counter() > deadline


def check_time(deadline: float | None) -> None:
    """Raise TimeLimit where a deadline has passed."""
    if passed(deadline):
        raise TimeLimit(PASSED)
