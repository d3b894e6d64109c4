"""What layers in waves are, over what they run, and how an input is cut into their chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kernelgen.torch.parts import Parts


@dataclass(frozen=True)
class Waves:
    """What a module's layers are, and over what they run in waves.

    names: of a layer's parameters (parts.parameter_sizes). batch, seq, inputs: of x [B, T, I]. chunk: steps by which a
    layer is behind the one before. dtype, device: of x and of what is made. name: the dtype, as a Shape's. begun:
    whether initial states are given. learning: whether there is a backward pass.
    """

    parts: Parts
    layers: int
    heads: int
    dim: int
    names: tuple[str, ...]
    batch: int
    seq: int
    inputs: int
    chunk: int
    dtype: torch.dtype
    device: torch.device
    name: str
    begun: bool
    learning: bool

    @property
    def wide(self) -> int:
        """H D."""
        return self.heads * self.dim

    @property
    def width(self) -> int:
        """Rows of weight_ih."""
        return self.parts.inputs * self.wide

    @property
    def depths(self) -> list[int]:
        """How many features each layer reads."""
        return [self.inputs, *[self.wide] * (self.layers - 1)]

    @property
    def steps(self) -> list[int]:
        """How many steps each chunk has."""
        return [min(self.chunk, self.seq - begin) for begin in range(0, self.seq, self.chunk)]

    @property
    def keep(self) -> str:
        """As of kernels.Forward."""
        return "gates" if self.learning else "nothing"

    def order(self) -> Iterator[tuple[int, int]]:
        """(layer, chunk), wave by wave: what a chunk of a layer reads is there when its turn comes."""
        chunks = len(self.steps)
        for wave in range(chunks + self.layers - 1):
            for layer in reversed(range(self.layers)):
                if 0 <= wave - layer < chunks:
                    yield layer, wave - layer

    def cut(self, x: Tensor) -> Tensor:
        """x [B, T, I] as rows in chunks, [B T, I]."""
        rows = x.new_empty((self.batch * self.seq, x.shape[2]))
        for part, own in self._parts_of(x, rows):
            own.copy_(part)
        return rows

    def joined(self, rows: Tensor, *, time_major: bool) -> Tensor:
        """The reverse of ``cut``: [B, T, I], or [T, B, I]."""
        sizes = (self.seq, self.batch) if time_major else (self.batch, self.seq)
        out = rows.new_empty((*sizes, rows.shape[1]))
        for part, own in self._parts_of(out.transpose(0, 1) if time_major else out, rows):
            part.copy_(own)
        return out

    def _parts_of(self, x: Tensor, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The steps of all whole chunks in x and in rows, in axes [N, B, C, I], and those of the last one."""
        whole = self.seq // self.chunk
        at = whole * self.chunk
        if whole:
            part = x[:, :at].unflatten(1, (whole, self.chunk)).transpose(0, 1)
            yield part, rows[: at * self.batch].view(part.shape)
        if at < self.seq:
            yield x[:, at:], rows[at * self.batch :].view(self.batch, self.seq - at, -1)
