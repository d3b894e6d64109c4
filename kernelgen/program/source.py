"""A kernel as text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A generated kernel: CUDA C++ text whose includes are files of cuda/, and the name of its entry.

    arch: the target, such as "sm_90a". arguments: names in the order of the entry's parameters (program/arguments.py).
    writes: those of the arrays that it writes.
    """

    text: str
    entry: str
    arch: str
    arguments: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
