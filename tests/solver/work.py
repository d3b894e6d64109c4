"""Work done, where a test says that an answer comes fast: counts, which the load of a machine does not change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from constrint.engine import SearchCall
from constrint.propagate import State
from constrint.prove import PythonProver


@dataclass
class Work:
    """engine_calls: those of an explanation, for conflicts. Of those parts that Python does (presolve's share
    with either engine, everything with the Python engine): revisions of a constraint, and nodes of the prover."""

    engine_calls: int = 0
    revisions: int = 0
    nodes: int = 0


@contextmanager
def counted() -> Iterator[Work]:
    """Counts what is done within."""
    work = Work()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SearchCall, "find_conflict", _counting(work, "engine_calls", SearchCall.find_conflict))
        patch.setattr(State, "_revise", _counting(work, "revisions", State._revise))
        patch.setattr(PythonProver, "_descend", _counting(work, "nodes", PythonProver._descend))
        yield work


def _counting(work: Work, what: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def counting(*arguments: Any) -> Any:
        setattr(work, what, getattr(work, what) + 1)
        return real(*arguments)

    return counting


class Ticking:
    """A clock, in place of time.perf_counter, that moves a millisecond whenever it is read. looks: how often it was."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.looks / 1000
