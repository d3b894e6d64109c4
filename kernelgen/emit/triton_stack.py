"""The gates of a step in one tile of a Triton kernel, one below the other."""

from __future__ import annotations

from collections.abc import Sequence

from kernelgen.cells.language import Cell
from kernelgen.emit.triton_text import chosen


class Stack:
    """The gates that change from step to step, one below the other in a tile; their number is a power of two, of which
    the last may be no gates."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.gates = tuple(sorted({*cell.recurrent_gates} | {*cell.input_gates}))
        self.bits = (len(self.gates) - 1).bit_length()
        self.count = 1 << self.bits

    def places(self, members: Sequence[int]) -> tuple[str, str]:
        """For a tile's rows, whose gate is ``gate``: which of ``members`` that is, as an expression; and a mask of the
        rows where it is one, empty where it always is."""
        ranks = [members.index(gate) if gate in members else -1 for gate in self.gates]
        ranks += [-1] * (self.count - len(ranks))
        mask = "" if min(ranks) >= 0 else f" & ({chosen('gate', [int(rank >= 0) for rank in ranks])} != 0)"
        return chosen("gate", [max(rank, 0) for rank in ranks]), mask

    def functions(self) -> tuple[str, ...]:
        """The function that takes a tile apart; none of a single gate."""
        if not self.bits:
            return ()
        axes, names = ", ".join("2" for _ in range(self.bits)), [f"x{index}" for index in range(self.count)]
        order = ", ".join(map(str, [self.bits, self.bits + 1, *range(self.bits)]))
        lines = [f"y = tl.permute(tl.reshape(x, ({axes}, D, B)), ({order}))", *_split("y", names)]
        lines.append(f"return {', '.join(names)}")
        head = "@triton.jit\ndef unstack(x, D: tl.constexpr, B: tl.constexpr):\n"
        return (head + "".join(f"    {line}\n" for line in lines),)

    def apart(self, tile: str) -> str:
        """The statement that takes a tile apart, into gate_NAME of each."""
        names = [f"gate_{self.cell.gates[gate].name}" for gate in self.gates]
        if not self.bits:
            return f"{names[0]} = {tile}"
        names += ["_"] * (self.count - len(names))
        return f"{', '.join(names)} = unstack({tile}, BLOCK_M, BLOCK_B)"


def _split(value: str, names: Sequence[str]) -> list[str]:
    """Statements that split the last axes of a tile, of 2 each, into ``names``."""
    if len(names) == 2:
        return [f"{names[0]}, {names[1]} = tl.split({value})"]
    even, odd = f"{value}0", f"{value}1"
    return [f"{even}, {odd} = tl.split({value})", *_split(even, names[::2]), *_split(odd, names[1::2])]
