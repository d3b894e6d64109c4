"""Proving the kernels of dR and db right in the emulator: against the float64 product and sum of the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgen.errors import TilesmithError, ValidationError
from kernelgen.program.arguments import arguments_of
from kernelgen.program.dtypes import numpy_dtype, sums_dtype
from kernelgen.records.trial import Validation
from kernelgen.schedules.shared.parameter_gradients import ParameterGradients
from kernelgen.schedules.shared.parameter_tiles import Tiling
from kernelgen.verify.cases import Array, ValidationCase
from kernelgen.verify.inputs import random_own
from kernelgen.verify.sequences import Sequences

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.program import KernelCall
    from kernelgen.program.shape import Shape

SIZES = ((3, 67), (1, 1), (2, 33), (70, 1))
"""Batch and steps to emulate, in turn: more than a stage, and one that is not full; a single step; first steps only."""

HEADS = 2
"""Heads to emulate at most: those of a large shape differ by an offset, and take as long each."""

NUM_PARTIALS = 3
"""Partial sums of gates without an input."""


@dataclass(frozen=True, kw_only=True)
class FewHeads(ParameterGradients):
    """The kernels for the first HEADS heads, tiled as for all of ``whole``."""

    whole: Shape

    @classmethod
    def of(cls, cell: Cell, shape: Shape, profile: Profile, *, inputless: bool) -> FewHeads:
        """The kernels for the first heads of a shape."""
        return cls(cell, replace(shape, heads=min(HEADS, shape.heads)), profile, inputless, whole=shape)

    @property
    def tiling(self) -> Tiling:
        """That of the whole kernel."""
        return ParameterGradients(self.cell, self.whole, self.profile, self.inputless).tiling


def emulate_parameters(
    cell: Cell,
    shape: Shape,
    profile: Profile,
    seeds: Sequence[int] = (0, 1),
    *,
    inputless: bool = False,
    on_seed: Callable[[int], None] | None = None,
) -> Validation:
    """Run the kernels that make the gradients of R and b for ``shape`` in the emulator, once for each seed.

    inputless: as ParameterGradients. A seed draws the inputs and the order of the threads, and takes one of SIZES;
    every second seed has initial states.
    Raises ValidationError where the results differ, EmulationError for a fault that the emulator caught.
    """
    if not seeds:
        raise ValidationError("validating needs at least one seed")
    kernels = FewHeads.of(cell, shape, profile, inputless=inputless)
    calls = kernels.calls()
    errors: dict[str, float] = {}
    largest, tolerance = SIZES[0], 0.0
    for seed in seeds:
        if on_seed is not None:
            on_seed(seed)
        case = parameter_case(kernels, calls, *SIZES[seed // 2 % len(SIZES)], seed)
        largest = max(largest, (case.shape.batch, case.shape.seq), key=lambda size: size[0] * size[1])
        try:
            found = case.compare(emulate_calls(calls, case, seed))
        except TilesmithError as error:
            raise type(error)(f"the kernel of dR and db: {error}") from error
        errors |= {name: max(value, errors.get(name, 0.0)) for name, value in found.items()}
        tolerance = case.tolerance
    return Validation("emulator", len(seeds), *largest, tolerance, errors)


def emulate_calls(calls: Sequence[KernelCall], case: ValidationCase, seed: int = 0) -> dict[str, Array | None]:
    """What the calls, one after another, write for a case of parameter_case."""
    from kernelgen.verify.emulator import emulate

    written = case.poisoned(dict.fromkeys(name for call in calls for name in call.source.writes))
    for call in calls:
        given = case.values(written, call.source.arguments)
        outputs = [name for name in call.source.writes if written[name] is not None]
        emulate(call.source, call.launch.at(case.shape), given, outputs=outputs, seed=seed)
    return written


def parameter_case(
    kernels: ParameterGradients, calls: Sequence[KernelCall], batch: int, seq: int, seed: int
) -> ValidationCase:
    """Random inputs for the calls, and what they should make of them. Initial states for even seeds only; of all but
    the first state NaN, since nobody reads them."""
    cell, shape = kernels.cell, replace(kernels.shape, batch=batch, seq=seq)
    written = {name for call in calls for name in call.source.writes}
    names = dict.fromkeys(name for call in calls for name in call.source.arguments)
    table = arguments_of(cell, shape, "backward", names, {"P": NUM_PARTIALS, "Q": kernels.results})
    arrays = (*table.inputs, *table.outputs, *table.workspaces)
    table = replace(
        table,
        inputs=tuple(each for each in arrays if each.name not in written),
        outputs=tuple(each for each in table.outputs if each.name in written),
        workspaces=tuple(each for each in table.workspaces if each.name in written),
    )
    random = np.random.default_rng(seed)
    drawn: dict[str, Array | None] = {}
    for each in table.inputs:
        absent = each.empty or (each.name == "initial" and seed % 2)
        if each.name == "resets":
            drawn[each.name] = random_own(shape, seed)["resets"]
            continue
        drawn[each.name] = None if absent else random.uniform(-1, 1, each.shape).astype(numpy_dtype(each.dtype))
        if each.axes[0] == "S" and (array := drawn[each.name]) is not None:
            array[1:] = np.nan
    expected = {
        each.name: value
        for each, value in zip(table.outputs, expected_gradients(cell, shape, drawn), strict=True)
        if not each.empty
    }
    return ValidationCase(shape, "backward", seed, tuple(cell.states), table, drawn, expected, exact=True)


def expected_gradients(cell: Cell, shape: Shape, given: dict[str, Array | None]) -> tuple[Array, Array]:
    """d_r [G_rec, H, D, D] and d_b [G_bias, H, D], summed in float64, as what the dtype is summed in."""
    batch, seq, heads, dim = shape.batch, shape.seq, shape.heads, shape.head_dim
    read: dict[str, Any] = {name: None if array is None else array.astype(np.float64) for name, array in given.items()}
    each = np.zeros((len(cell.gates), batch, seq, heads, dim))
    if read["d_wx"] is not None:
        each[list(cell.input_gates)] = np.moveaxis(read["d_wx"], 2, 0)
    if read.get("d_inputless") is not None:
        each[list(cell.inputless_products)] = np.moveaxis(read["d_inputless"], 2, 0)
    first = np.zeros((batch, heads, dim)) if read["initial"] is None else read["initial"][0]
    before = Sequences.of(given.get("resets"), None, batch, seq).before(read["states"][0], first)
    d_r = np.zeros((len(cell.recurrent_gates), heads, dim, dim))
    for rank, gate in enumerate(cell.recurrent_gates):
        d_r[rank] = np.einsum("bthd,bthp->hdp", each[gate], before, optimize=True)
    d_b = each[list(cell.bias_gates)].sum((1, 2))
    for made, partial, gates, members in (
        (d_r, read.get("d_r_partial"), cell.recurrent_gates, cell.inputless_products),
        (d_b, read.get("d_b_partial"), cell.bias_gates, cell.inputless_biases),
    ):
        if members and partial is not None:
            made[[gates.index(gate) for gate in members]] = partial.sum(0)
    kept = sums_dtype(shape.dtype)
    return d_r.astype(kept), d_b.astype(kept)
