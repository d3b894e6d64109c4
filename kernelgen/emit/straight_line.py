"""Straight-line code as a Python function, for any printer whose target is called from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kernelgen.cells.language import Cell
from kernelgen.emit.printer import Printer
from kernelgen.symbolic.derive import derive
from kernelgen.symbolic.lower import lower

Functions = Mapping[str, Callable[..., Any]]
"""What the names of the language's functions mean."""


def step_function(
    printer: Callable[[Mapping[str, str]], Printer], functions: Functions, cell: Cell
) -> Callable[..., list[Any]]:
    """The step as ``function(gate, state)``, which returns a list of the new states, each a number or an array.

    printer: makes one from the names that symbols are printed as.
    """
    code, title = lower(cell), f"<step of {cell.name}>"
    return _compiled(printer(_symbols(cell)), functions, title, "gate, state", code.temporaries, code.next_states)


def backward_function(
    printer: Callable[[Mapping[str, str]], Printer], functions: Functions, cell: Cell
) -> Callable[..., list[Any]]:
    """The backward step as ``function(gate, state, d_next)``, which returns derive.Backward's outputs likewise."""
    code, title = derive(cell), f"<backward step of {cell.name}>"
    symbols = _symbols(cell) | {seed.name: f"d_next[{index}]" for index, seed in enumerate(code.seeds)}
    return _compiled(printer(symbols), functions, title, "gate, state, d_next", code.temporaries, code.outputs)


def _symbols(cell: Cell) -> dict[str, str]:
    """A cell's gates and states as elements of the sequences ``gate`` and ``state``."""
    gates = {gate.name: f"gate[{index}]" for index, gate in enumerate(cell.gates)}
    return gates | {name: f"state[{index}]" for index, name in enumerate(cell.states)}


def _compiled(
    printer: Printer,
    functions: Functions,
    title: str,
    parameters: str,
    temporaries: Sequence[tuple[Any, Any]],
    results: Sequence[Any],
) -> Callable[..., list[Any]]:
    """Straight-line code as a function that returns a list of ``results``. functions: what the printer's function
    names mean, by the names of the language. title: what tracebacks call the code."""
    lines = [f"    {symbol.name} = {printer.text(expression)}" for symbol, expression in temporaries]
    returned = ", ".join(printer.text(expression) for expression in results)
    source = "\n".join([f"def function({parameters}):", *lines, f"    return [{returned}]"])
    space: dict[str, Any] = {printer.functions[name]: function for name, function in functions.items()}
    exec(compile(source, title, "exec"), space)  # text made from checked expressions only
    function: Callable[..., list[Any]] = space["function"]
    return function
