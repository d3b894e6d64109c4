"""Engines of CUDA tensors for CPU tensors: the emulator in the place of the GPU."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch
from library_calls import moved_by_numpy, multiplied
from numpy.typing import NDArray
from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.errors import InfeasibleError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.arguments import Arguments
from kernelgen.program.dtypes import numpy_dtype
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.schedules import get
from kernelgen.schedules.shared import dropped_elements, matrix_product, moved_rows
from kernelgen.schedules.shared.dropped_elements import DroppedElements
from kernelgen.schedules.shared.library_product import library_product
from kernelgen.schedules.shared.matrix_product import MatrixProduct
from kernelgen.schedules.shared.moved_rows import MovedRows
from kernelgen.schedules.shared.parameter_gradients import with_float_parameters
from kernelgen.torch.engine import Layout, Link
from kernelgen.tuning.plan import plan
from kernelgen.tuning.selection import candidates
from kernelgen.verify.emulator import emulate, emulate_program


@lru_cache(maxsize=256)
def chosen(cell: Cell, shape: Shape, direction: Direction, schedule: str = "") -> Program:
    """What a call on an H200 runs, of one schedule alone where it is named: planned once for all tests."""
    profile = load_profile("h200")
    if not schedule:
        return candidates(cell, shape, profile, direction)[0].program
    best = plan(cell, shape, profile, top=1, schedules=[schedule])[0]
    return get(schedule).program(cell, shape, profile, best)


class WithoutChains:
    """An engine that leaves products of matrices to PyTorch."""

    def multiplies_input(self, cell: Cell, shape: Shape, device: int) -> bool:
        return False

    def product(self, product: MatrixProduct, device: int) -> None:
        return None

    def chunk_of_waves(self, cell: Cell, shape: Shape, layers: int, device: int, *, learning: bool) -> int | None:
        return None

    def beside(self, programs: int) -> Self:
        return self

    def moved_rows(self, moved: MovedRows, device: int) -> Any:
        raise AssertionError("without products there is no chain")

    def dropped_elements(self, dropped: DroppedElements, device: int) -> Any:
        raise AssertionError("without products there is no chain")

    def chain(self, links: Sequence[Link], layout: Layout, device: int) -> Any:
        raise AssertionError("without products there is no chain")


class Emulated(WithoutChains):
    """The engine of CUDA tensors with the emulator in the place of the GPU; remembers what it ran."""

    def __init__(self) -> None:
        self.ran: list[tuple[Direction, str]] = []
        self.dtypes: list[str] = []
        self.computes_gates = True
        self.forward_schedule = self.backward_schedule = ""

    def kernel(
        self, cell: Cell, shape: Shape, direction: Direction, device: int, *, float_parameters: bool = False
    ) -> EmulatedKernel:
        assert device == -1
        self.dtypes.append(shape.dtype)
        if shape.recompute and not self.computes_gates:
            raise InfeasibleError("this engine computes no gates")
        program = chosen(cell, shape, direction, getattr(self, f"{direction}_schedule"))
        if float_parameters:
            program = with_float_parameters(program, cell, shape, load_profile("h200"))
        return EmulatedKernel(self, cell, shape, program, program.arguments(cell, shape))

    def expect(
        self, cell: Cell, shape: Shape, direction: Direction, device: int, *, float_parameters: bool = False
    ) -> None: ...


@dataclass(frozen=True)
class EmulatedKernel:
    """One program of that engine."""

    engine: Emulated
    cell: Cell
    shape: Shape
    program: Program
    arguments: Arguments

    def bind(self, names: tuple[str, ...]) -> Callable[[Sequence[Tensor | None]], None]:
        return lambda arrays: self.run(dict(zip(names, arrays, strict=True)))

    def run(self, arguments: Mapping[str, Tensor | None]) -> None:
        arrays = {name: self._array(value) for name, value in arguments.items()}
        for one in self.arguments.workspaces:
            arrays[one.name] = np.empty(one.shape, numpy_dtype(one.dtype))
        emulate_program(self.program, self.shape, {**arrays, **self.arguments.numbers})
        self.engine.ran.append(
            (self.program.direction, "gates recomputed" if self.shape.recompute else self.shape.save)
        )

    def run_bytes(self, memory: Mapping[str, Bytes]) -> None:
        """Run it on arrays that begin where ``memory`` says, by name; those that are not there are null pointers."""
        arrays: dict[str, Any] = {}
        for one in (*self.arguments.inputs, *self.arguments.outputs):
            there, shape = memory.get(one.name), one.shape
            if "others" in memory and one.name in ("states", "others"):
                known = 1 if one.name == "states" else len(self.cell.states) - 1
                shape = (known, self.shape.batch, self.shape.seq, self.shape.heads, self.shape.head_dim)
            size = math.prod(shape) * numpy_dtype(one.dtype).itemsize
            assert there is not None or one.role == "optional" or not size, f"{one.name} is missing"
            absent = there is None or not size
            arrays[one.name] = None if absent else there[:size].view(numpy_dtype(one.dtype)).reshape(shape)
        for one in self.arguments.workspaces:
            arrays[one.name] = np.empty(one.shape, numpy_dtype(one.dtype))
        emulate_program(self.program, self.shape, {**arrays, **self.arguments.numbers})
        self.engine.ran.append((self.program.direction, self.shape.save))

    def _array(self, value: Tensor | None) -> Any:
        if value is None or not value.numel():
            return None
        if value.dtype in (torch.float64, torch.float32, torch.int32):
            return value.numpy()
        if value.dtype == torch.bool:
            return value.view(torch.uint8).numpy()
        return value.detach().view(torch.int16).numpy().view(numpy_dtype(self.shape.dtype))


Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class EmulatedProduct:
    """A product of matrices, by NumPy. kernel: by its kernel in the emulator, which takes longer."""

    product: MatrixProduct
    kernel: bool

    def run(self, arrays: Mapping[str, Bytes], numbers: Mapping[str, int]) -> None:
        made = self.product
        kind = numpy_dtype(made.dtype)
        if self.kernel:
            self._emulate(arrays, numbers)
            return
        batch, seq, turned = numbers["batch"], numbers["seq"], numbers["turned"]

        def steps(name: str, rows: int, columns: int, bit: int) -> NDArray[Any]:
            """An array as a view whose rows are steps in the order [B, T]."""
            found = arrays[name].view(kind)[: rows * columns].reshape(rows, columns)
            if turned & bit:
                assert rows == batch * seq
                return found.reshape(seq, batch, columns).transpose(1, 0, 2)
            return found.reshape(1, rows, columns)

        depth, rows, columns = made.depth, made.rows, made.columns
        a = steps("a", depth, rows, 1) if made.a_transposed else steps("a", rows, depth, 1)
        b = steps("b", depth, columns, 2) if made.b_transposed else steps("b", columns, depth, 2)
        left, right = (one.astype(np.float64).reshape(-1, one.shape[2]) for one in (a, b))
        found = (left.T if made.a_transposed else left) @ (right if made.b_transposed else right.T)
        if "bias" in arrays:
            found = found + arrays["bias"].view(kind)[:columns].astype(np.float64)
        out = steps("out", rows, columns, 4)
        out[...] = found.astype(kind).reshape(out.shape)

    def _emulate(self, arrays: Mapping[str, Bytes], numbers: Mapping[str, int]) -> None:
        made = self.product
        kind = numpy_dtype(made.dtype)
        counts = {"a": made.rows * made.depth, "b": made.columns * made.depth, "bias": made.columns}
        given: dict[str, Any] = {
            name: arrays[name].view(kind)[:count] if name in arrays else None for name, count in counts.items()
        }
        out = np.empty(made.rows * made.columns, kind)
        sizes = {"rows": made.rows, "columns": made.columns, "depth": made.depth}
        source, launch = matrix_product.kernel(made, load_profile("h200"))
        emulate(source, launch, {**given, "out": out, **sizes, **numbers}, outputs=("out",))
        arrays["out"].view(kind)[: out.size] = out


@dataclass(frozen=True)
class EmulatedLibrary:
    """A product of matrices as the library is asked for it."""

    product: MatrixProduct

    def run(self, arrays: Mapping[str, Bytes], numbers: Mapping[str, int]) -> None:
        made = library_product(self.product, load_profile("h200"), **numbers, bias="bias" in arrays)
        multiplied(made, arrays)


@dataclass(frozen=True)
class EmulatedRows:
    """Rows in another order, by NumPy. kernel: by its kernel in the emulator, which takes longer."""

    moved: MovedRows
    kernel: bool

    def run(self, arrays: Mapping[str, Bytes], numbers: Mapping[str, int]) -> None:
        sources = [arrays[name] for name in ("from", "second") if name in arrays]
        assert len(sources) == (2 if self.moved.apart else 1)
        rows = math.prod(self.moved.sizes[axis] for axis in self.moved.source)
        size = rows * self.moved.row_bytes // len(sources)
        if self.kernel:
            source, launch, found = moved_rows.kernel(self.moved, load_profile("h200"))
            given = dict.fromkeys(source.arguments[:2]) | dict(zip(("from", "second"), sources, strict=False))
            whole = {name: None if one is None else np.array(one[:size]) for name, one in given.items()}
            to = np.empty(self.moved.nbytes, np.uint8)
            emulate(source, launch, {**whole, "to": to, **found}, outputs=source.writes)
        else:
            to = moved_by_numpy(self.moved, np.concatenate([one[:size] for one in sources]))
        arrays["to"][: to.size] = to


@dataclass(frozen=True)
class EmulatedDropout:
    """Dropout, by its kernel in the emulator."""

    dropped: DroppedElements

    def run(self, arrays: Mapping[str, Bytes], numbers: Mapping[str, int]) -> None:
        kind, count = numpy_dtype(self.dropped.dtype), self.dropped.count
        source, launch, found = dropped_elements.kernel(self.dropped, load_profile("h200"))
        given = {"from": arrays["from"].view(kind)[:count].copy(), "mask": arrays["mask"][:count].copy()}
        to = np.empty(count, kind)
        emulate(source, launch, {**given, "to": to, **found}, outputs=source.writes)
        arrays["to"].view(kind)[:count] = to


class Chained(Emulated):
    """The same with chains. links: how many each chain has that was made. kernels: whether products and copies are
    kernels too. takes_x: whether recurrences multiply their inputs themselves. library: whether products are the
    library's."""

    def __init__(self, *, kernels: bool = False, takes_x: bool = False, library: bool = False) -> None:
        super().__init__()
        self.library = library
        self.kernels, self.takes_x = kernels, takes_x
        self.links: list[int] = []
        self._draw = random.Random(0)
        self.advised: int | None = None  # steps of a chunk of a wavefront

    @property
    def chains(self) -> int:
        return len(self.links)

    def multiplies_input(self, cell: Cell, shape: Shape, device: int) -> bool:
        return self.takes_x

    def product(self, product: MatrixProduct, device: int) -> Any:
        return EmulatedLibrary(product) if self.library else EmulatedProduct(product, self.kernels)

    def chunk_of_waves(self, cell: Cell, shape: Shape, layers: int, device: int, *, learning: bool) -> int | None:
        return self.advised

    def moved_rows(self, moved: MovedRows, device: int) -> EmulatedRows:
        return EmulatedRows(moved, self.kernels)

    def dropped_elements(self, dropped: DroppedElements, device: int) -> EmulatedDropout:
        return EmulatedDropout(dropped)

    def chain(self, links: Sequence[Link], layout: Layout, device: int) -> Callable[[Sequence[Tensor | None]], None]:
        self.links.append(len(links))

        def run(given: Sequence[Tensor | None]) -> None:
            places = {
                name: None if tensor is None else tensor.detach().view(-1).view(torch.uint8).numpy()
                for name, tensor in zip(layout.given, given, strict=True)
            }
            # What nobody has written is no number.
            places |= {name: np.full(size, 0xFF, np.uint8) for name, size in layout.between.items()}
            for name, (whole, offset) in layout.inside.items():
                found = places[whole]
                places[name] = None if found is None else found[offset:]
            for link in self._order(links):
                arrays = {name: places[place] for name, place in link.arrays.items()}
                there = {name: array for name, array in arrays.items() if array is not None}
                if isinstance(link.ready, EmulatedKernel):
                    link.ready.run_bytes(there)
                else:
                    link.ready.run(there, link.numbers)

        return run

    def _order(self, links: Sequence[Link]) -> Iterator[Link]:
        """The links in an order that lanes allow, another one each time."""
        lanes: dict[int, list[int]] = {}
        for place, link in enumerate(links):
            assert all(earlier < place for earlier in link.after)
            lanes.setdefault(link.lane, []).append(place)
        ended: set[int] = set()
        while any(lanes.values()):
            able = [lane for lane in lanes.values() if lane and ended.issuperset(links[lane[0]].after)]
            place = self._draw.choice(able).pop(0)
            ended.add(place)
            yield links[place]
