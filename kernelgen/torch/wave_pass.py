"""Layers in a wavefront as kernels that one call queues: each layer in a lane of its own, a chunk of steps behind the
one before, with no copies between.

All that lies between the layers is in chunks, one behind the other: the steps of a chunk as [B, C, ...], C in the last
one perhaps fewer. So whatever a kernel reads or writes is one piece of memory, and a layer's rows are in the same order
everywhere, which is all that the products for weight gradients ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor

from kernelgen.schedules.shared.matrix_product import MatrixProduct
from kernelgen.torch import passes
from kernelgen.torch.engine import Chain, Engine, Layout, Link, Ready
from kernelgen.torch.errors import TensorShapeError
from kernelgen.torch.kernels import ALIGNMENT, Backward, Forward, ready
from kernelgen.torch.parts import bias_gradients, summed_bias
from kernelgen.torch.recording import Pass
from kernelgen.torch.wave_form import Waves

APART = 256
"""Bytes: where arrays begin in the tensor of all that is kept, as allocations of PyTorch's do."""

Inside: TypeAlias = dict[str, tuple[str, int]]


class WavePass:
    """The passes of layers in waves. form, engine: what runs, and on what."""

    def __init__(self, form: Waves, engine: Engine) -> None:
        self.form, self._engine = form, engine
        self._beside = engine.beside(form.layers)
        self._states = len(form.parts.states)
        self._item: int = form.dtype.itemsize
        # Sums over chunks are of float32, which kernels that are told so hand over unrounded.
        self._floats = torch.float32 if self._item == 2 else form.dtype
        self._products, self._of_weights = self._all_products(), self._products_of_weights()
        missing = None in (*self._products.values(), *self._of_weights.values())
        lengths = () if missing else dict.fromkeys(form.steps)
        self._runs = {steps: self._forward_run(steps) for steps in lengths}
        kernel: Forward | None = self._runs[form.steps[0]].kernel if self._runs else None
        self._others = kernel is not None and kernel.others is not None
        self._gates = 0 if kernel is None or kernel.gates is None else kernel.gates[0]
        wide, parts = form.wide, form.parts
        self._apart = len(form.names) > 2 and parts.runs == (("sum", 0, 0, parts.inputs),)
        biases = [(gates * wide,) for gates in (parts.bias_ih, parts.bias_hh)]
        others = ((parts.products * wide, form.dim), *biases)[: len(form.names) - 1]
        self._sizes = [size for depth in form.depths for size in ((form.width, depth), *others)]
        self._kept, self._kept_bytes = self._keep()
        self._backwards: dict[tuple[bool, bool], Chain] = {}

    @property
    def possible(self) -> bool:
        """Whether there is a kernel for everything, which may run beside others and reads chunks where they lie."""
        if not self._runs or any(run.kernel is None for run in self._runs.values()):
            return False
        if any(width * self._item % ALIGNMENT for width in (self.form.inputs, self.form.wide)):
            return False
        return not any(call.launch.cooperative for run in self._runs.values() for call in run.kernel.program.calls)

    @property
    def kept(self) -> int:
        """How many tensors ``forward`` leaves for ``backward``."""
        return 4

    def of(self, x: Tensor, parameters: Sequence[Tensor]) -> WavePass:
        """What runs for these tensors. Raises TensorShapeError for parameters that do not fit."""
        for one, size in zip(parameters, self._sizes, strict=True):
            if one.shape != size or one.device != x.device:
                raise TensorShapeError(
                    f"a parameter is {list(one.shape)} on {one.device} where layers of {self.form.wide} units over "
                    f"{self.form.inputs} features need {list(size)} on {x.device}"
                )
        return self

    # ---- what runs ----

    def _forward_run(self, steps: int) -> Pass[Any]:
        """The recurrence over a chunk of so many steps."""
        form, parts = self.form, self.form.parts
        sizes = [
            (form.batch, steps, parts.inputs, form.heads, form.dim),
            (parts.products, form.heads, form.dim, form.dim),
            (parts.biases, form.heads, form.dim),
            (self._states, form.batch, form.heads, form.dim),
        ]
        dtypes = (form.dtype, self._floats, self._floats, form.dtype)
        forms = [(torch.Size(size), dtype, form.device) for size, dtype in zip(sizes, dtypes, strict=True)]
        options = (parts.key, True, form.keep, False, None)
        return passes.forward_pass(self._beside, tuple(forms), (), options)  # type: ignore[arg-type]

    def _all_products(self) -> dict[tuple[int, int, bool], Ready | None]:
        """Wx, by the steps of a chunk and the features that a layer reads, and the gradient of what it reads."""
        form, found = self.form, {}
        for steps in dict.fromkeys(form.steps):
            for depth in form.depths:
                rows = form.batch * steps
                sizes = {False: (rows, form.width, depth), True: (rows, depth, form.width)}
                for gradient in (False, True)[: 1 + form.learning]:
                    product = MatrixProduct(*sizes[gradient], form.name, False, gradient)
                    found[steps, depth, gradient] = self._engine.product(product, self._index)
        return found

    def _products_of_weights(self) -> dict[int, Ready | None]:
        """The gradient of weight_ih over all steps, by the features that a layer reads; none without a backward
        pass."""
        form, steps = self.form, self.form.batch * self.form.seq
        depths = dict.fromkeys(form.depths) if form.learning else ()
        products = {depth: MatrixProduct(form.width, depth, steps, form.name, True, True) for depth in depths}
        return {depth: self._engine.product(product, self._index) for depth, product in products.items()}

    def _product(
        self, layer: int, chunk: int, arrays: dict[str, str], after: tuple[int, ...], *, gradient: bool
    ) -> Link:
        """A product of a layer for a chunk."""
        steps = self.form.steps[chunk]
        found = self._products[steps, self.form.depths[layer], gradient]
        assert found is not None
        numbers = {"batch": self.form.batch, "seq": steps, "turned": 0}
        return Link(found, arrays, numbers, lane=layer, after=after)

    def _product_of_weight(self, layer: int) -> Link:
        """The gradient of a layer's weight_ih, when all of its chunks have run."""
        form = self.form
        found, rows = self._of_weights[form.depths[layer]], f"hidden.{layer - 1}" if layer else "x"
        assert found is not None
        arrays = {"a": f"d_wx.{layer}", "b": rows, "out": f"d_weight_ih.{layer}"}
        return Link(found, arrays, {"batch": form.batch, "seq": form.seq, "turned": 0}, lane=layer)

    # ---- where arrays lie ----

    def _keep(self) -> tuple[Inside, int]:
        """Where the arrays that a backward pass needs lie in the tensor "kept", and its bytes; without one, where as
        many lie between kernels."""
        form, at, found = self.form, 0, {}
        state = form.batch * form.wide * self._item
        sizes: dict[str, int] = {}
        for layer in range(form.layers):
            if layer < form.layers - 1:
                sizes[f"hidden.{layer}"] = form.seq * state
            for chunk, steps in enumerate(form.steps):
                if chunk:
                    sizes[f"start.{layer}.{chunk}"] = self._states * state
                if self._others:
                    sizes[f"others.{layer}.{chunk}"] = (self._states - 1) * steps * state
                if self._gates:
                    sizes[f"gates.{layer}.{chunk}"] = self._gates * steps * state
        for name, size in sizes.items():
            found[name] = ("kept", at)
            at += -(-size // APART) * APART
        return found, at

    def _inside(self) -> Inside:
        """Where what both passes use lies."""
        form, found = self.form, dict(self._kept)
        self._in_chunks(found, "x", "x", form.inputs)
        for layer in range(form.layers):
            whole = f"hidden.{layer}" if layer < form.layers - 1 else "output"
            self._in_chunks(found, whole, f"hidden.{layer}", form.wide)
        return found

    def _in_chunks(self, found: Inside, whole: str, name: str, features: int) -> None:
        """Put down where the chunks of an array of rows lie, "name.chunk"."""
        base, at = found.get(whole, (whole, 0))
        for chunk, steps in enumerate(self.form.steps):
            found[f"{name}.{chunk}"] = (base, at)
            at += self.form.batch * steps * features * self._item

    def _by_layer(self, found: Inside, whole: str, size: int, count: int = 0) -> None:
        """Put down where the parts of an array lie that has one of so many bytes for each layer, "whole.layer"; or
        ``count`` of them, "whole.layer.part"."""
        for layer in range(self.form.layers):
            if not count:
                found[f"{whole}.{layer}"] = (whole, layer * size)
            for part in range(count):
                found[f"{whole}.{layer}.{part}"] = (whole, (layer * count + part) * size)

    @property
    def _state_bytes(self) -> int:
        """Of all states of a layer."""
        return self._states * self.form.batch * self.form.wide * self._item

    @property
    def _parameters(self) -> list[str]:
        """All parameters, in a module's order; then b of each layer, where that is their sum."""
        layers = range(self.form.layers)
        known = [f"{name}.{layer}" for layer in layers for name in self.form.names]
        return known + ([] if self._apart else [f"b.{layer}" for layer in layers])

    def _of_recurrence(self, layer: int, chunk: int) -> dict[str, str]:
        """What both passes have of a chunk of a layer, by its names in kernels."""
        found = {"r": f"weight_hh.{layer}", "b": f"{'bias_hh' if self._apart else 'b'}.{layer}"}
        found["states"] = f"hidden.{layer}.{chunk}"
        if chunk:
            found["initial"] = f"start.{layer}.{chunk}"
        elif self.form.begun:
            found["initial"] = f"starts.{layer}"
        if self._others:
            found["others"] = f"others.{layer}.{chunk}"
        if self._gates:
            found["gates"] = f"gates.{layer}.{chunk}"
        return found

    # ---- forward ----

    def forward(
        self, x: Tensor, time_major: bool, initial: Sequence[Tensor], parameters: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor | None], list[Tensor]]:
        """See layer_plan.Plan.forward."""
        form = self.form
        rows = form.cut(x.transpose(0, 1) if time_major else x)
        starts = ready(torch.stack(tuple(initial), 1), form.dtype) if initial else None  # [L, S, B, H D]
        output = rows.new_empty((form.batch * form.seq, form.wide))
        last = rows.new_empty((form.layers, self._states, form.batch, form.wide))
        kept = rows.new_empty((self._kept_bytes,), dtype=torch.uint8) if form.learning else None
        self._run((rows, starts, output, last, kept, *self._read(parameters)))
        for steps in form.steps:
            for _ in range(form.layers):
                self._runs[steps].count()
        # No views, which autograd would not let anybody change in place.
        ends = [state.data for state in last.transpose(0, 1).contiguous().unbind()]
        made = form.joined(output, time_major=time_major)
        return made, ends, [rows, starts, output, kept] if form.learning else [], []

    def _read(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """The parameters as kernels read them, and b of each layer where it is their sum."""
        form, count = self.form, len(self.form.names)
        found = [ready(one, form.dtype) for one in parameters]
        if self._apart:
            return found
        for first in range(0, len(parameters), count):
            biases = parameters[first + 2 : first + count]
            if biases:
                found.append(ready(summed_bias(form.parts, form.wide, *biases), form.dtype))
            else:
                found.append(found[0].new_zeros(form.parts.biases * form.wide))
        return found

    @cached_property
    def _run(self) -> Chain:
        """The forward pass as a function of x in chunks, the initial states, h in chunks, the last states [L, S, B,
        H D], what is kept, and parameters."""
        form, inside = self.form, self._inside()
        links: list[Link] = []
        ended: dict[tuple[int, int], int] = {}  # the places of chunks' kernels
        rows = form.batch * form.steps[0]
        between = {f"wx.{layer}": rows * form.width * self._item for layer in range(form.layers)}
        if not form.learning:
            between["kept"] = self._kept_bytes
        self._by_layer(inside, "last", self._state_bytes)
        self._by_layer(inside, "starts", self._state_bytes)
        for layer, chunk in form.order():
            source = f"hidden.{layer - 1}.{chunk}" if layer else f"x.{chunk}"
            of_product = {"a": source, "b": f"weight_ih.{layer}", "out": f"wx.{layer}"}
            of_product |= {"bias": f"bias_ih.{layer}"} if self._apart else {}
            after = (ended[layer - 1, chunk],) if layer else ()
            links.append(self._product(layer, chunk, of_product, after, gradient=False))
            end = f"last.{layer}" if chunk == len(form.steps) - 1 else f"start.{layer}.{chunk + 1}"
            arrays = {"wx": f"wx.{layer}", "last": end, **self._of_recurrence(layer, chunk)}
            ended[layer, chunk] = len(links)
            links.append(Link(self._runs[form.steps[chunk]].kernel.ready, arrays, lane=layer))
        given = ("x", "starts", "output", "last", *(["kept"] if form.learning else ["unused"]), *self._parameters)
        return self._engine.chain(links, Layout(given, inside, between), self._index)

    @property
    def _index(self) -> int:
        """Of the device, -1 for the CPU."""
        index: int | None = self.form.device.index
        return -1 if index is None else index

    # ---- backward ----

    def backward(
        self,
        kept: Sequence[Tensor | None],
        masks: Sequence[Tensor],
        parameters: Sequence[Tensor],
        time_major: bool,
        d_output: Tensor | None,
        d_last: Sequence[Tensor | None],
        input_needed: bool,
    ) -> tuple[Tensor | None, Tensor, list[Tensor]]:
        """See layer_plan.Plan.backward; the gradients of the initial states are [L, S, B, H D]."""
        form, layers, chunks = self.form, self.form.layers, len(self.form.steps)
        rows, starts, output, memory = kept
        assert rows is not None
        assert output is not None
        assert memory is not None
        empty, steps = rows.new_empty, form.batch * form.seq
        if d_output is None:
            d_rows = rows.new_zeros((steps, form.wide))
        else:
            d_rows = form.cut((d_output.transpose(0, 1) if time_major else d_output).to(form.dtype))
        d_ends = None
        if any(d is not None for d in d_last):
            zeros = rows.new_zeros((layers, form.batch, form.wide))
            d_ends = ready(torch.stack([zeros if d is None else d for d in d_last], 1), form.dtype)
        d_x = empty((steps, form.inputs)) if input_needed else None
        d_starts = empty((layers, self._states, form.batch, form.wide))
        d_weights = [empty((form.width, depth)) for depth in form.depths]
        parts, floats = form.parts, self._floats
        d_r = empty((layers, chunks, parts.products * form.wide, form.dim), dtype=floats)
        d_b = empty((layers, chunks, parts.biases * form.wide), dtype=floats)
        runs = {count: self._backward_run(count) for count in self._runs}
        key = (input_needed, d_ends is not None)
        if key not in self._backwards:
            self._backwards[key] = self._backward(runs, *key)
        read = self._read(parameters)
        given = (d_rows, d_ends, rows, output, memory, starts, *read, d_x, d_starts, *d_weights, d_r, d_b)
        self._backwards[key](given)
        for count in form.steps:
            for _ in range(layers):
                runs[count].count()
        of_module: list[Tensor] = []
        own = len(form.names)
        for d_weight, of_r, of_b in zip(d_weights, d_r.sum(1), d_b.sum(1), strict=True):
            of_module += (d_weight, of_r, *bias_gradients(parts, form.wide, of_b))[:own]
        return None if d_x is None else form.joined(d_x, time_major=time_major), d_starts, of_module

    def _backward_run(self, steps: int) -> Pass[Any]:
        """The backward pass over a chunk of so many steps."""
        form = self.form
        sizes = torch.Size((1, form.batch, steps, form.heads, form.dim))
        options = (form.parts.key, False, None)
        return passes.backward_pass(
            self._beside,
            (sizes, form.dtype, form.device),
            self._floats,
            self._floats,
            again=False,
            options=options,
        )

    def _backward(self, runs: dict[int, Pass[Any]], input_needed: bool, ended: bool) -> Chain:
        """The backward pass as a function of the gradients of h in chunks and of the last states, x, h, what is kept,
        the initial states, the parameters, and the gradients to be made."""
        form, inside = self.form, self._inside()
        chunks = len(form.steps)
        between, links = {"d_wx": form.layers * form.batch * form.seq * form.width * self._item}, []
        hidden = form.batch * form.seq * form.wide * self._item
        for layer in range(form.layers - 1):
            between[f"d_hidden.{layer}"] = hidden
        for layer in range(form.layers):  # a chunk reads one and writes the other
            between |= {f"d_start.{layer}.{turn}": self._state_bytes for turn in range(2)}
            whole = f"d_hidden.{layer}" if layer < form.layers - 1 else "d_output"
            self._in_chunks(inside, whole, f"d_hidden.{layer}", form.wide)
            inside[f"d_wx.{layer}"] = ("d_wx", layer * form.batch * form.seq * form.width * self._item)
            self._in_chunks(inside, f"d_wx.{layer}", f"d_wx.{layer}", form.width)
        self._in_chunks(inside, "d_x", "d_x", form.inputs)
        for whole in ("starts", "d_starts", "d_ends"):
            self._by_layer(inside, whole, self._state_bytes)
        of_r, of_b = form.parts.products * form.wide * form.dim, form.parts.biases * form.wide
        self._by_layer(inside, "d_r", of_r * self._floats.itemsize, chunks)
        self._by_layer(inside, "d_b", of_b * self._floats.itemsize, chunks)
        made: dict[tuple[int, int], int] = {}  # the places of the products that make what a layer is given
        for turn, back in form.order():
            layer, chunk = form.layers - 1 - turn, chunks - 1 - back
            kernel: Backward = runs[form.steps[chunk]].kernel
            arrays = {**self._of_recurrence(layer, chunk), "d_states": f"d_hidden.{layer}.{chunk}"}
            if chunk < chunks - 1:
                arrays["d_last"] = f"d_start.{layer}.{(chunk + 1) % 2}"
            elif ended:
                arrays["d_last"] = f"d_ends.{layer}"
            arrays["d_initial"] = f"d_start.{layer}.{chunk % 2}" if chunk else f"d_starts.{layer}"
            arrays |= {name: f"{name}.{layer}.{chunk}" for name in ("d_wx", "d_r", "d_b")}
            after = (made[layer + 1, chunk],) if layer < form.layers - 1 else ()
            links.append(Link(kernel.ready, arrays, lane=layer, after=after, aside=form.layers + layer))
            if layer or input_needed:
                out = f"d_hidden.{layer - 1}.{chunk}" if layer else f"d_x.{chunk}"
                of_product = {"a": f"d_wx.{layer}.{chunk}", "b": f"weight_ih.{layer}", "out": out}
                made[layer, chunk] = len(links)
                links.append(self._product(layer, chunk, of_product, (), gradient=True))
            if not chunk:
                links.append(self._product_of_weight(layer))
        before = ("d_output", "d_ends", "x", "output", "kept", "starts", *self._parameters)
        of_weights = (f"d_weight_ih.{layer}" for layer in range(form.layers))
        given = (*before, "d_x", "d_starts", *of_weights, "d_r", "d_b")
        return self._engine.chain(links, Layout(given, inside, between), self._index)
