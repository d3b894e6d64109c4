"""The library schedule, both directions: for each step a product that a library makes, and one kernel of ours.

Forward the product is R h, backward what R sends back of the gates' gradients; the kernels (cuda/library_forward.cuh,
cuda/library_backward.cuh) make the rest of a step for all elements. Where R is so large that its way from memory is the
step, or the batch so large that multiplying is, the library's kernels are as fast as the GPU, and the rest costs two
launches.
"""

from __future__ import annotations

from collections.abc import Mapping

from constrint import Problem, cdiv
from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import ELEMENT, NUMBER, Parameter, Template, kernel_source
from kernelgen.errors import InfeasibleError
from kernelgen.hardware.profile import Profile
from kernelgen.program.arguments import known_states
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.launch import LaunchRule
from kernelgen.program.product import SCRATCH_BYTES, Factor, ProductCall
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import DTYPES, FEATURES, Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.library.cost import pointwise_clocks, product_clocks
from kernelgen.schedules.shared.backward_step import arrays_read, refuses_recomputing
from kernelgen.schedules.shared.entries import asserted, own_parameters, sequences
from kernelgen.schedules.shared.forward_step import arrays_written
from kernelgen.schedules.shared.limits import CHUNK, WARP, add_limits, place
from kernelgen.schedules.shared.numbers import Int, Number, as_int
from kernelgen.schedules.shared.product_gradients import with_product_gradients

UNITS = [1, 2, 4, 8]
"""Of a thread: as many as one access moves at most."""

MOST_ELEMENTS = 2**31 - 1
"""Of the product of a step."""

THREADS = 256
"""Of a block (PointwiseStep::threads)."""

SPARE = 12
"""Registers of a thread beside those of its units."""

TENTHS: Mapping[Direction, tuple[int, int]] = {"forward": (17, 13), "backward": (12, 35)}
"""Of a register, for each unit: for a gate and for a state, in compiled kernels of four cells (NVRTC 13.5, four
GPUs)."""

FEATURE_REGISTERS: Mapping[Direction, int] = {"forward": 4, "backward": 1}
"""What resets and lengths take each, in kernels of three of these cells."""


class Library:
    """See the module. One tile variable: units, of a thread."""

    dtypes = DTYPES
    honours = FEATURES

    def __init__(self, name: str, direction: Direction) -> None:
        self.name = name
        self.direction: Direction = direction

    def refuses(self, cell: Cell, shape: Shape, profile: Profile) -> str:
        """Why it does not run this, as a sentence; else empty."""
        if not profile.arch.startswith("sm_"):
            return (
                f"the {self.name} schedule needs cuBLASLt, which {profile.name} ({profile.arch}) lacks; "
                "it runs on GPUs of NVIDIA's."
            )
        if shape.dtype == "bfloat16" and profile.compute_capability < (8, 0):
            return (
                f"the {self.name} schedule needs products of bfloat16, which {profile.name} ({profile.arch}) lacks; in "
                "bfloat16 it runs on sm_80 and newer."
            )
        made = shape.batch * shape.heads * shape.head_dim * len(cell.recurrent_gates)
        if made > MOST_ELEMENTS:
            return (
                f"the {self.name} schedule makes {made:,} elements in the product of a step, and at most "
                f"{MOST_ELEMENTS:,} are counted in 32 bits; cut the batch into several."
            )
        if not cell.recurrent_gates:
            return f"no gate of {cell.name} has a recurrent product, so a library has nothing to multiply."
        return refuses_recomputing(self.name, shape) if self.direction == "backward" else ""

    def problem(self, cell: Cell, shape: Shape, profile: Profile) -> Problem:
        """The tile variable and its constraints. Raises InfeasibleError for what it refuses."""
        if reason := self.refuses(cell, shape, profile):
            raise InfeasibleError(reason)
        problem = Problem(f"{self.name} schedule of {cell.name}, {shape}, on {profile.name}")
        units = problem.variable("units", UNITS)
        problem.add(shape.heads * shape.head_dim % units == 0, "units of a thread that divide a row")
        most = CHUNK // dtype_info(shape.dtype).itemsize
        problem.add(units <= most, f"units of a thread: at most {most}, which are {CHUNK} bytes")
        registers = self._registers(cell, shape, units)
        add_limits(problem, profile, warps=THREADS // WARP, registers=registers, shared_memory=0)
        return problem

    def tiling(self, cell: Cell, shape: Shape, profile: Profile, values: Mapping[str, int]) -> Tiling:
        """Predicted resources and clocks of one solution."""
        elements = shape.batch * shape.heads * shape.head_dim
        registers = as_int(self._registers(cell, shape, values["units"]))
        blocks = -(-elements // values["units"] // THREADS)
        resources, _ = place(profile, blocks, THREADS, registers, 0)
        return Tiling(self.name, dict(values), resources, self._clocks(cell, shape, profile, values["units"]))

    def program(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Program:
        """The kernel of a step, and the product between two; backward with what makes the gradients of R and b."""
        backward = self.direction == "backward"
        row_threads = shape.heads * shape.head_dim // tiling.values["units"]
        rule = LaunchRule((f"cdiv(batch * {row_threads}, {THREADS})", "1", "1"), THREADS, 0)
        template = self._template(cell, shape, tiling)
        main = KernelCall(kernel_source(cell, shape, profile.arch, template, backward=backward), rule)
        cut = backward and cell.gradient.recurrent_cut
        axes = {"S_kept": str(self._kept(cell, shape)), "W_scratch": str(SCRATCH_BYTES)}
        between = () if cut else (self._product(cell, shape),)
        program = Program(self.direction, main, axes=axes, between=between)
        return with_product_gradients(program, cell, shape, profile) if backward else program

    def _product(self, cell: Cell, shape: Shape) -> ProductCall:
        """That of a step."""
        info, gates = dtype_info(shape.dtype), len(cell.recurrent_gates)
        sizes = {
            "b": "batch",
            "g": str(gates),
            "h": str(shape.heads),
            "d": str(shape.head_dim),
            "p": str(shape.head_dim),
        }
        given, made = ("bghd", "bhp") if self.direction == "backward" else ("bhp", "bghd")
        return ProductCall(
            Factor("multiplied", given, info.stored),
            Factor("r", "ghdp", info.stored),
            Factor("product", made, info.sums),
            sizes,
            shape.dtype,
        )

    def _kept(self, cell: Cell, shape: Shape) -> int:
        """Of the states, or of their gradients, how many numbers of an element go from launch to launch."""
        if self.direction == "forward":
            return len(cell.states) - 1
        return (2 if shape.resets else 1) * len(cell.states)

    def _template(self, cell: Cell, shape: Shape, tiling: Tiling) -> Template:
        """What instantiates the template of cuda/."""
        backward, known = self.direction == "backward", known_states(cell, shape)
        return Template(
            header="library_backward" if backward else "library_forward",
            name="LibraryBackward" if backward else "LibraryForward",
            arguments="PointwiseBackwardArguments" if backward else "PointwiseForwardArguments",
            entry=f"tilesmith_{self.direction}",
            title=f"{self.direction}, a step between two products of a library, "
            + (f"gradients of {known} of {len(cell.states)} states" if backward else f"saves {shape.save}")
            + f", schedule {self.name}",
            parameters=_backward_parameters(shape) if backward else _forward_parameters(shape),
            tiling_struct="PointwiseTiling",
            tiling=tiling.values,
            asserted=asserted(tiling),
            options=(str(known) if backward else f"Save::{shape.save}", *sequences(shape)),
        )

    def _registers(self, cell: Cell, shape: Shape, units: Number) -> Int:
        """Of a thread: what its units read and make, and what is under way."""
        of_gate, of_state = TENTHS[self.direction]
        tenths = (of_gate * len(cell.gates) + of_state * len(cell.states)) * dtype_info(shape.dtype).registers
        return SPARE + FEATURE_REGISTERS[self.direction] * len(shape.features) + cdiv(units * tenths, 10)

    def _clocks(self, cell: Cell, shape: Shape, profile: Profile, units: int) -> float:
        """Clocks of a step."""
        gates, info = len(cell.recurrent_gates), dtype_info(shape.dtype)
        elements, sums = shape.batch * shape.heads * shape.head_dim, 4 * info.registers
        if self.direction == "forward":
            rows, depth = gates * shape.head_dim, shape.head_dim
            stored = len(cell.input_gates) + arrays_written(cell, shape) + 2
            numbers = gates + 2 * self._kept(cell, shape)
        else:
            rows, depth = shape.head_dim, gates * shape.head_dim
            made = len(cell.input_gates) + len(cell.inputless_products) + gates
            stored = arrays_read(cell, shape, written=True) + made + 2
            numbers = 1 + 2 * len(cell.states)
        product = product_clocks(rows, shape.batch, depth, shape.heads, shape.dtype, profile)
        moved = elements * (stored * info.itemsize + numbers * sums)
        narrow = 1 + 0.1 * (CHUNK // info.itemsize // units - 1)  # more accesses for the same bytes; not measured
        return product + pointwise_clocks(moved * narrow, profile)


_IN, _OUT, _SUMS = f"const {ELEMENT}*", f"{ELEMENT}*", f"{NUMBER}*"
_NUMBERS = tuple(Parameter("int", name) for name in ("step", "batch", "seq"))


def _forward_parameters(shape: Shape) -> tuple[Parameter, ...]:
    read = (Parameter(_IN, name) for name in ("wx", "b", "initial"))
    written = (Parameter(_OUT, name) for name in ("states", "others", "last", "gates", "multiplied"))
    between = (Parameter(f"const {NUMBER}*", "product"), Parameter(_SUMS, "kept"))
    return (*read, *own_parameters(shape), *written, *between, *_NUMBERS)


def _backward_parameters(shape: Shape) -> tuple[Parameter, ...]:
    names = ("b", "initial", "states", "others", "gates", "d_states", "d_last")
    read = (Parameter(_IN, name) for name in names)
    written = (
        Parameter(_OUT, "d_wx"),
        Parameter(_OUT, "d_inputless"),
        Parameter(_SUMS, "d_b_partial"),
        Parameter(_OUT, "d_initial"),
        Parameter(_OUT, "multiplied"),
        Parameter(_OUT, "hidden_before"),
    )
    between = (Parameter(f"const {NUMBER}*", "product"), Parameter(_SUMS, "kept"))
    return (*read, *own_parameters(shape), *written, *between, *_NUMBERS)


FORWARD = Library("library", "forward")
BACKWARD = Library("library_backward", "backward")
