"""A whole pass over a module's layers as kernels that one call queues, the products of matrices among them.

At short sequences the host is what is waited for, and a call of PyTorch's costs it as much as a whole queue of
launches. So a pass makes no PyTorch calls but allocations; its products are kernels of ours or cuBLASLt's, whichever
the engine expects to be faster. All that a backward pass needs lies in one tensor.

The directions of a layer are heads of one recurrence, as they are where PyTorch's calls run it. Copies of rows bring
their arrays together and apart (chain_arrays.Arrays): with one direction only those that a time-major array needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kernelgen.schedules.shared.dropped_elements import MOST, DroppedElements
from kernelgen.schedules.shared.matrix_product import TURNED_A, TURNED_B, TURNED_OUT, MatrixProduct
from kernelgen.torch import passes
from kernelgen.torch.chain_arrays import Arrays
from kernelgen.torch.chain_links import Links
from kernelgen.torch.engine import Chain, Engine, Ready
from kernelgen.torch.kernels import ALIGNMENT, Backward, Forward, ready
from kernelgen.torch.layer_form import LayerForm
from kernelgen.torch.parts import bias_gradients
from kernelgen.torch.recording import Pass


@dataclass(frozen=True)
class Products:
    """The products of a layer that have a kernel: a direction's part of Wx, and the gradients of weight_ih of all
    directions and of x."""

    into: Ready | None
    of_weight: Ready | None = None
    of_input: Ready | None = None


def products_of_layers(
    engine: Engine,
    device: int,
    *,
    steps: int,
    width: int,
    directions: int,
    depths: Sequence[int],
    dtype: str,
    learning: bool,
) -> list[Products] | None:
    """The products of layers that read ``depths`` features each; their kernels begin to compile. None where a backward
    pass cannot do with them. steps: of all sequences; width: rows of a direction's weight_ih; dtype: a Shape's;
    learning: whether there is a backward pass."""
    every = directions * width

    def product(rows: int, columns: int, depth: int, *transposed: bool) -> Ready | None:
        return engine.product(MatrixProduct(rows, columns, depth, dtype, *transposed), device)

    found = {}
    for depth in dict.fromkeys(depths):
        backward: list[Ready | None] = []
        if learning:
            backward = [product(every, depth, steps, True, True), product(steps, depth, every, False, True)]
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

    Where ``possible`` is not true there are no kernels for it.
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
        self._shape_dtype = dtype
        kernel: Forward = form.run.kernel
        parts, wide = form.parts, form.heads * form.dim
        bias_apart = form.all_summed and len(form.names) > 2
        self.arrays = Arrays(
            form.layers, form.directions, form.batch, form.seq, len(parts.states), wide, parts.inputs, parts.products,
            parts.biases, form.dim, x.dtype.itemsize, form.names, bias_apart, time_major, begun,
            bool(form.dropout) and form.layers > 1, form.keep != "nothing", kernel.others, kernel.gates,
        )  # fmt: skip
        self._depths = [x.shape[2], *[form.directions * wide] * (form.layers - 1)]
        found = {depth: self._of_layer(x, depth, own, dtype) for depth, own in zip(self._depths, products, strict=True)}
        self._layers = [found[depth] for depth in self._depths]
        biases = [torch.Size((gates * wide,)) for gates in (parts.bias_ih, parts.bias_hh)]
        others = (form.r_sizes, *biases)[: len(form.names) - 1]
        of_layers = [(torch.Size((form.width, depth)), *others) * form.directions for depth in self._depths]
        self._sizes = [size for sizes in of_layers for size in sizes]
        self._kept_bytes = self.arrays.kept()[1]
        self._backwards: dict[tuple[bool, bool], Chain] = {}

    def _of_layer(self, x: Tensor, depth: int, products: Products, dtype: str) -> _Layer:
        """What runs for a layer that reads so many features."""
        form, run = self.form, None
        if form.directions == 1:
            wx = (torch.Size((form.batch, form.seq, form.parts.inputs, form.heads, form.dim)), x.dtype, x.device)
            run = passes.pass_with_product(self._engine, wx, depth, dtype, form.parts.key, form.keep)
        return _Layer(form.run if run is None else run, run is not None, products)

    @property
    def possible(self) -> bool:
        """Whether every product into a layer can be made, if one is needed, and every element be dropped."""
        if self.arrays.drops and self._elements > MOST:
            return False
        return all(layer.takes_x or layer.products.into is not None for layer in self._layers)

    @property
    def _elements(self) -> int:
        """Of what a layer gives."""
        return self.arrays.hidden_bytes // self.arrays.itemsize

    @property
    def kept(self) -> int:
        """How many tensors ``forward`` leaves for ``backward``."""
        return len(self._lasting)

    @cached_property
    def _lasting(self) -> tuple[int, ...]:
        """Which of ``_given`` they are."""
        arrays = self.arrays
        output = ["output"] if arrays.hidden(arrays.layers - 1) == "output" else []
        sums = arrays.sums if arrays.directions == 1 else ()  # else they are kept together
        return tuple(self._given.index(name) for name in ("x", "starts", "kept", *output, *sums))

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
        starts = ready(torch.stack(tuple(initial), 1), self._dtype) if initial else None  # [L K, S, B, H D]
        sums = [] if arrays.bias_apart else list(self._sums(parameters))
        output = empty((*x.shape[:2], arrays.directions * arrays.wide))
        last = empty((arrays.states, form.layers * arrays.directions, form.batch, arrays.wide))
        kept = empty((self._kept_bytes,), dtype=torch.uint8) if arrays.learning else None
        masks = list(self._masks(x))
        given = (x, starts, output, last, kept, *(masks or [None]), *parameters, *sums)
        self._run(given)
        for layer in self._layers:
            layer.run.count()
        # No views, which autograd would not let anybody change in place.
        states = [state.data for state in last.unbind()]
        if not arrays.learning:
            return output, states, [], []
        return output, states, [given[place] for place in self._lasting], masks

    def _masks(self, x: Tensor) -> Iterator[Tensor]:
        """Which elements are not dropped of what layers above the first read, [L - 1, B, T, K H D]; nothing if all."""
        form, arrays = self.form, self.arrays
        if arrays.drops:
            sizes = (form.layers - 1, form.batch, form.seq, arrays.directions * arrays.wide)
            yield x.new_empty(sizes, dtype=torch.bool).bernoulli_(1 - form.dropout)

    def _drop(self, links: Links, layer: int, source: str, to: str) -> None:
        """Elements of what a layer reads, or of its gradient, where any are dropped."""
        if self.arrays.drops and layer:
            dropped = DroppedElements(self._elements, self._shape_dtype, self.form.dropout)
            found = self._engine.dropped_elements(dropped, self._on)
            links.run(found, {"from": source, "mask": self.arrays.mask(layer), "to": to})

    def _sums(self, parameters: Sequence[Tensor]) -> Iterator[Tensor]:
        """b of each layer and direction."""
        count = len(self.form.names)
        for first in range(0, len(parameters), count):
            _, weight_hh, *biases = parameters[first : first + count]
            yield ready(self.form.bias(biases, weight_hh), self._dtype)

    @cached_property
    def _given(self) -> tuple[str, ...]:
        """What the forward pass is a function of."""
        return ("x", "starts", "output", "last", "kept", "masks", *self.arrays.parameters, *self.arrays.sums)

    @cached_property
    def _run(self) -> Chain:
        """The forward pass as a function of x, the initial states, output, last states, what is kept, parameters."""
        arrays = self.arrays
        links = self._links(self._given)
        starts = links.moved(arrays.states_in, ["starts"], "starts_in") if arrays.begun else ""
        ends = links.before(arrays.states_out, "ends", "last")
        for layer, own in enumerate(self._layers):
            hidden = links.array(arrays.hidden(layer), arrays.hidden_bytes)
            of_kernel = {"states": hidden, "last": f"{ends}.{layer}"} | arrays.of_layer(layer, starts)
            of_kernel |= self._input(links, layer)
            weights, biases = arrays.of_each("weight_hh", layer), arrays.bias(layer)
            of_kernel["r"] = links.moved(arrays.weights_together, weights, arrays.r(layer))
            of_kernel["b"] = links.moved(arrays.biases_together, biases, arrays.b(layer))
            links.run(own.run.kernel.ready, of_kernel)
            above = layer + 1 < arrays.layers
            to = arrays.hidden_to(time_major=arrays.time_major and not above)
            rows = arrays.rows(layer + 1) if above else "output"
            found = links.moved(to, [hidden], rows)
            if above:
                self._drop(links, layer + 1, found, links.array(rows, arrays.hidden_bytes))
        links.moved(arrays.states_out, [ends], "last")
        return links.chain()

    def _links(self, given: tuple[str, ...]) -> Links:
        """A chain of these arrays, without links yet."""
        states = ("starts", "starts_in", "ends", "last", "d_ends", "d_ends_in", "d_starts")
        return Links(self._engine, self._on, given, self.arrays.inside(*states))

    def _product(self, links: Links, layer: int, found: Ready | None, arrays: Mapping[str, str], turned: int) -> None:
        """A product of a layer. turned: the bit of the array that has x's form, or is x, in the first layer."""
        assert found is not None
        there = turned if layer == 0 and self.arrays.time_major else 0
        links.run(found, arrays, {"batch": self.form.batch, "seq": self.form.seq, "turned": there})

    def _input(self, links: Links, layer: int) -> dict[str, str]:
        """Wx of a layer; or, for a kernel that multiplies it itself, what it multiplies."""
        arrays, own = self.arrays, self._layers[layer]
        rows, weights = arrays.rows(layer), arrays.of_each("weight_ih", layer)
        biases = arrays.of_each("bias_ih", layer) if arrays.bias_apart else []
        if own.takes_x:
            if layer == 0 and arrays.time_major:
                turned = arrays.moved("tb", "bt", self._depths[0] * arrays.itemsize)
                rows = links.moved(turned, [rows], "batches")
            return {"x": rows, "w": weights[0]} | ({"input_bias": biases[0]} if biases else {})
        columns = []
        for direction, weight in enumerate(weights):
            out = links.array(f"columns.{direction}", arrays.inputs_together.nbytes // arrays.directions)
            of_product = {"a": rows, "b": weight, "out": out} | ({"bias": biases[direction]} if biases else {})
            self._product(links, layer, own.products.into, of_product, TURNED_A)
            columns.append(out)
        return {"wx": links.moved(arrays.inputs_together, columns, "wx")}

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
        """See layer_plan.Plan.backward; the gradients of the initial states are [L, S, B, K H D]."""
        form, arrays, dtype = self.form, self.arrays, self._dtype
        x, count, several = kept[0], len(form.names), (form.directions,) if form.directions > 1 else ()
        assert x is not None
        empty, wide = x.new_empty, form.directions * arrays.wide
        d_output = x.new_zeros((*x.shape[:2], wide)) if d_output is None else ready(d_output, dtype)
        d_ends = None
        if any(d is not None for d in d_last):
            zeros = x.new_zeros((form.layers * form.directions, form.batch, arrays.wide))
            d_ends = ready(torch.stack([zeros if d is None else d for d in d_last], 1), dtype)  # [L K, S, B, H D]
        d_x = empty(x.shape) if input_needed else None
        d_starts = empty((form.layers, arrays.states, form.batch, wide))
        sizes_of_b = (*((2,) if arrays.bias_apart else ()), *several, *form.b_sizes)
        made = [
            (empty((*several, form.width, depth)), empty((*several, *form.r_sizes)), empty(sizes_of_b))
            for depth in self._depths
        ]
        run = form.backward_run(x, parameters[1], parameters[count - 1])
        key = (input_needed, d_ends is not None)
        if key not in self._backwards:
            self._backwards[key] = self._backward(run.kernel, *key)
        given = (d_output, d_ends, *kept, *(masks or [None]))
        self._backwards[key]((*given, *parameters, d_x, d_starts, *(one for of in made for one in of)))
        of_module: list[Tensor] = []
        for d_weight, d_r, d_b in made:
            run.count()
            # Each bias has memory of its own: PyTorch would copy a gradient that two parameters share.
            d_biases = [d_b[0], d_b[1]] if arrays.bias_apart else [d_b]
            for direction in range(form.directions):
                own = [one[direction] if several else one for one in (d_weight, d_r, *d_biases)]
                of_biases = own[2:] if arrays.bias_apart else bias_gradients(form.parts, arrays.wide, own[2])
                of_module += (*own[:2], *of_biases)[:count]
        return d_x, d_starts, of_module

    def _backward(self, kernel: Backward, input_needed: bool, ended: bool) -> Chain:
        """The backward pass as a function of the gradients of output and last states, what is kept, the parameters,
        and the gradients of x, the initial states and ``Arrays.made``."""
        arrays = self.arrays
        every = [name for layer in range(arrays.layers) for name in arrays.made(layer)]
        kept = (self._given[place] for place in self._lasting)
        links = self._links(("d_output", "d_ends", *kept, "masks", *arrays.parameters, "d_x", "d_starts", *every))
        starts = links.moved(arrays.states_in, ["starts"], "starts_in") if arrays.begun else ""
        d_ends = links.moved(arrays.states_in, ["d_ends"], "d_ends_in") if ended else ""
        d_rows, in_time = "d_output", arrays.time_major
        for layer in reversed(range(arrays.layers)):
            d_hidden = links.moved(arrays.hidden_from(time_major=in_time), [d_rows], "d_hidden")
            d_weight, d_r, d_b = arrays.made(layer)
            of_r = links.before(arrays.weights_apart, "d_r", d_r)
            of_b = links.before(arrays.biases_apart, "d_b", d_b)
            d_wx = links.array("d_wx", arrays.inputs_together.nbytes)
            own = {"states": arrays.hidden(layer), "d_states": d_hidden, "r": arrays.r(layer), "b": arrays.b(layer)}
            own |= arrays.of_layer(layer, starts) | ({"d_last": f"{d_ends}.{layer}"} if ended else {})
            links.run(kernel.ready, own | {"d_wx": d_wx, "d_r": of_r, "d_b": of_b, "d_initial": f"d_starts.{layer}"})
            links.moved(arrays.weights_apart, [of_r], d_r)
            links.moved(arrays.biases_apart, [of_b], d_b)
            columns, products = links.moved(arrays.inputs_in_time, [d_wx], "d_columns"), self._layers[layer].products
            of_weight = {"a": columns, "b": arrays.rows(layer), "out": d_weight}
            self._product(links, layer, products.of_weight, of_weight, TURNED_B)
            if layer or input_needed:
                weights = self.form.width * self._depths[layer] * arrays.itemsize
                together = arrays.moved("k", "k", weights, apart=True)
                w = links.moved(together, arrays.of_each("weight_ih", layer), "w")
                d_rows, in_time = links.before(arrays.hidden_from(time_major=False), "d_rows", "d_hidden"), False
                of_x = {"a": columns, "b": w, "out": d_rows if layer else "d_x"}
                self._product(links, layer, products.of_input, of_x, TURNED_OUT)
                self._drop(links, layer, d_rows, d_rows)
        return links.chain()
