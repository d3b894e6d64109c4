"""Layers of any cell as a module with torch.nn's parameters, arguments and results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from kernelgen.cells.language import Cell
from kernelgen.errors import ConfigError, near_names
from kernelgen.torch import native, padding
from kernelgen.torch.arguments import any_autocast, autocast_dtype
from kernelgen.torch.checkpoint import require_no_resets
from kernelgen.torch.double_backward import double_backward
from kernelgen.torch.errors import ArgumentError
from kernelgen.torch.exporting import Whole, to_onnx, tracing
from kernelgen.torch.input_norm import BIAS, WEIGHT, norm_sizes
from kernelgen.torch.layers import LayerResult, Together, run_layer
from kernelgen.torch.memory import check_chunks, chunk_within
from kernelgen.torch.module_checks import (
    check_dropout,
    check_heads,
    check_input,
    check_sizes,
    check_states,
    check_switches,
    check_wavefront,
)
from kernelgen.torch.onnx_layers import node_of, run_nodes
from kernelgen.torch.operator import RETURNS, own_tensors, plain
from kernelgen.torch.parts import parameter_sizes, parts_of
from kernelgen.torch.sequences import NOTHING, Own, own_of_input
from kernelgen.torch.stack import Stack, run_stack, run_waves
from kernelgen.torch.transforms import differentiating, undisturbed
from kernelgen.torch.wavefront import run_wavefront


class Recurrent(Whole):
    """Layers of H heads that together have D units, in one or two directions, with dropout between them.

    Parameters of layer k and direction s ("" or "_reverse"), with G gates: weight_ih_lks [G D, I] (I is K P from the
    second layer on, for K directions; P is D without a projection), weight_hh_lks [G D, P / H] and, with bias,
    bias_ih_lks and bias_hh_lks [G D]; with a projection weight_hr_lks [P, D]. Rows go by gate, head, unit. All are
    drawn uniformly from (-1 / sqrt(D), 1 / sqrt(D)), in that order.

    layer_norm: the recurrence gets LN(a) in the place of a = W_ih x_t, the input's product of a step of a sequence:

        LN(a) = norm_weight_ih * (a - mean(a)) / sqrt(var(a) + 1e-5) + norm_bias_ih

    with the mean and the variance over all units of a head and over all gates that have a recurrent product, and others
    over those with an input alone, such as a GRU's candidate: so Ba et al. (2016, arXiv:1607.06450) normalise the input
    of their LSTM and their GRU. Two parameters more, norm_weight_ih_lks [G D], ones to begin with, and, with bias,
    norm_bias_ih_lks [G D], zeros. A pass is no single call of the launcher then: the norm is PyTorch's.

    mode: torch.nn's name of the kind. cell: a library name, ``"path/to/file.py:NAME"`` or a Cell. The others are
    arguments of torch.nn.LSTM. checkpoint, memory_limit: as of rnn(), for all layers; Wx is
    made again, too, so that beside input and output of a layer little is kept. wavefront: run the layers at the same
    time, each this many steps behind the one before; for several layers in one direction. True: where the model says
    that it pays, and as many steps as it says.

    Raises ArgumentTypeError (a TypeError) and ArgumentError (a ValueError) where torch.nn raises these, CellError for
    an unknown cell.
    """

    def __init__(
        self,
        mode: str,
        cell: str | Cell,
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
        super().__init__()
        check_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        check_switches(bias=bias, batch_first=batch_first, bidirectional=bidirectional, layer_norm=layer_norm)
        check_dropout(dropout, num_layers)
        check_heads(heads, hidden_size, proj_size)
        check_chunks(checkpoint, memory_limit)
        others = (checkpoint, memory_limit) != (None, None)
        check_wavefront(wavefront, num_layers=num_layers, bidirectional=bidirectional, checkpointed=others)
        self.mode = mode
        self.cell = cell
        self.input_size = int(input_size)
        self.hidden_size = int(hidden_size)
        self.num_layers = int(num_layers)
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = int(proj_size)
        self.heads = int(heads)
        self.checkpoint = checkpoint
        self.memory_limit = memory_limit
        self.wavefront = wavefront or None
        self.layer_norm = layer_norm
        self._parts = parts_of(cell)
        self._stacks = Stacks()
        self._native = self._of_torch_nn()
        self._names: list[dict[str, str]] = []  # of the parameters of each layer and direction
        directions = ("", "_reverse") if bidirectional else ("",)
        for layer in range(num_layers):
            inputs = (proj_size or hidden_size) * len(directions) if layer else input_size
            sizes = parameter_sizes(self._parts, inputs, hidden_size, heads, proj_size, bias)
            sizes |= norm_sizes(self._parts, hidden_size, bias) if layer_norm else {}
            for direction in directions:
                self._names.append({name: f"{name}_l{layer}{direction}" for name in sizes})
                for name, size in sizes.items():
                    values = nn.Parameter(torch.empty(size, device=device, dtype=dtype))
                    self.register_parameter(f"{name}_l{layer}{direction}", values)
        self._flat = tuple(full for names in self._names for full in names.values())
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        reset(self)

    def flatten_parameters(self) -> None:
        """Do nothing, for code that calls it of torch.nn's modules: kernels read the parameters where they lie."""

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """The parameters of each layer and direction."""
        return [[getattr(self, name) for name in names.values()] for names in self._names]

    def extra_repr(self) -> str:
        """The sizes, and what is not as it is by default, for print()."""
        defaults = {"proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        beyond = {"bidirectional": False, "heads": 1, "checkpoint": None, "memory_limit": None, "wavefront": None}
        beyond["layer_norm"] = False
        return described(self, defaults | beyond)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickle: a Cell of one's own gets its name in this process."""
        super().__setstate__(state)
        self._parts = parts_of(self.cell)
        self._flat = tuple(full for names in self._names for full in names.values())
        self._stacks = Stacks()
        self._native = self._of_torch_nn()

    def _of_torch_nn(self) -> native.Native | None:
        """The layers by torch.nn's own operators; None where it has none for them."""
        if self.heads != 1 or self.layer_norm:
            return None
        sizes = (self.input_size, self.hidden_size, self.proj_size)
        return native.Native.of(self._parts, self.num_layers, 1 + self.bidirectional, *sizes, self.bias)

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Any = None,
        *,
        lengths: Any = None,
        resets: Tensor | None = None,
        returns: Literal["states", "hidden"] = "hidden",
    ) -> Any:
        """As torch.nn's: input [T, B, I], or [B, T, I] with batch_first, or [T, I], or a PackedSequence; hx None for
        zeros, or each state [L K, B, D] ([L K, D] for [T, I]) for L layers of K directions, the first of P units where
        it is projected: a tensor for a cell with one state, else a tuple of them in the cell's order.

        lengths: integers [B]; sequence b is its first lengths[b] steps. The output is zero behind them, the last states
        are each sequence's own, the reverse direction begins at its own end, and what the input holds behind it does
        not matter. resets: bool [B, T], or [T] without a batch; where it is True the states before the step are the
        initial ones again, and so are those from which the reverse direction comes to the step before it.

        Returns the output [T, B, K P], in the form of the input, and the last states in the form of hx. returns:
        "states" for a third result, a tuple of every state after every step, each [L K, T, B, D] ([L K, B, T, D] with
        batch_first or for a PackedSequence, zero behind its ends; [L K, T, D] for [T, I]).

        Raises ArgumentTypeError (a TypeError) for what is no tensor, ArgumentError (a ValueError) for an input of
        another rank or dtype and lengths beyond T, TensorShapeError (a RuntimeError) for tensors of another shape,
        ConfigError for another ``returns``.
        """
        if returns not in RETURNS:
            raise ConfigError(f"a module cannot return {returns!r}; {near_names(returns, RETURNS)}")
        if lengths is None and resets is None and returns == "hidden" and undisturbed():
            found = self._eager(input, hx)
            if found is not None:
                return found
        node = self._node(input, hx, lengths=lengths, resets=resets, returns=returns)
        if node is not None:
            return node
        check_input(input, self.input_size, self.weight_ih_l0.dtype, self.batch_first)
        form = padding.Padding(input) if isinstance(input, PackedSequence) else None
        batched = form is not None or input.dim() == 3
        if form is not None:
            if lengths is not None:
                raise ArgumentError("a PackedSequence says its lengths itself; leave lengths out")
            x, own = form.pad(), form.own(resets)
        else:
            x = input if batched and self.batch_first else input.transpose(0, 1) if batched else input.unsqueeze(0)
            if lengths is not None and not batched:
                raise ArgumentError(f"lengths are those of a batch, but the input is [T, I] = {list(input.shape)}")
            own = own_of_input(resets, lengths, x, batched)
        states = (
            None
            if hx is None
            else self._initial(hx, x.shape[0], x.dtype, batched, None if form is None else form.sorted_indices)
        )
        output, last, every = self._layers(x, states, own, returns == "states")
        if not batched:
            last = [state.squeeze(1).clone() for state in last]  # no views, which cannot be detached in place
            every = every and [state.squeeze(1) for state in every]
        if form is not None:
            if form.unsorted_indices is not None:
                last = [state.index_select(1, form.unsorted_indices) for state in last]
                every = every and [state.index_select(1, form.unsorted_indices) for state in every]
            output = form.pack(output)
        elif not batched:
            output = output.squeeze(0)
        elif not self.batch_first:
            output = output.transpose(0, 1).clone(memory_format=torch.contiguous_format)  # no view
            every = every and [state.transpose(1, 2).contiguous() for state in every]
        returned = last[0] if len(last) == 1 else tuple(last)
        return (output, returned) if every is None else (output, returned, tuple(every))

    def _eager(self, input: Any, hx: Any) -> tuple[Tensor, Any] | None:
        """The whole pass as one node of autograd's, where it is all steps of a batch of tensors of PyTorch's own, and
        nothing but h is asked for; None where it is not, or where something is wrong, which forward() tells."""
        tensors = self._parameters
        if tuple(tensors) != self._flat or self.proj_size or self.layer_norm or double_backward.on:
            return None
        if self.checkpoint is not None or self.memory_limit is not None:
            return None
        flat = list(tensors.values())
        if not own_tensors(input, *flat) or input.dim() != 3:
            return None
        if self._native is not None and native.alone(input):
            return None
        sizes = input.shape
        batch = sizes[0 if self.batch_first else 1]
        if sizes[2] != self.input_size or not sizes[0] or not sizes[1]:
            return None
        if input.dtype is not flat[0].dtype and not any_autocast():
            return None
        states = None
        if hx is not None:
            states = self._initial(hx, batch, input.dtype, True, None)
            if not own_tensors(*states):
                return None
        stack = self._stacks.of(self, self.dropout if self.training else 0.0)
        run = run_stack if self._waves is None else run_waves
        found = run(stack, input, states, flat, time_major=not self.batch_first)
        if found is None:
            return None
        output, last = found
        return output, last[0] if len(last) == 1 else tuple(last)

    def _initial(self, hx: Any, batch: int, dtype: torch.dtype, batched: bool, order: Tensor | None) -> list[Tensor]:
        """The states of hx, checked, each [L K, B, D] in the order of the input: order says which sequence each is."""
        count = len(self._names)
        units = [self.proj_size or self.hidden_size, *[self.hidden_size] * (len(self._parts.states) - 1)]
        sizes = [[count, batch, unit] if batched else [count, unit] for unit in units]
        axes = f"[{'2 L' if self.bidirectional else 'L'}, {'B, ' if batched else ''}D]"
        states = list(check_states(hx, self._parts.states, sizes, axes, dtype))
        if not batched:
            return [state.unsqueeze(1) for state in states]
        if order is not None:
            return [state.index_select(1, order) for state in states]
        return states

    def _layers(
        self, x: Tensor, states: list[Tensor] | None, own: Own, every: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor] | None]:
        """The output over x [B, T, I], each state after the last step [L K, B, D] and, if ``every``, after every step
        [L K, B, T, D]; states: the initial ones, each [L K, B, D]."""
        dropout = self.dropout if self.training else 0.0
        if to_onnx():
            return _joined(self._to_onnx(x, states, own, every, dropout), every)
        if self._waves is not None and not tracing():  # a trace of chunks would have as many for ever
            parameters = [self._parameters_of(names) for names in self._names]
            together = Together.of(self._parts, self.heads, parameters)
            require_no_resets(own.resets)
            return _joined(run_wavefront(together, x, states, own.lengths, every, self._waves, dropout), every)
        chunk = self._chunk(x, states, whole=every)
        if chunk is not None:
            require_no_resets(own.resets)
        flat = [getattr(self, full) for one in self._names for full in one.values()]
        alone = None if every or chunk is not None else self._native
        if alone is not None and alone.takes(x, states, flat, own):
            output, ends = alone.run(x, states, flat, own, dropout)
            return output.clone(memory_format=torch.contiguous_format) if self.batch_first else output, ends, None
        known = not self.proj_size and not self.layer_norm and not double_backward.on
        simple = own is NOTHING and not every and chunk is None and known
        if simple and plain(x, *(states or ()), *flat) and x.numel():
            output, last = run_stack(self._stacks.of(self, dropout), x, states, flat, time_major=False)
            return output, list(last), None
        return _joined(self._one_by_one(x, states, own, every, dropout, chunk), every)

    def _one_by_one(
        self, x: Tensor, states: list[Tensor] | None, own: Own, every: bool, dropout: float, chunk: int | None
    ) -> list[LayerResult]:
        """The result of each layer, one after another."""
        count = 2 if self.bidirectional else 1
        results: list[LayerResult] = []
        for layer in range(self.num_layers):
            if layer and dropout:
                x = functional.dropout(x, dropout)
            here = slice(layer * count, (layer + 1) * count)
            directions = [self._parameters_of(names) for names in self._names[here]]
            initial = None if states is None else [state[here] for state in states]
            together = Together.of(self._parts, self.heads, directions)
            results.append(run_layer(together, x, initial, own, every, chunk))
            x = results[-1].output
        return results

    def _to_onnx(
        self, x: Tensor, states: list[Tensor] | None, own: Own, every: bool, dropout: float
    ) -> list[LayerResult]:
        """The result of each layer as nodes of ONNX, or as loops where there are none."""
        node = node_of(self._parts, x, own, heads=self.heads, projected=bool(self.proj_size), every=every)
        if node is None or self.layer_norm:
            return self._one_by_one(x, states, own, every, dropout, None)
        count = 2 if self.bidirectional else 1
        parameters = [self._parameters_of(names) for names in self._names]
        layers = [parameters[first : first + count] for first in range(0, len(parameters), count)]
        return run_nodes(node, x, states, own.lengths, layers, dropout)

    @property
    def _waves(self) -> int | None:
        """Steps of a chunk of a wavefront that was asked for; with True there is one where it pays."""
        return None if self.wavefront is True else self.wavefront

    def _parameters_of(self, names: Mapping[str, str]) -> dict[str, Tensor]:
        """The parameters of one layer and direction, by the first part of their names."""
        return {name: getattr(self, full) for name, full in names.items()}

    def _chunk(self, x: Tensor, states: list[Tensor] | None, *, whole: bool) -> int | None:
        """Steps of a chunk of a checkpointed pass over x [B, T, I], or None; whole: every state is given out."""
        if (self.checkpoint is None and self.memory_limit is None) or not (tracing() or torch.is_grad_enabled()):
            return None
        leaves = [x, *self.parameters(), *(states or ())]
        if differentiating() or not any(one.requires_grad for one in leaves):
            return None
        if self.memory_limit is None:
            return self.checkpoint
        dtype = autocast_dtype(x.device.type) or x.dtype
        size = x.shape[0] * self.hidden_size * (2 if self.bidirectional else 1) * dtype.itemsize
        return chunk_within(
            self.memory_limit, self._parts.key, x.shape[1], size, layers=self.num_layers, hidden=not whole
        )


class Stacks(dict[float, Stack]):
    """A module's layers for one node of autograd's, by the dropout between them, with what has been found out about
    their kernels. A copy of a module finds that out itself."""

    def of(self, module: Recurrent, dropout: float) -> Stack:
        """The layers of a module."""
        found = self.get(dropout)
        if found is None:
            count = 2 if module.bidirectional else 1
            names = tuple(module._names[0])
            sizes = (module.num_layers, count, module.heads)
            found = self[dropout] = Stack(module._parts, *sizes, names, dropout, module.wavefront)
        return found

    def __deepcopy__(self, _: Any) -> Stacks:
        return Stacks()

    def __reduce__(self) -> Any:
        return Stacks, ()


def reset(module: nn.Module) -> None:
    """Draw every parameter uniformly from (-1 / sqrt(D), 1 / sqrt(D)), in their order, as torch.nn does; a layer norm's
    are ones and zeros."""
    reach = 1 / math.sqrt(module.hidden_size)
    for name, parameter in module.named_parameters():
        if name.startswith((WEIGHT, BIAS)):
            nn.init.constant_(parameter, float(name.startswith(WEIGHT)))
        else:
            nn.init.uniform_(parameter, -reach, reach)


def described(module: nn.Module, defaults: Mapping[str, Any]) -> str:
    """The sizes of a module, and its attributes that are not as they are by default."""
    others = [f"{name}={getattr(module, name)}" for name, value in defaults.items() if getattr(module, name) != value]
    return ", ".join([str(module.input_size), str(module.hidden_size), *others])


def _joined(results: Sequence[LayerResult], every: bool) -> tuple[Tensor, list[Tensor], list[Tensor] | None]:
    """The results of all layers: see Recurrent._layers."""
    # Each a tensor of its own and no view, so that it may be changed in place.
    ends = [torch.cat(state) for state in zip(*(one.last for one in results), strict=True)]
    whole = [torch.cat(state) for state in zip(*(one.every for one in results), strict=True)] if every else None
    return results[-1].output, ends, whole
