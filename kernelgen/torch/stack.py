"""All layers of a module as one function of autograd's.

An eager module of a dozen PyTorch calls a layer is bound by the host at short sequences: each call costs some
microseconds, and its node in autograd's graph as many again. Here a whole pass is one node, which does what the calls
of layers.py do. Where PyTorch must see every call (torch.compile, torch.func, tensors of other types) they run instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kernelgen.cells.registry import cell_of
from kernelgen.program.shape import DTYPES, Shape
from kernelgen.torch import passes
from kernelgen.torch.arguments import any_autocast, autocast_dtype, autocast_parameter
from kernelgen.torch.layer_plan import KEPT, Plan
from kernelgen.torch.once import Once
from kernelgen.torch.parts import Parts, input_product, recurrent_weights, weight_gradients
from kernelgen.torch.precision import precision_of, tf32_allowed
from kernelgen.torch.sequences import NOTHING
from kernelgen.torch.transforms import learns
from kernelgen.torch.wave_form import Waves
from kernelgen.torch.wave_pass import WavePass
from kernelgen.torch.whole_pass import WholePass, products_of_layers


@dataclass(frozen=True)
class Stack:
    """Layers of K directions of H heads, without a projection.

    names: those of the parameters of a layer in a direction (parts.parameter_sizes). dropout: the share of elements
    that become zero between layers, 0 where none do. chunk: steps by which a layer is behind the one before, where they
    run in waves; True for as many as the engine advises, or no waves.
    """

    parts: Parts
    layers: int
    directions: int
    heads: int
    names: tuple[str, ...]
    dropout: float
    chunk: int | bool | None = None
    plans: dict[Any, Plan | None] = field(default_factory=dict, compare=False, repr=False)
    in_waves: dict[Any, WavePass | None] = field(default_factory=dict, compare=False, repr=False)

    def of_layer(self, parameters: Sequence[Tensor], layer: int) -> list[dict[str, Tensor]]:
        """The parameters of a layer, for each direction by name."""
        count = len(self.names)
        first = layer * self.directions * count
        starts = range(first, first + self.directions * count, count)
        return [dict(zip(self.names, parameters[start : start + count], strict=True)) for start in starts]

    def plan(
        self, x: Tensor, time_major: bool, keep: str, initial: Sequence[Tensor], parameters: Sequence[Tensor]
    ) -> Plan | None:
        """The plan for an input of x's form; None where its passes are no kernels."""
        dtype, device = x.dtype, x.device
        r, b = parameters[1], parameters[len(self.names) - 1]
        engine, begun = passes.engine_for(x), initial[0].dtype if initial else None
        tf32 = dtype is torch.float32 and tf32_allowed()
        key = (engine, x.shape, time_major, dtype, device, r.dtype, b.dtype, begun, keep, tf32)
        if key in self.plans:
            return self.plans[key]
        (seq, batch) = x.shape[:2] if time_major else (x.shape[1], x.shape[0])
        wide, parts = parameters[1].shape[0] // self.parts.products, self.parts
        dim, heads = wide // self.heads, self.directions * self.heads
        forms = (
            (torch.Size((batch, seq, parts.inputs, heads, dim)), dtype, device),
            (torch.Size((parts.products, heads, dim, dim)), r.dtype, device),
            (torch.Size((parts.biases, heads, dim)), b.dtype, device),
            None if begun is None else (torch.Size((len(parts.states), batch, heads, dim)), begun, device),
        )
        name, products = precision_of(dtype, r.dtype, b.dtype).dtype, None
        if engine is not None and batch * parts.inputs and dtype is r.dtype and name in DTYPES:
            products = products_of_layers(
                engine,
                x.get_device(),
                steps=batch * seq,
                width=parts.inputs * wide,
                directions=self.directions,
                depths=[x.shape[2], *[self.directions * wide] * (self.layers - 1)],
                dtype=name,
                learning=keep != "nothing",
            )
        run = passes.forward_pass(engine, forms, (), (parts.key, True, keep, False, None))
        found = None
        if run.kernel is not None:
            found = Plan(
                parts, self.layers, self.directions, self.heads, dim, self.names, self.dropout, batch, seq, keep, run
            )
            if engine is not None and products is not None:
                found.take_whole(engine, x, products, time_major=time_major, begun=begun is not None, dtype=name)
        if len(self.plans) >= passes.FORMS:
            self.plans.clear()
        self.plans[key] = found
        return found

    def waves(
        self, x: Tensor, dtype: torch.dtype, width: int, *, time_major: bool, begun: bool, learning: bool
    ) -> WavePass | None:
        """The pass in waves over an input of x's form, computed in ``dtype``; None where there are no kernels for it.
        width: rows of weight_ih; begun: whether initial states are given; learning: whether there is a backward pass.
        """
        engine, tf32 = passes.engine_for(x), dtype is torch.float32 and tf32_allowed()
        key = (engine, x.shape, time_major, dtype, x.device, width, begun, learning, tf32)
        if key in self.in_waves:
            return self.in_waves[key]
        name, found = precision_of(dtype, dtype, dtype).dtype, None
        seq, batch = x.shape[:2] if time_major else (x.shape[1], x.shape[0])
        dim = width // self.parts.inputs // self.heads
        drawn = self.dropout and self.layers > 1  # masks, which PyTorch draws between layers
        if engine is not None and batch and name in DTYPES and not drawn:
            chunk = self.chunk
            if chunk is True:
                shape = Shape(batch, seq, self.heads, dim, name, "gates" if learning else "hidden")
                index = -1 if x.device.index is None else x.device.index
                cell = cell_of(self.parts.key)
                chunk = engine.chunk_of_waves(cell, shape, self.layers, index, learning=learning)
            if chunk:
                sizes = (self.layers, self.heads, dim, self.names, batch, seq, x.shape[2], chunk)
                made = WavePass(Waves(self.parts, *sizes, dtype, x.device, name, begun, learning), engine)
                found = made if made.possible else None
        if len(self.in_waves) >= passes.FORMS:
            self.in_waves.clear()
        self.in_waves[key] = found
        return found


def run_stack(
    stack: Stack, x: Tensor, initial: Sequence[Tensor] | None, parameters: Sequence[Tensor], *, time_major: bool
) -> tuple[Tensor, Sequence[Tensor]]:
    """Run all layers over x [B, T, I], or [T, B, I] where it is time-major; initial: each state before the first step
    [L K, B, H D], or None for zeros; parameters: those of every layer, of its directions in turn, by stack.names.

    Returns h of the last layer, [B, T, K H D] or [T, B, K H D], and each state after the last step [L K, B, H D], which
    may be changed in place, of autocast's dtype inside torch.autocast. Raises what rnn() raises.
    """
    tensors = (x, *(() if initial is None else initial), *parameters)
    states = 0 if initial is None else len(initial)
    dtype = autocast_dtype(x.device.type) if any_autocast() else None
    if learns(*tensors):
        output, *last = _Layers.apply(stack, states, dtype, time_major, *tensors)
        return output, last
    used = tensors if dtype is None else _cast(stack, states, tensors, dtype)
    output, ends, *_ = _forward(stack, states, "nothing", used, time_major)
    return output, ends


def run_waves(
    stack: Stack, x: Tensor, initial: Sequence[Tensor] | None, parameters: Sequence[Tensor], *, time_major: bool
) -> tuple[Tensor, Sequence[Tensor]] | None:
    """As run_stack, with the layers in waves; None where there are no kernels for that."""
    dtype = autocast_dtype(x.device.type) if any_autocast() else None
    learning = learns(x, *(initial or ()), *parameters)
    options = {"time_major": time_major, "begun": initial is not None, "learning": learning}
    if stack.waves(x, dtype or x.dtype, parameters[0].shape[0], **options) is None:
        return None
    return run_stack(stack, x, initial, parameters, time_major=time_major)


def _cast(stack: Stack, states: int, tensors: Sequence[Tensor], dtype: torch.dtype | None) -> Sequence[Tensor]:
    """What autocast to ``dtype`` makes of the tensors; R, b and the initial states as in rnn()."""
    if dtype is None:
        return tensors
    names = ("x", *["initial"] * states, *stack.names * (stack.layers * stack.directions))
    return [
        tensor.to(dtype) if name in ("x", "weight_ih") else autocast_parameter(tensor, dtype)
        for name, tensor in zip(names, tensors, strict=True)
    ]


def _forward(
    stack: Stack, states: int, keep: str, tensors: Sequence[Tensor], time_major: bool
) -> tuple[Tensor, Sequence[Tensor], list[Tensor | None], list[Tensor], Plan | WholePass | WavePass | None]:
    """Output, last states, what each layer leaves for the backward pass, the masks of dropout, and the plan by which
    all of it was made, if there is one."""
    x, initial, parameters = tensors[0], tensors[1 : 1 + states], tensors[1 + states :]
    plan: Plan | WavePass | None = None
    if stack.chunk is not None:
        form = {"time_major": time_major, "begun": bool(states), "learning": keep != "nothing"}
        plan = stack.waves(x, x.dtype, parameters[0].shape[0], **form)
    if plan is None:
        plan = stack.plan(x, time_major, keep, initial, parameters)
    run = None if plan is None else plan.of(x, parameters)
    if run is not None:
        return *run.forward(x, time_major, initial, parameters), run
    x = (x.transpose(0, 1) if time_major else x).contiguous()
    (batch, seq, _), count = x.shape, stack.directions
    ends, kept, masks = [], [], []
    for layer in range(stack.layers):
        if layer and stack.dropout:
            x, mask = torch.native_dropout(x, stack.dropout, True)
            masks.append(mask)
        directions = stack.of_layer(parameters, layer)
        dim = directions[0]["weight_hh"].shape[1]
        r, b = recurrent_weights(stack.parts, stack.heads, dim, directions)
        xs = [x, x.flip(1)] if count == 2 else [x]
        wx = input_product(xs, [one["weight_ih"] for one in directions], stack.heads, dim)
        here = slice(layer * count, (layer + 1) * count)
        start = None
        if states:
            start = torch.stack([s[here].transpose(0, 1).reshape(batch, count * stack.heads, dim) for s in initial])
        options = (stack.parts.key, True, keep, False, None)
        hidden, last, others, gates = passes.forward(wx, r, b, start, *NOTHING, *options)
        ends.append(last.view(-1, batch, count, stack.heads * dim))
        kept += [x, r, b, start, hidden, others, gates]
        x = _turned_round(hidden.view(batch, seq, count, stack.heads * dim), count)
    last = ends[0] if len(ends) == 1 else torch.cat(ends, 2)  # [S, B, L K, H D]
    output = x.transpose(0, 1).contiguous() if time_major else x
    return output, _apart(last.transpose(1, 2).contiguous()), kept if keep != "nothing" else [], masks, None


def _turned_round(h: Tensor, count: int) -> Tensor:
    """[B, T, K, D] as [B, T, K D], the steps of a second direction in reverse order."""
    return h.squeeze(2) if count == 1 else torch.cat([h[:, :, 0], h[:, :, 1].flip(1)], 2)


def _apart(states: Tensor) -> tuple[Tensor, ...]:
    """The states [S, L K, B, D] one by one. No views, which autograd would not let anybody change in place."""
    return tuple(states[index].data for index in range(states.shape[0]))


class _Layers(torch.autograd.Function):  # type: ignore[misc]
    """run_stack with gradients."""

    @staticmethod
    def forward(
        ctx: Any, stack: Stack, states: int, dtype: torch.dtype | None, time_major: bool, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """Run, and keep what the backward pass needs."""
        used = _cast(stack, states, tensors, dtype)
        output, last, kept, masks, plan = _forward(stack, states, "gates", used, time_major)
        ctx.form = (stack, plan, states, time_major, dtype is not None, [tensor.dtype for tensor in tensors])
        ctx.set_materialize_grads(False)
        cast = () if dtype is None else used[1 + states :]
        ctx.save_for_backward(*tensors, *cast, *masks, *kept)
        return (output, *last)

    @staticmethod
    def backward(ctx: Any, d_output: Tensor | None, *d_last: Tensor | None) -> tuple[Any, ...]:
        """The gradients of the tensors, in their own dtypes; those that nobody needs are None."""
        saved = ctx.saved_tensors
        dtypes = ctx.form[-1]
        if not torch.is_grad_enabled():
            return (None, None, None, None, *_gradients(ctx, saved, d_output, d_last))
        with torch.no_grad():  # somebody wants a second derivative
            found = _gradients(ctx, saved, d_output, d_last)
        gradients = Once.refusing(found, *saved[: len(dtypes)], d_output, *d_last)
        return (None, None, None, None, *gradients)


def _gradients(
    ctx: Any, saved: Sequence[Tensor], d_output: Tensor | None, d_last: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """See _Layers.backward."""
    stack, plan, states, time_major, cast, dtypes = ctx.form
    needed = ctx.needs_input_grad[4:]
    parameters = saved[1 + states : len(dtypes)]
    begin = len(dtypes)
    if cast:
        parameters = saved[begin : begin + len(parameters)]
        begin += len(parameters)
    split = len(saved) - (stack.layers * KEPT if plan is None else plan.kept)
    masks, kept = saved[begin:split], saved[split:]
    if plan is None:
        d_x, d_starts, d_parameters = _backward(stack, kept, masks, parameters, time_major, d_output, d_last, needed[0])
    else:
        d_x, d_starts, d_parameters = plan.backward(kept, masks, parameters, time_major, d_output, d_last, needed[0])
    d_initial: list[Tensor | None] = [None] * states
    if any(needed[1 : 1 + states]):
        batch = d_starts[0].shape[1]
        parts = [one.view(states, batch, stack.directions, -1) for one in d_starts]
        d_initial = list(torch.cat(parts, 2).transpose(1, 2).unbind())
    return [
        None if not wanted or gradient is None else gradient if gradient.dtype is dtype else gradient.to(dtype)
        for gradient, wanted, dtype in zip((d_x, *d_initial, *d_parameters), needed, dtypes, strict=True)
    ]


def _backward(
    stack: Stack,
    kept: Sequence[Tensor],
    masks: Sequence[Tensor],
    parameters: Sequence[Tensor],
    time_major: bool,
    d_output: Tensor | None,
    d_last: Sequence[Tensor | None],
    input_needed: bool,
) -> tuple[Tensor | None, list[Tensor], list[Tensor | None]]:
    """See Plan.backward; for either number of directions."""
    left = list(masks)
    d_starts: list[Tensor] = []
    d_parameters: list[Tensor | None] = []
    d_x = d_output.transpose(0, 1) if d_output is not None and time_major else d_output
    for layer in reversed(range(stack.layers)):
        x, r, b, start, hidden, others, gates = kept[layer * KEPT : (layer + 1) * KEPT]
        directions = stack.of_layer(parameters, layer)
        d_hidden = None if d_x is None else _parted(d_x, stack.directions).view_as(hidden)
        d_end = _of_layer(d_last, layer, stack.directions, hidden)
        d_wx, d_r, d_b, d_start = passes.backward(
            r, b, start, hidden, others, gates, None, *NOTHING, d_hidden, d_end, stack.parts.key, False, None
        )
        d_starts.insert(0, d_start)
        found = weight_gradients(stack.parts, stack.heads, stack.directions, d_r, d_b)
        d_x, d_weights = _of_product(d_wx, x, [one["weight_ih"] for one in directions], layer > 0 or input_needed)
        for one, d_weight in zip(reversed(found), reversed(d_weights), strict=True):
            every = {"weight_ih": d_weight, **one}
            d_parameters[:0] = [every[name] for name in stack.names]
        if d_x is not None and layer and stack.dropout:
            scale = 0.0 if stack.dropout == 1 else 1 / (1 - stack.dropout)
            d_x = torch.ops.aten.native_dropout_backward(d_x, left.pop(), scale)
    if d_x is not None and time_major:
        d_x = d_x.transpose(0, 1).contiguous()
    return d_x if input_needed else None, d_starts, d_parameters


def _parted(d: Tensor, count: int) -> Tensor:
    """The reverse of _turned_round: [B, T, K D] as [B, T, K, D], contiguous."""
    if count == 1:
        return d.contiguous()
    first, second = d.chunk(2, 2)
    return torch.stack([first, second.flip(1)], 2)


def _of_layer(d_last: Sequence[Tensor | None], layer: int, count: int, hidden: Tensor) -> Tensor | None:
    """The gradients of a layer's last states, [S, B, K H, D]; None where all are zeros."""
    if all(d is None for d in d_last):
        return None
    _, batch, _, heads, dim = hidden.shape
    zeros = hidden.new_zeros((count, batch, heads * dim // count))
    here = slice(layer * count, (layer + 1) * count)
    both = torch.stack([zeros if d is None else d[here] for d in d_last])  # [S, K, B, H D]
    return both.transpose(1, 2).reshape(-1, batch, heads, dim)


def _of_product(
    d_wx: Tensor, x: Tensor, weights: Sequence[Tensor], input_needed: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """The gradients of x [B, T, I], where it is needed, and of each direction's weight_ih, from that of Wx
    [B, T, G_in, K H, D]."""
    batch, seq, inputs = x.shape
    rows, count = batch * seq, len(weights)
    d_xs, d_weights = [], []
    for direction, weight in enumerate(weights):
        d = d_wx.view(batch, seq, d_wx.shape[2], count, -1)[:, :, :, direction].reshape(rows, -1)
        source = x.flip(1) if direction else x
        d_weights.append(d.t().mm(source.view(rows, inputs)))
        if input_needed:
            d_xs.append(d.mm(weight).view(batch, seq, inputs))
    if not input_needed:
        return None, d_weights
    return d_xs[0] if count == 1 else d_xs[0].add_(d_xs[1].flip(1)), d_weights
