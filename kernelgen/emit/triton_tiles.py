"""Tiles of a Triton kernel as its threads hold them: functions of Triton that load and store without an exchange.

Triton gives the threads of a list consecutive elements, two at a time where two lie side by side in memory, and those
of a product's result a pattern of the matrix instructions. A list that is sorted as that pattern becomes a tile by
renaming registers, so what a step reads and writes never passes through shared memory. Where Triton lays either out
differently (another GPU, more warps than the tile has rows for), the result is the same and an exchange comes back.
"""

from __future__ import annotations

from kernelgen.program.shape import SIXTEEN_BITS, Shape

UNIT_OF = '''\
@triton.jit
def unit_of(row):
    """Which unit a tile's row is: rows 8 apart, which a thread has both, are units side by side in memory."""
    return row // 16 * 16 + row % 8 * 2 + row // 8 % 2
'''

PLACE_OF = '''\
@triton.jit
def place_of(D: tl.constexpr, B: tl.constexpr, EACH: tl.constexpr):
    """The units and the sequences of a list of D * B elements, in the order in which threads have those of a tile; of
    every EACH-th of them."""
    NEXT: tl.constexpr = 2 if B > 4 else 1  # sequences side by side that a thread has
    index = tl.arange(0, D * B // EACH) * EACH
    unit = index // 64 % (D // 16) * 16 + index // 8 % 8 * 2 + index % 2
    sequence = index // (4 * D) % (B // (4 * NEXT)) * 8 + index // 2 % 4 * NEXT + index // (D * B // NEXT)
    return unit, sequence
'''

TO_TILE = '''\
@triton.jit
def to_tile(x, D: tl.constexpr, B: tl.constexpr):
    """A list as a tile, [D units, B sequences]; every thread keeps what it has."""
    NEXT: tl.constexpr = 2 if B > 4 else 1
    x = tl.reshape(x, (NEXT, B // (4 * NEXT), D // 16, 8, 4, 2))
    return tl.reshape(tl.permute(x, (2, 5, 3, 1, 4, 0)), (D, B))
'''

TO_LIST = '''\
@triton.jit
def to_list(x, D: tl.constexpr, B: tl.constexpr):
    """A tile as a list."""
    NEXT: tl.constexpr = 2 if B > 4 else 1
    x = tl.reshape(x, (D // 16, 2, 8, B // (4 * NEXT), 4, NEXT))
    return tl.reshape(tl.permute(x, (5, 3, 0, 2, 4, 1)), (D * B,))
'''

RIGHT_SIDE = '''\
@triton.jit
def right_side(x, D: tl.constexpr, B: tl.constexpr):
    """A tile as a product takes it: of 4 sequences, which are half of its columns, each twice side by side."""
    if B == 4:
        x = tl.reshape(tl.broadcast_to(tl.reshape(x, (D, B, 1)), (D, B, 2)), (D, 2 * B))
    return x
'''

_MULTIPLY = '''\
@triton.jit
def multiply(weights, right, zeros, D: tl.constexpr, B: tl.constexpr):
    """R times a tile, of whose results every thread keeps those that are its own; the sum starts from zeros."""
    if B == 4:
        made = tl.dot(weights, right, tl.zeros((D, 2 * B), dtype=tl.float32){precise})
        made, _ = tl.split(tl.reshape(made, (D, B, 2)))
    else:
        made = tl.dot(weights, right, zeros{precise})
    return made
'''


def multiply(shape: Shape) -> str:
    """The function that multiplies R by a tile; of float32, with no bits dropped."""
    return _MULTIPLY.format(precise="" if shape.dtype in SIXTEEN_BITS else ', input_precision="ieee"')


_PAIRS = '''\
@triton.jit
def load_ahead(array, place, mask):
    """What a later step reads, two elements side by side as one number of 32 bits: elements of 16 bits would be taken
    apart, and so be waited for, in the step that asks for them."""
    return tl.load((array + place).to(tl.pointer_type(tl.int32), bitcast=True), mask=mask, other=0)


@triton.jit
def as_floats(x, D: tl.constexpr, B: tl.constexpr):
    """A list of pairs as a tile of float32."""
    x = tl.broadcast_to(tl.reshape(x, (D * B // 2, 1)), (D * B // 2, 2))
    second = tl.reshape(tl.arange(0, 2), (1, 2)) == 1
    x = {apart}
    return to_tile(tl.reshape(x, (D * B,)), D, B)
'''

_ELEMENTS = '''\
@triton.jit
def load_ahead(array, place, mask):
    """What a later step reads."""
    return tl.load(array + place, mask=mask, other=0.0)


@triton.jit
def as_floats(x, D: tl.constexpr, B: tl.constexpr):
    """A list as a tile of float32."""
    return to_tile(x, D, B).to(tl.float32)
'''

_APART = {
    "bfloat16": "tl.where(second, x & -65536, x << 16).to(tl.float32, bitcast=True)",
    "float16": "tl.where(second, x >> 16, x).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)",
}


def loaded_together(shape: Shape) -> int:
    """How many elements a step loads as one number: pairs of 16 bits, where no head begins within one."""
    return 2 if shape.dtype in _APART and shape.head_dim % 2 == 0 else 1


def loading(shape: Shape) -> str:
    """The functions that load what a later step reads, and make a tile of it when its time has come."""
    return _PAIRS.format(apart=_APART[shape.dtype]) if loaded_together(shape) == 2 else _ELEMENTS


_WEIGHTS = '''\
@triton.jit
def {name}(matrix, D: tl.constexpr, BLOCK_D: tl.constexpr, IN_REGISTERS: tl.constexpr):
    """R of a gate{what}, as the left side of a product: loaded in the order in which threads have it there, or in
    that of memory, from which Triton brings it into shared memory."""
    TILES: tl.constexpr = BLOCK_D // 16
    if IN_REGISTERS:
        index = tl.arange(0, BLOCK_D * BLOCK_D)
        rest = index // (4 * BLOCK_D)
        down = index // 64 % TILES * 16 + index // 8 % 8 * 2 + {down}
        across = rest // 4 * 16 + index // 2 % 4 * 4 + rest % 2 * 2 + {across}
        x = tl.load(matrix + {place}, mask=(down < D) & (across < D), other=0.0)
        x = tl.reshape(x, (TILES, 2, 2, TILES, 8, 4, 2))
        x = tl.reshape(tl.permute(x, {order}), (BLOCK_D, BLOCK_D))
    else:
        row = tl.arange(0, BLOCK_D)
        down = unit_of(row)[:, None]
        across = unit_of(row)[None, :]
        x = tl.load(matrix + {place}, mask=(down < D) & (across < D), other=0.0)
    return x
'''

FORWARD_WEIGHTS = _WEIGHTS.format(
    name="load_weights",
    what="",
    down="rest // 2 % 2",
    across="index % 2",
    place="down * D + across",
    order=(3, 1, 4, 0, 6, 5, 2),
)
"""r[unit, previous unit], whose rows are units."""

BACKWARD_WEIGHTS = _WEIGHTS.format(
    name="load_transposed",
    what=" transposed",
    down="index % 2",
    across="rest // 2 % 2",
    place="across * D + down",
    order=(3, 6, 4, 0, 1, 5, 2),
)
"""The same, whose rows are previous units."""
