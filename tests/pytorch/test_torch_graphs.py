"""graphed(): values, gradients, memory and refusals, with a tape of PyTorch's calls in the place of CUDA graphs."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tape import TapeCapturer
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from kernelgen.torch import (
    GRU,
    LSTM,
    RNN,
    DoubleBackwardError,
    GraphError,
    LSTMCell,
    graph_capture,
    graphed,
    passes,
    rnn,
    sequences,
)
from kernelgen.torch.errors import ArgumentError, ArgumentTypeError

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("loops")]


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> TapeCapturer:
    made = TapeCapturer()
    monkeypatch.setattr(graph_capture, "CAPTURER", made)
    return made


def equal(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def pair(make: Callable[[], nn.Module], **options: Any) -> tuple[nn.Module, nn.Module]:
    """A graphed module and the same without."""
    torch.manual_seed(0)
    plain = make()
    return graphed(copy.deepcopy(plain), **options), plain


def twice(x: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(x.clone().requires_grad_() for _ in range(2))  # type: ignore[return-value]


MODULES: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: LSTM(5, 4, bidirectional=True),
    "projected": lambda: LSTM(5, 4, proj_size=3, dtype=torch.float64),
    "gru": lambda: GRU(5, 4, 2, batch_first=True, heads=2),
    "slstm": lambda: RNN(5, 4, cell="slstm"),
    "checkpoint": lambda: LSTM(5, 4, 2, checkpoint=2),
    "wavefront": lambda: LSTM(5, 4, 2, wavefront=2),
    "without a bias": lambda: RNN(5, 4, 2, bias=False),
}


@pytest.mark.parametrize("name", MODULES)
def test_training_is_the_same_bit_for_bit(tape: TapeCapturer, name: str) -> None:
    """Two shapes in turn, an optimizer's steps, gradients added up over two of them."""
    modules = pair(MODULES[name])
    steps = [torch.optim.SGD(one.parameters(), 0.1) for one in modules]
    for turn in range(5):
        for seq in (3, 5):
            xs = twice(torch.randn(seq, 2, 5, dtype=next(modules[0].parameters()).dtype))
            results = [module(x) for module, x in zip(modules, xs, strict=True)]
            equal(*results)
            for output, _ in results:
                output.square().sum().backward()
            equal(xs[0].grad, xs[1].grad)
            equal(*([one.grad for one in module.parameters()] for module in modules))
        for step in steps:
            step.step()
            if turn % 2:
                step.zero_grad()
    assert (tape.captures, tape.replays) == (4, 8 + 6)


def test_a_whole_model_and_a_cell(tape: TapeCapturer) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project, self.cell, self.readout = nn.Linear(5, 6), LSTMCell(6, 4), nn.Linear(4, 6)
            self.readout.weight = nn.Parameter(self.readout.weight)
            self.again = self.readout

        def forward(self, inputs: dict[str, Tensor], hx: Any = None) -> dict[str, Any]:
            hx = self.cell(self.project(inputs["x"]), hx)
            return {"readout": self.again(hx[0]), "hx": hx}

    modules = pair(Model)
    for turn in range(4):
        x = torch.randn(3, 5)
        results = []
        for module in modules:
            first = module({"x": x})
            second = module({"x": x}, first["hx"])
            second["readout"].square().sum().backward()
            results.append(second)
        equal(*results)
        equal(*([one.grad for one in module.parameters()] for module in modules))
        assert tape.captures == (4 if turn else 0)


def test_calls_whose_backward_passes_are_to_come_share_no_memory(tape: TapeCapturer) -> None:
    modules = pair(MODULES["lstm"], limit=3)
    for _ in range(3):
        xs = [torch.randn(3, 2, 5) for _ in range(4)]
        for module in modules:
            module.zero_grad()
            sum((k + 1) * module(x)[0].square().sum() for k, x in enumerate(xs)).backward()
        equal(*([one.grad for one in module.parameters()] for module in modules))
    assert tape.captures == 2 * 3  # no fourth graph


def test_a_graph_is_free_when_nobody_can_ask_for_its_backward_pass(tape: TapeCapturer) -> None:
    module, plain = pair(MODULES["lstm"], limit=3)
    x = torch.randn(3, 2, 5)
    for _ in range(5):
        output, _ = module(x)
    assert tape.captures == 2  # the result before is still there while the next one is made
    del output
    gc.collect()
    output, _ = module(x)
    output.sum().backward(retain_graph=True)
    output.square().sum().backward()
    wanted, _ = plain(x)
    (wanted.sum() + wanted.square().sum()).backward()
    torch.testing.assert_close([one.grad for one in module.parameters()], [one.grad for one in plain.parameters()])
    with pytest.raises(RuntimeError, match="second time"):
        output.sum().backward()


def test_gradients_of_any_results(tape: TapeCapturer) -> None:
    modules = pair(MODULES["lstm"])
    losses: list[Callable[..., Tensor]] = [
        lambda output, states: states[1].sum(),
        lambda output, states: output.sum(),
        lambda output, states: output.sum() + states[0].square().sum() + states[1].sum(),
    ]
    for _ in range(3):
        for loss in losses:
            x, hx = torch.randn(3, 2, 5), [torch.randn(2, 2, 4) for _ in range(2)]
            found = []
            for module in modules:
                given = [one.clone().requires_grad_() for one in hx]
                leaves = [*given, *module.parameters()]
                found.append(torch.autograd.grad(loss(*module(x, tuple(given))), leaves, allow_unused=True))
            equal(*found)
    assert tape.captures == 1 + 3


def test_frozen_parameters_and_moved_ones(tape: TapeCapturer) -> None:
    modules = pair(MODULES["lstm"])
    x = torch.randn(3, 2, 5)

    def same() -> None:
        for _ in range(3):
            results = [module(x)[0] for module in modules]
            equal(*results)
            if results[0].requires_grad:
                for module, output in zip(modules, results, strict=True):
                    module.zero_grad()
                    output.sum().backward()
                equal(*([one.grad for one in module.parameters()] for module in modules))

    same()
    for module in modules:
        module.weight_hh_l0.requires_grad_(False)
    same()
    for module in modules:
        module.weight_hh_l0.data = 2 * module.weight_hh_l0.data
    same()
    for module in modules:
        module.requires_grad_(False)
    same()
    assert tape.captures == 3 * 2 + 1


def test_no_gradients_autocast_and_training_state(tape: TapeCapturer) -> None:
    modules = pair(lambda: LSTM(5, 4, 2, dropout=0.5))
    x = torch.randn(3, 2, 5)
    modes = (torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16))
    for mode in modes:
        for training in (True, False):
            for _ in range(3):
                results = []
                for module in modules:
                    torch.manual_seed(1)
                    with mode():
                        results.append(module.train(training)(x))
                torch.testing.assert_close(*results)  # a sum's bits depend on how memory is aligned on some CPUs
                if results[0][0].requires_grad:
                    for module, (output, _) in zip(modules, results, strict=True):
                        module.zero_grad()
                        output.float().square().sum().backward()
                    gradients = ([one.grad for one in module.parameters()] for module in modules)
                    torch.testing.assert_close(*gradients, rtol=0.02, atol=1e-3)
    assert tape.captures == 2 + 2 + 4


def test_dropout_is_drawn_anew(tape: TapeCapturer) -> None:
    module, _ = pair(lambda: LSTM(5, 8, 2, dropout=0.5))
    x = torch.randn(3, 2, 5)
    outputs = [module(x)[0].detach() for _ in range(4)]
    assert tape.replays == 3
    assert not any(torch.equal(one, other) for one, other in itertools.pairwise(outputs))


def test_results_are_the_callers(tape: TapeCapturer) -> None:
    module, plain = pair(MODULES["lstm"])
    xs = [torch.randn(3, 2, 5) for _ in range(4)]
    with torch.no_grad():
        found = [module(x)[0] for x in xs]
        equal(found, [plain(x)[0] for x in xs])
    output, (h, _) = module(xs[0])
    output.mul_(2)
    h.zero_()
    output.sum().backward()


def test_what_autograd_refuses(tape: TapeCapturer) -> None:
    module, _ = pair(MODULES["lstm"])
    x = torch.randn(3, 2, 5, requires_grad=True)
    for _ in range(4):
        output = module(x)[0]
        (gradient,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
        with pytest.raises(DoubleBackwardError):
            gradient.sum().backward()
        output = module(x)[0]
        with torch.no_grad():
            module.weight_hh_l0.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()


def test_lengths_and_resets_are_read_anew(tape: TapeCapturer, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (sequences, passes):  # of lengths on a GPU nobody asks for values
        monkeypatch.setattr(place, "require_range", lambda *_: None)
    modules = pair(lambda: LSTM(5, 4, bidirectional=True))
    for _ in range(4):
        x, lengths, resets = torch.randn(6, 3, 5), torch.randint(0, 7, (3,)), torch.rand(3, 6) < 0.3
        equal(*(module(x, lengths=lengths, resets=resets) for module in modules))
    assert tape.captures == 1


def test_a_function_reads_parameters_where_they_lie(tape: TapeCapturer) -> None:
    r, b = nn.Parameter(torch.randn(4, 2, 3, 3)), nn.Parameter(torch.randn(4, 2, 3))
    fast = graphed(rnn)
    assert fast.__name__ == "rnn"
    for _ in range(4):
        wx = torch.randn(2, 4, 4, 2, 3, requires_grad=True)
        found = []
        for function in (fast, rnn):
            states, last = function(wx, r, b, cell="lstm", returns="hidden")
            found.append(torch.autograd.grad(states.sum() + last.sum(), (wx, r, b)))
        equal(*found)
        with torch.no_grad():
            r.mul_(0.9)
    assert tape.captures == 2


def test_graphs_called_the_longest_ago_are_dropped(tape: TapeCapturer) -> None:
    module, _ = pair(MODULES["lstm"], limit=2)
    with torch.no_grad():
        for seq in (1, 1, 2, 2, 1, 3, 3, 1, 1):
            module(torch.randn(seq, 2, 5))
        assert tape.captures == 3
        module(torch.randn(2, 2, 5))
        module(torch.randn(2, 2, 5))
    assert tape.captures == 4


def test_every_stream_has_graphs_of_its_own(tape: TapeCapturer) -> None:
    module, _ = pair(MODULES["lstm"])
    with torch.no_grad():
        for tape.current in (0, 0, 0, 1, 1, 1):
            module(torch.randn(2, 2, 5))
    assert (tape.captures, tape.replays) == (2, 4)


def test_nothing_is_captured_within_a_capture(tape: TapeCapturer) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = graphed(LSTM(5, 4))

        def forward(self, x: Tensor) -> Any:
            return self.inner(x)[0].square()

    modules = pair(Outer)
    for _ in range(4):
        x = torch.randn(3, 2, 5)
        equal(*(module(x) for module in modules))
    tape.busy = True
    equal(*(module(x) for module in modules))
    with graph_capture.BUSY:  # in another thread
        tape.busy = False
        modules[0](x[:2])
        equal(*(module(x[:2]) for module in modules))


def test_copies_and_files_of_modules(tape: TapeCapturer) -> None:
    module, plain = pair(MODULES["lstm"])
    assert module.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(3, 2, 5)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), copy.deepcopy(nn.Sequential(module))[0]):
        before = tape.captures
        with torch.no_grad():
            other.weight_ih_l0.zero_()
            for _ in range(3):
                found = other(x)[0]
            assert tape.captures == before + 1
            assert not torch.equal(found, module(x)[0])
            changed = copy.deepcopy(plain)
            changed.weight_ih_l0.zero_()
            equal(found, changed(x)[0])
    assert graphed(module, 0) is module
    assert "forward" not in vars(module)


def test_hooks_and_compiling(tape: TapeCapturer) -> None:
    module, plain = pair(lambda: RNN(5, 4))
    seen = []
    module.register_forward_hook(lambda *_: seen.append(1))
    x = torch.randn(3, 2, 5)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    for _ in range(3):
        module(x)
    assert len(seen) == 3
    before = tape.captures
    torch.testing.assert_close(compiled(x), plain(x))
    assert tape.captures == before
    found = torch.func.jvp(lambda one: module(one)[0], (x,), (x,))
    torch.testing.assert_close(found, torch.func.jvp(lambda one: plain(one)[0], (x,), (x,)))


def test_what_a_graph_would_repeat_is_refused(tape: TapeCapturer, monkeypatch: pytest.MonkeyPatch) -> None:
    module, plain = pair(MODULES["lstm"])
    with pytest.raises(GraphError, match="PackedSequence"):
        module(pack_sequence([torch.randn(3, 5), torch.randn(2, 5)]))
    with pytest.raises(GraphError, match="lengths in a list"):
        module(torch.randn(3, 2, 5), lengths=[3, 2])
    with pytest.raises(GraphError, match="lengths lies on the META"):
        module(torch.randn(3, 2, 5), lengths=torch.ones(2, device="meta"))
    asks = graphed(lambda x: x * x.sum().item())
    asks(torch.ones(2))
    with pytest.raises(GraphError, match=r"cannot be captured .* not permitted"):
        asks(torch.ones(2))
    with pytest.raises(GraphError, match="a set can change"):
        graphed(lambda x, names: x)(torch.ones(2), {"a"})
    with pytest.raises(ArgumentError, match="at least 0, not -1"):
        graphed(module, -1)
    with pytest.raises(ArgumentTypeError, match="not int"):
        graphed(3)  # type: ignore[type-var]
    plain.forward = plain.forward
    with pytest.raises(ArgumentError, match="somebody"):
        graphed(plain)


def test_on_a_cpu_all_runs_as_ever() -> None:
    module, plain = pair(MODULES["lstm"])
    packed = pack_sequence([torch.randn(3, 5), torch.randn(2, 5)])
    for x in (torch.randn(3, 2, 5), packed, packed):
        equal(module(x), plain(x))
    module(torch.randn(3, 2, 5))[0].sum().backward()
