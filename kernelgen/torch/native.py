"""What torch.nn's own operators compute: the recurrences of its modules, in float32 and float64 on a CPU.

A loop over steps in Python takes up to ten times as long as they do, and has no other results. In 16 bits it has:
there torch.nn rounds elsewhere than kernels do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from kernelgen.torch import passes
from kernelgen.torch.arguments import any_autocast, autocast_dtype
from kernelgen.torch.double_backward import double_backward
from kernelgen.torch.once import Once
from kernelgen.torch.parts import Parts, parameter_sizes
from kernelgen.torch.reference import Form
from kernelgen.torch.sequences import Own
from kernelgen.torch.transforms import learns, undisturbed

_LAYERS: Mapping[str, Any] = {
    "lstm": torch._VF.lstm,
    "gru": torch._VF.gru,
    "elman": torch._VF.rnn_tanh,
    "elman_relu": torch._VF.rnn_relu,
}
_STEPS: Mapping[str, Any] = {
    "lstm": torch._VF.lstm_cell,
    "gru": torch._VF.gru_cell,
    "elman": torch._VF.rnn_tanh_cell,
    "elman_relu": torch._VF.rnn_relu_cell,
}
"""The operators of layers and of one step, by the library's name of the cell."""

_DTYPES = frozenset({torch.float32, torch.float64})
_TENSORS = frozenset({Tensor, torch.nn.Parameter})


class Native:
    """Layers of a cell, each in K directions, whose parameters have these sizes; in one head, on a CPU.

    sizes: of each layer and direction in turn, by the first part of the parameters' names.
    """

    def __init__(self, parts: Parts, layers: int, directions: int, sizes: Sequence[Mapping[str, tuple[int, ...]]]):
        self._parts, self._layers, self._directions = parts, layers, directions
        self._sizes = [size for one in sizes for size in one.values()]
        self._bias, self._dim = "bias_ih" in sizes[0], sizes[0]["weight_ih"][0] // parts.inputs
        projected = sizes[0]["weight_hr"][0] if "weight_hr" in sizes[0] else self._dim
        self._units = [projected, *[self._dim] * (len(parts.states) - 1)]

    @classmethod
    def of(
        cls, parts: Parts, layers: int, directions: int, input_size: int, hidden_size: int, proj_size: int, bias: bool
    ) -> Native | None:
        """The layers of a module with these arguments of torch.nn's; None for a cell that it has no operator for."""
        if parts.key not in _LAYERS:
            return None
        above = (proj_size or hidden_size) * directions
        inputs = [input_size, *[above] * (layers - 1)]
        sizes = [parameter_sizes(parts, size, hidden_size, 1, proj_size, bias) for size in inputs]
        return cls(parts, layers, directions, [one for one in sizes for _ in range(directions)])

    def takes(self, x: Tensor, states: Sequence[Tensor] | None, parameters: Sequence[Tensor], own: Own) -> bool:
        """Whether ``run`` takes these; x and states are of the sizes that it says."""
        if own.resets is not None or not alone(x, *(states or ()), *parameters) or not x.numel():
            return False
        if own.lengths is not None and int(own.lengths.min()) < 1:  # no PackedSequence has such
            return False
        return all(tuple(one.shape) == size for one, size in zip(parameters, self._sizes, strict=True))

    def run(
        self, x: Tensor, states: Sequence[Tensor] | None, parameters: Sequence[Tensor], own: Own, dropout: float
    ) -> tuple[Tensor, list[Tensor]]:
        """h of the last layer [B, T, K P], zero behind the ends of sequences, and each state after the last step
        [L K, B, D], over x [B, T, I]. states: the initial ones, each [L K, B, D] (h [L K, B, P] where it is projected),
        or None for zeros. parameters: of each layer and direction in turn. dropout: the share of zeros between layers,
        which are drawn as torch.nn draws them.
        """
        batch, seq, _ = x.shape
        count = len(self._units)
        if states is None:
            states = [x.new_zeros((self._layers * self._directions, batch, size)) for size in self._units]
        x, *rest = self._counted((x, *states, *parameters), batch, seq, own)
        begun, flat = rest[:count], rest[count:]
        operator = _LAYERS[self._parts.key]
        options = (flat, self._bias, self._layers, dropout, dropout > 0, self._directions == 2)
        if own.lengths is None:
            output, *last = operator(x.transpose(0, 1), _together(begun), *options, False)
            return output.transpose(0, 1), last
        packed = pack_padded_sequence(x, own.lengths.to(torch.int64), batch_first=True, enforce_sorted=False)
        begun = [state.index_select(1, packed.sorted_indices) for state in begun]
        data, *last = operator(packed.data, packed.batch_sizes, _together(begun), *options)
        output, _ = pad_packed_sequence(packed._replace(data=data), batch_first=True, total_length=seq)
        return output, [state.index_select(1, packed.unsorted_indices) for state in last]

    def _counted(self, tensors: Sequence[Tensor], batch: int, seq: int, own: Own) -> Sequence[Tensor]:
        """The tensors x, initial states and parameters, with the passes over them counted for recordings."""
        heads, dim, parts = self._directions, self._dim, self._parts
        place = (tensors[0].dtype, tensors[0].device)
        forms = (
            (torch.Size((batch, seq, parts.inputs, heads, dim)), *place),
            (torch.Size((parts.products, heads, dim, dim)), *place),
            (torch.Size((parts.biases, heads, dim)), *place),
        )
        return counted(parts.key, forms, own.features, self._layers, tensors)


def step(parts: Parts, x: Tensor, states: Sequence[Tensor] | None, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The new states, each [B, D], after one step of x [B, I] from the states [B, D] or zeros. parameters: weight_ih,
    weight_hh and, with bias, bias_ih and bias_hh. ``steps`` must say that it can."""
    batch, dim, place = x.shape[0], parameters[0].shape[0] // parts.inputs, (x.dtype, x.device)
    if states is None:
        states = [x.new_zeros((batch, dim))] * len(parts.states)
    forms = (
        (torch.Size((batch, 1, parts.inputs, 1, dim)), *place),
        (torch.Size((parts.products, 1, dim, dim)), *place),
        (torch.Size((parts.biases, 1, dim)), *place),
    )
    x, *rest = counted(parts.key, forms, (), 1, (x, *states, *parameters))
    found = _STEPS[parts.key](x, _together(rest[: len(states)]), *rest[len(states) :])
    return list(found) if len(states) > 1 else [found]


def steps(parts: Parts, x: Tensor, states: Sequence[Tensor] | None, parameters: Sequence[Tensor], heads: int) -> bool:
    """Whether ``step`` takes these, of so many heads; x and states are of the sizes that it says."""
    if parts.key not in _STEPS or heads != 1 or not alone(x, *(states or ()), *parameters) or not x.numel():
        return False
    sizes = parameter_sizes(parts, x.shape[1], parameters[1].shape[-1], 1, 0, len(parameters) > 2)
    return all(tuple(one.shape) == size for one, size in zip(parameters, sizes.values(), strict=True))


def alone(*tensors: Tensor) -> bool:
    """Whether nobody but PyTorch has a say: all are its own tensors of one dtype on a CPU that no kernels run on."""
    first = tensors[0]
    if not undisturbed() or not first.is_cpu or first.dtype not in _DTYPES or double_backward.on:
        return False
    if passes.engine_for(first) is not None or (any_autocast() and autocast_dtype("cpu") is not None):
        return False
    return all(type(one) in _TENSORS and one.is_cpu and one.dtype is first.dtype for one in tensors)


def counted(
    key: str, forms: tuple[Form, Form, Form], features: tuple[str, ...], layers: int, tensors: Sequence[Tensor]
) -> Sequence[Tensor]:
    """The tensors that so many layers read, whose forward passes are counted as run now, and backward ones when their
    gradients come, which have no gradients themselves. forms: of a layer's Wx, R and b."""
    learning = learns(*tensors)
    keep = "gates" if learning else "nothing"
    run = passes.forward_pass(None, (*forms, None), features, (key, True, keep, False, None))
    for _ in range(layers):
        run.count()
    if not learning:
        return tensors

    def count() -> None:
        (batch, seq, _, heads, dim), dtype, device = forms[0]
        states = (torch.Size((1, batch, seq, heads, dim)), dtype, device)
        options = (key, False, None)
        back = passes.backward_pass(None, states, dtype, dtype, again=False, features=features, options=options)
        for _ in range(layers):
            back.count()

    begun: Sequence[Tensor] = _Begun.apply(count, *tensors)
    return begun


class _Begun(torch.autograd.Function):  # type: ignore[misc]
    """Where operators of PyTorch's begin, and their backward pass ends."""

    @staticmethod
    def forward(ctx: Any, count: Callable[[], None], *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors as they are. count: what to call when their gradients come."""
        ctx.count = count
        ctx.set_materialize_grads(False)
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        """The gradients as they are."""
        ctx.count()
        return None, *(Once.refusing(gradients) if torch.is_grad_enabled() else gradients)


def _together(states: Sequence[Tensor]) -> Any:
    """States as the operators take them: a single one is a tensor."""
    return states[0] if len(states) == 1 else states
