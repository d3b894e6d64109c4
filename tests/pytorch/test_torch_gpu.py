"""The PyTorch package on a GPU: kernels against the references, PyTorch's own checks, streams. Skipped without one."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from kernelgen.cells import cell_names, load_cell
from kernelgen.device import gpu
from kernelgen.program.dtypes import numpy_dtype, tolerance
from kernelgen.program.shape import Shape
from kernelgen.torch import (
    GRU,
    LSTM,
    RNN,
    FlashRNNConfig,
    GRUCell,
    LSTMCell,
    RNNCell,
    flashrnn,
    kernels,
    recording,
    reference,
    rnn,
    step,
)
from kernelgen.torch import operator as operators
from kernelgen.torch.sequences import NOTHING
from kernelgen.torch.xlstm import Settings, SLSTMCell
from kernelgen.verify import reference as numpy_reference
from kernelgen.verify.inputs import random_inputs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        gpu.why_no_gpu() is not None or not torch.cuda.is_available(), reason="needs a GPU and PyTorch for it"
    ),
]

OWN = str(Path(__file__).parents[2] / "examples" / "own_cell.py") + ":FASTGRNN"
NAMES = ("wx", "r", "b", "initial")


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A kernel that is missing is an error here, not a warning."""
    monkeypatch.setattr(kernels, "_warned", set())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=RuntimeWarning)
        yield


def tensors(cell: str, shape: Shape, dtype: torch.dtype | None = None, seed: int = 0) -> list[Tensor]:
    """wx, r, b and the initial states on the GPU, as leaves; values that 16 bits hold."""
    inputs = random_inputs(load_cell(cell), shape, seed)
    kind = dtype or getattr(torch, shape.dtype)
    return [torch.from_numpy(inputs[name].astype(np.float64)).to("cuda", kind).requires_grad_() for name in NAMES]


def seeds(*outputs: Tensor, h_alone: bool = False) -> list[Tensor]:
    """A gradient from outside for each output: of every state, or of h alone."""
    generator = torch.Generator("cuda").manual_seed(1)
    made = [2 * torch.rand(out.shape, generator=generator, device="cuda").to(out.dtype) - 1 for out in outputs]
    for gradient in made if h_alone else ():
        gradient[1:] = 0
    return made


def jumps(name: str) -> bool:
    """Whether gradients from outside of states but h jump: that of sLSTM's m goes to one of two gates, and a saved
    value rounded to 16 bits chooses the other one now and then. h does not depend on m, so with h alone all is smooth.
    """
    return name.startswith("slstm")


def error(made: Tensor, wanted: Any) -> float:
    """||made - wanted|| / ||wanted|| in float64."""
    wanted = wanted.detach().double().cpu().numpy() if isinstance(wanted, Tensor) else wanted
    return float(np.linalg.norm(made.detach().double().cpu().numpy() - wanted) / max(np.linalg.norm(wanted), 1e-30))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", [*cell_names(), pytest.param(OWN, id="own")])
def test_every_cell_agrees_with_the_float64_reference(name: str, dtype: str) -> None:
    cell, shape, kind = load_cell(name), Shape(5, 24, 3, 64, dtype), numpy_dtype(dtype)
    leaves = tensors(name, shape)
    states, last = rnn(*leaves, cell=name)
    given = seeds(states, last, h_alone=jumps(name))
    made = torch.autograd.grad((states, last), leaves, given)
    arrays = [leaf.detach().double().cpu().numpy() for leaf in leaves]
    terms = max(shape.batch * shape.seq, len(cell.recurrent_gates) * shape.head_dim)
    limit, derived = (tolerance(dtype, shape.seq, direction, terms) for direction in ("forward", "backward"))
    expected = numpy_reference.forward(cell, *arrays, round_h=kind)
    assert error(states, expected.states) <= limit
    assert error(last, expected.last) <= limit
    outside = [value.double().cpu().numpy() for value in given]
    passed = numpy_reference.backward(
        cell, *arrays, *outside, round_h=kind, round_saved=kind, round_d_gates=kind, result=expected
    )
    for gradient, field in zip(made, ("d_wx", "d_r", "d_b", "d_initial"), strict=True):
        assert error(gradient, getattr(passed, field)) <= max(2 * limit, derived), field


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lstm", Shape(16, 1024, 12, 64)),
        ("lstm", Shape(16, 1024, 24, 32)),
        ("slstm", Shape(16, 1024, 12, 64)),
        ("gru", Shape(16, 1024, 6, 128, "float16")),
    ],
    ids=str,
)
def test_gradients_at_full_size_are_right_and_the_same_every_time(name: str, shape: Shape) -> None:
    cell, kind = load_cell(name), numpy_dtype(shape.dtype)
    leaves = tensors(name, shape)
    states, last = rnn(*leaves, cell=name)
    given = seeds(states, last, h_alone=jumps(name))
    made = torch.autograd.grad((states, last), leaves, given)
    for _ in range(3):
        again = rnn(*leaves, cell=name)
        assert torch.equal(again[0], states)
        for first, second in zip(made, torch.autograd.grad(again, leaves, given), strict=True):
            assert torch.equal(first, second)
    arrays = [leaf.detach().double().cpu().numpy() for leaf in leaves]
    expected = numpy_reference.forward(cell, *arrays, round_h=kind)
    outside = [value.double().cpu().numpy() for value in given]
    passed = numpy_reference.backward(
        cell, *arrays, *outside, round_h=kind, round_saved=kind, round_d_gates=kind, result=expected
    )
    limit = tolerance(shape.dtype, shape.seq)
    found = {"states": error(states, expected.states)}
    for gradient, field in zip(made, ("d_wx", "d_r", "d_b", "d_initial"), strict=True):
        found[field] = error(gradient, getattr(passed, field))
    print(name, shape, {field: f"{value:.1e}" for field, value in found.items()})
    assert found["states"] <= limit
    assert max(found.values()) <= 2 * limit


@pytest.mark.parametrize("name", ["lstm", "gru", "slstm"])
def test_h_alone_and_gates_computed_again(name: str) -> None:
    leaves = tensors(name, Shape(5, 200, 3, 64))
    states, last = rnn(*leaves, cell=name)
    d_h, d_last = seeds(states[0], last)
    d_last[1:] = 0
    given = [d_h, d_last]
    wanted = torch.autograd.grad((states[0], last), leaves, given)
    for recompute in (False, True):
        made, end = rnn(*leaves, cell=name, returns="hidden", recompute=recompute)
        assert torch.equal(made[0], states[0])
        for gradient, other in zip(torch.autograd.grad((made[0], end), leaves, given), wanted, strict=True):
            assert error(gradient, other) <= (0.02 if recompute else 0.001)


@pytest.mark.parametrize(("cut", "clip"), [(True, None), (False, 0.02), (True, 0.02)])
def test_the_recurrent_gradient_can_be_cut_and_clipped(cut: bool, clip: float | None) -> None:
    leaves = tensors("gru", Shape(5, 24, 2, 32))
    states, last = rnn(*leaves, cell="gru", recurrent_cut=cut, recurrent_clip=clip)
    given = seeds(states, last)
    made = torch.autograd.grad((states, last), leaves, given)
    arrays = [value.detach().double().cpu().numpy() for value in (*leaves, *given)]
    kind = numpy_dtype("bfloat16")
    passed = numpy_reference.backward(
        load_cell("gru").with_gradient(recurrent_cut=cut, recurrent_clip=clip),
        *arrays,
        round_h=kind,
        round_saved=kind,
        round_d_gates=kind,
    )
    for gradient, field in zip(made, ("d_wx", "d_r", "d_b", "d_initial"), strict=True):
        assert error(gradient, getattr(passed, field)) <= 2 * tolerance("bfloat16", 24), field


def test_opcheck() -> None:
    leaves = tensors("lstm", Shape(3, 4, 2, 32))
    for start in (leaves[3], None):
        for keep in ("gates", "states"):
            given = (*leaves[:3], start, *NOTHING, "lstm", True, keep, False, None)
            torch.library.opcheck(operators._forward, given, atol=1e-2, rtol=1e-2)
    plain = [leaf.detach() for leaf in leaves]
    states, last, others, gates = operators._forward(*plain, *NOTHING, "lstm", True, "gates", False, None)
    saved = (plain[1], plain[2], plain[3], states, others)
    for source in ((gates, None), (None, plain[0])):
        for outside in ((torch.ones_like(states), None), (None, torch.ones_like(last))):
            torch.library.opcheck(operators._backward, (*saved, *source, *NOTHING, *outside, "lstm", False, None))


@pytest.mark.parametrize("cell", ["lstm", OWN])
def test_compile_in_one_graph(cell: str) -> None:
    shape = Shape(4, 16, 2, 64)

    def model(wx: Tensor, r: Tensor, b: Tensor, initial: Tensor) -> Tensor:
        states, last = rnn(torch.tanh(wx), r, b, initial, cell)
        return states.float().square().mean() + last.float().sum()

    leaves = tensors(cell, shape)
    made = torch.autograd.grad(torch.compile(model, fullgraph=True)(*leaves), leaves)
    for gradient, other in zip(made, torch.autograd.grad(model(*leaves), leaves), strict=True):
        torch.testing.assert_close(gradient, other, rtol=2e-2, atol=1e-3)


def test_autocast_runs_kernels() -> None:
    leaves = tensors("lstm", Shape(4, 16, 2, 64), torch.float32)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        states, _ = rnn(*leaves)
    assert states.dtype is torch.bfloat16
    expected, _ = rnn(*(leaf.to(torch.bfloat16) for leaf in leaves))
    assert torch.equal(states, expected)
    made = torch.autograd.grad(states.float().sum(), leaves)
    assert all(gradient.dtype is torch.float32 for gradient in made)


@pytest.mark.parametrize(
    ("allowed", "least", "most"), [(False, 0.0, 1e-6), (True, 1e-5, 1e-3)], ids=["float32", "TF32"]
)
def test_float32_products_are_what_pytorchs_switch_says(
    monkeypatch: pytest.MonkeyPatch, allowed: bool, least: float, most: float
) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", allowed)
    cell, leaves = load_cell("lstm"), tensors("lstm", Shape(16, 64, 1, 768, "float32"))
    states, last = rnn(*leaves)
    given = seeds(states, last)
    made = torch.autograd.grad((states, last), leaves, given)
    arrays = [leaf.detach().double().cpu().numpy() for leaf in leaves]
    outside = [value.double().cpu().numpy() for value in given]
    expected = numpy_reference.forward(cell, *arrays)
    passed = numpy_reference.backward(cell, *arrays, *outside, result=expected)
    assert least <= error(states, expected.states) <= most
    for gradient, field in zip(made, ("d_wx", "d_r", "d_b", "d_initial"), strict=True):
        assert gradient.dtype is torch.float32
        assert error(gradient, getattr(passed, field)) <= 2 * most, field


@pytest.mark.parametrize(("heads", "dim"), [(12, 64), (1, 768)])
def test_float32_parameters_of_16_bit_kernels_get_sums_that_are_not_rounded(heads: int, dim: int) -> None:
    narrow = [leaf.detach() for leaf in tensors("lstm", Shape(16, 32, heads, dim))]
    wide = [narrow[0].clone().requires_grad_(), *(leaf.float().requires_grad_() for leaf in narrow[1:])]
    leaves = [leaf.requires_grad_() for leaf in narrow]
    exact = torch.autograd.grad(rnn(*wide)[0].float().sum(), wide)
    for rounded, gradient in zip(torch.autograd.grad(rnn(*leaves)[0].float().sum(), leaves), exact, strict=True):
        assert torch.equal(rounded, gradient.to(torch.bfloat16))
    assert exact[1].dtype is exact[2].dtype is torch.float32
    assert not torch.equal(exact[1], exact[1].to(torch.bfloat16).float())


def test_kernels_run_on_the_current_stream_and_in_a_graph() -> None:
    shape = Shape(16, 512, 12, 64)
    wx, r, b, _ = (leaf.detach() for leaf in tensors("lstm", shape))
    expected, _ = rnn(wx, r, b)
    stream, late = torch.cuda.Stream(), torch.zeros_like(wx)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late.copy_(wx)
        states, _ = rnn(late, r, b)
    stream.synchronize()
    assert torch.equal(states, expected)
    late.zero_()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        states, _ = rnn(late, r, b)
    late.copy_(wx)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(states, expected)


@pytest.mark.parametrize(("ours", "theirs"), [(LSTM, torch.nn.LSTM), (GRU, torch.nn.GRU)], ids=["lstm", "gru"])
def test_modules_agree_with_torch_nn(ours: Any, theirs: Any) -> None:
    torch.manual_seed(0)
    peer = theirs(40, 64, 2, batch_first=True).cuda()
    module = ours(40, 64, 2, batch_first=True).cuda()
    module.load_state_dict(peer.state_dict())
    x, peer = torch.randn(5, 30, 40, device="cuda"), copy.deepcopy(peer).double()
    assert error(module(x)[0], peer(x.double())[0]) < 1e-6
    module = module.to(torch.bfloat16)
    made, wanted = module(x.to(torch.bfloat16))[0], peer(x.double())[0]
    assert error(made, wanted) < 0.03
    made.float().square().mean().backward()
    wanted.square().mean().backward()
    for (name, parameter), other in zip(module.named_parameters(), peer.parameters(), strict=True):
        assert error(parameter.grad, other.grad) < 0.06, name


@pytest.mark.parametrize("form", ["batch", "packed"])
@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (LSTM, torch.nn.LSTM, {"bidirectional": True, "num_layers": 2}),
        (LSTM, torch.nn.LSTM, {"proj_size": 32, "bidirectional": True}),
        (GRU, torch.nn.GRU, {"bidirectional": True, "batch_first": True, "bias": False}),
        (RNN, torch.nn.RNN, {"nonlinearity": "relu"}),
    ],
    ids=["lstm", "projected", "gru", "rnn"],
)
def test_modules_with_every_option_agree_with_torch_nn(
    ours: Any, theirs: Any, options: dict[str, Any], form: str
) -> None:
    torch.manual_seed(0)
    peer = theirs(40, 64, **options).double()  # on the CPU
    x = torch.randn(5, 30, 40) if options.get("batch_first") else torch.randn(30, 5, 40)
    lengths = [30, 2, 17, 30, 9]

    def run(module: Any) -> list[Tensor]:
        given: Any = x.to(next(module.parameters()))
        if form == "packed":
            first = options.get("batch_first", False)
            given = pack_padded_sequence(given, torch.tensor(lengths), batch_first=first, enforce_sorted=False)
        output, last = module(given)
        return [output.data if form == "packed" else output, *(last if isinstance(last, tuple) else [last])]

    wanted = run(peer)
    sum(one.square().mean() for one in wanted).backward()
    for limits in ({}, {"checkpoint": 8}):
        module = ours(40, 64, **options, **limits).to("cuda", torch.bfloat16)
        module.load_state_dict(peer.state_dict())
        made = run(module)
        for result, expected in zip(made, wanted, strict=True):
            assert error(result, expected) < 0.03
        sum(one.float().square().mean() for one in made).backward()
        for (name, parameter), other in zip(module.named_parameters(), peer.parameters(), strict=True):
            assert error(parameter.grad, other.grad) < 0.06, (name, limits)


@pytest.mark.parametrize(("name", "heads", "dim"), [("lstm", 12, 64), ("slstm", 3, 256), ("gru", 1, 768)])
def test_a_checkpointed_pass_is_near_a_whole_one(name: str, heads: int, dim: int) -> None:
    leaves = tensors(name, Shape(16, 200, heads, dim))
    whole = rnn(*leaves, cell=name, returns="hidden")
    given = seeds(*whole)
    given[1][1:] = 0
    wanted = torch.autograd.grad(whole, leaves, given)
    made = rnn(*leaves, cell=name, returns="hidden", checkpoint=64)
    for result, other in zip(made, whole, strict=True):
        assert error(result, other) < 0.01
    for gradient, other in zip(torch.autograd.grad(made, leaves, given), wanted, strict=True):
        assert error(gradient, other) < 0.03


def test_checkpoints_take_less_memory() -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 4096, 256, device="cuda", dtype=torch.bfloat16)
    outside = torch.ones_like(x)
    kept, most = [], []
    for limits in ({}, {"checkpoint": 128}, {"memory_limit": "100MB"}):
        module = LSTM(256, 256, 2, batch_first=True, **limits).to("cuda", torch.bfloat16)
        module(x)[0].backward(outside)  # compiles, and makes the gradients of the parameters
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        output = module(x)[0]
        kept.append(torch.cuda.memory_allocated() - before)
        output.backward(outside)
        torch.cuda.synchronize()
        most.append(torch.cuda.max_memory_allocated() - before)
    print([f"{one / 1e6:.0f} MB" for one in (*kept, *most)])
    hidden = x.numel() * 2  # bytes of h of a layer; c and four gates are kept beside it
    assert kept[0] > 2 * 5 * hidden
    assert max(kept[1:]) < 3 * hidden
    assert max(most[1:]) < 0.7 * most[0]


@pytest.mark.parametrize(("kind", "units", "batch"), [(LSTM, 128, 64), (LSTM, 64, 16), (GRU, 256, 3)])
def test_layers_in_waves_are_right_on_any_stream_and_in_a_graph(kind: Any, units: int, batch: int) -> None:
    """Lanes begin when the stream's work before them has ended, and end before its work after them."""
    torch.manual_seed(0)
    module = kind(units, units, 4, wavefront=32, device="cuda", dtype=torch.bfloat16)
    peer = getattr(torch.nn, kind.__name__)(units, units, 4).cuda().double()
    peer.load_state_dict(module.state_dict())
    x = torch.randn(300, batch, units, device="cuda", dtype=torch.bfloat16)
    given, late = torch.randn_like(x), torch.zeros_like(x, requires_grad=True)
    parameters = list(module.parameters())

    def step() -> list[Tensor]:
        output = module(late)[0]
        return [output.detach(), *torch.autograd.grad(output, [late, *parameters], given)]

    step()
    assert any(any(one.in_waves.values()) for one in module._stacks.values())
    wide = x.double().requires_grad_()
    output = peer(wide)[0]
    wanted = [output, *torch.autograd.grad(output, [wide, *peer.parameters()], given.double())]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        with torch.no_grad():
            late.copy_(x)
        found = step()
        copies = [one.clone() for one in found]
        del found  # its memory is the next one's
        again = step()
    stream.synchronize()
    for made, other, want in zip(copies, again, wanted, strict=True):
        assert torch.equal(made, other)
        assert error(made, want) < 2e-2
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        late.zero_()
        late.copy_(x)
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(made, other) for made, other in zip(captured, copies, strict=True))


@pytest.mark.parametrize("batch", [1, 3, 64, 4096])
@pytest.mark.parametrize(("name", "heads", "dim"), [("lstm", 1, 256), ("gru", 4, 128)])
def test_a_step_is_right_at_every_batch_and_in_a_graph(name: str, heads: int, dim: int, batch: int) -> None:
    wx, r, b, states = (leaf.detach() for leaf in tensors(name, Shape(batch, 2, heads, dim)))
    expected = reference.forward(load_cell(name), wx.float(), r.float(), b.float(), states.float())[1]
    one, other = states.clone(), torch.empty_like(states)
    step(wx[:, 0], r, b, one, name, out=other)  # compiles
    token = wx[:, 0].clone()
    one.copy_(states)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(token, r, b, one, name, out=other)
        one.copy_(other)
    for t in range(2):
        token.copy_(wx[:, t])
        graph.replay()
    assert error(one, expected) < 0.01
    inplace = states.clone()
    for t in range(2):
        step(wx[:, t], r, b, inplace, name, out=inplace)
    assert torch.equal(inplace, one)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(LSTMCell, torch.nn.LSTMCell), (GRUCell, torch.nn.GRUCell), (RNNCell, torch.nn.RNNCell)]
)
def test_cells_agree_with_torch_nn(ours: Any, theirs: Any) -> None:
    torch.manual_seed(0)
    peer = theirs(40, 64).double()  # on the CPU
    module = ours(40, 64).to("cuda", torch.bfloat16)
    module.load_state_dict(peer.state_dict())
    state, wanted = None, None
    for one in torch.randn(5, 7, 40, dtype=torch.float64):
        state, wanted = module(one.to("cuda", torch.bfloat16), state), peer(one, wanted)
    state, wanted = (torch.stack(s) if isinstance(s, tuple) else s for s in (state, wanted))
    assert error(state, wanted) < 0.03
    state.float().square().mean().backward()
    wanted.square().mean().backward()
    for (name, parameter), other in zip(module.named_parameters(), peer.parameters(), strict=True):
        assert error(parameter.grad, other.grad) < 0.06, name


@pytest.mark.parametrize("name", ["lstm", "gru", "slstm"])
def test_forward_mode_and_torch_func_agree_with_kernels(name: str) -> None:
    leaves = tensors(name, Shape(3, 12, 2, 32))
    results = rnn(*leaves, cell=name, returns="hidden")
    weights, tangents = seeds(*results), seeds(*leaves)
    weights[1][1:] = 0
    gradients = torch.autograd.grad(results, leaves, weights)
    wanted = sum((a.double() * b.double()).sum() for a, b in zip(gradients, tangents, strict=True))
    plain = tuple(leaf.detach() for leaf in leaves)

    def run(*inputs: Tensor) -> Any:
        return rnn(*inputs, cell=name, returns="hidden")

    with pytest.warns(RuntimeWarning, match="kernels know nothing of forward mode"):
        made = torch.func.jvp(run, plain, tuple(tangents))[1]
    found = sum((a.double() * b.double()).sum() for a, b in zip(made, weights, strict=True))
    scale = sum((a.double() * b.double()).abs().sum() for a, b in zip(gradients, tangents, strict=True))
    assert abs(float(found - wanted)) < 0.02 * float(scale)
    slope = torch.func.grad(lambda w: run(w, *plain[1:])[0].float().square().sum())(plain[0])
    (by_kernels,) = torch.autograd.grad(rnn(*leaves, cell=name)[0][0].float().square().sum(), leaves[0])
    assert error(slope, by_kernels) < 0.03


def test_flashrnn_runs_kernels() -> None:
    wx, r, b, initial = tensors("gru", Shape(4, 16, 2, 64), torch.float32)
    states, _ = flashrnn(wx, r[[1, 2, 0]], b[[1, 2, 3, 0]] * 0, initial.unsqueeze(2), function="gru")
    plain = flashrnn(wx, r[[1, 2, 0]], b[[1, 2, 3, 0]] * 0, initial.unsqueeze(2), function="gru", backend="vanilla")[0]
    assert error(states, plain) < 0.01


def test_doubles_run_in_kernels() -> None:
    leaves = tensors("lstm", Shape(2, 6, 1, 32), torch.float64)
    with recording() as seen:
        states, _ = rnn(*leaves)
    assert "PyTorch ran it" not in seen.explain()
    assert error(states, reference.forward(load_cell("lstm"), *leaves)[0]) < 1e-12


@pytest.mark.parametrize(
    ("cell", "shape"),
    [
        ("lstm", Shape(9, 40, 3, 64)),
        ("gru", Shape(9, 40, 2, 128)),
        ("slstm", Shape(70, 33, 2, 32, "float16")),
        ("lstm", Shape(5, 24, 1, 256)),
        ("gru", Shape(5, 24, 1, 768)),
    ],
)
def test_resets_and_lengths(cell: str, shape: Shape) -> None:
    """Against the loop of the CPU in float64; what stands behind the ends is NaN."""
    random = np.random.default_rng(0)
    resets = torch.from_numpy(random.random((shape.batch, shape.seq)) < 0.1)
    lengths = torch.from_numpy(random.integers(0, shape.seq + 1, shape.batch))
    behind = torch.arange(shape.seq) >= lengths.unsqueeze(1)
    for own in ({"resets": resets}, {"lengths": lengths}, {"resets": resets, "lengths": lengths}):
        leaves = tensors(cell, shape)
        exact = [leaf.detach().double().cpu().requires_grad_() for leaf in leaves]
        if "lengths" in own:
            with torch.no_grad():
                leaves[0][behind.cuda()] = torch.nan
        for returns in ("states", "hidden"):
            made = rnn(*leaves, cell=cell, returns=returns, **{name: each.cuda() for name, each in own.items()})
            right = rnn(*exact, cell=cell, returns=returns, **own)
            outside = seeds(*made, h_alone=cell == "slstm")
            gradients = torch.autograd.grad(made, leaves, outside)
            expected = torch.autograd.grad(right, exact, [each.double().cpu() for each in outside])
            for one, other in zip((*made, *gradients), (*right, *expected), strict=True):
                error = float((one.double().cpu() - other).norm() / other.norm())
                assert error < (4e-2 if shape.dtype == "bfloat16" else 6e-3), (returns, sorted(own), error)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_xlstms_cell_runs_kernels(dtype: torch.dtype) -> None:
    exact = SLSTMCell(Settings(128, 2, backend="vanilla", recurrent_weight_init="standard")).double()
    ours = copy.deepcopy(exact).float().cuda()
    x, weights = torch.randn(5, 24, 4 * 128).double(), torch.randn(5, 2, 24, 64).double()
    with torch.autocast("cuda", dtype, enabled=dtype is not torch.float32):
        found = ours(x.float().cuda())[0]
    wanted = exact(x)[0]
    made = torch.autograd.grad((found.float() * weights.float().cuda()).sum(), list(ours.parameters()))
    expected = torch.autograd.grad((wanted * weights).sum(), list(exact.parameters()))
    for one, other in zip((found, *made), (wanted, *expected), strict=True):
        assert error(one, other) < (1e-5 if dtype is torch.float32 else 2e-2)


def test_flashrnn_takes_its_layouts_and_dtypes_to_kernels() -> None:
    wx, r, b, initial = tensors("slstm", Shape(4, 16, 2, 64), torch.float32)
    config = FlashRNNConfig(
        function="slstm", recurrent_shape="HPGD", bias_shape="HGD", input_shape="TBGHD", output_shape="STBHD",
        dtype_b="float32",
    )  # fmt: skip
    turned = wx.transpose(0, 1), r.permute(1, 3, 0, 2), b.transpose(0, 1), initial.unsqueeze(1)
    states, _ = flashrnn(*turned, config=config)
    assert states.dtype is torch.bfloat16
    plain = flashrnn(wx, r, b, initial.unsqueeze(2), function="slstm", backend="vanilla")[0]
    assert error(states.transpose(1, 2), plain) < 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("kind", "options", "batch", "seq"),
    [
        (LSTM, {"num_layers": 2}, 16, 16),
        (LSTM, {"num_layers": 3, "batch_first": True, "heads": 2}, 5, 33),
        (GRU, {"num_layers": 2}, 16, 16),
        (RNN, {"cell": "slstm", "batch_first": True}, 70, 7),
        (LSTM, {}, 400, 9),
        (LSTM, {"num_layers": 2, "bidirectional": True}, 16, 16),
        (LSTM, {"num_layers": 3, "batch_first": True, "heads": 2, "bidirectional": True}, 5, 33),
        (GRU, {"num_layers": 2, "bidirectional": True}, 7, 9),
        (RNN, {"cell": "slstm", "batch_first": True, "bidirectional": True}, 16, 1),
    ],
)
def test_a_whole_pass_is_one_chain(kind: Any, options: Any, batch: int, seq: int, dtype: torch.dtype) -> None:
    """Against float64 on the CPU, with initial states; and that it is one."""
    torch.manual_seed(3)
    exact = kind(96, 128, **options).to(dtype).double()
    ours = copy.deepcopy(exact).to(dtype).cuda()
    x = torch.randn(*((batch, seq) if exact.batch_first else (seq, batch)), 96).to(dtype)
    count = len(exact._parts.states)
    units = exact.num_layers * (1 + exact.bidirectional)
    starts = [(torch.randn(units, batch, 128) / 2).to(dtype) for _ in range(count)]
    found = []
    for module, place, work in ((exact, "cpu", torch.float64), (ours, "cuda", dtype)):
        leaves = [each.detach().to(place, work).requires_grad_() for each in (x, *starts)]
        output, last = module(leaves[0], tuple(leaves[1:]) if count > 1 else leaves[1])
        results = [output, *((last,) if torch.is_tensor(last) else last)][: None if kind is not RNN else 2]
        generator = torch.Generator().manual_seed(4)
        weights = [torch.randn(each.shape, generator=generator).to(place, work) for each in results]
        found.append([*results, *torch.autograd.grad(results, [*leaves, *module.parameters()], weights)])
        with torch.no_grad():
            again, _ = module(leaves[0], tuple(leaves[1:]) if count > 1 else leaves[1])
        # another tiling adds in another order
        assert error(again, output) < {torch.float16: 3e-4, torch.bfloat16: 3e-3, torch.float32: 1e-6}[dtype]
    plans = [each for stack in ours._stacks.values() for each in stack.plans.values()]
    assert plans
    assert all(each is not None and each.whole is not None for each in plans)
    limit = {torch.float16: 8e-3, torch.bfloat16: 5e-2, torch.float32: 2e-5}[dtype]
    for wanted, made in zip(*found, strict=True):
        assert error(made.double().cpu(), wanted) < limit
