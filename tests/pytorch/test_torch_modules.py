"""The modules against torch.nn's on the CPU, and what they do beyond them."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import kernelgen.torch
from kernelgen.cells import cell_names, load_cell
from kernelgen.errors import ShapeError, TilesmithError
from kernelgen.torch import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell, convert, reference

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("loops")]

PAIRS = [pytest.param(LSTM, torch.nn.LSTM, id="lstm"), pytest.param(GRU, torch.nn.GRU, id="gru")]


OWN = str(Path(__file__).parents[2] / "examples" / "own_cell.py") + ":FASTGRNN"


def flat(result: Any) -> list[torch.Tensor]:
    """All tensors of a nested result."""
    if result is None:
        return []
    return [result] if isinstance(result, torch.Tensor) else [tensor for part in result for tensor in flat(part)]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2, "batch_first": True},
        {"num_layers": 2, "bias": False},
        {"batch_first": False},
    ],
)
@pytest.mark.parametrize("initial", [True, False])
@pytest.mark.parametrize("batched", [True, False])
def test_results_and_gradients_are_those_of_torch_nn(
    ours: Any, theirs: Any, options: dict[str, Any], initial: bool, batched: bool
) -> None:
    torch.manual_seed(0)
    theirs = theirs(3, 5, dtype=torch.float64, **options)
    ours = ours(3, 5, dtype=torch.float64, **options)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn((4, 2, 3) if batched else (4, 3), dtype=torch.float64)
    hx = None
    if initial:
        batch = (x.shape[0] if options.get("batch_first") else x.shape[1],) if batched else ()
        hx = torch.randn(theirs.num_layers, *batch, 5, dtype=torch.float64)
        hx = (hx, hx.sin()) if isinstance(ours, LSTM) else hx
    made, wanted = ours(x, hx), theirs(x, hx)
    for result, expected in zip(flat(made), flat(wanted), strict=True):
        torch.testing.assert_close(result, expected)
    for result in (made, wanted):
        sum(tensor.cos().sum() for tensor in flat(result)).backward()
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_the_same_seed_gives_the_same_parameters(ours: Any, theirs: Any) -> None:
    torch.manual_seed(3)
    made = ours(3, 5, num_layers=2).state_dict()
    torch.manual_seed(3)
    wanted = theirs(3, 5, num_layers=2).state_dict()
    assert list(made) == list(wanted)
    assert all(torch.equal(made[name], wanted[name]) for name in wanted)


def test_dropout_lies_between_layers_and_only_while_training() -> None:
    module = LSTM(3, 5, num_layers=2, dropout=0.5)
    x = torch.randn(4, 2, 3)
    assert not torch.equal(module(x)[0], module(x)[0])
    assert torch.equal(module(x)[1][0][0], module(x)[1][0][0])
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])


def test_compile_in_one_graph() -> None:
    module = LSTM(3, 5, num_layers=2)
    x = torch.randn(4, 2, 3)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for result, expected in zip(flat(compiled(x)), flat(module(x)), strict=True):
        torch.testing.assert_close(result, expected)


def test_other_inputs_are_refused() -> None:
    module = GRU(3, 5)
    with pytest.raises(TypeError, match=r"input must be a torch\.Tensor, not ndarray; torch\.as_tensor"):
        module(np.zeros((4, 2, 3)))
    with pytest.raises(ShapeError, match="4 axes"):
        module(torch.zeros(4, 2, 3, 1))


X, H = torch.zeros(3, 2, 3), torch.zeros(2, 2, 4)

MISTAKES = [
    # module, its arguments, input, hx, words of the message
    ("GRU", (3, 4), X, H, r"hx must be \[L, B, D\] = \[1, 2, 4\], not \[2, 2, 4\]"),
    ("GRU", (3, 4, 2), X, H[:1], r"hx must be \[L, B, D\] = \[2, 2, 4\], not \[1, 2, 4\]"),
    ("GRU", (3, 4, 2), X, H[:, :1], r"= \[2, 2, 4\], not \[2, 1, 4\]"),
    ("GRU", (3, 4, 2), X, H[..., :3], r"= \[2, 2, 4\], not \[2, 2, 3\]"),
    ("GRU", (3, 4, 2), X, H[0], r"= \[2, 2, 4\], not \[2, 4\]"),
    ("GRU", (3, 4, 2), X[:, 0], H, r"hx must be \[L, D\] = \[2, 4\], not \[2, 2, 4\]"),
    ("GRU", (3, 4), X, H[:1].double(), "hx is torch.float64, but the input is torch.float32"),
    ("LSTM", (3, 4), X, (H[:1], torch.zeros(5, 2, 4)), r"c of hx must be \[L, B, D\] = \[1, 2, 4\], not \[5, 2, 4\]"),
    ("LSTM", (3, 4), X, (H, H[:1]), r"h of hx must be \[L, B, D\]"),
    ("LSTM", (3, 4, 2), X, (H[:1], H[:1]), r"h of hx must be .* = \[2, 2, 4\], not \[1, 2, 4\]"),
    ("LSTM", (3, 4, 2), X, H, r"must be the pair \(h, c\), each \[L, B, D\] = \[2, 2, 4\], not one tensor"),
    ("GRU", (3, 4), X[..., :2], None, "last axis must be input_size = 3"),
    ("LSTM", (3, 4), X[..., None], None, "not of 4 axes"),
    ("LSTM", (3, 4), X.double(), None, r"does not match weight dtype .torch.float32.. Convert input: input.to"),
    ("LSTM", (3, 0), None, None, "hidden_size must be greater than zero, not 0"),
    ("LSTM", (0, 3), None, None, "input_size must be greater than zero, not 0"),
    ("GRU", (3, 4, 0), None, None, "num_layers must be greater than zero, not 0"),
    ("GRU", (3, 4.0), None, None, "hidden_size should be of type int, got: float"),
    ("GRU", ("3", 4), None, None, "input_size should be of type int, got: str"),
    ("GRU", (3, 4, 1, 1), None, None, "bias should be of type bool, got: int 1; give True or False"),
    ("GRU", (3, 4, 1, True, 0), None, None, "batch_first should be of type bool, got: int 0; give True or False"),
    ("GRU", (3, 4, 2, True, False, 1.5), None, None, "dropout should be a number in range"),
    ("GRU", (3, 4, 2, True, False, True), None, None, "dropout should be a number in range"),
]


@pytest.mark.parametrize(("name", "arguments", "x", "hx", "message"), MISTAKES)
def test_mistakes_raise_what_torch_nn_raises(name: str, arguments: Any, x: Any, hx: Any, message: str) -> None:
    ours, theirs = {"LSTM": (LSTM, torch.nn.LSTM), "GRU": (GRU, torch.nn.GRU)}[name]
    with pytest.raises(Exception) as expected:  # noqa: PT011  the type is what is asked
        theirs(*arguments)(x, hx)
    with pytest.raises(TilesmithError, match=message) as caught:
        ours(*arguments)(x, hx)
    assert isinstance(caught.value, expected.type)


def test_a_pair_is_a_pair() -> None:
    for hx, kind in (((H, H, H), RuntimeError), ((H,), RuntimeError), ("hc", RuntimeError), ((H, None), TypeError)):
        with pytest.raises(TilesmithError) as caught:
            LSTM(3, 4, 2)(X, hx)
        assert isinstance(caught.value, (kind, TypeError))
    with pytest.raises(TypeError, match=r"hx must be a torch\.Tensor, not tuple"):
        GRU(3, 4, 2)(X, (H, H))
    assert LSTM(3, 4, 2)(X, [H, H])[0].shape == (3, 2, 4)
    with pytest.warns(UserWarning, match="only one"):
        LSTM(3, 4, dropout=0.5)


# ---- what stands in for torch.nn beyond the forward call ----

ALL = [(LSTM, torch.nn.LSTM), (GRU, torch.nn.GRU), (RNN, torch.nn.RNN)]
CELLS = [(LSTMCell, torch.nn.LSTMCell), (GRUCell, torch.nn.GRUCell), (RNNCell, torch.nn.RNNCell)]
IDS = ["lstm", "gru", "rnn"]


def pair(ours: Any, theirs: Any, *sizes: int, **options: Any) -> tuple[Any, Any]:
    """Both modules in float64 with the same parameters."""
    torch.manual_seed(0)
    peer = theirs(*sizes, dtype=torch.float64, **options)
    module = ours(*sizes, dtype=torch.float64, **options)
    module.load_state_dict(peer.state_dict())
    return module, peer


def both(
    modules: tuple[Any, Any], *arguments: Any, ours: dict[str, Any] | None = None
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Results and gradients of both modules, of float64 inputs."""
    found = []
    for index, module in enumerate(modules):
        copies = copy.deepcopy(arguments)
        inputs = [tensor for tensor in flat(copies) if tensor.is_floating_point()]
        for tensor in inputs:
            tensor.requires_grad_()
        results = [one for one in flat(module(*copies, **(ours or {} if not index else {}))) if one.is_floating_point()]
        seeds = [torch.arange(one.numel()).cos().to(one).view(one.shape) for one in results]
        found.append([*results, *torch.autograd.grad(results, [*inputs, *module.parameters()], seeds)])
    return found[0], found[1]


@pytest.mark.parametrize(("ours", "theirs"), ALL, ids=IDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_packed_sequences(ours: Any, theirs: Any, bidirectional: bool, ordered: bool) -> None:
    options = {"num_layers": 2, "bidirectional": bidirectional}
    if ours is LSTM:
        options["proj_size"] = 3
    modules = pair(ours, theirs, 3, 5, **options)
    lengths = [6, 6, 4, 1] if ordered else [4, 6, 1, 6]
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    count = 4 if bidirectional else 2
    h = torch.randn(count, 4, 3 if ours is LSTM else 5, dtype=torch.float64)
    hx = (h, torch.randn(count, 4, 5, dtype=torch.float64)) if ours is LSTM else h
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=ordered)
    for states in (None, hx):
        made, wanted = (module(packed, states) for module in modules)
        assert isinstance(made[0], PackedSequence)
        for part, other in zip(made[0][1:], wanted[0][1:], strict=True):
            assert (part is None and other is None) or torch.equal(part, other)
        for result, expected in zip(*both(modules, packed, states), strict=True):
            torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2, "batch_first": True}])
@pytest.mark.parametrize(("ours", "theirs"), ALL, ids=IDS)
def test_lengths_are_each_sequence_by_itself(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    module, peer = pair(ours, theirs, 3, 4, **options)
    lengths, count = [3, 0, 5, 1], 4 if options else 1
    x = torch.randn(4, 5, 3, dtype=torch.float64)
    h = torch.randn(count, 4, 4, dtype=torch.float64)
    outputs, lasts = [], []
    for index, length in enumerate(lengths):
        own = h[:, index : index + 1]
        own = (own, own.cos()) if ours is LSTM else own
        if not length:
            outputs.append(torch.zeros(5, (2 if options else 1) * 4, dtype=torch.float64))
            lasts.append(torch.cat(flat(own), dim=2)[:, 0])
            continue
        part = x[index : index + 1, :length]
        made, last = peer(part if options else part.transpose(0, 1), own)
        made = made[0] if options else made[:, 0]
        outputs.append(torch.cat([made, made.new_zeros(5 - length, made.shape[1])]))
        lasts.append(torch.cat(flat(last), dim=2)[:, 0])
    dirty = x.clone()
    for index, length in enumerate(lengths):
        dirty[index, length:] = torch.nan
    given = (dirty if options else dirty.transpose(0, 1)).requires_grad_()
    made, last, every = module(given, (h, h.cos()) if ours is LSTM else h, lengths=lengths, returns="states")
    made = made if options else made.transpose(0, 1)
    torch.testing.assert_close(made, torch.stack(outputs))
    torch.testing.assert_close(torch.cat(flat(last), dim=2), torch.stack(lasts, dim=1))
    torch.testing.assert_close(every[0][-1] if options else every[0][-1].transpose(0, 1), made[..., -4:])
    wanted = torch.autograd.grad((torch.stack(outputs).cos().sum() + torch.stack(lasts).sin().sum()), peer.parameters())
    found = torch.autograd.grad(
        made.cos().sum() + sum(state.sin().sum() for state in flat(last)), [given, *module.parameters()]
    )
    for gradient, other in zip(found[1:], wanted, strict=True):
        torch.testing.assert_close(gradient, other)
    of_input = found[0] if options else found[0].transpose(0, 1)
    for index, length in enumerate(lengths):
        assert torch.equal(of_input[index, length:], torch.zeros(5 - length, 3, dtype=torch.float64))


@pytest.mark.parametrize("form", ["batch", "packed", "one"])
@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (LSTM, torch.nn.LSTM, {"bidirectional": True, "num_layers": 2, "proj_size": 3}),
        (GRU, torch.nn.GRU, {"bidirectional": True, "batch_first": True}),
        (RNN, torch.nn.RNN, {"num_layers": 2}),
    ],
    ids=IDS,
)
def test_resets_are_pieces_by_themselves(ours: Any, theirs: Any, options: dict[str, Any], form: str) -> None:
    module, peer = pair(ours, theirs, 3, 4, **options)
    first, count = options.get("batch_first", False), options.get("num_layers", 1)
    directions = 2 if options.get("bidirectional") else 1
    x = torch.randn(3, 6, 3, dtype=torch.float64)
    h = torch.randn(count * directions, 3, 4, dtype=torch.float64)
    resets = torch.zeros(3, 6, dtype=torch.bool)
    resets[0, [0, 2, 5]] = resets[2, 3] = True
    lengths = [6, 6, 6] if form != "packed" else [5, 6, 4]
    numbers = [0] if form == "one" else range(3)

    def states(own: torch.Tensor) -> Any:
        return (own[..., : options.get("proj_size", 4)], own.cos()) if ours is LSTM else own

    outputs, lasts = [], []
    for index in numbers:
        bounds = [0, *(t for t in range(1, lengths[index]) if resets[index, t]), lengths[index]]
        made = [peer(x[index, a:b], states(h[:, index])) for a, b in itertools.pairwise(bounds)]
        outputs.append(torch.cat([output for output, _ in made]))
        ends = [torch.cat(flat(last), dim=-1) for _, last in made]
        rows = [ends[-1][row] if row % directions == 0 else ends[0][row] for row in range(len(h))]
        lasts.append(torch.stack(rows))
    given: Any = x if first else x.transpose(0, 1)
    if form == "packed":
        given = pack_padded_sequence(given, torch.tensor(lengths), batch_first=first, enforce_sorted=False)
    elif form == "one":
        given = x[0]
    of_one = form == "one"
    made, last = module(given, states(h[:, 0] if of_one else h), resets=resets[0] if of_one else resets)
    if form == "packed":
        made, wanted = made.data, torch.nn.utils.rnn.pack_sequence(outputs, enforce_sorted=False).data
    else:
        wanted = outputs[0] if of_one else torch.stack(outputs, dim=0 if first else 1)
    torch.testing.assert_close(made, wanted)
    last, wanted_last = torch.cat(flat(last), dim=-1), lasts[0] if of_one else torch.stack(lasts, dim=1)
    torch.testing.assert_close(last, wanted_last)
    found = torch.autograd.grad(made.cos().sum() + last.sin().sum(), list(module.parameters()))
    expected = torch.autograd.grad(wanted.cos().sum() + wanted_last.sin().sum(), list(peer.parameters()))
    for gradient, other in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, other)


def test_lengths_that_make_no_sense() -> None:
    module = LSTM(3, 4)
    for lengths, message in [
        ([3, 4], "from 0 to T = 3; they are from 3 to 4"),
        ([-1, 2], "are from -1 to 2"),
        ([1], r"\[B\] = \[2\], as Wx says, not \[1\]"),
        ([1.0, 2.0], "or a list of ints, not list"),
        ("ab", "or a list of ints, not str"),
    ]:
        with pytest.raises(TilesmithError, match=message):
            module(X, lengths=lengths)
    with pytest.raises(TilesmithError, match="those of a batch"):
        module(X[:, 0], lengths=[2])
    with pytest.raises(TilesmithError, match=r"resets must be a bool tensor \[B, T\]"):
        module(X, resets=[True])  # type: ignore[arg-type]
    with pytest.raises(TilesmithError, match=r"resets must be \[T\] = \[3\]"):
        module(X[:, 0], resets=torch.ones(2, dtype=torch.bool))
    for options in ({"checkpoint": 2}, {"wavefront": 2, "num_layers": 2}):
        with pytest.raises(TilesmithError, match="take no resets"):
            LSTM(3, 4, **options)(X, resets=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(TilesmithError, match="says its lengths itself"):
        module(pack_padded_sequence(X, [2, 1]), lengths=[2, 1])
    with pytest.raises(TilesmithError, match="cannot return 'state'; did you mean states"):
        module(X, returns="state")  # type: ignore[arg-type]


@pytest.mark.parametrize(("ours", "theirs"), ALL, ids=IDS)
def test_forms_of_tensors(ours: Any, theirs: Any) -> None:
    modules = pair(ours, theirs, 3, 5, num_layers=2, bidirectional=True)
    x = torch.randn(2, 4, 3, dtype=torch.float64).transpose(0, 1)
    h = torch.randn(5, 2, 4, dtype=torch.float64).transpose(0, 2)
    for result, expected in zip(*both(modules, x, (h, h.cos()) if ours is LSTM else h), strict=True):
        torch.testing.assert_close(result, expected)
    if ours is LSTM:
        assert torch.equal(modules[0](x, [h, h])[0], modules[0](x, (h, h))[0])
    for result, expected in zip(*both(modules, x[:, :0]), strict=True):
        assert result.shape == expected.shape
        assert torch.equal(result, torch.zeros_like(result))
    with pytest.raises(RuntimeError, match=r"the input has no steps: it is \[0, 2, 3\], and T must be at least 1"):
        modules[0](x[:0])
    meta = ours(3, 5, 2, device="meta", dtype=torch.bfloat16)
    assert all(one.is_meta and one.dtype is torch.bfloat16 for one in meta.parameters())
    made, last = meta(torch.empty(4, 2, 3, device="meta", dtype=torch.bfloat16))
    assert made.shape == (4, 2, 5)
    assert {one.shape for one in flat(last)} == {(2, 2, 5)}


@pytest.mark.parametrize(("ours", "theirs"), ALL, ids=IDS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_results_are_contiguous_and_may_be_changed_in_place(ours: Any, theirs: Any, batch_first: bool) -> None:
    for batched in (True, False):
        module = ours(3, 5, 2, batch_first=batch_first)
        made, last = module(torch.randn(4, 2, 3) if batched else torch.randn(4, 3))
        assert made.is_contiguous()
        for state in flat(last):
            assert state.is_contiguous()
            state[:, 0] = 0
        (made.sum() + sum(state.sum() for state in flat(last))).backward()
        for state in flat(last):
            state.detach_()
    cell, _ = dict(zip(IDS, CELLS, strict=True))[ours.__name__.lower()]
    for state in flat(cell(3, 5)(torch.randn(2, 3))):
        state[:, 0] = 0
        state.detach_()


@pytest.mark.parametrize(("ours", "theirs"), ALL + CELLS)
def test_the_rest_of_the_module(ours: Any, theirs: Any) -> None:
    options: dict[str, Any] = {"bias": False} if ours.__name__.endswith("Cell") else {"num_layers": 2, "dropout": 0.5}
    module, peer = pair(ours, theirs, 3, 5, **options)
    names = {name: parameter.shape for name, parameter in peer.named_parameters()}
    assert {name: parameter.shape for name, parameter in module.named_parameters()} == names
    assert peer.load_state_dict(module.state_dict())
    assert repr(module).replace(type(module).__name__, "") == repr(peer).replace(type(peer).__name__, "")
    if "num_layers" in options:
        module.eval()
        assert module.flatten_parameters() is None
        assert module.mode == peer.mode
        assert [[w.shape for w in weights] for weights in module.all_weights] == [
            [w.shape for w in weights] for weights in peer.all_weights
        ]
    x = torch.randn(2, 2, 3, dtype=torch.float64)[:, : 1 if "bias" in options else 2].squeeze(1)
    for twin in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        for result, expected in zip(flat(twin(x)), flat(module(x)), strict=True):
            assert torch.equal(result, expected)
        assert next(twin.parameters()) is not next(module.parameters())
    torch.manual_seed(5)
    module.reset_parameters()
    torch.manual_seed(5)
    peer.reset_parameters()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), peer.parameters(), strict=True))


def test_arguments_that_torch_nn_refuses() -> None:
    for make in (
        lambda kinds: kinds.GRU(3, 4, proj_size=2),
        lambda kinds: kinds.RNN(3, 4, proj_size=0),
        lambda kinds: kinds.RNN(3, 4, nonlinearity="sin"),
        lambda kinds: kinds.LSTM(3, 4, proj_size=4),
        lambda kinds: kinds.LSTM(3, 4, proj_size=-1),
    ):
        with pytest.raises(ValueError):  # noqa: PT011  the type is what is asked
            make(torch.nn)
        with pytest.raises(ValueError, match=r"proj_size|Unknown nonlinearity") as caught:
            make(kernelgen.torch)
        assert isinstance(caught.value, TilesmithError)
    with pytest.raises(TilesmithError, match="5 units do not make 2 heads"):
        LSTM(3, 5, heads=2)
    with pytest.raises(TilesmithError, match="one head; there is none for heads=2"):
        LSTM(3, 4, heads=2, proj_size=2)
    with pytest.raises(TilesmithError, match="a cell has its own functions"):
        RNN(3, 4, nonlinearity="relu", cell="gru")
    with pytest.raises(TilesmithError, match="did you mean slstm"):
        RNN(3, 4, cell="slstn")


def test_positional_arguments_are_torch_nns() -> None:
    assert LSTM(3, 4, 1, False, True, 0.0, True, 2, "meta", torch.float64).weight_hr_l0_reverse.shape == (2, 4)
    module = RNN(3, 4, 2, "relu", False, True, 0.25, True)
    assert repr(module) == repr(torch.nn.RNN(3, 4, 2, "relu", False, True, 0.25, True)).replace(
        ")", ", nonlinearity=relu)"
    )
    assert RNNCell(3, 4, True, "relu").nonlinearity == "relu"


@pytest.mark.parametrize("form", ["projected", "packed"])
def test_other_forms_compile_in_one_graph(form: str) -> None:
    x: Any = torch.randn(8, 2, 3)
    module: Any = LSTM(3, 5, bidirectional=True, proj_size=2, memory_limit=3000)
    if form == "packed":
        module, x = GRU(3, 5, bidirectional=True), pack_padded_sequence(x, [2, 8], enforce_sorted=False)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for result, expected in zip(flat(compiled(x)), flat(module(x)), strict=True):
        torch.testing.assert_close(result, expected)


# ---- beyond torch.nn ----


@pytest.mark.parametrize("cell", [*cell_names(), OWN])
@pytest.mark.parametrize("bias", [True, False])
def test_layers_of_any_cell_in_heads(cell: str, bias: bool) -> None:
    torch.manual_seed(0)
    module = RNN(3, 6, 2, batch_first=True, cell=cell, heads=2, bias=bias, bidirectional=True, dtype=torch.float64)
    x, loaded = torch.randn(2, 4, 3, dtype=torch.float64), load_cell(cell)
    made, last, every = module(x, returns="states")
    assert made.shape == (2, 4, 12)
    wanted = x
    for layer in range(2):
        outputs = []
        for direction, suffix in enumerate(("", "_reverse")):
            own = {name: getattr(module, f"{name}_l{layer}{suffix}") for name in ("weight_ih", "weight_hh")}
            wx = (wanted @ own["weight_ih"].T).view(2, 4, -1, 2, 3)
            b = torch.zeros(len(loaded.bias_gates), 2, 3, dtype=torch.float64)
            if bias:
                of_input = iter(getattr(module, f"bias_ih_l{layer}{suffix}").view(-1, 2, 3))
                of_hidden = iter(getattr(module, f"bias_hh_l{layer}{suffix}").view(-1, 2, 3))
                rows = []
                for gate in (loaded.gates[index] for index in loaded.bias_gates):
                    parts = [next(of_input)] if gate.input or not gate.recurrent else []
                    rows.append(sum([*parts, *([next(of_hidden)] if gate.recurrent else [])]))
                b = torch.stack(rows) if rows else b
                assert next(of_input, None) is next(of_hidden, None) is None
            r = own["weight_hh"].view(-1, 2, 3, 3)
            states, end, _ = reference.forward(loaded, wx.flip(1) if direction else wx, r, b)
            states = (states.flip(2) if direction else states).flatten(3)
            outputs.append(states[0])
            for index, state in enumerate(flat(last)):
                torch.testing.assert_close(state[2 * layer + direction], end[index].flatten(1))
                torch.testing.assert_close(every[index][2 * layer + direction], states[index])
        wanted = torch.cat(outputs, dim=-1)
    torch.testing.assert_close(made, wanted)
    twin = pickle.loads(pickle.dumps(module))
    assert torch.equal(twin(x)[0], made)


def test_every_state_in_each_form() -> None:
    module = LSTM(3, 5, 2, proj_size=2)
    made, last, every = module(torch.randn(4, 2, 3), returns="states")
    assert [tuple(state.shape) for state in every] == [(2, 4, 2, 2), (2, 4, 2, 5)]
    assert torch.equal(every[0][1], made)
    assert all(torch.equal(state[:, -1], end) for state, end in zip(every, last, strict=True))
    _, _, every = module(torch.randn(4, 3), returns="states")
    assert [tuple(state.shape) for state in every] == [(2, 4, 2), (2, 4, 5)]
    packed = pack_padded_sequence(torch.randn(4, 2, 3), [2, 4], enforce_sorted=False)
    made, last, every = module(packed, returns="states")
    assert [tuple(state.shape) for state in every] == [(2, 2, 4, 2), (2, 2, 4, 5)]
    assert torch.equal(every[0][1], torch.nn.utils.rnn.pad_packed_sequence(made, batch_first=True)[0])
    assert torch.equal(every[1][:, 0, 1], last[1][:, 0])


def test_a_cell_object_in_a_module() -> None:
    cell = load_cell(OWN)
    module = RNN(3, 4, cell=cell)
    assert "cell=fastgrnn" in repr(module)
    x = torch.randn(4, 2, 3)
    named = RNN(3, 4, cell=OWN)
    named.load_state_dict(module.state_dict())
    assert torch.equal(copy.deepcopy(module)(x)[0], named(x)[0])
    one = RNNCell(3, 4, cell=cell, heads=2)
    assert one(x[0], one(x[0])).shape == (2, 4)
    many = RNNCell(3, 4, cell="slstm")
    assert [state.shape for state in many(x[0], many(x[0]))] == [(2, 4)] * 4


def test_the_steps_of_a_cell_are_those_of_the_layers() -> None:
    torch.manual_seed(0)
    for cell in ("lstm", "slstm", "gru"):
        layers, one = (kind(3, 4, cell=cell, heads=2, dtype=torch.float64) for kind in (RNN, RNNCell))
        one.load_state_dict({name.removesuffix("_l0"): value for name, value in layers.state_dict().items()})
        x = torch.randn(5, 2, 3, dtype=torch.float64)
        made, last = layers(x)
        state = None
        for t in range(5):
            state = one(x[t], state)
            torch.testing.assert_close(flat(state)[0], made[t])
        torch.testing.assert_close(torch.stack(flat(state)), torch.cat(flat(last)))


@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("form", ["batch", "packed"])
@pytest.mark.parametrize("chunk", [1, 3, 4, 20])
@pytest.mark.parametrize(
    ("kind", "options"),
    [(LSTM, {"proj_size": 2}), (GRU, {"batch_first": True, "heads": 2}), (RNN, {"cell": "slstm", "dropout": 1.0})],
    ids=IDS,
)
def test_a_wavefront_gives_the_same(kind: Any, options: dict[str, Any], chunk: int, form: str, initial: bool) -> None:
    torch.manual_seed(0)
    plain = kind(3, 4, 3, dtype=torch.float64, **options)
    waves = kind(3, 4, 3, dtype=torch.float64, wavefront=chunk, **options)
    waves.load_state_dict(plain.state_dict())
    x: Any = torch.randn(2, 7, 3, dtype=torch.float64)
    x = x if options.get("batch_first") else x.transpose(0, 1)
    hx = None
    if initial:
        last = plain(x)[1]
        hx = last.detach().sin() if kind is GRU else tuple(torch.rand_like(state) + 1 for state in last)
    if form == "packed":
        x = pack_padded_sequence(x, [3, 7], batch_first=options.get("batch_first", False), enforce_sorted=False)
    for result, expected in zip(*both((waves, plain), x, hx), strict=True):
        torch.testing.assert_close(result, expected)
    states = [flat(module(x, hx, returns="states")[2]) for module in (waves, plain)]
    for result, expected in zip(*states, strict=True):
        torch.testing.assert_close(result, expected)


def test_where_there_is_no_wavefront() -> None:
    for options, message in [
        ({"wavefront": 4}, "there is one"),
        ({"wavefront": True}, "there is one"),
        ({"num_layers": 2, "wavefront": 0}, "must be greater than zero, not 0"),
        ({"num_layers": 2, "wavefront": 2.0}, "of type int, got: float"),
        ({"num_layers": 2, "wavefront": 4, "bidirectional": True}, "needs all of its steps first"),
        ({"num_layers": 2, "wavefront": 4, "checkpoint": 4}, "leave it out, or them"),
    ]:
        with pytest.raises(TilesmithError, match=message):
            LSTM(3, 4, **options)
    assert "wavefront=4" in repr(LSTM(3, 4, 2, wavefront=4))
    assert "wavefront=True" in repr(LSTM(3, 4, 2, wavefront=True))
    assert repr(LSTM(3, 4, wavefront=False)) == "LSTM(3, 4)"


# ---- convert ----


class Tagger(torch.nn.Module):
    """A model with recurrent modules in many places."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True, proj_size=2, dropout=0.25)
        self.layers = torch.nn.ModuleList([torch.nn.GRU(4, 4), torch.nn.RNN(4, 4, nonlinearity="relu")])
        self.again = self.layers[0]
        self.blocks = torch.nn.ModuleDict({"cell": torch.nn.LSTMCell(4, 4, bias=False)})
        self.out = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.encoder(x)[0].transpose(0, 1)
        x = self.again(self.layers[1](self.layers[0](x)[0])[0])[0]
        return self.out(self.blocks["cell"](x[-1])[0])


def test_convert_replaces_every_recurrent_module_in_place() -> None:
    torch.manual_seed(0)
    model = Tagger().double().eval()
    model.layers[0].train()
    before = dict(model.named_parameters())
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    wanted, state = model(x), model.state_dict()
    done = convert(model)
    assert done.model is model
    assert done.left == {}
    assert done.replaced == {
        "encoder": "kernelgen.torch.LSTM",
        "layers.0": "kernelgen.torch.GRU",
        "layers.1": "kernelgen.torch.RNN",
        "again": "kernelgen.torch.GRU",
        "blocks.cell": "kernelgen.torch.LSTMCell",
    }
    assert str(done).splitlines()[0] == "encoder: replaced by kernelgen.torch.LSTM"
    assert isinstance(model.encoder, LSTM)
    assert model.again is model.layers[0]
    assert model.layers[0].training
    assert not model.encoder.training
    assert {name: id(one) for name, one in model.named_parameters()} == {name: id(one) for name, one in before.items()}
    torch.testing.assert_close(model(x), wanted)
    Tagger().double().load_state_dict(model.state_dict())
    model.load_state_dict(state)
    assert convert(model).replaced == {}
    assert str(convert(model)) == "no recurrent module of torch.nn's"


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_convert_says_what_it_left_and_why() -> None:
    class Own(torch.nn.LSTM):
        pass

    hooked, parametrised, replaced = torch.nn.GRU(3, 4), torch.nn.GRU(3, 4), torch.nn.GRU(3, 4)
    hooked.register_forward_hook(lambda *_: None)
    torch.nn.utils.parametrizations.weight_norm(parametrised, "weight_hh_l0")
    replaced.forward = lambda x: x
    mixed, extra = torch.nn.GRU(3, 4), torch.nn.GRU(3, 4)
    mixed.bias_ih_l0 = torch.nn.Parameter(mixed.bias_ih_l0.double())
    extra.more = torch.nn.Parameter(torch.zeros(1))
    modules = {
        "own": Own(3, 4),
        "hooked": hooked,
        "parametrised": parametrised,
        "replaced": replaced,
        "mixed": mixed,
        "extra": extra,
        "complex": torch.nn.RNN(3, 4, dtype=torch.complex64),
        "scripted": torch.jit.script(torch.nn.GRU(3, 4)),
        "plain": torch.nn.GRU(3, 4),
    }
    done = convert(torch.nn.ModuleDict(modules))
    assert set(done.replaced) == {"plain"}
    assert set(done.left) == {*modules} - {"plain"}
    for name, words in [
        ("own", "Own is a subclass of torch.nn's"),
        ("hooked", "it has hooks .forward_hooks."),
        ("parametrised", "weights are parametrised"),
        ("replaced", "forward method was replaced"),
        ("mixed", "float32 and float64"),
        ("extra", "more, are not those"),
        ("complex", "complex64"),
        ("scripted", "TorchScript of torch.nn.GRU"),
    ]:
        assert re.search(words, done.left[name]), done.left[name]
        assert f"{name}: left, " in str(done)


def test_convert_of_a_model_that_is_a_recurrent_module() -> None:
    peer = torch.nn.GRU(3, 4, dropout=0.0)
    done = convert(peer)
    assert isinstance(done.model, GRU)
    assert done.model.weight_hh_l0 is peer.weight_hh_l0
    assert str(done) == "the model: replaced by kernelgen.torch.GRU"
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, not str"):
        convert("model")  # type: ignore[arg-type]
