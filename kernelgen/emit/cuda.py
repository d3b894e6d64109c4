"""A cell as CUDA C++: the struct ``Cell`` that the kernel templates take, in terms of cuda/math.cuh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import sympy

from kernelgen.cells.language import Cell
from kernelgen.emit.cost import CellCost, Depths, cell_cost
from kernelgen.emit.lower import Lowered, is_condition, lower
from kernelgen.emit.printer import ATOM, CHOICE, OR, PRODUCT, Printer
from kernelgen.emit.text import state_equations

__all__ = ["CellCost", "cell_cost", "cell_struct"]


class CudaPrinter(Printer):
    """Prints expressions in float arithmetic, calling the functions of ``namespace tilesmith::math``.

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

    def __init__(self, cell: Cell, code: Lowered) -> None:
        gates = {gate.name: f"gate_{gate.name}" for gate in cell.gates}
        super().__init__(gates | {state: f"state_{state}" for state in cell.states})
        self._depth = Depths(cell, code)

    def number(self, value: Any) -> str:
        """A float literal with the fewest digits that give the value back in double precision."""
        return f"{float(value)!r}f"

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


def cell_struct(cell: Cell) -> str:
    """The C++ text of ``struct Cell``: numbers of gates and states, which gates have which part, and the step.

    The masks hold bit g for gate g. ``step`` takes the gates' sums and the old states of one unit and writes its new
    states; it needs "math.cuh". The same cell gives the same text, byte for byte.
    """
    code = lower(cell)
    printer = CudaPrinter(cell, code)
    gates, states = len(cell.gates), len(cell.states)
    body = ["namespace math = tilesmith::math;"]
    body += [f"const float gate_{gate.name} = gate[{index}];" for index, gate in enumerate(cell.gates)]
    used = set().union(*(expression.free_symbols for expression in cell.next_states))
    read = [index for index, symbol in enumerate(cell.state_symbols) if symbol in used]
    body += [f"const float state_{cell.states[index]} = state[{index}];" for index in read]
    for symbol, expression in code.temporaries:
        kind = "bool" if is_condition(expression) else "float"
        body.append(f"const {kind} {symbol.name} = {printer.text(expression)};")
    body += [f"next[{index}] = {printer.text(expression)};" for index, expression in enumerate(code.next_states)]
    unused = [] if read else ["(void)state;"]
    lines = [
        f"/// {cell.title}: {cell.paper}",
        "struct Cell {",
        f"    static constexpr int gates = {gates}, states = {states};",
        "    // Bit g: gate g has a recurrent product, an input, a bias.",
        f"    static constexpr unsigned recurrent = {_mask(cell.recurrent_gates)}, input = {_mask(cell.input_gates)}, "
        f"bias = {_mask(cell.bias_gates)};",
        "",
        *(f"    /// {line}" for line in state_equations(cell)),
        f"    TILESMITH_DEVICE static void step(const float (&gate)[{gates}], const float (&state)[{states}], "
        f"float (&next)[{states}]) {{",
        *(f"        {line}" for line in [*unused, *body]),
        "    }",
        "};",
    ]
    return "\n".join(lines) + "\n"
