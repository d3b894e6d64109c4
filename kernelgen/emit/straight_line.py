"""Straight-line code as a Python function, for any printer whose target is called from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kernelgen.cells.language import Cell
from kernelgen.emit.printer import Printer


def cell_symbols(cell: Cell) -> dict[str, str]:
    """A cell's gates and states as elements of the sequences ``gate`` and ``state``."""
    gates = {gate.name: f"gate[{index}]" for index, gate in enumerate(cell.gates)}
    return gates | {name: f"state[{index}]" for index, name in enumerate(cell.states)}


def compiled(
    printer: Printer,
    functions: Mapping[str, Callable[..., Any]],
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
