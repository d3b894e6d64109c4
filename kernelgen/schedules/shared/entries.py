"""What the entries of kernels have in common: the parameters of a pass, as cuda/recurrence.cuh has them."""

from __future__ import annotations

from collections.abc import Mapping

from kernelgen.emit.kernel import ELEMENT, NUMBER, Parameter
from kernelgen.hardware.profile import Profile
from kernelgen.program.shape import FEATURES, Shape
from kernelgen.program.tiling import Tiling

_IN, _OUT, _SUMS = f"const {ELEMENT}*", f"{ELEMENT}*", f"{NUMBER}*"
_SIZES = (Parameter("int", "batch"), Parameter("int", "seq"))

MAIL = (Parameter("unsigned*", "mail"),)
"""Of blocks of a grid that talk to each other."""


def own_parameters(shape: Shape) -> tuple[Parameter, ...]:
    """What sequences have of their own."""
    resets = (Parameter("const unsigned char*", "resets"),) if shape.resets else ()
    lengths = tuple(Parameter("const int*", name) for name in ("lengths", "order")) if shape.lengths else ()
    return (*resets, *lengths)


def sequences(shape: Shape) -> tuple[str, ...]:
    """The template's argument that says what sequences have of their own; none where they have nothing."""
    fields = (f".{name} = {str(getattr(shape, name)).lower()}" for name in FEATURES)
    return (f"Sequences{{{', '.join(fields)}}}",) if shape.features else ()


def forward_parameters(shape: Shape, *more: Parameter) -> tuple[Parameter, ...]:
    """Of an entry that fills the struct ForwardArguments. more: what blocks share, such as MAIL."""
    inputs = ("x", "w", "input_bias") if shape.inputs else ("wx",)
    read = (Parameter(_IN, name) for name in (*inputs, "r", "b", "initial"))
    written = (Parameter(_OUT, name) for name in ("states", "others", "last", "gates"))
    return (*read, *own_parameters(shape), *written, *more, *_SIZES)


def forward_grid_parameters(shape: Shape, *, carried: bool) -> tuple[Parameter, ...]:
    """Of an entry whose blocks store h for each other. carried: whether a block takes tiles in turn."""
    shared = (Parameter(_OUT, "hidden"), *((Parameter(_SUMS, "carried"),) if carried else ()))
    return forward_parameters(shape, *shared, Parameter("unsigned*", "counters"))


_READ = ("wx", "r", "b", "initial", "states", "others", "gates", "d_states", "d_last")


def backward_parameters(shape: Shape, inputless: Parameter, *more: Parameter) -> tuple[Parameter, ...]:
    """Of an entry that fills the struct BackwardArguments. inputless: what it leaves of gates without an input. more:
    what blocks share, such as MAIL."""
    read = (Parameter(_IN, name) for name in _READ)
    written = (Parameter(_OUT, "d_wx"), inputless, Parameter(_SUMS, "d_b_partial"), Parameter(_OUT, "d_initial"))
    return (*read, *own_parameters(shape), *written, *more, *_SIZES)


def backward_grid_parameters(shape: Shape, *, carried: bool, stored: str = "d_gates") -> tuple[Parameter, ...]:
    """Of an entry whose blocks store gates' gradients for each other, or what is ``stored``, and leave them. carried:
    whether a block takes tiles in turn."""
    shared = (Parameter(_OUT, stored), *((Parameter(_SUMS, "d_carried"),) if carried else ()))
    return backward_parameters(shape, GRADIENTS, *shared, Parameter("unsigned*", "counters"))


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
