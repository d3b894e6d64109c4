"""Proving the kernel of dR and db right in the emulator: against the float64 product and sum of the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgen.errors import TilesmithError, ValidationError
from kernelgen.program.arguments import Arguments, ArrayArgument
from kernelgen.program.dtypes import numpy_dtype
from kernelgen.records.trial import Validation
from kernelgen.schedules.shared.parameter_gradients import ARGUMENTS, ParameterGradients, Tiling
from kernelgen.verify.cases import Array, ValidationCase

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.shape import Shape

SIZES = ((3, 67), (1, 1), (2, 33), (70, 1))
"""Batch and steps to emulate, in turn: more than a stage, and one that is not full; a single step; first steps only."""

HEADS = 2
"""Heads to emulate at most: those of a large shape differ by an offset, and take as long each."""

NUM_PARTIALS = 3
"""Partial sums of gates without an input."""


@dataclass(frozen=True)
class FewHeads(ParameterGradients):
    """The kernel for the first HEADS heads, tiled as for all of ``whole``."""

    whole: Shape

    @classmethod
    def of(cls, cell: Cell, shape: Shape, profile: Profile) -> FewHeads:
        """The kernel for the first heads of a shape."""
        return cls(cell, replace(shape, heads=min(HEADS, shape.heads)), profile, shape)

    @property
    def tiling(self) -> Tiling:
        """That of the whole kernel."""
        return ParameterGradients(self.cell, self.whole, self.profile).tiling


def emulate_parameters(
    cell: Cell,
    shape: Shape,
    profile: Profile,
    seeds: Sequence[int] = (0, 1),
    *,
    on_seed: Callable[[int], None] | None = None,
) -> Validation:
    """Run the kernel that makes the gradients of R and b for ``shape`` in the emulator, once for each seed.

    A seed draws the kernel's inputs and the order of its threads, and takes one of SIZES; every second seed has initial
    states. Raises ValidationError where the results differ, EmulationError for a fault that the emulator caught.
    """
    from kernelgen.verify.emulator import emulate

    if not seeds:
        raise ValidationError("validating needs at least one seed")
    kernel = FewHeads.of(cell, shape, profile)
    source, launch = kernel.source(), kernel.launch(kernel.shape)
    errors: dict[str, float] = {}
    largest, tolerance = SIZES[0], 0.0
    for seed in seeds:
        if on_seed is not None:
            on_seed(seed)
        case = parameter_case(kernel, *SIZES[seed // 2 % len(SIZES)], seed)
        largest = max(largest, (case.shape.batch, case.shape.seq), key=lambda size: size[0] * size[1])
        outputs = case.poisoned_outputs(kernel.results)
        try:
            emulate(source, launch, case.values(outputs, ARGUMENTS), outputs=list(case.expected), seed=seed)
            found = case.compare(outputs)
        except TilesmithError as error:
            raise type(error)(f"the kernel of dR and db: {error}") from error
        errors |= {name: max(value, errors.get(name, 0.0)) for name, value in found.items()}
        tolerance = case.tolerance
    return Validation("emulator", len(seeds), *largest, tolerance, errors)


def parameter_case(kernel: ParameterGradients, batch: int, seq: int, seed: int) -> ValidationCase:
    """Random inputs for the kernel, and what it should make of them. Initial states for even seeds only."""
    cell, shape = kernel.cell, replace(kernel.shape, batch=batch, seq=seq)
    sizes = {"B": batch, "T": seq, "H": shape.heads, "D": shape.head_dim, "P": NUM_PARTIALS}
    sizes |= {"G_in": len(cell.input_gates), "G_rec": len(cell.recurrent_gates), "G_bias": len(cell.bias_gates)}
    sizes |= {"G_rec_inputless": len(cell.inputless_products), "G_bias_inputless": len(cell.inputless_biases)}

    def argument(name: str, axes: str, dtype: str, *, written: bool = False) -> ArrayArgument:
        names = tuple(axes.split())
        return ArrayArgument(name, names, tuple(sizes[axis] for axis in names), dtype, written, False, False)

    inputs = (
        argument("d_wx", "B T G_in H D", shape.dtype),
        argument("d_r_partial", "P G_rec_inputless H D D", "float32"),
        argument("d_b_partial", "P G_bias_inputless H D", "float32"),
        argument("hidden", "B T H D", shape.dtype),
        argument("initial", "B H D", shape.dtype),
    )
    parts, made = ("P ", "float32") if kernel.results > 1 else ("", shape.dtype)
    outputs = (
        argument("d_r", f"{parts}G_rec H D D", made, written=True),
        argument("d_b", f"{parts}G_bias H D", made, written=True),
    )
    random = np.random.default_rng(seed)
    drawn: dict[str, Array | None] = {
        each.name: None
        if each.empty or (each.name == "initial" and seed % 2)
        else random.uniform(-1, 1, each.shape).astype(numpy_dtype(each.dtype))
        for each in inputs
    }
    expected = {
        each.name: value[None] if kernel.results > 1 else value
        for each, value in zip(outputs, _expected(cell, shape, drawn), strict=True)
        if not each.empty
    }
    numbers = {"batch": batch, "seq": seq, "num_partials": NUM_PARTIALS}
    table = Arguments(ARGUMENTS, inputs, outputs, numbers)
    return ValidationCase(shape, "backward", seed, tuple(cell.states), table, drawn, expected, exact=True)


def _expected(cell: Cell, shape: Shape, given: dict[str, Array | None]) -> tuple[Array, Array]:
    """d_r [G_rec, H, D, D] and d_b [G_bias, H, D], summed in float64, as float32."""
    batch, seq, heads, dim = shape.batch, shape.seq, shape.heads, shape.head_dim
    read: dict[str, Any] = {name: None if array is None else array.astype(np.float64) for name, array in given.items()}
    each = np.zeros((len(cell.gates), batch, seq, heads, dim))
    if read["d_wx"] is not None:
        each[list(cell.input_gates)] = np.moveaxis(read["d_wx"], 2, 0)
    first = np.zeros((batch, heads, dim)) if read["initial"] is None else read["initial"]
    before = np.concatenate([first[:, None], read["hidden"][:, :-1]], axis=1)
    d_r = np.zeros((len(cell.recurrent_gates), heads, dim, dim))
    for rank, gate in enumerate(cell.recurrent_gates):
        d_r[rank] = np.einsum("bthd,bthp->hdp", each[gate], before, optimize=True)
    d_b = each[list(cell.bias_gates)].sum((1, 2))
    for made, partial, gates, members in (
        (d_r, read["d_r_partial"], cell.recurrent_gates, cell.inputless_products),
        (d_b, read["d_b_partial"], cell.bias_gates, cell.inputless_biases),
    ):
        if members:
            made[[gates.index(gate) for gate in members]] = partial.sum(0)
    return d_r.astype(np.float32), d_b.astype(np.float32)
