"""A cell as CUDA C++: the struct ``Cell`` that the kernel templates take, in terms of cuda/math.cuh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import sympy

from kernelgen.cells.language import Cell
from kernelgen.emit.printer import ATOM, CHOICE, OR, PRODUCT, Printer
from kernelgen.emit.text import state_equations
from kernelgen.symbolic.derive import derive
from kernelgen.symbolic.hoist import split_step
from kernelgen.symbolic.instructions import CellCost, Depths, backward_cost, cell_cost
from kernelgen.symbolic.lower import is_condition, lower

__all__ = ["CellCost", "backward_cost", "cell_cost", "cell_struct"]


class CudaPrinter(Printer):
    """Prints expressions in float or double arithmetic, calling the functions of a namespace ``math``.

    Terms and factors are written in the order in which their values become ready, the slowest last, since the compiler
    keeps the order of float operations: what waits for the slowest value is then a single multiply-add.
    """

    functions: ClassVar[Mapping[str, str]] = {
        "Abs": "math::absolute",
        "exp": "math::exp",
        "log": "math::log",
        "log_sigmoid": "math::log_sigmoid",
        "maximum": "math::maximum",
        "minimum": "math::minimum",
        "relu": "math::relu",
        "sigmoid": "math::sigmoid",
        "sign": "math::sign",
        "softplus": "math::softplus",
        "tanh": "math::tanh",
    }
    words: ClassVar[Mapping[str, str]] = {"and": "&&", "or": "||", "not": "!"}

    def __init__(self, cell: Cell, depths: Depths, number: str = "float") -> None:
        gates = {gate.name: f"gate_{gate.name}" for gate in cell.gates}
        super().__init__(gates | {state: f"state_{state}" for state in cell.states})
        self._depth, self._suffix = depths, "f" if number == "float" else ""

    def number(self, value: Any) -> str:
        """A literal with the fewest digits that give the value back in double precision."""
        return f"{float(value)!r}{self._suffix}"

    def order(self, arguments: Sequence[Any]) -> list[Any]:
        """The slowest last; constants first."""
        return sorted(arguments, key=lambda argument: (self._depth.clocks(argument), sympy.default_sort_key(argument)))

    def where(self, condition: Any, a: Any, b: Any) -> tuple[int, str]:
        """The conditional operator; both values are side-effect free, so the compiler selects without a branch."""
        return CHOICE, f"{self.text(condition, OR)} ? {self.text(a, OR)} : {self.text(b, OR)}"

    def power(self, base: Any, exponent: Any) -> tuple[int, str]:
        """Square roots and small integer powers exactly, others as 2^(e log2 base)."""
        if exponent == sympy.Rational(1, 2):
            return ATOM, f"math::sqrt({self.text(base)})"
        if exponent == sympy.Rational(-1, 2):
            return ATOM, f"math::reciprocal(math::sqrt({self.text(base)}))"
        if exponent.is_Integer:
            return ATOM, f"math::power<{int(exponent)}>({self.text(base)})"
        return ATOM, f"math::power({self.text(base)}, {self.text(exponent)})"

    def quotient(self, factors: list[Any], divisors: list[Any]) -> tuple[int, str]:
        """A product with the reciprocal: one special operation instead of a division."""
        reciprocal = f"math::reciprocal({self.text(sympy.Mul(*divisors))})"
        return (PRODUCT, f"{self._factors(factors)} * {reciprocal}") if factors else (ATOM, reciprocal)


def _mask(indices: tuple[int, ...]) -> str:
    return f"0x{sum(1 << index for index in indices):x}u"


def cell_struct(cell: Cell, backward: bool = False, math: str = "math", number: str = "float") -> str:
    """The C++ text of ``struct Cell``: numbers of gates and states, which gates have which part, and the step.

    The masks hold bit g for gate g. ``step`` takes the gates' sums and the old states of one unit and writes its new
    states; it needs "math.cuh". The same cell gives the same text, byte for byte.

    backward: also the backward step, with the masks of the gates and previous states that it reads, and what
    becomes of the gradient that comes back from the later step. math: the namespace of "math.cuh" whose functions it
    calls (Dtype.math). number: the C++ type that it computes in (Dtype.number).
    """
    lines = [
        f"/// {cell.title}: {cell.paper}" if cell.paper else f"/// {cell.title}",
        "struct Cell {",
        f"    static constexpr int gates = {len(cell.gates)}, states = {len(cell.states)};",
        "    // Bit g: gate g has a recurrent product, an input, a bias.",
        f"    static constexpr unsigned recurrent = {_mask(cell.recurrent_gates)}, input = {_mask(cell.input_gates)}, "
        f"bias = {_mask(cell.bias_gates)};",
        "    // Bit g: gate g's sum is saved for training.",
        f"    static constexpr unsigned saved = {_mask(derive(cell).saved_gates)};",
        "",
        *(f"    {line}" for line in _step(cell, math, number)),
        *(f"    {line}" if line else "" for line in (_backward(cell, math, number) if backward else [])),
        "};",
    ]
    return "\n".join(lines) + "\n"


def _step(cell: Cell, math: str, number: str) -> list[str]:
    """The member function ``step``."""
    code = lower(cell)
    gates, states = len(cell.gates), len(cell.states)
    used = set().union(*(expression.free_symbols for expression in cell.next_states))
    read = [index for index, symbol in enumerate(cell.state_symbols) if symbol in used]
    printer = CudaPrinter(cell, Depths(cell.gate_symbols, code.temporaries), number)
    results = [(f"next[{index}]", expression) for index, expression in enumerate(code.next_states)]
    return [
        *(f"/// {line}" for line in state_equations(cell)),
        f"TILESMITH_DEVICE static void step(const {number} (&gate)[{gates}], const {number} (&state)[{states}], "
        f"{number} (&next)[{states}]) {{",
        *([] if read else ["    (void)state;"]),
        f"    namespace math = tilesmith::{math};",
        *_loads(cell, range(gates), read, number),
        *_statements(printer, code.temporaries, results, number),
        "}",
    ]


def _backward(cell: Cell, math: str, number: str) -> list[str]:
    """The members that a backward kernel needs."""
    code, parts = derive(cell), split_step(cell)
    gates, states = len(cell.gates), len(cell.states)
    conditions = {symbol for symbol, expression in parts.hoisted if is_condition(expression)}
    printer = CudaPrinter(cell, Depths(cell.gate_symbols, parts.hoisted), number)
    places = [f"d_gate[{index}]" for index in range(gates)] + [f"d_state[{index}]" for index in range(states)]
    waiting = CudaPrinter(cell, Depths(code.seeds, parts.critical), number)
    clipped = "d_h"
    if cell.gradient.recurrent_clip is not None:
        bound = printer.number(cell.gradient.recurrent_clip)
        clipped = f"tilesmith::math::minimum({bound}, tilesmith::math::maximum(-{bound}, d_h))"
    return [
        "",
        "// Bit g: the backward step reads gate g's sum. Bit s: it reads previous state s.",
        f"static constexpr unsigned backward_gates = {_mask(code.gates)}, backward_states = {_mask(code.states)};",
        "// Whether R passes no gradient on.",
        f"static constexpr bool recurrent_cut = {str(cell.gradient.recurrent_cut).lower()};",
        "",
        "/// Acts on the gradient of h that a later step sends back, before one from outside is added.",
        f"TILESMITH_DEVICE static {number} recurrent_gradient({number} d_h) {{ return {clipped}; }}",
        "",
        "/// The hoisted part of the backward step: what waits for no gradient.",
        "struct Ready {",
        *(f"    {_kind(symbol in conditions, number)} {symbol.name};" for symbol in parts.ready),
        "};",
        f"TILESMITH_DEVICE static void prepare(const {number} (&gate)[{gates}], const {number} (&state)[{states}], "
        "Ready& ready) {",
        *(f"    (void){name};" for name, read in (("gate", code.gates), ("state", code.states)) if not read),
        *([] if parts.ready else ["    (void)ready;"]),
        f"    namespace math = tilesmith::{math};",
        *_loads(cell, code.gates, code.states, number),
        *_statements(printer, parts.hoisted, [(f"ready.{symbol.name}", symbol) for symbol in parts.ready], number),
        "}",
        "",
        "/// Its critical path: the gradients of the gates and, through the step itself, of the old states, from those",
        "/// of the new states.",
        f"TILESMITH_DEVICE static void backward(const Ready& ready, const {number} (&d_next)[{states}], "
        f"{number} (&d_gate)[{gates}], {number} (&d_state)[{states}]) {{",
        *([] if parts.ready else ["    (void)ready;"]),
        *([] if code.read_seeds else ["    (void)d_next;"]),
        f"    namespace math = tilesmith::{math};",
        *(
            f"    const {_kind(symbol in conditions, number)} {waiting.text(symbol)} = ready.{symbol.name};"
            for symbol in parts.ready
        ),
        *(f"    const {number} {code.seeds[index].name} = d_next[{index}];" for index in code.read_seeds),
        *_statements(waiting, parts.critical, list(zip(places, parts.outputs, strict=True)), number),
        "}",
    ]


def _kind(condition: bool, number: str) -> str:
    return "bool" if condition else number


def _loads(cell: Cell, gates: Iterable[int], states: Iterable[int], number: str) -> list[str]:
    return [
        *(f"    const {number} gate_{cell.gates[index].name} = gate[{index}];" for index in gates),
        *(f"    const {number} state_{cell.states[index]} = state[{index}];" for index in states),
    ]


def _statements(
    printer: Printer, temporaries: Sequence[tuple[Any, Any]], results: Sequence[tuple[str, Any]], number: str
) -> list[str]:
    lines = []
    for symbol, expression in temporaries:
        lines.append(f"    const {_kind(is_condition(expression), number)} {symbol.name} = {printer.text(expression)};")
    return lines + [f"    {place} = {printer.text(expression)};" for place, expression in results]
