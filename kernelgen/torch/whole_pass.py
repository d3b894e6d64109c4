"""A whole pass over a module's layers as kernels that one call queues, the products of matrices among them.

At short sequences the host is what is waited for, and a call of PyTorch's costs it as much as a whole queue of
launches. So where the model says that no product takes long (Engine.product), a pass makes no PyTorch calls but
allocations. All that a backward pass needs lies in one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kernelgen.schedules.shared.matrix_product import TURNED_A, TURNED_B, TURNED_OUT, MatrixProduct
from kernelgen.torch import passes
from kernelgen.torch.chain_arrays import Arrays
from kernelgen.torch.engine import Engine, Layout, Link, Ready
from kernelgen.torch.kernels import ALIGNMENT, Backward, Forward, ready
from kernelgen.torch.layer_form import LayerForm
from kernelgen.torch.parts import bias_gradients
from kernelgen.torch.recording import Pass

Chain = Callable[[Sequence[Tensor | None]], None]


@dataclass(frozen=True)
class Products:
    """The products of a layer that have a kernel: Wx, and the gradients of weight_ih and x."""

    into: Ready | None
    of_weight: Ready | None = None
    of_input: Ready | None = None


def products_of_layers(
    engine: Engine, device: int, *, steps: int, width: int, depths: Sequence[int], dtype: str, learning: bool
) -> list[Products] | None:
    """The products of layers that read ``depths`` features each; their kernels begin to compile. None where a backward
    pass cannot do with them. steps: of all sequences; width: rows of weight_ih; dtype: a Shape's; learning: whether
    there is a backward pass."""

    def product(rows: int, columns: int, depth: int, *transposed: bool) -> Ready | None:
        return engine.product(MatrixProduct(rows, columns, depth, dtype, *transposed), device)

    found = {}
    for depth in dict.fromkeys(depths):
        backward: list[Ready | None] = []
        if learning:
            backward = [product(width, depth, steps, True, True), product(steps, depth, width, False, True)]
            if None in backward:
                return None
        found[depth] = Products(product(steps, width, depth, False, False), *backward)
    return [found[depth] for depth in depths]


@dataclass(frozen=True)
class _Layer:
    """What runs for a layer. run: the recurrence; takes_x: it makes Wx itself."""

    run: Pass[Any]
    takes_x: bool
    products: Products


class WholePass:
    """Passes of a module's layers over an input x of one form. products: of each layer. begun: whether initial states
    are given. dtype: a Shape's.

    Where ``short`` is not true there are no kernels for it.
    """

    def __init__(
        self,
        form: LayerForm,
        engine: Engine,
        x: Tensor,
        products: Sequence[Products],
        *,
        time_major: bool,
        begun: bool,
        dtype: str,
    ) -> None:
        self.form = form
        self._engine, self._dtype, self._on = engine, x.dtype, x.get_device()
        kernel: Forward = form.run.kernel
        apart, wide = form.all_summed and len(form.names) > 2, form.heads * form.dim
        self.arrays = Arrays(
            form.layers, form.batch, form.seq, len(form.parts.states), wide, form.width, x.dtype.itemsize, form.names,
            apart, time_major, begun, form.keep != "nothing", kernel.others, kernel.gates,
        )  # fmt: skip
        depths = [x.shape[2], *[wide] * (form.layers - 1)]
        found = {depth: self._of_layer(x, depth, own, dtype) for depth, own in zip(depths, products, strict=True)}
        self._layers = [found[depth] for depth in depths]
        biases = [torch.Size((gates * wide,)) for gates in (form.parts.bias_ih, form.parts.bias_hh)]
        others = (form.r_sizes, *biases)[: len(form.names) - 1]
        self._sizes = [size for depth in depths for size in (torch.Size((form.width, depth)), *others)]
        self._kept_bytes = self.arrays.kept()[1]
        self._backwards: dict[tuple[bool, bool], Chain] = {}

    def _of_layer(self, x: Tensor, depth: int, products: Products, dtype: str) -> _Layer:
        """What runs for a layer that reads so many features."""
        form = self.form
        wx = (torch.Size((form.batch, form.seq, form.parts.inputs, form.heads, form.dim)), x.dtype, x.device)
        run = passes.pass_with_product(self._engine, wx, depth, dtype, form.parts.key, form.keep)
        return _Layer(form.run if run is None else run, run is not None, products)

    @property
    def short(self) -> bool:
        """Whether every product into a layer has a kernel, if one is needed."""
        return all(layer.takes_x or layer.products.into is not None for layer in self._layers)

    @property
    def kept(self) -> int:
        """How many tensors ``forward`` leaves for ``backward``."""
        return 3 + (not self.arrays.time_major) + len(self.arrays.sums)

    def takes(self, x: Tensor, parameters: Sequence[Tensor]) -> bool:
        """Whether the parameters are what kernels read where they lie."""
        dtype, device = self._dtype, self._on
        for one, size in zip(parameters, self._sizes, strict=True):
            if one.dtype is not dtype or one.shape != size or one.get_device() != device:
                return False
            if not one.is_contiguous() or one.data_ptr() % ALIGNMENT:
                return False
        return x.dtype is dtype and x.get_device() == device

    # ---- forward ----

    def forward(
        self, x: Tensor, time_major: bool, initial: Sequence[Tensor], parameters: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor | None], list[Tensor]]:
        """See layer_plan.Plan.forward; ``takes`` must say so."""
        form, arrays, empty = self.form, self.arrays, x.new_empty
        x = ready(x, self._dtype)
        starts = ready(torch.stack(tuple(initial), 1), self._dtype) if initial else None  # [L, S, B, H D]
        sums = [] if arrays.apart else list(self._sums(parameters))
        output = empty((*x.shape[:2], arrays.wide))
        last = empty((arrays.states, form.layers, form.batch, arrays.wide))
        kept = empty((self._kept_bytes,), dtype=torch.uint8) if arrays.learning else None
        self._run((x, starts, output, last, kept, *parameters, *sums))
        for layer in self._layers:
            layer.run.count()
        # No views, which autograd would not let anybody change in place.
        states = [state.data for state in last.unbind()]
        if not arrays.learning:
            return output, states, [], []
        return output, states, [x, starts, kept, *([] if time_major else [output]), *sums], []

    def _sums(self, parameters: Sequence[Tensor]) -> Iterator[Tensor]:
        """b of each layer."""
        count = len(self.form.names)
        for first in range(0, len(parameters), count):
            _, weight_hh, *biases = parameters[first : first + count]
            yield ready(self.form.bias(biases, weight_hh), self._dtype)

    @cached_property
    def _run(self) -> Chain:
        """The forward pass as a function of x, the initial states, output, last states, what is kept, parameters."""
        arrays, layers = self.arrays, self.form.layers
        several, state = layers > 1, arrays.states * arrays.state_bytes
        between: dict[str, int] = {}
        links: list[Link] = []
        if not arrays.learning:
            hidden = {arrays.hidden(layer) for layer in range(layers)} - {"output"}
            between |= dict.fromkeys(sorted(hidden), arrays.hidden_bytes)
        for layer, own in enumerate(self._layers):
            if own.takes_x:
                rows = self._rows(layer, between, links)
                of_kernel = {"x": rows, "w": f"weight_ih.{layer}"}
                of_kernel |= {"input_bias": f"bias_ih.{layer}"} if arrays.apart else {}
            else:
                between["wx"] = arrays.steps * arrays.width * arrays.itemsize
                of_kernel = {"wx": "wx"}
                of_product = {"a": arrays.rows(layer), "b": f"weight_ih.{layer}", "out": "wx"}
                of_product |= {"bias": f"bias_ih.{layer}"} if arrays.apart else {}
                links.append(self._product(layer, own.products.into, of_product, turned=TURNED_A))
            of_kernel |= {"states": arrays.hidden(layer), "last": f"ends.{layer}" if several else "last"}
            links.append(Link(own.run.kernel.ready, of_kernel | self._of_recurrence(layer)))
        if arrays.time_major:
            links.append(self._turned(arrays.wide, arrays.hidden(layers - 1), "output", into_batches=False))
        if several:
            between["ends"] = layers * state
            turn = self._engine.turned_rows(layers, arrays.states, arrays.state_bytes, self._on)
            links.append(Link(turn, {"from": "ends", "to": "last"}))
        given = ("x", "starts", "output", "last", "kept", *arrays.parameters)
        inside = arrays.inside(*(["ends"] if several else []))
        return self._engine.chain(links, Layout(given, inside, between), self._on)

    def _of_recurrence(self, layer: int) -> dict[str, str]:
        """What both passes read of a layer, but for h."""
        return {"r": f"weight_hh.{layer}", "b": self.arrays.bias(layer), **self.arrays.saved(layer)}

    def _rows(self, layer: int, between: dict[str, int], links: list[Link]) -> str:
        """What a layer reads, as [B, T], for a kernel that reads it so."""
        if layer or not self.arrays.time_major:
            return self.arrays.rows(layer)
        features = self._sizes[0][1]
        between["batches"] = self.arrays.steps * features * self.arrays.itemsize
        links.append(self._turned(features, "x", "batches", into_batches=True))
        return "batches"

    def _product(self, layer: int, found: Ready | None, arrays: Mapping[str, str], *, turned: int) -> Link:
        """A product of a layer. turned: the bit of the array that has x's form, or is x, in the first layer."""
        assert found is not None
        there = turned if layer == 0 and self.arrays.time_major else 0
        return Link(found, arrays, {"batch": self.form.batch, "seq": self.form.seq, "turned": there})

    def _turned(self, elements: int, source: str, to: str, *, into_batches: bool) -> Link:
        """The copy of steps of so many elements from [T, B] to [B, T], or back."""
        sizes = (self.form.seq, self.form.batch) if into_batches else (self.form.batch, self.form.seq)
        turned = self._engine.turned_rows(*sizes, elements * self.arrays.itemsize, self._on)
        return Link(turned, {"from": source, "to": to})

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
        form, arrays, dtype = self.form, self.arrays, self._dtype
        x, starts, everything, *rest = kept
        output, sums = (None, rest) if time_major else (rest[0], rest[1:])
        assert x is not None
        empty, count = x.new_empty, len(form.names)
        wanted = (*x.shape[:2], arrays.wide)
        d_output = x.new_zeros(wanted) if d_output is None else ready(d_output, dtype)
        d_ends = None
        if any(d is not None for d in d_last):
            zeros = x.new_zeros((form.layers, form.batch, arrays.wide))
            d_ends = ready(torch.stack([zeros if d is None else d for d in d_last], 1), dtype)
        d_x = empty(x.shape) if input_needed else None
        d_starts = empty((form.layers, arrays.states, form.batch, arrays.wide))
        made = [
            (empty(self._sizes[layer * count]), empty(form.r_sizes), empty(form.b_sizes))
            for layer in range(form.layers)
        ]
        run = form.backward_run(x, parameters[1], parameters[count - 1])
        key = (input_needed, d_ends is not None)
        if key not in self._backwards:
            self._backwards[key] = self._backward(run.kernel, *key)
        flat = [one for layer in made for one in layer]
        self._backwards[key](
            (d_output, d_ends, x, output, everything, starts, *parameters, *sums, d_x, d_starts, *flat)
        )
        of_module: list[Tensor] = []
        for d_weight, d_r, d_b in made:
            run.count()
            of_module += (d_weight, d_r, *bias_gradients(form.parts, arrays.wide, d_b))[:count]
        return d_x, d_starts, of_module

    def _backward(self, kernel: Backward, input_needed: bool, ended: bool) -> Chain:
        """The backward pass as a function of the gradients of output and last states, x, output, what is kept, the
        initial states, the parameters, and the gradients of x, the initial states and ``Arrays.made``."""
        arrays, form = self.arrays, self.form
        between = {"d_wx": arrays.steps * arrays.width * arrays.itemsize, "d_hidden": arrays.hidden_bytes}
        links, d_hidden = [], "d_output"
        if arrays.time_major:
            links.append(self._turned(arrays.wide, "d_output", "d_hidden", into_batches=True))
            d_hidden = "d_hidden"
        for layer in reversed(range(form.layers)):
            d_weight, d_r, d_b = arrays.made(layer)
            own = {"states": arrays.hidden(layer), "d_states": d_hidden, **self._of_recurrence(layer)}
            if ended:
                own["d_last"] = f"d_ends.{layer}"
            made = {"d_wx": "d_wx", "d_r": d_r, "d_b": d_b, "d_initial": f"d_starts.{layer}"}
            links.append(Link(kernel.ready, {**own, **made}))
            of_weight = {"a": "d_wx", "b": arrays.rows(layer), "out": d_weight}
            links.append(self._product(layer, self._layers[layer].products.of_weight, of_weight, turned=TURNED_B))
            if layer or input_needed:
                d_hidden = "d_hidden" if layer else "d_x"
                of_x = {"a": "d_wx", "b": f"weight_ih.{layer}", "out": d_hidden}
                links.append(self._product(layer, self._layers[layer].products.of_input, of_x, turned=TURNED_OUT))
        before = ("d_output", "d_ends", "x", "output", "kept", "starts", *arrays.parameters, "d_x", "d_starts")
        every = [name for layer in range(form.layers) for name in arrays.made(layer)]
        inside = arrays.inside("d_starts", *(["d_ends"] if ended else []))
        return self._engine.chain(links, Layout((*before, *every), inside, between), self._on)
