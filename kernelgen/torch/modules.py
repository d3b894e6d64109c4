"""LSTM, GRU and RNN in the place of torch.nn's: the same parameters, initialisation, state_dict, arguments and results.

They are no subclasses of torch.nn's, which torch.compile does not trace.
"""

from __future__ import annotations

from typing import Any

import torch

from kernelgen.cells.language import Cell
from kernelgen.cells.registry import cell_of
from kernelgen.torch.errors import ArgumentError
from kernelgen.torch.parts import parts_of
from kernelgen.torch.recurrent import Recurrent

NONLINEARITIES = {"tanh": "elman", "relu": "elman_relu"}
"""The cells of torch.nn.RNN, by its nonlinearity."""


class LSTM(Recurrent):
    """torch.nn.LSTM over rnn(), and more: see Recurrent for parameters, and its forward for arguments and results.

    proj_size: h is projected to as many units. heads: hidden_size units in heads that do not see each other, without
    a projection. checkpoint, memory_limit: less memory for training on long sequences, at one more forward pass.
    wavefront: layers at the same time, each so many steps behind the one before; True for what the model advises.
    layer_norm: the input's product of each step is normalised.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        heads: int = 1,
        checkpoint: int | None = None,
        memory_limit: str | int | None = None,
        wavefront: int | bool | None = None,
        layer_norm: bool = False,
    ) -> None:
        super().__init__(
            "LSTM", "lstm", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size,
            device, dtype, heads=heads, checkpoint=checkpoint, memory_limit=memory_limit,
            wavefront=wavefront, layer_norm=layer_norm,
        )  # fmt: skip


class GRU(Recurrent):
    """torch.nn.GRU over rnn(), and more: see LSTM. There is no projection."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        heads: int = 1,
        checkpoint: int | None = None,
        memory_limit: str | int | None = None,
        wavefront: int | bool | None = None,
        layer_norm: bool = False,
        proj_size: int | None = None,
    ) -> None:
        _refuse_projection(proj_size)
        super().__init__(
            "GRU", "gru", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
            device, dtype, heads=heads, checkpoint=checkpoint, memory_limit=memory_limit,
            wavefront=wavefront, layer_norm=layer_norm,
        )  # fmt: skip


class RNN(Recurrent):
    """torch.nn.RNN over rnn(), or layers of any cell, and more: see LSTM. There is no projection.

    nonlinearity: "tanh" or "relu". cell: instead of it, a library name, ``"path/to/file.py:NAME"`` or a Cell. Raises
    ArgumentError, too, for an unknown nonlinearity, or one given beside a cell, and for proj_size, as torch.nn does.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        cell: str | Cell | None = None,
        heads: int = 1,
        checkpoint: int | None = None,
        memory_limit: str | int | None = None,
        wavefront: int | bool | None = None,
        layer_norm: bool = False,
        proj_size: int | None = None,
    ) -> None:
        _refuse_projection(proj_size)
        chosen = cell_for(nonlinearity, cell)
        name = nonlinearity if cell is None else cell_of(parts_of(chosen).key).name
        super().__init__(
            f"RNN_{name.upper()}", chosen, input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, 0, device, dtype, heads=heads, checkpoint=checkpoint, memory_limit=memory_limit,
            wavefront=wavefront, layer_norm=layer_norm,
        )  # fmt: skip
        self.nonlinearity = nonlinearity if cell is None else None

    def extra_repr(self) -> str:
        """As Recurrent's, with the cell."""
        return super().extra_repr() + described_cell(self)


def described_cell(module: Any) -> str:
    """What an RNN's repr says of its cell: nothing of tanh."""
    if module.nonlinearity is None:
        return f", cell={module.cell.name if isinstance(module.cell, Cell) else module.cell}"
    return "" if module.nonlinearity == "tanh" else f", nonlinearity={module.nonlinearity}"


def cell_for(nonlinearity: str, cell: str | Cell | None) -> str | Cell:
    """The cell of an RNN. Raises ArgumentError for an unknown nonlinearity, or one beside a cell."""
    if nonlinearity not in NONLINEARITIES:
        raise ArgumentError(
            f"Unknown nonlinearity {nonlinearity!r}: there are 'tanh' and 'relu'; another cell is given by cell="
        )
    if cell is not None and nonlinearity != "tanh":
        raise ArgumentError(f"a cell has its own functions; leave out nonlinearity={nonlinearity!r}, or the cell")
    return NONLINEARITIES[nonlinearity] if cell is None else cell


def _refuse_projection(proj_size: int | None) -> None:
    """Raise ArgumentError, as torch.nn raises a ValueError, even for a size of 0."""
    if proj_size is not None:
        raise ArgumentError("proj_size argument is only supported for LSTM, not RNN or GRU")
