"""Schedules: one module of this folder each, found by listing it. See base.py for what a schedule states."""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache

from kernelgen.errors import ConfigError, near_names
from kernelgen.program.task import Direction
from kernelgen.schedules.base import Schedule


def schedule_names(direction: Direction = "forward") -> list[str]:
    """The names of the schedules of a direction, sorted. A schedule's name is its module's, and a backward one's ends
    in ``_backward``; helpers start with an underscore."""
    backward = direction == "backward"
    return [name for name in _modules() if name.endswith("_backward") == backward]


@lru_cache(maxsize=1)
def _modules() -> tuple[str, ...]:
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in names if not name.startswith("_") and name != "base"))


def get(name: str) -> Schedule:
    """The schedule of that name. Raises ConfigError, with the near names, for an unknown one."""
    if name not in _modules():
        raise ConfigError(f"unknown schedule {name!r}; {near_names(name, _modules())}")
    schedule: Schedule = importlib.import_module(f"{__name__}.{name}").SCHEDULE
    return schedule


def all_schedules(direction: Direction = "forward") -> tuple[Schedule, ...]:
    """Every schedule of a direction, in order of name."""
    return tuple(get(name) for name in schedule_names(direction))
