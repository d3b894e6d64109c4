"""A cell's step and backward step as functions of Triton, with the functions of the cell language that they call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import sympy

from kernelgen.cells.language import Cell
from kernelgen.emit.printer import ATOM, PythonPrinter
from kernelgen.emit.text import state_equations
from kernelgen.program.shape import SIXTEEN_BITS
from kernelgen.symbolic.derive import derive
from kernelgen.symbolic.hoist import split_step
from kernelgen.symbolic.lower import is_constant, lower

IMPORTS = "import triton\nimport triton.language as tl\n"

LOG2_E = math.log2(math.e)

HELPERS: Mapping[str, str] = {
    "exp": "return tl.exp(x)",
    "log": "return tl.log(x)",
    "sqrt": "return tl.sqrt(x)",
    "sigmoid": f"root = tl.rsqrt(1.0 + tl.exp2({-LOG2_E} * x))  # a root and a square are faster than a division\n"
    "return root * root",
    "tanh": f"root = tl.rsqrt(1.0 + tl.exp2({2 * LOG2_E} * x))\nreturn 1.0 - 2.0 * root * root",
    "log_sigmoid": "return tl.where(x > 0.0, 0.0, x) - tl.log(1.0 + tl.exp(-tl.abs(x)))",
    "softplus": "return tl.where(x < 0.0, 0.0, x) + tl.log(1.0 + tl.exp(-tl.abs(x)))",
    "relu": "return tl.where(x < 0.0, 0.0, x)",
    "sign": "return tl.where(x > 0.0, 1.0, tl.where(x < 0.0, -1.0, x))",
    "absolute": "return tl.abs(x)",
    "maximum": "return tl.where((a > b) | (a != a), a, b)  # a NaN if either is one",
    "minimum": "return tl.where((a < b) | (a != a), a, b)",
    "power": "return tl.exp2(y * tl.log2(x))",
    "integer_power": "result = x\nfor _ in tl.static_range(n - 1):\n    result = result * x\nreturn result",
}
TANH_INSTRUCTION: Mapping[str, str] = {
    "sigmoid": "return 0.5 * tanh(0.5 * x) + 0.5",
    "tanh": "# One instruction of NVIDIA's GPUs, relative error 2^-11.\nreturn tl.inline_asm_elementwise("
    '"tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)',
}
"""The same where a GPU has an instruction for tanh and elements of 16 bits: half as many special operations."""

_PARAMETERS: Mapping[str, str] = dict.fromkeys(("maximum", "minimum"), "a, b") | {
    "power": "x, y",
    "integer_power": "x, n: tl.constexpr",
}


class TritonPrinter(PythonPrinter):
    """Prints expressions over tiles of float32. ``used`` gathers the functions that the text calls."""

    functions: ClassVar[Mapping[str, str]] = {name: name for name in HELPERS} | {"Abs": "absolute"}

    def __init__(self, symbols: Mapping[str, str] | None = None) -> None:
        super().__init__(symbols)
        self.used: set[str] = set()

    def call(self, name: str, arguments: Sequence[Any]) -> tuple[int, str]:
        """A function of the language: one of the text's own."""
        self.used.add(self.functions[name])
        return super().call(name, arguments)

    def where(self, condition: Any, a: Any, b: Any) -> tuple[int, str]:
        """A choice, for each element."""
        return ATOM, f"tl.where({self.text(condition)}, {self.text(a)}, {self.text(b)})"

    def power(self, base: Any, exponent: Any) -> tuple[int, str]:
        """Square roots and integer powers exactly, others as 2^(e log2 base)."""
        if abs(exponent) == sympy.Rational(1, 2):
            self.used.add("sqrt")
            root = f"sqrt({self.text(base)})"
            return ATOM, root if exponent > 0 else f"(1.0 / {root})"
        name = "integer_power" if exponent.is_Integer else "power"
        self.used.add(name)
        return ATOM, f"{name}({self.text(base)}, {int(exponent) if exponent.is_Integer else self.text(exponent)})"


class _Printed:
    """Functions as text. outputs: what the last of them returns."""

    _printer: TritonPrinter
    outputs: Sequence[Any]

    @property
    def used(self) -> set[str]:
        """The functions that they call."""
        return self._printer.used

    def constant(self, index: int) -> bool:
        """Whether result ``index`` of the last is a number, and no tile."""
        return is_constant(self.outputs[index])


class StepText(_Printed):
    """The functions ``step`` and, backward, ``backward_step`` of a cell.

    gates, states: of the function, the indices of those that it reads, which are its parameters gate_NAME and
    state_NAME in that order; backward, seeds: of the new states whose gradients d_next_NAME follow. A step returns the
    new states; backward the gradients of the gates' sums, then of the previous states through the step itself.
    """

    def __init__(self, cell: Cell, *, backward: bool = False) -> None:
        self.cell, self.backward = cell, backward
        symbols = {gate.name: f"gate_{gate.name}" for gate in cell.gates}
        self._printer = TritonPrinter(symbols | {state: f"state_{state}" for state in cell.states})
        if backward:
            code = derive(cell)
            self.gates, self.states, self.seeds = code.gates, code.states, code.read_seeds
            temporaries, self.outputs = code.temporaries, code.outputs
        else:
            lowered = lower(cell)
            used = set().union(*(expression.free_symbols for expression in cell.next_states))
            self.gates = tuple(range(len(cell.gates)))
            self.states = tuple(index for index, symbol in enumerate(cell.state_symbols) if symbol in used)
            self.seeds = ()
            temporaries, self.outputs = lowered.temporaries, lowered.next_states
        self.name = "backward_step" if backward else "step"
        self.parameters = [
            *(f"gate_{cell.gates[index].name}" for index in self.gates),
            *(f"state_{cell.states[index]}" for index in self.states),
            *(f"d_next_{cell.states[index]}" for index in self.seeds),
        ]
        self._body = [f"{symbol.name} = {self._printer.text(value)}" for symbol, value in temporaries]
        names = [f"d_sum_{gate.name}" for gate in cell.gates] + [f"d_state_{state}" for state in cell.states]
        self.results = names if backward else [f"new_{state}" for state in cell.states]
        returned = ", ".join(self._printer.text(value) for value in self.outputs)
        self._body.append(f"return {returned}" + ("," if len(self.outputs) == 1 else ""))

    def text(self) -> str:
        """Its definition."""
        if self.backward:
            notes = ["The gradients of the gates' sums, and those of the old states through the step itself."]
        else:
            notes = ["The new states of a tile:", "", *state_equations(self.cell)]
        notes = [line.replace("\\", "\\\\").replace('"""', "'''") for line in notes]
        head = f"@triton.jit\ndef {self.name}({', '.join(self.parameters)}):\n"
        return head + _lines([*_docstring(notes), *self._body])


class SplitStepText(_Printed):
    """The backward step as two functions: ``prepare_step``, of what waits for no gradient, and ``backward_step``.

    hoisted_parameters: of the first, gate_NAME and state_NAME; ready: the names of what it returns. parameters: of the
    second, those, then gate_NAME and state_NAME that it reads itself, then d_next_NAME of the states ``seeds``. It
    returns what StepText's ``backward_step`` does, by the same names.
    """

    name = "backward_step"

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        parts, code = split_step(cell), derive(cell)
        given = {symbol: f"gate_{symbol.name}" for symbol in cell.gate_symbols}
        given |= {symbol: f"state_{symbol.name}" for symbol in cell.state_symbols}
        self._printer = TritonPrinter({symbol.name: name for symbol, name in given.items()})
        read = set().union(*(expression.free_symbols for _, expression in parts.hoisted))
        self.hoisted_parameters = [name for symbol, name in given.items() if symbol in read]
        self.ready = [symbol.name for symbol in parts.ready if symbol not in given]
        self.seeds, self.outputs = code.read_seeds, parts.outputs
        self.parameters = [
            *self.ready,
            *(name for symbol, name in given.items() if symbol in parts.ready),
            *(f"d_next_{cell.states[index]}" for index in self.seeds),
        ]
        self.results = [f"d_sum_{gate.name}" for gate in cell.gates] + [f"d_state_{state}" for state in cell.states]
        self._hoisted = [f"{symbol.name} = {self._printer.text(value)}" for symbol, value in parts.hoisted]
        self._hoisted.append(f"return {', '.join(self.ready)}" + ("," if len(self.ready) == 1 else ""))
        self._critical = [f"{symbol.name} = {self._printer.text(value)}" for symbol, value in parts.critical]
        returned = ", ".join(self._printer.text(value) for value in self.outputs)
        self._critical.append(f"return {returned}")

    def text(self) -> str:
        """Their definitions; of the second alone where nothing is hoisted."""
        critical = f"@triton.jit\ndef {self.name}({', '.join(self.parameters)}):\n" + _lines(
            [
                *_docstring(["The gradients of the gates' sums, and of the old states through the step itself."]),
                *self._critical,
            ]
        )
        if not self.ready:
            return critical
        note = "What of a backward step waits for no gradient, and is computed a step ahead."
        head = f"@triton.jit\ndef prepare_step({', '.join(self.hoisted_parameters)}):\n"
        return head + _lines([*_docstring([note]), *self._hoisted]) + "\n\n" + critical


def helper_functions(used: set[str], arch: str, dtype: str) -> str:
    """The definitions of those functions of the language that are used. arch: for which; dtype: of the elements."""
    has_tanh = arch.startswith("sm_") and dtype in SIXTEEN_BITS
    if has_tanh and "sigmoid" in used:
        used = used | {"tanh"}
    bodies = {**HELPERS, **TANH_INSTRUCTION} if has_tanh else HELPERS
    made = [
        f"@triton.jit\ndef {name}({_PARAMETERS.get(name, 'x')}):\n" + _lines(body.split("\n"))
        for name, body in bodies.items()
        if name in used
    ]
    return "\n\n".join(made)


def _docstring(notes: list[str]) -> list[str]:
    if len(notes) == 1:
        return [f'"""{notes[0]}"""']
    return [f'"""{notes[0]}', *notes[1:], '"""']


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in lines)
