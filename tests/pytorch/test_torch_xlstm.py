"""xLSTM's and TiRex's sLSTM cells, replaced: against stand-ins written from the equations, and xlstm where it is."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cell_formulas import run as by_hand
from torch import Tensor, nn

from kernelgen.cells import load_cell
from kernelgen.torch import rnn, xlstm
from kernelgen.torch.xlstm import SLSTMCell

pytestmark = pytest.mark.unit

HEADS, DIM, BATCH, SEQ = 2, 4, 3, 5
HIDDEN = HEADS * DIM


def config_of(**changes: Any) -> SimpleNamespace:
    """A configuration with the fields of xLSTM's that a cell reads."""
    fields: dict[str, Any] = {
        "hidden_size": HIDDEN, "num_heads": HEADS, "backend": "vanilla", "function": "slstm",
        "bias_init": "powerlaw_blockdependent", "recurrent_weight_init": "zeros", "_block_idx": 1, "_num_blocks": 3,
        "gradient_recurrent_cut": False, "gradient_recurrent_clipval": None, "forward_clipval": None,
        "input_shape": "BSGNH", "output_shape": "BNSH", "constants": {}, "dtype": "bfloat16", "dtype_b": "float32",
        "dtype_r": "bfloat16", "dtype_w": "bfloat16", "dtype_g": "bfloat16", "dtype_s": "bfloat16",
        "dtype_a": "float32", "enable_automatic_mixed_precision": True,
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **changes})


class sLSTMCell(nn.Module):
    """What xLSTM's cell does, with the parameters of one of its backends."""

    def __init__(self, config: SimpleNamespace, layout: str = "vanilla") -> None:
        super().__init__()
        self.config, self.layout = config, layout
        weights, bias = 0.5 * torch.randn(HEADS, DIM, 4, DIM), torch.randn(HEADS, 4, DIM)  # [H, P, G, D], [H, G, D]
        if layout == "vanilla":
            weights, bias = weights.permute(0, 2, 3, 1), bias.transpose(0, 1)
        rows = (DIM, 4 * DIM) if layout == "cuda" else (4 * DIM, DIM)
        self._recurrent_kernel_ = nn.Parameter(weights.reshape(HEADS, *rows))
        self._bias_ = nn.Parameter(bias.reshape(-1))

    def parts(self) -> tuple[Tensor, Tensor]:
        """R [G, H, D, P] and b [G, H, D]."""
        if self.layout == "vanilla":
            weights = self._recurrent_kernel_.view(HEADS, 4, DIM, DIM).transpose(0, 1)
            return weights, self._bias_.view(4, HEADS, DIM)
        weights = self._recurrent_kernel_.view(HEADS, DIM, 4, DIM).permute(2, 0, 3, 1)
        return weights, self._bias_.view(HEADS, 4, DIM).transpose(0, 1)

    def forward(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        count = 4 if getattr(self.config, "function", "slstm") == "slstm" else 2
        x = input if getattr(self.config, "input_shape", "BSGNH") == "BSGNH" else input.transpose(0, 1)
        wx = x.unflatten(2, (4, HEADS, DIM))
        begun = x.new_zeros(count, x.shape[0], HIDDEN) if state is None else state
        cell = load_cell("slstm_xlstm" if count == 4 else "lstm")
        states = by_hand(cell, wx, *self.parts(), begun.unflatten(2, (HEADS, DIM)))  # [S, B, T, H, D]
        order = getattr(self.config, "output_shape", "BNSH")
        h = states[0].permute(["BSNH".index(axis) for axis in (order if "N" in order else order[:2] + "NH")])
        return h if "N" in order else h.flatten(2), states[:, :, -1].flatten(2)


class Model(nn.Module):
    """A projection to the gates and a cell, as a layer has them."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.project = nn.Linear(6, 4 * HIDDEN)
        self.slstm_cell = cell

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.slstm_cell(self.project(x), state=state)  # type: ignore[no-any-return]


def pair(config: SimpleNamespace, layout: str = "vanilla") -> tuple[Model, Model]:
    """A model, and a copy of it that was converted."""
    torch.manual_seed(5)
    theirs = Model(sLSTMCell(config, layout))
    ours = copy.deepcopy(theirs)
    done = xlstm.convert(ours)
    assert str(done) == "slstm_cell: replaced by kernelgen.torch.xlstm.SLSTMCell"
    return theirs, ours


def begun(count: int = 4) -> Tensor:
    """States in which n is smaller than 1, so that its bound would show."""
    states = torch.randn(count, BATCH, HIDDEN, generator=torch.Generator().manual_seed(3))
    states[2:3] = 0.1 + 0.2 * states[2:3].abs()
    return states


def weighted(*values: Tensor) -> Tensor:
    """A loss in which every element counts differently."""
    return sum((value * torch.arange(value.numel()).cos().view(value.shape)).sum() for value in values)  # type: ignore[return-value]


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("layout", ["vanilla", "cuda"])
@pytest.mark.parametrize(
    ("function", "inputs", "outputs"),
    [("slstm", "BSGNH", "BNSH"), ("slstm", "SBGNH", "SBNH"), ("lstm", "BSGNH", "BSH"), ("slstm", "SBGNH", "SBH")],
)
def test_a_converted_model_computes_the_same(
    function: str, inputs: str, outputs: str, layout: str, with_state: bool
) -> None:
    theirs, ours = pair(config_of(function=function, input_shape=inputs, output_shape=outputs), layout)
    x = torch.randn(*((BATCH, SEQ) if inputs == "BSGNH" else (SEQ, BATCH)), 6)
    state = begun(4 if function == "slstm" else 2) if with_state else None
    found, wanted = ours(x, state), theirs(x, state)
    for value, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(value, other)
    made = torch.autograd.grad(weighted(*found), list(ours.parameters()))
    expected = torch.autograd.grad(weighted(*wanted), list(theirs.parameters()))
    for gradient, other in zip(made, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-4)
    if with_state and function == "slstm":  # the cell that holds n at 1 is another one
        cell = theirs.slstm_cell
        wx = theirs.project(x if inputs == "BSGNH" else x.transpose(0, 1)).unflatten(2, (4, HEADS, DIM))
        held = rnn(wx, *cell.parts(), state.unflatten(2, (HEADS, DIM)), "slstm")[1]  # type: ignore[union-attr]
        assert float((held.flatten(2) - wanted[1])[2].detach().abs().max()) > 0.05


def test_parameters_stay_and_training_goes_on() -> None:
    theirs, ours = pair(config_of())
    cell = ours.slstm_cell
    assert isinstance(cell, SLSTMCell)
    assert dict(ours.named_parameters()).keys() == dict(theirs.named_parameters()).keys()
    torch.manual_seed(1)
    model = Model(sLSTMCell(config_of()))
    kept = dict(model.named_parameters())
    optimizers = [torch.optim.Adam(one.parameters(), 0.01) for one in (model, theirs)]
    theirs.load_state_dict(model.state_dict())
    xlstm.convert(model.eval())
    assert not model.slstm_cell.training
    assert all(one is kept[name] for name, one in model.named_parameters())
    for _ in range(3):
        x = torch.randn(BATCH, SEQ, 6)
        losses = []
        for one, optimizer in zip((model, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            losses.append(weighted(*one(x)))
            losses[-1].backward()
            optimizer.step()
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)


def test_one_step_at_a_time() -> None:
    _, ours = pair(config_of())
    x, cell = torch.randn(BATCH, SEQ, 4 * HIDDEN), ours.slstm_cell
    with torch.no_grad():
        whole, last = cell(x)
        state = None
        for t in range(SEQ):
            h, state = cell.step(x[:, t : t + 1], state)
            torch.testing.assert_close(h[:, :, 0], whole[:, :, t])
        torch.testing.assert_close(state, last)
        shorter, ends = cell(x, lengths=torch.tensor([5, 2, 3]))
    assert not shorter[1, :, 2:].any()
    torch.testing.assert_close(ends[0, 1].view(HEADS, DIM), whole[1, :, 1])


@pytest.mark.parametrize("layout", ["vanilla", "cuda"])
def test_checkpoints_of_both_layouts_load(layout: str) -> None:
    _, ours = pair(config_of(), layout)
    other = sLSTMCell(config_of(), "cuda" if layout == "vanilla" else "vanilla")
    x = torch.randn(BATCH, SEQ, 4 * HIDDEN)
    for source in (other, sLSTMCell(config_of(), layout)):
        state = source.state_dict()
        kept = copy.deepcopy(state)
        ours.slstm_cell.load_state_dict(state)
        torch.testing.assert_close(ours.slstm_cell(x), source(x))
        assert all(torch.equal(state[name], value) for name, value in kept.items())
    with pytest.raises(RuntimeError, match="size mismatch"):
        ours.slstm_cell.load_state_dict({"_recurrent_kernel_": torch.zeros(2, 3, 4), "_bias_": torch.zeros(32)})


def test_dtypes_are_those_of_the_backend() -> None:
    x = torch.randn(BATCH, SEQ, 6)
    for fields, bound in [
        ({"backend": "cuda"}, 2e-2), ({"backend": "cuda", "dtype_s": "float32"}, 4e-3),
        ({"backend": "cuda", "dtype": "float32", "dtype_r": "float32", "dtype_w": "float32"}, 1e-5),
    ]:  # fmt: skip
        theirs, ours = pair(config_of(**fields), "cuda")
        wanted, found = theirs(x), ours(x)
        assert all(value.dtype is torch.float32 for value in found)
        error = (found[0] - wanted[0]).norm() / wanted[0].norm()
        assert float(error.detach()) < bound
        found[0].sum().backward()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            kinds = {value.dtype for value in ours(x)}
        assert kinds == {getattr(torch, ours.slstm_cell.config.dtype_s)}
    _, vanilla = pair(config_of())
    assert vanilla.double()(x.double())[1].dtype is torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert vanilla.float()(x)[0].dtype is torch.bfloat16


def test_what_the_config_says_of_gradients_and_bounds_is_done() -> None:
    fields = {"gradient_recurrent_clipval": 0.05, "gradient_recurrent_cut": True, "forward_clipval": 0.2}
    for name, value in fields.items():
        theirs, ours = pair(config_of(**{name: value}))
        x = torch.randn(BATCH, SEQ, 6)
        cell = load_cell("slstm_xlstm").clipped(0.2) if name == "forward_clipval" else "slstm_xlstm"
        wx = theirs.project(x).unflatten(2, (4, HEADS, DIM))
        options = {
            "recurrent_cut": name.endswith("cut"),
            "recurrent_clip": 0.05 if name.endswith("nt_clipval") else None,
        }
        every, last = rnn(wx, *theirs.slstm_cell.parts(), None, cell, **options)  # type: ignore[arg-type]
        found = ours(x)
        torch.testing.assert_close(found[0], every[0].transpose(1, 2))
        expected = torch.autograd.grad(weighted(every[0].transpose(1, 2), last.flatten(2)), theirs.project.weight)
        torch.testing.assert_close(torch.autograd.grad(weighted(*found), ours.project.weight), expected)
        again = copy.deepcopy(ours)
        assert torch.equal(again(x)[0], found[0])


class TirexConfig:
    """TiRex's configuration: sizes alone."""

    embedding_dim, num_heads, num_states, num_gates = HIDDEN, HEADS, 4, 4


def test_tirex() -> None:
    theirs, ours = pair(TirexConfig(), "cuda")  # type: ignore[arg-type]
    x = torch.randn(BATCH, SEQ, 6)
    wanted, found = theirs(x, begun()), ours(x, begun())
    for value, other in zip(found, wanted, strict=True):
        assert value.dtype is torch.float32
        assert float(((value - other).norm() / other.norm()).detach()) < 3e-2
    assert not torch.equal(found[0], wanted[0])  # in bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cell = ours.slstm_cell
        assert cell(torch.randn(BATCH, SEQ, 4 * HIDDEN))[0].dtype is torch.float32


def test_parameters_are_drawn_as_xlstm_draws_them() -> None:
    for layout in ("vanilla", "cuda"):
        _, ours = pair(config_of(recurrent_weight_init="zeros"), layout)
        cell = ours.slstm_cell
        cell.reset_parameters()
        assert not cell.recurrent_kernel.any()
        power = 0.3 + 1.3 * 0.5  # of the second of three blocks
        forget = 5 - 12 * (torch.arange(DIM) / (DIM - 1)) ** power
        torch.testing.assert_close(cell.bias[:, 1], forget.expand(HEADS, DIM))
        assert not cell.bias[:, [0, 2, 3]].any()
        cell.recurrent_kernel[1, 2, 3, 0] = 7.0  # the parameter's memory, from unit 2 to unit 0 of gate o
        same = sLSTMCell(config_of(), layout)
        same.load_state_dict(cell.state_dict())
        assert float(same.parts()[0][3, 1, 0, 2].detach()) == 7.0
    for bias, lowest, highest in [("small_init", 3, 6), ("zeros", 0, 0), ("standard", -1, 1)]:
        _, ours = pair(config_of(bias_init=bias, recurrent_weight_init="standard"))
        ours.slstm_cell.reset_parameters()
        assert float(ours.slstm_cell.recurrent_kernel.abs().max()) <= HIDDEN**-0.5
        assert float(ours.slstm_cell.recurrent_kernel.std()) > 0.1
        assert lowest <= float(ours.slstm_cell.bias[:, 1].min())
        assert highest >= float(ours.slstm_cell.bias[:, 1].max()) >= lowest


def test_compiling_in_one_graph() -> None:
    cell = pair(config_of(backend="cuda", dtype="float32", dtype_w="float32"), "cuda")[1].slstm_cell
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
    gates, states = torch.randn(BATCH, SEQ, 4 * HIDDEN), begun()
    found, wanted = compiled(gates, states), cell(gates, states)
    torch.testing.assert_close(found, wanted)
    parameters = list(cell.parameters())
    made = torch.autograd.grad(weighted(*found), parameters)
    torch.testing.assert_close(made, torch.autograd.grad(weighted(*wanted), parameters))


def test_what_would_not_do_the_same_is_left() -> None:
    hooked = sLSTMCell(config_of())
    hooked.register_forward_hook(lambda *_: None)
    patched = sLSTMCell(config_of())
    patched.forward = lambda *_: None  # type: ignore[method-assign, assignment]
    other = sLSTMCell(config_of())
    other._bias_ = nn.Parameter(torch.zeros(3))
    cells = {
        "hooked": hooked, "patched": patched, "other": other, "gru": sLSTMCell(config_of(function="gru")),
        "constants": sLSTMCell(config_of(constants={"A": 1.0})), "good": sLSTMCell(config_of()),
        "eight": sLSTMCell(config_of(backend="cuda", dtype="float8")),
    }  # fmt: skip
    model = nn.ModuleDict(cells)
    done = xlstm.convert(model)
    assert list(done.replaced) == ["good"]
    for name, message in {
        "hooked": "it has hooks", "patched": "its forward method was replaced", "other": "its parameters are",
        "gru": "unknown function 'gru'", "constants": "its config has constants", "eight": "unknown dtype 'float8'",
    }.items():  # fmt: skip
        assert message in done.left[name]
        assert model[name] is cells[name]
    assert str(xlstm.convert(nn.Linear(2, 2))) == "no sLSTM cell of xLSTM's or TiRex's"
    alone = xlstm.convert(sLSTMCell(config_of()))
    assert isinstance(alone.model, SLSTMCell)
    assert "function=slstm, hidden_size=8, num_heads=2" in repr(alone.model)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        xlstm.convert(None)  # type: ignore[arg-type]


def test_mistakes_are_told() -> None:
    cell = xlstm.convert(sLSTMCell(config_of())).model
    x = torch.randn(BATCH, SEQ, 4 * HIDDEN)
    for call, message in [
        (lambda: cell(x[..., :5]), r"input must be \[B, T, 4 hidden_size = 32\], not \[3, 5, 5\]"),
        (lambda: cell(x[0]), "input must be"),
        (lambda: cell(x, torch.zeros(4, 2, HIDDEN)), r"state must be \[S, B, hidden_size\] = \[4, 3, 8\]"),
        (lambda: cell.step(x), "a step is one step, not 5"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            call()
    with pytest.raises(TypeError, match=r"input must be a torch\.Tensor"):
        cell(None)


def test_xlstm_itself() -> None:
    theirs = pytest.importorskip("xlstm")
    layer = theirs.sLSTMLayerConfig(
        backend="vanilla", num_heads=HEADS, recurrent_weight_init="standard", bias_init="powerlaw_blockdependent"
    )
    block = theirs.sLSTMBlockConfig(slstm=layer, feedforward=theirs.FeedForwardConfig(proj_factor=1.3, act_fn="gelu"))
    torch.manual_seed(0)
    model = theirs.xLSTMBlockStack(
        theirs.xLSTMBlockStackConfig(slstm_block=block, context_length=SEQ, num_blocks=2, embedding_dim=HIDDEN)
    )
    ours = copy.deepcopy(model)
    assert len(xlstm.convert(ours).replaced) == 2
    x = torch.randn(BATCH, SEQ, HIDDEN)
    wanted, found = model(x), ours(x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    made = torch.autograd.grad(weighted(found), list(ours.parameters()))
    for gradient, other in zip(made, torch.autograd.grad(weighted(wanted), list(model.parameters())), strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-5)
    states: list[Any] = [None, None]
    with torch.no_grad():
        for t in range(SEQ):
            steps = []
            for index, one in enumerate((model, ours)):
                y, states[index] = one.step(x[:, t : t + 1], states[index])
                steps.append(y)
            torch.testing.assert_close(*steps, rtol=1e-4, atol=1e-5)
    model.reset_parameters()
    ours.reset_parameters()
    biases = [dict(one.named_parameters())["blocks.1.xlstm.slstm_cell._bias_"] for one in (model, ours)]
    torch.testing.assert_close(*biases, rtol=1e-5, atol=1e-5)
    # A model made for its CUDA backend keeps its parameters in another layout.
    built = theirs.blocks.slstm.cell.sLSTMCell_cuda(
        theirs.blocks.slstm.cell.sLSTMCellConfig(hidden_size=HIDDEN, num_heads=HEADS), skip_backend_init=True
    )
    cell = xlstm.convert(built).model
    cell.load_state_dict(model.blocks[0].xlstm.slstm_cell.state_dict())
    gates = torch.randn(BATCH, SEQ, 4 * HIDDEN)
    exact = model.blocks[0].xlstm.slstm_cell(gates)[0]
    assert float(((cell(gates)[0] - exact).norm() / exact.norm()).detach()) < 2e-2
