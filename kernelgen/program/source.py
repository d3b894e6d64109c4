"""A kernel as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Language = Literal["cuda", "triton"]
"""What a kernel is written in."""


@dataclass(frozen=True)
class Source:
    """A generated kernel, and the name of its entry. In CUDA C++ its includes are files of cuda/; in Triton it is a
    module that states how it is to be compiled (emit/triton_resident.py: Options).

    arch: the target, such as "sm_90a". arguments: names in the order of the entry's parameters (program/arguments.py).
    writes: those of the arrays that it writes.
    """

    text: str
    entry: str
    arch: str
    arguments: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    language: Language = "cuda"
