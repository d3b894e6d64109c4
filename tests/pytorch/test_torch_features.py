"""The modules in what else takes PyTorch's models: torch.fx, TorchScript, numbers of NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kernelgen.torch import LSTM, GRUCell, LSTMCell, convert  # noqa: E402
from kernelgen.torch.errors import ExportError  # noqa: E402

pytestmark = pytest.mark.unit


class Model(torch.nn.Module):  # type: ignore[misc]
    """A layer, a cell and what is traced around them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.cell = torch.nn.LSTM(3, 4, batch_first=True), torch.nn.GRUCell(4, 2)

    def forward(self, x: Any) -> Any:
        output, (h, _) = self.layers(x.relu())
        return self.cell(h[0]) + output[:, 0, :2]


def test_torch_fx_takes_a_module_for_one_node() -> None:
    model, x = Model(), torch.randn(5, 6, 3)
    expected = model(x)
    convert(model)
    traced = torch.fx.symbolic_trace(model)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["layers", "cell"]
    torch.testing.assert_close(traced(x), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("made", [lambda: LSTM(3, 4), lambda: torch.nn.Sequential(GRUCell(3, 4))])
def test_torch_jit_script_says_what_to_do_instead(made: Any) -> None:
    with pytest.raises(ExportError, match=r"torch\.jit\.trace"):
        torch.jit.script(made())


def test_sizes_may_be_numbers_of_numpys() -> None:
    module = LSTM(np.int64(3), np.int32(4), np.int64(2), dropout=np.float32(0.5), proj_size=np.int64(2))
    assert repr(module) == repr(torch.nn.LSTM(3, 4, 2, dropout=0.5, proj_size=2))
    assert type(module.hidden_size) is int
    assert repr(GRUCell(np.int64(3), np.int64(4))) == "GRUCell(3, 4)"


def test_a_cell_of_another_dtype_raises_what_torch_nn_raises() -> None:
    for module in (LSTMCell(3, 4), torch.nn.LSTMCell(3, 4)):
        with pytest.raises(RuntimeError, match="dtype"):
            module(torch.randn(2, 3).double())
