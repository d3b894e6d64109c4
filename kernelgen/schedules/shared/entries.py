"""What the entries of kernels have in common: the parameters of a pass, as cuda/recurrence.cuh has them."""

from __future__ import annotations

from collections.abc import Mapping

from kernelgen.emit.kernel import Parameter
from kernelgen.hardware.profile import Profile
from kernelgen.program.tiling import Tiling

_IN, _OUT, _SUMS = "const unsigned short*", "unsigned short*", "float*"
_SIZES = (Parameter("int", "batch"), Parameter("int", "seq"))

FORWARD_PARAMETERS = (
    *(Parameter(_IN, name) for name in ("wx", "r", "b", "initial")),
    *(Parameter(_OUT, name) for name in ("states", "others", "last", "gates")),
    *_SIZES,
)
"""Of an entry that fills the struct ForwardArguments, but for the mail."""

FORWARD_MAIL_PARAMETERS = (*FORWARD_PARAMETERS[: -len(_SIZES)], Parameter("unsigned*", "mail"), *_SIZES)
"""The same with the mail."""

BACKWARD_PARAMETERS = (
    *(Parameter(_IN, name) for name in ("wx", "r", "b", "initial", "states", "others", "gates", "d_states", "d_last")),
    Parameter(_OUT, "d_wx"),
    *(Parameter(_SUMS, name) for name in ("d_r_partial", "d_b_partial")),
    Parameter(_OUT, "d_initial"),
    *_SIZES,
)
"""Of an entry that fills the struct BackwardArguments."""


def asserted(tiling: Tiling) -> Mapping[str, int]:
    """What a template's constants must be for a tiling's prediction to hold."""
    return {"threads": tiling.resources.threads, "shared_bytes": tiling.resources.shared_memory}


def stores(profile: Profile) -> str:
    """How lanes store results: stmatrix needs sm_90 (PTX ISA, "stmatrix")."""
    return "Stores::matrices" if int("".join(filter(str.isdigit, profile.arch))) >= 90 else "Stores::words"
