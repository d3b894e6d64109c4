"""A kernel as text."""

from __future__ import annotations

from dataclasses import dataclass

from kernelgen.program.arguments import FORWARD_ARGUMENTS

FORWARD_ENTRY = "tilesmith_forward"
BACKWARD_ENTRY = "tilesmith_backward"


@dataclass(frozen=True)
class Source:
    """A generated kernel: CUDA C++ text whose includes are files of cuda/, and the name of its entry.

    arch: the target, such as "sm_90a". arguments: names in the order of the entry's parameters.
    """

    text: str
    entry: str
    arch: str
    arguments: tuple[str, ...] = FORWARD_ARGUMENTS
