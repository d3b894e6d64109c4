"""Recurrences in PyTorch: an operator with gradients, and drop-ins for torch.nn's modules and FlashRNN's function.

See docs/torch.md. Importing this package imports PyTorch and registers two operators; no GPU, driver or compiler is
needed for that.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401  asked for first, so that its absence is told in words
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        'kernelgen.torch needs PyTorch, which is not installed; pip install "tilesmith[torch]" brings it',
        name="torch",
    ) from error

from kernelgen.cells.registry import register
from kernelgen.torch import xlstm
from kernelgen.torch.cell_modules import GRUCell, LSTMCell, RNNCell
from kernelgen.torch.convert import Conversion, convert
from kernelgen.torch.double_backward import double_backward
from kernelgen.torch.errors import DifferentiationError, DoubleBackwardError, ExportError, GraphError
from kernelgen.torch.flash import flashrnn
from kernelgen.torch.flash_config import FlashRNNConfig
from kernelgen.torch.graphs import graphed
from kernelgen.torch.modules import GRU, LSTM, RNN
from kernelgen.torch.operator import rnn, step
from kernelgen.torch.recording import Recording, explain, recording

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Conversion",
    "DifferentiationError",
    "DoubleBackwardError",
    "ExportError",
    "FlashRNNConfig",
    "GRUCell",
    "GraphError",
    "LSTMCell",
    "RNNCell",
    "Recording",
    "convert",
    "double_backward",
    "explain",
    "flashrnn",
    "graphed",
    "recording",
    "register",
    "rnn",
    "step",
    "xlstm",
]


def __dir__() -> list[str]:
    """The public names; the modules that hold them are not."""
    return sorted([*__all__, "__doc__"])
