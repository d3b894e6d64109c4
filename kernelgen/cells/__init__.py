"""Cells by name: every module of library/, and users' own files.

Importing this package costs nothing; sympy is imported when a cell is loaded, or a name of the cell language (such as
``kernelgen.cells.tanh``) is used.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kernelgen.errors import CellError, near_names

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell as Cell
    from kernelgen.cells.language import Gate as Gate
    from kernelgen.cells.language import abs as abs
    from kernelgen.cells.language import equal as equal
    from kernelgen.cells.language import exp as exp
    from kernelgen.cells.language import log as log
    from kernelgen.cells.language import log_sigmoid as log_sigmoid
    from kernelgen.cells.language import maximum as maximum
    from kernelgen.cells.language import minimum as minimum
    from kernelgen.cells.language import relu as relu
    from kernelgen.cells.language import sigmoid as sigmoid
    from kernelgen.cells.language import sign as sign
    from kernelgen.cells.language import softplus as softplus
    from kernelgen.cells.language import sqrt as sqrt
    from kernelgen.cells.language import tanh as tanh
    from kernelgen.cells.language import where as where

__all__ = ["cell_names", "load_cell"]

MOST_BYTES = 1 << 20
"""Larger files are refused: a cell is some lines."""


def __getattr__(name: str) -> Any:
    """The names of the cell language (Cell, Gate, tanh and the other functions), which import sympy only when used."""
    if not name.startswith("_"):
        language = importlib.import_module(f"{__name__}.language")
        if name in language.__all__:
            return getattr(language, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def cell_names() -> list[str]:
    """The names of the library's cells, sorted."""
    library = importlib.import_module(f"{__name__}.library")
    return sorted(module.name for module in pkgutil.iter_modules(library.__path__))


def load_cell(spec: str) -> Cell:
    """Load a cell: a library name (``"lstm"``), or ``"path/to/file.py:NAME"`` for a Cell in a file of one's own.

    The file is run as Python. ``:NAME`` may be left out where the file defines a single Cell.
    Raises CellError for an unknown name, a file that cannot be read or fails (with file and line), a missing NAME.
    """
    if not isinstance(spec, str):
        raise CellError(f"a cell is named by text, such as 'lstm' or 'path/to/file.py:NAME', not {spec!r}")
    path, colon, name = spec.rpartition(":")
    if colon and path.endswith(".py"):
        return _from_file(Path(path), name)
    if spec.endswith(".py"):
        return _from_file(Path(spec), None)
    names = cell_names()
    if spec not in names:
        raise CellError(
            f"unknown cell {spec!r}; {near_names(spec, names)} (a cell of your own is given as path/to/file.py:NAME)"
        )
    cell: Cell = importlib.import_module(f"{__name__}.library.{spec}").CELL
    return cell


def _from_file(path: Path, name: str | None) -> Cell:
    from kernelgen.cells.language import Cell

    module = _run(path)
    cells = {key: value for key, value in vars(module).items() if isinstance(value, Cell)}
    if name is None:
        if not cells:
            raise CellError(f"{path}: the file defines no Cell; write NAME = Cell(...) (docs/tutorials/add_a_cell.md)")
        if len(cells) > 1:
            raise CellError(
                f"{path}: say which cell is meant, as {path}:NAME; the file defines {', '.join(sorted(cells))}"
            )
        return next(iter(cells.values()))
    if name in cells:
        return cells[name]
    if hasattr(module, name):
        raise CellError(f"{path}: {name} is a {type(getattr(module, name)).__name__}, not a Cell")
    hint = near_names(name, cells) if cells else "it defines no Cell at all"
    raise CellError(f"{path}: the file has no {name!r}; {hint}")


def _run(path: Path) -> ModuleType:
    """Run a user's file in a module of its own. It is not imported: nothing is written beside it."""
    try:
        with path.open("rb") as file:
            source = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CellError(f"cannot read the cell file {path}: {reason}") from error
    if len(source) > MOST_BYTES:
        raise CellError(f"{path} is no cell file: it has more than {MOST_BYTES:,} bytes")
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        with redirect_stdout(sys.stderr):  # what a file prints is no part of a command's answer
            exec(compile(source, str(path), "exec"), module.__dict__)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or _line(path, error)
        raise CellError(f"{path}:{line}: {getattr(error, 'msg', None) or error}") from error
    except CellError as error:
        raise CellError(f"{path}:{_line(path, error)}: {error}") from error
    except (Exception, SystemExit) as error:
        from kernelgen.cells._advice import advice

        words = f"{type(error).__name__}: {error}{advice(error, module)}"
        raise CellError(f"{path}:{_line(path, error)}: {words}") from error
    return module


def _line(path: Path, error: BaseException) -> int:
    """The last line of the user's file that was running when the error, or the one behind it, was raised."""
    chain: BaseException | None = error
    line = 1
    while chain is not None:
        lines = [frame.lineno for frame in traceback.extract_tb(chain.__traceback__) if frame.filename == str(path)]
        if lines and lines[-1] is not None:
            line = lines[-1]
        chain = chain.__cause__
    return line
