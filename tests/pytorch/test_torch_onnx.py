"""torch.onnx.export of modules: ONNX's own nodes where it has them, else one loop; the numbers by onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import tree_leaves

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from kernelgen.torch import GRU, LSTM, RNN, ExportError, GRUCell, rnn  # noqa: E402

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Without what PyTorch's exporter says of packages that are not there."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


def exported(model: nn.Module, inputs: Sequence[Tensor], dynamic: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model.eval(), tuple(inputs), dynamic_shapes=dynamic, dynamo=True, verbose=False)
    assert program is not None
    return program.model_proto


def operators(model: Any) -> Counter[str]:
    """How often each operator that runs steps is in a model."""
    return Counter(node.op_type for node in model.graph.node if node.op_type in ("LSTM", "GRU", "RNN", "Scan", "Loop"))


def computed(model: Any, inputs: Sequence[Tensor]) -> list[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    found: list[Any] = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    return found


def agree(model: Any, module: nn.Module, inputs: Sequence[Tensor]) -> None:
    with torch.no_grad():
        wanted = tree_leaves(module(*inputs))
    for found, other in zip(computed(model, inputs), wanted, strict=True):
        torch.testing.assert_close(torch.from_numpy(found), other, rtol=1e-5, atol=1e-5)


B, T = Dim("B"), Dim("T")


@pytest.mark.parametrize(
    ("kind", "options", "operator"),
    [
        (LSTM, {"num_layers": 2, "bidirectional": True, "batch_first": True}, "LSTM"),
        (GRU, {"bias": False, "wavefront": 2, "num_layers": 2}, "GRU"),
        (RNN, {"nonlinearity": "relu", "bidirectional": True, "checkpoint": 2}, "RNN"),
    ],
)
def test_layers_are_standard_nodes(kind: Any, options: Mapping[str, Any], operator: str) -> None:
    torch.manual_seed(0)
    module = kind(3, 4, **options)
    model = exported(module, [torch.randn(2, 5, 3)], ({0: B, 1: T} if module.batch_first else {0: T, 1: B},))
    onnx.checker.check_model(model)
    assert operators(model) == {operator: module.num_layers}
    agree(model, module, [torch.randn(6, 7, 3)])


class Everything(nn.Module):
    """Layers with what a call can be given beside the input."""

    def __init__(self, layers: nn.Module, states: int) -> None:
        super().__init__()
        self.layers, self.states = layers, states

    def forward(self, x: Tensor, *others: Tensor) -> Any:
        hx, (lengths, *resets) = others[: self.states], others[self.states :]
        options = {"resets": resets[0]} if resets else {}
        return self.layers(x, hx if self.states > 1 else hx[0], lengths=lengths, **options)


def given(batch: int, seq: int, states: int, directions: int, resets: bool = False) -> list[Tensor]:
    lengths = torch.randint(1, seq + 1, (batch,))
    begun = [torch.rand(batch, seq) < 0.4] if resets else []
    return [torch.randn(seq, batch, 3), *torch.randn(states, directions, batch, 4), lengths, *begun]


DYNAMIC = ({0: T, 1: B}, {1: B}, {1: B}, {0: B})


def test_initial_states_and_lengths_are_inputs_of_the_node() -> None:
    torch.manual_seed(0)
    module = Everything(LSTM(3, 4, bidirectional=True), 2)
    model = exported(module, given(2, 5, 2, 2), (DYNAMIC[0], DYNAMIC[1:]))
    assert operators(model) == {"LSTM": 1}
    agree(model, module, given(4, 7, 2, 2))


@pytest.mark.parametrize(
    ("layers", "states"),
    [(RNN(3, 4, 2, cell="slstm", heads=2), 4), (LSTM(3, 4, bidirectional=True), 2)],
)
def test_other_cells_and_resets_are_one_loop_a_direction(layers: Any, states: int) -> None:
    torch.manual_seed(0)
    module = Everything(layers, states)
    count = layers.num_layers * (2 if layers.bidirectional else 1)
    dynamic = ({0: T, 1: B}, (*[{1: B}] * states, {0: B}, {0: B, 1: T}))
    model = exported(module, given(2, 5, states, count, True), dynamic)
    assert operators(model) == {"Scan": 2}
    agree(model, module, given(4, 7, states, count, True))


def test_a_projection_and_a_norm_are_loops_and_a_single_step_is_none() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.cell = LSTM(3, 4, proj_size=2), GRUCell(2, 5)
            self.normed = GRU(2, 2, layer_norm=True)
            self.r, self.b = nn.Parameter(torch.randn(1, 1, 5, 5)), nn.Parameter(torch.randn(1, 1, 5))

        def forward(self, x: Tensor) -> Any:
            output, _ = self.normed(self.layers(x)[0])
            wx = self.cell(output[0]).unsqueeze(1).expand(-1, 3, -1)[:, :, None, None]
            return output, rnn(wx, self.r, self.b, cell="elman")[0]

    torch.manual_seed(0)
    module = Model()
    model = exported(module, [torch.randn(5, 2, 3)], ({0: T, 1: B},))
    assert operators(model) == {"Scan": 3}, "of projected layers, of those with a layer norm, and of rnn()"
    agree(model, module, [torch.randn(7, 4, 3)])


def test_the_exporter_by_tracing_is_refused_in_words() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = LSTM(3, 4)

        def forward(self, x: Tensor) -> Any:
            return self.layers(x)[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ExportError, match="leave dynamo=False out"):
            torch.onnx.export(Model(), (torch.randn(5, 2, 3),), "/dev/null", dynamo=False)
