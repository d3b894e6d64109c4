"""The cell language: a cell is its states, its gates and one pointwise step, and nothing else.

At step t, every gate g is the sum of the parts it has,

    g = R_g h(t-1) + Wx_g(t) + b_g

where h is the first state, and the step gives the new states from the gates and the old states, unit by unit. The
kernels, the reference and the printed equations all come from that definition. See docs/cells.md.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any

import sympy
from sympy.core.relational import Relational
from sympy.logic.boolalg import And, Boolean, Not, Or

from kernelgen.cells import cell_names, load_cell
from kernelgen.cells._functions import (
    abs,
    equal,
    exp,
    log,
    log_sigmoid,
    maximum,
    minimum,
    relu,
    sigmoid,
    sign,
    softplus,
    sqrt,
    tanh,
    where,
)
from kernelgen.cells._gradient import EXACT, LARGEST, GradientOptions
from kernelgen.cells._step import FUNCTION_NAMES, FUNCTIONS, UNITS, run_step
from kernelgen.errors import CellError, near_names

__all__ = [
    "Cell",
    "Gate",
    "abs",
    "equal",
    "exp",
    "log",
    "log_sigmoid",
    "maximum",
    "minimum",
    "relu",
    "sigmoid",
    "sign",
    "softplus",
    "sqrt",
    "tanh",
    "where",
]

MAX_GATES = 32
"""Kernels keep which gates have which part in 32-bit masks."""

RESERVED = ("next_", "d_next_", "value_")
"""What the names of generated code begin with, and so no name of a state or a gate."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*")
_ARITHMETIC = (sympy.Symbol, sympy.Integer, sympy.Rational, sympy.Float, sympy.NumberSymbol, sympy.Add, sympy.Mul)
_NODES = (*_ARITHMETIC, sympy.Pow, *FUNCTIONS, Relational, And, Or, Not)
_OVER_UNITS = (sympy.Sum, sympy.Product, sympy.Indexed, sympy.IndexedBase, sympy.MatrixExpr)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


@dataclass(frozen=True)
class Gate:
    """One gate: a sum of up to three parts. recurrent: it receives R h; input: it receives Wx; bias: it receives b."""

    name: str
    recurrent: bool = True
    input: bool = True
    bias: bool = True


Step = Callable[[Any, Any], Mapping[str, Any] | tuple[Mapping[str, Any], Mapping[str, Any]]]


def _no_step(gate: Any, state: Any) -> Mapping[str, Any]:
    raise CellError("there is no step; give step=, a function of gate and state")


@dataclass(frozen=True, eq=False)
class Cell:
    """A recurrent cell.

    name: an identifier. title (the name where there is none), paper: for people. states: their names; the first is h,
    the one R multiplies, and the one that kernels keep in the shape's dtype (all others are float32). gates: in
    the order in which Wx, R and b hold them. step: ``step(gate, state)`` gets namespaces of real sympy symbols
    (``gate.i``, ``state.c``) and returns
    a dict from each state to its expression; to name intermediate values in the generated code and the printed
    equations, it returns a pair of that dict and one from names to expressions.

    For trials on random numbers: ranges gives for a state the closed interval in which initial values may be drawn,
    (-1, 1) where it says nothing (zeros are always legal), and for a gate that of its bias; gain is a factor on R,
    below 1 where the recurrence would grow without bound.

    gradient: what its backward pass does with the gradient that one step sends back to the one before.

    Raises CellError for a definition that makes no sense or that the language cannot express. Warns of a cell of one's
    own that has the name of another of the library, and of one whose h is not the first state. Two cells are equal
    if their definitions are: see ``fingerprint``.
    """

    name: str
    title: str = ""
    paper: str = ""
    states: tuple[str, ...] = ()
    gates: tuple[Gate, ...] = ()
    step: Step = _no_step
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    gain: float = 1.0
    gradient: GradientOptions = EXACT

    def __post_init__(self) -> None:
        self._check_types()
        object.__setattr__(self, "states", tuple(self.states))
        object.__setattr__(self, "gates", tuple(self.gates))
        if not self.title:
            object.__setattr__(self, "title", self.name)
        self._check_names()
        self._check_parts()
        _ = self._traced
        self._warn()

    @property
    def next_states(self) -> tuple[Any, ...]:
        """The step's sympy expressions, one for each state, in the order of ``states``."""
        return self._traced[0]

    @property
    def names(self) -> Mapping[str, Any]:
        """The intermediate values that the step gives a name: expressions by name."""
        return self._traced[1]

    @cached_property
    def _traced(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Run the step on symbols and check what it returns."""
        try:
            result = run_step(self.step, tuple(gate.name for gate in self.gates), self.states)
        except CellError as error:
            raise self._error(str(error)) from error
        result, named = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
        if not isinstance(result, Mapping) or not isinstance(named, Mapping):
            raise self._error(f"the step must return a dict from each state to its expression, not {result!r}")
        for name in self.states:
            if name not in result:
                raise self._error(f"the step gives no expression for state {name!r}")
        for name in result:
            if name not in self.states:
                raise self._error(f"the step gives {name!r}, which is no state; {near_names(str(name), self.states)}")
        taken = {symbol.name for symbol in (*self.gate_symbols, *self.state_symbols)}
        for name in named:
            if not isinstance(name, str) or not _NAME.fullmatch(name) or name in taken:
                raise self._error(f"{name!r} cannot name an intermediate value; use a new name of letters and digits")
        expressions = tuple(self._expression(f"state {name!r}", result[name]) for name in self.states)
        used = set().union(*(expression.free_symbols for expression in expressions))
        for symbol in self.gate_symbols:
            if symbol not in used:
                raise self._error(f"gate {symbol.name!r} is used by no expression; leave it out")
        return expressions, {name: self._expression(f"name {name!r}", value) for name, value in named.items()}

    @cached_property
    def fingerprint(self) -> str:
        """A hexadecimal hash of everything that shapes the cell's kernels; the same in every process and run."""
        parts = ["cell 1", self.name, *self.states]
        parts += [f"{gate.name} {gate.recurrent:d}{gate.input:d}{gate.bias:d}" for gate in self.gates]
        parts += [sympy.srepr(expression) for expression in self.next_states]
        parts += [f"{name} {sympy.srepr(expression)}" for name, expression in self.names.items()]
        parts += [repr(self.gradient)] if self.gradient != EXACT else []
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @cached_property
    def gate_symbols(self) -> tuple[Any, ...]:
        """The symbols of the gates, in order."""
        return tuple(sympy.Symbol(gate.name, real=True) for gate in self.gates)

    @cached_property
    def state_symbols(self) -> tuple[Any, ...]:
        """The symbols of the states before the step, in order."""
        return tuple(sympy.Symbol(name, real=True) for name in self.states)

    @cached_property
    def recurrent_gates(self) -> tuple[int, ...]:
        """Indices of the gates with a recurrent product: the gate axis of R."""
        return tuple(index for index, gate in enumerate(self.gates) if gate.recurrent)

    @cached_property
    def input_gates(self) -> tuple[int, ...]:
        """Indices of the gates with an input: the gate axis of Wx."""
        return tuple(index for index, gate in enumerate(self.gates) if gate.input)

    @cached_property
    def inputless_products(self) -> tuple[int, ...]:
        """Indices of the gates with a recurrent product and no input: their part of R's gradient is not Wx's too."""
        return tuple(index for index in self.recurrent_gates if not self.gates[index].input)

    @cached_property
    def inputless_biases(self) -> tuple[int, ...]:
        """Indices of the gates with a bias and no input, likewise."""
        return tuple(index for index in self.bias_gates if not self.gates[index].input)

    @cached_property
    def bias_gates(self) -> tuple[int, ...]:
        """Indices of the gates with a bias: the gate axis of b."""
        return tuple(index for index, gate in enumerate(self.gates) if gate.bias)

    def range(self, state: str) -> tuple[float, float]:
        """The interval in which random initial values of a state may be drawn."""
        return self.ranges.get(state, (-1.0, 1.0))

    def clipped(self, bound: float) -> Cell:
        """The same cell with its new h clamped to [-bound, bound] (FlashRNN's ``forward_clipval``).

        The derivative follows: where h is clamped, it hands no gradient back. (FlashRNN's passes it on.)
        Raises CellError for a bound that is not positive.
        """
        if not 0 < bound <= LARGEST:
            raise self._error(f"h cannot be clipped to [-v, v] with v = {bound}; v must be positive")

        def step(gate: Any, state: Any) -> Any:
            result = self.step(gate, state)
            new, named = result if isinstance(result, tuple) else (result, {})
            h = maximum(-bound, minimum(bound, new[self.states[0]]))
            return {**new, self.states[0]: h}, named

        return replace(self, name=f"{self.name}_clipped", title=f"{self.title}, h clipped to {bound:g}", step=step)

    def with_gradient(self, *, recurrent_cut: bool = False, recurrent_clip: float | None = None) -> Cell:
        """The same cell with another backward pass: see GradientOptions, whose errors it raises."""
        options = GradientOptions(recurrent_cut, recurrent_clip)
        return self if options == self.gradient else replace(self, gradient=options)

    def _error(self, message: str) -> CellError:
        return CellError(f"cell {self.name!r}: {message}")

    def _check_types(self) -> None:
        """That states, gates and step are what they should be, so that nothing is taken letter by letter."""
        for what, value, kind, example in (
            ("states", self.states, str, '("h",)'),
            ("gates", self.gates, Gate, '(Gate("a"),)'),
        ):
            if not isinstance(value, (tuple, list)):
                hint = "with its comma" if isinstance(value, kind) else "or a list"
                raise self._error(f"{what} must be a tuple such as {example}, {hint}, not {value!r}")
            for part in value if kind is Gate else ():
                if not isinstance(part, Gate):
                    hint = f'write Gate("{part}")' if isinstance(part, str) else f"as in {example}"
                    raise self._error(f"every gate must be a Gate, not {part!r}; {hint}")
                if not all(isinstance(flag, bool) for flag in (part.recurrent, part.input, part.bias)):
                    raise self._error(f"recurrent, input and bias must be True or False in {part!r}")
        if not callable(self.step):
            raise self._error(f"the step must be a function of gate and state, not {self.step!r}")
        if not isinstance(self.ranges, Mapping):
            raise self._error(f"ranges must be a dict from names to pairs, not {self.ranges!r}")
        for name, pair in self.ranges.items():
            if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(map(_is_number, pair))):
                raise self._error(f"the range of {name!r} must be a pair of numbers, from and to, not {pair!r}")
        if not _is_number(self.gain):
            raise self._error(f"the gain of random recurrent weights must be a number in (0, 1], not {self.gain!r}")

    def _warn(self) -> None:
        """Of what is legal, and seldom meant; not of the same cell with another backward pass again."""
        if self.gradient != EXACT:
            return
        first, *others = self.states
        if "h" in others:
            warnings.warn(
                f"cell {self.name!r}: R multiplies the first state, which is {first}; "
                "put h first if it should multiply h",
                stacklevel=4,
            )
        of_library = str(getattr(self.step, "__module__", "")).startswith(f"{__package__}.")
        if not of_library and self.name in cell_names() and load_cell(self.name) != self:
            warnings.warn(
                f"cell {self.name!r} has the name of another cell of the library, and its files would have "
                "the same names; rename it",
                stacklevel=4,
            )

    def _check_names(self) -> None:
        names = [*self.states, *(gate.name for gate in self.gates)]
        for name in (self.name, *names):
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise self._error(f"{name!r} is no name; use ASCII letters, digits and single underscores between them")
        for what, text in (("title", self.title), ("paper", self.paper)):
            # Both stand in comments of the generated code: one line, and nothing that joins the next to it.
            if not isinstance(text, str) or not text.isprintable() or "\\" in text:
                raise self._error(f"the {what} must be one line of text without a backslash, not {text!r}")
        for name in names:
            if name.startswith(RESERVED):
                raise self._error(f"the name {name!r} begins as those of generated code do: {', '.join(RESERVED)}")
            if names.count(name) > 1:
                raise self._error(f"the name {name!r} is used twice; states and gates share one set of names")
        if not self.states:
            raise self._error("there is no state; the first state is the one that R multiplies")
        for name, (low, high) in self.ranges.items():
            if name not in (*self.states, *(gate.name for gate in self.gates if gate.bias)):
                raise self._error(f"a range is given for {name!r}, which is no state and no gate with a bias")
            if not low <= high:
                raise self._error(f"the range of {name!r} is empty: from {low} to {high}")
        if not 0 < self.gain <= 1:
            raise self._error(f"the gain of random recurrent weights must be in (0, 1], not {self.gain}")

    def _check_parts(self) -> None:
        if len(self.gates) > MAX_GATES:
            raise self._error(f"{len(self.gates)} gates; kernels know at most {MAX_GATES}")
        for gate in self.gates:
            if not (gate.recurrent or gate.input or gate.bias):
                raise self._error(f"gate {gate.name!r} receives nothing: no recurrent product, no input, no bias")
        if not any(gate.recurrent for gate in self.gates):
            raise self._error("no gate has a recurrent product, so there is no recurrence to run; use a plain scan")

    def _expression(self, what: str, value: Any) -> Any:
        try:
            expression = sympy.sympify(value, strict=True)
        except sympy.SympifyError as error:
            raise self._error(f"the step gives {value!r} for {what}, which is no expression") from error
        if not isinstance(expression, (sympy.Expr, Boolean)) or getattr(expression, "is_Matrix", False):
            message = f"the step gives {type(value).__name__} {value!r} for {what}; {UNITS}have vectors or matrices"
            raise self._error(message)
        if not isinstance(expression, sympy.Expr) and not (what.startswith("name") and isinstance(expression, Boolean)):
            raise self._error(f"the step gives {value!r} for {what}, which is no number")
        for node in sympy.preorder_traversal(expression):
            if isinstance(node, _OVER_UNITS):
                raise self._error(f"{what} uses {node}; {UNITS}sum or index over units, as normalisation does")
        known = {*self.gate_symbols, *self.state_symbols}
        for symbol in sorted(expression.free_symbols - known, key=str):
            message = f"{what} uses the symbol {symbol}, which is neither a gate nor a state of this cell; "
            raise self._error(message + near_names(str(symbol), (known_symbol.name for known_symbol in known)))
        for node in sympy.preorder_traversal(expression):
            if not isinstance(node, _NODES) or node.is_finite is False:
                part = node if node.is_Atom else f"the function {node.func.__name__}"
                raise self._error(f"{what} uses {part}, which is not in the language; it has {FUNCTION_NAMES}")
            if node.is_number and abs(node) > LARGEST:
                raise self._error(f"{what} uses {node}, which is beyond float32 (largest {LARGEST:.6g})")
            if isinstance(node, where) and node.args[0].is_Symbol:
                raise self._error(f"{what}: where() needs a condition such as x > 0, not {node.args[0]}")
        return expression
