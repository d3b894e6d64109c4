"""ProductCall: a product of arrays that a library makes, and as what products of matrices it does so at a shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product as combinations

from kernelgen.errors import ConfigError
from kernelgen.program.lanes import Span
from kernelgen.program.rules import Sized, evaluate, sizes_of

SCRATCH = "scratch"
"""The workspace that the library may use while it multiplies."""

SCRATCH_BYTES = 32 << 20
"""Its size: what NVIDIA advises for Hopper and newer (cuBLAS documentation, cublasSetWorkspace)."""


@dataclass(frozen=True)
class Factor:
    """An array of a product, or a part of it.

    name: the argument's. axes: a letter for each axis of the array, in order. dtype: of its elements. sliced: of the
    axes of which a part alone counts, where that begins and the array's own size.
    """

    name: str
    axes: str
    dtype: str
    sliced: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.name, self.axes, self.dtype, *sorted(self.sliced.items())))


@dataclass(frozen=True)
class Gemm:
    """One call of a library: out [n, m] = left [m, k] right [n, k], or what lies there already plus that.

    batch: how many of these, each ``strides`` elements after the one before, in the order left, right, out. leads: the
    elements from one row of the memory to the next, likewise. turned: of left and right, whether k runs along a row of
    the memory (else m, or n, does). offsets: where they begin, in elements. swapped: whether left is the second factor.
    """

    m: int
    n: int
    k: int
    batch: int
    strides: tuple[int, int, int]
    leads: tuple[int, int, int]
    turned: tuple[bool, bool]
    offsets: tuple[int, int, int]
    adds: bool
    swapped: bool

    @property
    def written(self) -> Span:
        """The elements of the result's array from the first on that it writes, up to behind the last."""
        begin = self.offsets[2]
        return begin, begin + (self.batch - 1) * self.strides[2] + (self.n - 1) * self.leads[2] + self.m


@dataclass(frozen=True)
class ProductCall:
    """result = first x second, summed over the axes that the result does not have, as einsum has it.

    sizes: of each axis by its letter, as a rule (see rules.evaluate). math: the dtype of the shape, which says how the
    library multiplies: "tf32" rounds factors.
    """

    first: Factor
    second: Factor
    result: Factor
    sizes: Mapping[str, str]
    math: str

    def __hash__(self) -> int:
        return hash((self.first, self.second, self.result, *sorted(self.sizes.items()), self.math))

    @property
    def factors(self) -> tuple[Factor, Factor, Factor]:
        """Both factors and the result."""
        return self.first, self.second, self.result

    @property
    def arguments(self) -> tuple[str, ...]:
        """What it takes, the workspace of the library included."""
        return (*(factor.name for factor in self.factors), SCRATCH)

    @property
    def writes(self) -> tuple[str, ...]:
        """Those of them that it writes."""
        return (self.result.name, SCRATCH)

    @property
    def equation(self) -> str:
        """As einsum's."""
        return f"{self.first.axes},{self.second.axes}->{self.result.axes}"

    def __str__(self) -> str:
        first, second, result = self.factors
        return f"{result.name}[{result.axes}] = {first.name}[{first.axes}] {second.name}[{second.axes}]"

    def extents(self, shape: Sized) -> dict[str, int]:
        """The size of every axis at a shape."""
        sizes = sizes_of(shape)
        return {axis: evaluate(rule, sizes) for axis, rule in self.sizes.items()}

    def at(self, shape: Sized) -> tuple[Gemm, ...]:
        """The calls of the library that make it. Raises ConfigError where no product of matrices does."""
        return gemms(self, self.extents(shape))


@dataclass(frozen=True)
class _Group:
    """Axes that one index runs through. strides: in elements, of the first factor, the second and the result; 0 where
    it does not have them."""

    size: int
    strides: tuple[int, int, int]


def gemms(call: ProductCall, sizes: Mapping[str, int]) -> tuple[Gemm, ...]:
    """See ProductCall.at."""
    strides = [_strides(factor, sizes) for factor in call.factors]
    offsets = [
        sum(strides[i][axis] * begin for axis, (begin, _) in f.sliced.items()) for i, f in enumerate(call.factors)
    ]
    axes = [axis for axis in dict.fromkeys("".join(f.axes for f in call.factors)) if sizes[axis] > 1]
    kinds: dict[tuple[bool, ...], list[_Group]] = {}
    for axis in axes:
        there = tuple(axis in factor.axes for factor in call.factors)
        if sum(there) < 2:
            raise ConfigError(f"{call}: the axis {axis} is in one array alone, so that no product of matrices makes it")
        kinds.setdefault(there, []).append(_Group(sizes[axis], _of(strides, axis)))
    none = [_Group(1, (0, 0, 0))]
    batch, rows, columns, depth = (
        _merged(kinds.get(kind, [])) or none
        for kind in ((True, True, True), (True, False, True), (False, True, True), (True, True, False))
    )
    # What is one matrix's lies side by side; the others are calls of their own, or one after another in a batch, which
    # goes by what all arrays have where there is that.
    row, column, inner = _of_matrix(rows), _of_matrix(columns), _of_matrix(depth)
    outer = [*batch, *(group for group in (*rows, *columns) if group is not row and group is not column)]
    several = max(batch if batch is not none else outer, key=lambda group: group.size)
    outer, deeper = [one for one in outer if one is not several], [one for one in depth if one is not inner]
    found = []
    for place in combinations(*(range(group.size) for group in outer)):
        for number, deep in enumerate(combinations(*(range(group.size) for group in deeper))):
            begin = [
                offsets[i]
                + sum(at * group.strides[i] for at, group in zip((*place, *deep), (*outer, *deeper), strict=True))
                for i in range(3)
            ]
            found.append(_gemm(call, row, column, inner, several, begin, number > 0))
    return tuple(found)


def _gemm(
    call: ProductCall, row: _Group, column: _Group, inner: _Group, several: _Group, begin: Sequence[int], adds: bool
) -> Gemm:
    """The call for one place. Raises ConfigError for an array in which neither index runs along the memory."""
    swapped = row.strides[2] != 1 and (column.strides[2] == 1 or row.size > 1)
    left, right = (1, 0) if swapped else (0, 1)
    m, n = (column, row) if swapped else (row, column)
    if m.size > 1 and m.strides[2] != 1:
        raise ConfigError(f"{call}: no row of the result lies side by side in memory")
    turned, leads = [], []
    for factor, outer in ((left, m), (right, n)):
        along = inner.strides[factor] == 1 or inner.size == 1
        if not along and outer.strides[factor] != 1 and outer.size > 1:
            raise ConfigError(f"{call}: no row of {call.factors[factor].name} lies side by side in memory")
        turned.append(along)
        lead, least = (outer.strides[factor], inner.size) if along else (inner.strides[factor], outer.size)
        leads.append(max(lead, least))
    leads.append(max(n.strides[2], m.size))
    strides = (several.strides[left], several.strides[right], several.strides[2])
    offsets = (begin[left], begin[right], begin[2])
    return Gemm(
        m.size,
        n.size,
        inner.size,
        several.size,
        strides,
        (leads[0], leads[1], leads[2]),
        (turned[0], turned[1]),
        offsets,
        adds,
        swapped,
    )


def _strides(factor: Factor, sizes: Mapping[str, int]) -> dict[str, int]:
    """Elements from one index of an axis to the next, by its letter, in a C-contiguous array."""
    own = [factor.sliced[axis][1] if axis in factor.sliced else sizes[axis] for axis in factor.axes]
    return {axis: math.prod(own[place + 1 :]) for place, axis in enumerate(factor.axes)}


def _of(strides: Sequence[Mapping[str, int]], axis: str) -> tuple[int, int, int]:
    first, second, result = (each.get(axis, 0) for each in strides)
    return first, second, result


def _of_matrix(groups: Sequence[_Group]) -> _Group:
    """That of which one product of matrices has all: what lies side by side in an array, else the most."""
    return groups[-1] if 1 in groups[-1].strides else max(groups, key=lambda group: group.size)


def _merged(groups: Sequence[_Group]) -> list[_Group]:
    """The same, those joined that one index can run through; that with the smallest strides comes last."""
    found: list[_Group] = []
    for group in sorted(groups, key=lambda each: -max(each.strides)):
        last = found[-1] if found else None
        if last and all(a == b * group.size for a, b in zip(last.strides, group.strides, strict=True)):
            found[-1] = _Group(last.size * group.size, group.strides)
        else:
            found.append(group)
    return found
