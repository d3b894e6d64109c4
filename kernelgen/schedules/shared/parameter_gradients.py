"""The kernel that makes the gradients of R and b from those of the gates, for all steps at once.

It is the template of cuda/parameter_gradients.cuh; parameter_tiles.py chooses the tile. Steps are cut into parts:
where a GPU has clusters, the blocks of one add theirs; elsewhere the results of the parts are float32, to be added
afterwards, and MEMORY limits how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from importlib import resources

import yaml

from constrint.documents import load_yaml
from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import ELEMENT, NUMBER, Parameter, Template, kernel_source
from kernelgen.errors import TilesmithError
from kernelgen.hardware.profile import Profile
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import Shape
from kernelgen.schedules.shared.entries import own_parameters, sequences
from kernelgen.schedules.shared.parameter_tiles import MEASURED_UP_TO, Clocks, Product, Tiling, ruled, tilings
from kernelgen.schedules.shared.product_gradients import with_product_gradients
from kernelgen.symbolic.derive import derive

ENTRY = "tilesmith_parameter_gradients"

SUM_THREADS = 256
"""Of a block that adds the results of parts."""

MEMORY = 0.03
"""What the results of parts may take where they are apart, as a share of what a backward pass keeps."""


@lru_cache(maxsize=1)
def load_clocks() -> Clocks:
    """The cost model's coefficients. Raises TilesmithError for a file that is missing, or not as it should be."""
    place = resources.files(__package__) / "model.yaml"
    try:
        return Clocks(**load_yaml(place.read_text(encoding="utf-8"))["clocks"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError) as error:
        raise TilesmithError(f"{place} cannot be read as the model of dR and db: {error}") from error


@dataclass(frozen=True)
class ParameterGradients:
    """The kernel for one cell, shape and GPU. It is right for any batch and seq, and made for those of the shape.

    Where sequences have lengths, it is as without: what is behind the ends is zeros. inputless: whether the recurrence
    has left the gradients of gates without an input, rather than partial sums. given: a tile to take. floats: whether
    the results are float32 whatever the shape's dtype.
    """

    cell: Cell
    shape: Shape
    profile: Profile
    inputless: bool = False
    given: Tiling | None = None
    floats: bool = False

    @property
    def tiling(self) -> Tiling:
        """The tile that is given; else, of heads that it was measured for, the rule's; else the cost model's best."""
        if self.given is not None:
            return self.given
        if self._itemsize == 2 and self.shape.head_dim <= MEASURED_UP_TO:
            return self._affordable_parts(ruled(self.product, self.profile))
        return self.tilings()[0]

    def tilings(self) -> list[Tiling]:
        """Every tile that fits, fastest first by the cost model."""
        found = tilings(self.product, self.profile, load_clocks())
        return list(dict.fromkeys(map(self._affordable_parts, found)))

    @property
    def seconds(self) -> float:
        """What the kernel takes, by the model."""
        clocks = load_clocks().predict(self.product, self.tiling, self.profile)
        return clocks / (self.profile.clock_mhz * 1e6)

    def _affordable_parts(self, tiling: Tiling) -> Tiling:
        """The same with no more results apart than MEMORY allows."""
        return tiling if tiling.cluster else replace(tiling, parts=max(1, min(tiling.parts, self._affordable)))

    @property
    def results(self) -> int:
        """How many results of d_r and d_b the kernel writes, to be added where they are several."""
        return 1 if self.tiling.cluster else self.tiling.parts

    def calls(self) -> tuple[KernelCall, ...]:
        """The kernel; where it leaves several results, one that adds them."""
        chosen, apart = replace(self.tiling, floats=self.floats), self.results > 1
        shared_memory = chosen.shared_memory(self._itemsize)
        grid = (f"heads * {chosen.parts}", str(self.product.blocks(chosen)), "1")
        rule = LaunchRule(grid, chosen.threads, shared_memory, chosen.parts if chosen.cluster else 1)
        suffix = "_parts" if apart else ""
        template = Template(
            header="parameter_gradients",
            name="ParameterGradients",
            arguments="ParameterGradientArguments",
            entry=ENTRY,
            title="gradients of R and b",
            parameters=(
                Parameter(f"const {ELEMENT}*", "d_wx"),
                *((Parameter(f"const {ELEMENT}*", "d_inputless"),) if self.inputless else ()),
                *(() if self.inputless else (Parameter(f"const {NUMBER}*", "d_r_partial"),)),
                Parameter(f"const {NUMBER}*", "d_b_partial"),
                Parameter(f"const {ELEMENT}*", "states", "hidden"),
                Parameter(f"const {ELEMENT}*", "initial"),
                *own_parameters(replace(self.shape, lengths=False)),
                Parameter("void*", f"d_r{suffix}", "d_r"),
                Parameter("void*", f"d_b{suffix}", "d_b"),
                *(Parameter("int", name) for name in ("batch", "seq", "num_partials")),
            ),
            options=sequences(replace(self.shape, lengths=False)),
            tiling_struct="ParameterGradientTiling",
            tiling={
                field.name: int(getattr(chosen, field.name))
                for field in fields(Tiling)
                if getattr(chosen, field.name) != field.default  # which the struct says too
            },
            asserted={"blocks": self.product.blocks(chosen), "threads": chosen.threads, "shared_bytes": shared_memory},
        )
        made = KernelCall(kernel_source(self.cell, self.shape, self.profile.arch, template), rule)
        return (made, self._sum()) if apart else (made,)

    def _sum(self) -> KernelCall:
        """The kernel that adds the results of parts that are apart."""
        elements = self.shape.heads * self.shape.head_dim
        elements *= len(self.cell.recurrent_gates) * self.shape.head_dim + len(self.cell.bias_gates)
        rule = LaunchRule((str(-(-elements // SUM_THREADS)), "1", "1"), SUM_THREADS, 0)
        template = Template(
            header="sum_of_parts",
            name="SumOfParts",
            arguments="SumOfPartsArguments",
            entry="tilesmith_sum_of_parts",
            title="the gradients of R and b from those of parts of the steps",
            parameters=(
                Parameter(f"const {NUMBER}*", "d_r_parts"),
                Parameter(f"const {NUMBER}*", "d_b_parts"),
                Parameter(f"{ELEMENT}*", "d_r"),
                Parameter(f"{ELEMENT}*", "d_b"),
            ),
            tiling_struct="SumOfPartsTiling",
            tiling={"parts": self.results},
            asserted={"elements": elements, "threads": SUM_THREADS},
        )
        written = replace(self.shape, dtype="float32") if self.floats else self.shape
        return KernelCall(kernel_source(self.cell, written, self.profile.arch, template), rule)

    @property
    def product(self) -> Product:
        """What the kernel multiplies."""
        products = dtype_info(self.shape.dtype).products
        return Product(
            self._rows, self._padded, self.shape.heads, self._steps, self._itemsize, self.inputless, products
        )

    @property
    def _itemsize(self) -> int:
        return dtype_info(self.shape.dtype).itemsize

    @property
    def _padded(self) -> int:
        return -(-self.shape.head_dim // 16) * 16

    @property
    def _members(self) -> int:
        gates = {*self.cell.recurrent_gates, *self.cell.bias_gates} & {*self.cell.input_gates}
        return len(gates | {*self.cell.inputless_products} if self.inputless else gates)

    @property
    def _rows(self) -> int:
        """Of the product, per head; where there is nothing to be made, those of one gate all the same."""
        return max(1, self._members) * self._padded

    @property
    def _steps(self) -> int:
        return self.shape.batch * self.shape.seq

    @property
    def _affordable(self) -> int:
        """How many results apart MEMORY allows."""
        kept = self._steps * self.shape.head_dim * (len(self.cell.states) + len(derive(self.cell).saved_gates))
        kept *= self._itemsize
        return int(MEMORY * kept / (self._rows * self._padded * 4))


def with_parameter_gradients(
    recurrence: Program, cell: Cell, shape: Shape, profile: Profile, num_partials: str
) -> Program:
    """A backward pass: the recurrence, then the gradients of R and b from what it leaves.

    num_partials: how many partial sums the recurrence leaves of the gradients of gates without an input, as a rule. The
    second kernel is made for the number of steps of ``shape``, and right for any.
    """
    inputless = "d_inputless" in recurrence.main.source.arguments
    parameters = ParameterGradients(cell, shape, profile, inputless=inputless)
    axes = {**recurrence.axes, "P": num_partials, "Q": str(parameters.results)}
    return replace(recurrence, then=parameters.calls(), axes=axes)


def with_float_parameters(program: Program, cell: Cell, shape: Shape, profile: Profile) -> Program:
    """The same backward pass, whose gradients of R and b are float32 whatever the shape's dtype: they are summed so."""
    if program.products:
        return with_product_gradients(program, cell, shape, profile, floats=True)
    inputless = "d_inputless" in program.main.source.arguments
    parameters = ParameterGradients(cell, shape, profile, inputless=inputless, floats=True)
    return replace(program, then=parameters.calls(), float_parameters=True)
