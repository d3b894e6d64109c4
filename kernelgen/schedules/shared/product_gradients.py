"""The gradients of R and b where a library multiplies: dR is one product over all steps, db a kernel that sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import ELEMENT, NUMBER, Parameter, Template, kernel_source
from kernelgen.hardware.profile import Profile
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.launch import LaunchRule
from kernelgen.program.product import Factor, ProductCall
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import Shape
from kernelgen.schedules.shared.limits import WARP, vector_width

WARPS = 16
"""Of a block of the kernel of db (BiasGradients::warps)."""

PARTS = 8
"""Blocks of a cluster that share the steps of db, where a GPU has clusters and these sums are floats."""


def with_product_gradients(
    recurrence: Program, cell: Cell, shape: Shape, profile: Profile, *, floats: bool = False
) -> Program:
    """A backward pass: the recurrence, which has left h before every step and the gates' gradients, also of those
    without an input, and of their biases a sum for each sequence; then the gradients of R and b. floats: whether these
    are float32 whatever the shape's dtype."""
    return replace(
        recurrence,
        products=tuple(_products(cell, shape, floats)),
        then=(_bias_kernel(cell, shape, profile, floats),) if cell.bias_gates else (),
        axes={**recurrence.axes, "P": "batch"},
        float_parameters=floats,
    )


def _products(cell: Cell, shape: Shape, floats: bool) -> Iterator[ProductCall]:
    """One for each run of gates that lie side by side in d_r and in the array of their gradients."""
    info = dtype_info(shape.dtype)
    gates = len(cell.recurrent_gates)
    for name, first, begin, count in _runs(cell):
        members = len(cell.inputless_products if name == "d_inputless" else cell.input_gates)
        dim = str(shape.head_dim)
        sizes = {"b": "batch", "t": "seq", "g": str(count), "h": str(shape.heads), "d": dim, "p": dim}
        yield ProductCall(
            Factor(name, "btghd", info.stored, {"g": (begin, members)}),
            Factor("hidden_before", "bthp", info.stored),
            Factor("d_r", "ghdp", "float32" if floats else info.stored, {"g": (first, gates)}),
            sizes,
            shape.dtype,
        )


def _runs(cell: Cell) -> list[tuple[str, int, int, int]]:
    """The array of the gates' gradients, the first one's place in d_r and there, and how many follow."""
    found: list[tuple[str, int, int, int]] = []
    for rank, gate in enumerate(cell.recurrent_gates):
        inside = gate in cell.input_gates
        name, members = ("d_wx", cell.input_gates) if inside else ("d_inputless", cell.inputless_products)
        at = members.index(gate)
        if found and found[-1][0] == name and found[-1][2] + found[-1][3] == at:
            _, first, begin, count = found[-1]
            found[-1] = (name, first, begin, count + 1)
        else:
            found.append((name, rank, at, 1))
    return found


def _units(sums: int, parts: int, head_dim: int, itemsize: int, profile: Profile) -> int:
    """Of a lane of the kernel of db: as many as leave every multiprocessor a block, at most what one access moves, so
    that more bytes are on their way; else no less than 4 bytes."""
    units = vector_width(head_dim, itemsize)
    while units > 1 and units * itemsize > 4 and parts * -(-sums // (WARP * units)) < profile.multiprocessors:
        units //= 2
    return units


def _bias_kernel(cell: Cell, shape: Shape, profile: Profile, floats: bool) -> KernelCall:
    """The kernel of db."""
    info = dtype_info(shape.dtype)
    parts = PARTS if profile.portable_cluster >= PARTS and info.itemsize < 8 else 1
    sums = len(cell.bias_gates) * shape.heads * shape.head_dim
    units = _units(sums, parts, shape.head_dim, info.itemsize, profile)
    threads, shared = WARP * WARPS, 4 * info.registers * WARPS * WARP * units
    shared += 4 * WARP * units if parts > 1 else 0
    columns = sums // units
    template = Template(
        header="bias_gradients",
        name="BiasGradients",
        arguments="BiasGradientArguments",
        entry="tilesmith_bias_gradients",
        title="gradients of b",
        parameters=(
            Parameter(f"const {ELEMENT}*", "d_wx"),
            Parameter(f"const {NUMBER}*", "d_b_partial"),
            Parameter("void*", "d_b"),
            *(Parameter("int", name) for name in ("batch", "seq", "num_partials")),
        ),
        tiling_struct="PointwiseTiling",
        tiling={"units": units},
        asserted={"threads": threads, "shared_bytes": shared},
        options=(str(floats).lower(), str(parts)),
    )
    rule = LaunchRule((str(parts * -(-columns // WARP)), "1", "1"), threads, shared, parts)
    return KernelCall(kernel_source(cell, shape, profile.arch, template), rule)
