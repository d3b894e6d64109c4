"""What the entries of kernels have in common: the parameters of a pass, as cuda/recurrence.cuh has them."""

from __future__ import annotations

from collections.abc import Mapping

from kernelgen.emit.kernel import ELEMENT, Parameter
from kernelgen.hardware.profile import Profile
from kernelgen.program.tiling import Tiling

_IN, _OUT, _SUMS = f"const {ELEMENT}*", f"{ELEMENT}*", "float*"
_SIZES = (Parameter("int", "batch"), Parameter("int", "seq"))

FORWARD_PARAMETERS = (
    *(Parameter(_IN, name) for name in ("wx", "r", "b", "initial")),
    *(Parameter(_OUT, name) for name in ("states", "others", "last", "gates")),
    *_SIZES,
)
"""Of an entry that fills the struct ForwardArguments, but for the mail."""

_MAIL = Parameter("unsigned*", "mail")

FORWARD_MAIL_PARAMETERS = (*FORWARD_PARAMETERS[: -len(_SIZES)], _MAIL, *_SIZES)
"""The same with the mail."""


def forward_grid_parameters(*, carried: bool) -> tuple[Parameter, ...]:
    """Of an entry whose blocks store h for each other. carried: whether a block takes tiles in turn."""
    shared = (Parameter(_OUT, "hidden"), *((Parameter(_SUMS, "carried"),) if carried else ()))
    return (*FORWARD_PARAMETERS[: -len(_SIZES)], *shared, Parameter("unsigned*", "counters"), *_SIZES)


_READ = ("wx", "r", "b", "initial", "states", "others", "gates", "d_states", "d_last")


def backward_parameters(inputless: Parameter, *, mail: bool = False) -> tuple[Parameter, ...]:
    """Of an entry that fills the struct BackwardArguments. inputless: what it leaves of gates without an input. mail:
    whether blocks of a grid talk to each other."""
    read = (Parameter(_IN, name) for name in _READ)
    written = (Parameter(_OUT, "d_wx"), inputless, Parameter(_SUMS, "d_b_partial"), Parameter(_OUT, "d_initial"))
    return (*read, *written, *((_MAIL,) if mail else ()), *_SIZES)


def backward_grid_parameters(*, carried: bool) -> tuple[Parameter, ...]:
    """Of an entry whose blocks store gates' gradients for each other, and leave them. carried: whether a block takes
    tiles in turn."""
    shared = (Parameter(_OUT, "d_gates"), *((Parameter(_SUMS, "d_carried"),) if carried else ()))
    own = (*shared, Parameter("unsigned*", "counters"))
    return (*backward_parameters(GRADIENTS)[: -len(_SIZES)], *own, *_SIZES)


PARTIAL_SUMS = Parameter(_SUMS, "d_r_partial")
"""A backward kernel sums their gradient of R as it runs, each block a part."""

GRADIENTS = Parameter(_OUT, "d_inputless")
"""A backward kernel leaves their gradients, for the kernel of dR to read beside d_wx."""


def asserted(tiling: Tiling) -> Mapping[str, int]:
    """What a template's constants must be for a tiling's prediction to hold."""
    return {"threads": tiling.resources.threads, "shared_bytes": tiling.resources.shared_memory}


def stores(profile: Profile) -> str:
    """How lanes store results: stmatrix needs sm_90 (PTX ISA, "stmatrix")."""
    return "Stores::matrices" if int("".join(filter(str.isdigit, profile.arch))) >= 90 else "Stores::words"
