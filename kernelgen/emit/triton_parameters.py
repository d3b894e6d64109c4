"""The Triton kernels that make the gradients of R and b from those of the gates, for all steps at once.

The steps of all sequences are cut into Q parts, whose sums a second kernel adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kernelgen.cells.language import Cell
from kernelgen.emit.triton_text import TYPES, Body, Lines, chosen, product, signature
from kernelgen.program.shape import Shape

SUM_BLOCK = 1024
"""Elements that a program of the second kernel adds."""


def members(cell: Cell) -> tuple[int, ...]:
    """The gates of which the first kernel makes something."""
    return tuple(sorted({*cell.recurrent_gates} | ({*cell.bias_gates} & {*cell.input_gates})))


def _rank(gates: Sequence[int], gate: int) -> int:
    return list(gates).index(gate) if gate in gates else -1


def gradients(cell: Cell, shape: Shape, entry: str) -> Body:
    """d_r_parts [Q, G_rec, H, D, D] and d_b_parts [Q, G_bias, H, D], of the gates' gradients that a recurrence left.

    A program makes BLOCK_M units by BLOCK_N previous units of one gate of one head, from one of PARTS parts of the
    steps, BLOCK_K of them at a time.
    """
    gates = members(cell)
    inputs, inputless = cell.input_gates, cell.inputless_products
    arguments = (
        *(["d_wx"] if inputs else []),
        *(["d_inputless"] if inputless else []),
        *("states", "initial", "d_r_parts", "d_b_parts", "batch", "seq"),
    )
    out = Lines()
    out.add(
        "TILES: tl.constexpr = (D + BLOCK_N - 1) // BLOCK_N",
        f"member = tl.program_id(0) % {len(gates)}",
        f"head = tl.program_id(0) // {len(gates)}",
        "units = (tl.program_id(1) // TILES) * BLOCK_M + tl.arange(0, BLOCK_M)",
        "previous = (tl.program_id(1) % TILES) * BLOCK_N + tl.arange(0, BLOCK_N)",
        "part = tl.program_id(2)",
        "steps = tl.cast(batch, tl.int64) * seq",
        "share = tl.cdiv(tl.cdiv(steps, PARTS), BLOCK_K) * BLOCK_K",
        "first = part * share",
        "end = tl.minimum(first + share, steps)",
        f"recurrent = {chosen('member', [_rank(cell.recurrent_gates, gate) for gate in gates])}",
        f"biased = {chosen('member', [_rank(cell.bias_gates, gate) if gate in inputs else -1 for gate in gates])}",
    )
    ranks = [_rank(inputs, gate) if gate in inputs else _rank(inputless, gate) for gate in gates]
    out.add(f"rank = {chosen('member', ranks)}")
    if inputs and inputless:
        without = chosen("member", [int(gate not in inputs) for gate in gates])
        out.add(
            f"source = tl.where(({without}) != 0, d_inputless, d_wx)",
            f"stride = tl.where(({without}) != 0, {len(inputless)}, {len(inputs)}) * HEADS * D",
        )
    else:
        name, count = ("d_wx", len(inputs)) if inputs else ("d_inputless", len(inputless))
        out.add(f"source = {name}", f"stride = {count} * HEADS * D")
    out.add(
        "source += (rank * HEADS + head) * D",
        "hidden = states + head * D",
        "total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)",
        "bias = tl.zeros((BLOCK_M,), dtype=tl.float32)",
        "# Of every step but the first of a sequence the previous h lies one row before.",
        "for at in tl.range(0, share, BLOCK_K, num_stages=STAGES):",
    )
    out.depth = 2
    out.add(
        "k = first + at + tl.arange(0, BLOCK_K)",
        "there = k < end",
        "d_sum = tl.load(source + k[None, :] * stride + units[:, None], "
        "mask=there[None, :] & (units < D)[:, None], other=0.0)",
        "h = tl.load(hidden + (k - 1)[:, None] * (HEADS * D) + previous[None, :], "
        "mask=(there & (k % seq != 0))[:, None] & (previous < D)[None, :], other=0.0)",
        f"total = {product('d_sum', 'h', 'total', shape.dtype)}",
        "bias += tl.sum(d_sum.to(tl.float32), axis=1)",
    )
    out.depth = 1
    out.add("if (part == 0) & (initial.to(tl.int64) != 0):")
    out.depth = 2
    out.add("for begin in range(0, batch, BLOCK_K):")
    out.depth = 3
    out.add(
        "sequence = tl.cast(begin, tl.int64) + tl.arange(0, BLOCK_K)",
        "d_first = tl.load(source + (sequence * seq)[None, :] * stride + units[:, None], "
        "mask=(sequence < batch)[None, :] & (units < D)[:, None], other=0.0)",
        "h_first = tl.load(initial + sequence[:, None] * (HEADS * D) + head * D + previous[None, :], "
        "mask=(sequence < batch)[:, None] & (previous < D)[None, :], other=0.0)",
        f"total = {product('d_first', 'h_first', 'total', shape.dtype)}",
    )
    out.depth = 1
    out.add("if recurrent >= 0:")
    out.depth = 2
    out.add(
        f"made = d_r_parts + ((part * {len(cell.recurrent_gates)} + recurrent) * HEADS + head).to(tl.int64) * D * D",
        "tl.store(made + units[:, None] * D + previous[None, :], total, "
        "mask=(units < D)[:, None] & (previous < D)[None, :])",
    )
    out.depth = 1
    out.add("if (biased >= 0) & (tl.program_id(1) % TILES == 0):")
    out.depth = 2
    out.add(
        f"tl.store(d_b_parts + ((part * {max(1, len(cell.bias_gates))} + biased) * HEADS + head) * D + units, bias, "
        "mask=units < D)"
    )
    constants = ("HEADS", "D", "BLOCK_M", "BLOCK_N", "BLOCK_K", "PARTS", "STAGES")
    kernel = signature(entry, arguments, constants) + out.text()
    return Body(set(), (), kernel, arguments, ("d_r_parts", "d_b_parts"))


def sums(cell: Cell, shape: Shape, entry: str) -> Body:
    """d_r and d_b from the PARTS parts; of a bias of a gate without an input, from the recurrence's partial sums.

    A program makes BLOCK elements.
    """
    b_size = len(cell.bias_gates)
    inputless, dtype = cell.inputless_biases, TYPES[shape.dtype]
    arguments = ["d_r_parts"]
    if b_size:
        arguments += ["d_b_parts", *(["d_b_partial"] if inputless else [])]
    arguments += ["d_r", *(["d_b"] if b_size else []), *(["num_partials"] if inputless else [])]
    out = Lines()
    out.add(
        "element = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)",
        f"R_SIZE: tl.constexpr = {len(cell.recurrent_gates)} * HEADS * D * D",
        "total = tl.zeros((BLOCK,), dtype=tl.float32)",
        "for part in range(PARTS):",
        "    made = d_r_parts + tl.cast(part, tl.int64) * R_SIZE + element",
        "    total += tl.load(made, mask=element < R_SIZE, other=0.0)",
        f"tl.store(d_r + element, total.to({dtype}), mask=element < R_SIZE)",
    )
    if b_size:
        out.add(f"B_SIZE: tl.constexpr = {b_size} * HEADS * D", "gate = element // (HEADS * D)")
        ranks = [_rank(inputless, gate) for gate in cell.bias_gates]
        if inputless:
            out.add(f"rank = {chosen('gate', ranks)}", "apart = (element < B_SIZE) & (rank >= 0)")
            out.add("whole = (element < B_SIZE) & (rank < 0)")
        else:
            out.add("whole = element < B_SIZE")
        out.add(
            "total = tl.zeros((BLOCK,), dtype=tl.float32)",
            "for part in range(PARTS):",
            "    total += tl.load(d_b_parts + part * B_SIZE + element, mask=whole, other=0.0)",
        )
        if inputless:
            out.add(
                "for part in range(num_partials):",
                f"    place = (tl.cast(part, tl.int64) * {len(inputless)} + rank) * (HEADS * D)",
                "    place += element % (HEADS * D)",
                "    total += tl.load(d_b_partial + place, mask=apart, other=0.0)",
            )
        out.add(f"tl.store(d_b + element, total.to({dtype}), mask=element < B_SIZE)")
    kernel = signature(entry, arguments, ("HEADS", "D", "BLOCK", "PARTS")) + out.text()
    return Body(set(), (), kernel, tuple(arguments), ("d_r", *(["d_b"] if b_size else [])))


def sum_blocks(cell: Cell, head_dim: int) -> str:
    """Programs of the second kernel, as a rule."""
    most = max(len(cell.recurrent_gates) * head_dim**2, len(cell.bias_gates) * head_dim)
    return f"cdiv(heads * {most}, {SUM_BLOCK})"


def constants(head_dim: int, parts: int) -> Mapping[str, int]:
    """The tile of the first kernel."""
    block = min(64, max(16, 1 << (head_dim - 1).bit_length()))
    return {"BLOCK_M": block, "BLOCK_N": block, "BLOCK_K": 64 if block < 64 else 32, "PARTS": parts, "STAGES": 3}
