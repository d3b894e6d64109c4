"""dR by a library behind a recurrence that is no library's: from h before every step, which a kernel copies first."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import ELEMENT, Parameter, Template, kernel_source
from kernelgen.hardware.profile import Profile
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.launch import LaunchRule
from kernelgen.program.product import SCRATCH_BYTES
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import Shape
from kernelgen.schedules.shared.entries import own_parameters, sequences
from kernelgen.schedules.shared.library_product import launch_clocks, load_rates, traffic_clocks, work_clocks
from kernelgen.schedules.shared.limits import vector_width
from kernelgen.schedules.shared.parameter_gradients import ParameterGradients
from kernelgen.schedules.shared.product_gradients import with_product_gradients

THREADS = 256
"""Of a block of the kernel that copies (HiddenBefore::threads)."""


def with_library_gradients(program: Program, cell: Cell, shape: Shape, profile: Profile) -> Program:
    """The same backward pass, whose dR the library makes where that is expected to take less than our kernel of dR and
    db; as it is where the recurrence leaves partial sums of dR, and where its products are the library's already."""
    names = program.main.source.arguments
    partial = "d_inputless" not in names and bool(cell.inputless_products)
    if program.library or partial or not cell.recurrent_gates:
        return program
    made = with_product_gradients(program, cell, shape, profile, floats=program.float_parameters)
    axes = {**program.axes, "W_scratch": str(SCRATCH_BYTES)}
    made = replace(made, then=(copy_of_hidden(cell, shape, profile), *made.then), axes=axes)
    ours = ParameterGradients(cell, shape, profile, inputless="d_inputless" in names)
    return made if seconds_behind(made, cell, shape, profile) < ours.seconds else program


def copy_of_hidden(cell: Cell, shape: Shape, profile: Profile) -> KernelCall:
    """The kernel of h before every step."""
    own, row = replace(shape, lengths=False), shape.heads * shape.head_dim
    units = vector_width(row, dtype_info(shape.dtype).itemsize)
    template = Template(
        header="hidden_before",
        name="HiddenBefore",
        arguments="HiddenBeforeArguments",
        entry="tilesmith_hidden_before",
        title="h before every step",
        parameters=(
            Parameter(f"const {ELEMENT}*", "states", "hidden"),
            Parameter(f"const {ELEMENT}*", "initial"),
            *own_parameters(own),
            Parameter(f"{ELEMENT}*", "hidden_before"),
            *(Parameter("int", name) for name in ("batch", "seq")),
        ),
        tiling_struct="PointwiseTiling",
        tiling={"units": units},
        asserted={"threads": THREADS, "shared_bytes": 0},
        options=sequences(own),
    )
    rule = LaunchRule((f"cdiv(batch * seq * {row // units}, {THREADS})", "1", "1"), THREADS, 0)
    return KernelCall(kernel_source(cell, shape, profile.arch, template), rule)


def seconds_behind(program: Program, cell: Cell, shape: Shape, profile: Profile) -> float:
    """What follows the recurrence, by the model: the copy and the sums by their bytes, and the library's products,
    which all run at the same time, as those of one batch. That the copy may run beside the recurrence, and the sums
    beside products, is not counted on: either may fill the GPU."""
    hidden = shape.batch * shape.seq * shape.heads * shape.head_dim * dtype_info(shape.dtype).itemsize
    summed = len({*cell.bias_gates} & {*cell.input_gates}) * hidden
    clocks = traffic_clocks(2 * hidden, profile) + traffic_clocks(summed, profile)
    clocks += (len(program.then) + 1) * launch_clocks(profile) + load_rates().fill_us * profile.clock_mhz
    together: Counter[tuple[int, int, int]] = Counter()
    for gemm in (one for product in program.products for one in product.at(shape)):
        together[gemm.m, gemm.n, gemm.k] += gemm.batch
    for (rows, columns, depth), copies in together.items():
        clocks += work_clocks(rows, columns, depth, copies, shape.dtype, profile)
    return clocks / (profile.clock_mhz * 1e6)
