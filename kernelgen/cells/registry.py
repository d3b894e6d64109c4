"""Cells by name: operators of PyTorch take strings, not objects."""

from __future__ import annotations

from functools import lru_cache

from kernelgen.cells import load_cell
from kernelgen.cells.language import Cell
from kernelgen.errors import CellError

_cells: dict[str, Cell] = {}


def register(cell: Cell) -> str:
    """A name for a Cell, the same for equal cells, which rnn() and step() take in this process.

    A Cell can be given as it is, but not inside torch.compile, which knows strings and no such objects.
    Raises CellError for what is no Cell.
    """
    if not isinstance(cell, Cell):
        raise CellError(f"register() takes a Cell, not {cell!r}; a name of the library or a file needs no registering")
    key = f"{cell.name}@{cell.fingerprint}"
    _cells.setdefault(key, cell)
    return key


def cell_of(key: str) -> Cell:
    """The cell of a key, a library name or ``"path/to/file.py:NAME"``. A file is read once in a process.

    Raises CellError for an unknown name or a file that defines no cell.
    """
    return _cells[key] if key in _cells else _loaded(key)


@lru_cache(maxsize=256)
def differentiated(key: str, recurrent_cut: bool, recurrent_clip: float | None) -> Cell:
    """The cell of a key with the gradient options given: see Cell.with_gradient. Raises CellError."""
    return cell_of(key).with_gradient(recurrent_cut=recurrent_cut, recurrent_clip=recurrent_clip)


@lru_cache(maxsize=256)
def _loaded(spec: str) -> Cell:
    return load_cell(spec)
