"""A language model of xLSTM's sLSTM blocks, on the bytes of this repository's documentation.

The twin's cell is a loop in PyTorch, as xLSTM's vanilla backend is one; ours is what kernelgen.torch.xlstm.convert
makes of that model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernelgen.torch import xlstm
from workloads.common import Update

ROOT = Path(__file__).parents[2]
GATES = 4


@dataclass(frozen=True)
class Sizes:
    """Sequences, bytes in each, blocks, their width, heads of each, and the width inside the feed-forward part."""

    batch: int
    seq: int
    blocks: int
    width: int
    heads: int
    inner: int


TINY, MEDIUM, LARGE = Sizes(2, 8, 2, 16, 2, 32), Sizes(32, 48, 4, 256, 4, 1024), Sizes(16, 256, 15, 768, 4, 3072)
"""LARGE has 124 million parameters."""


class sLSTMCell(nn.Module):
    """sLSTM step by step: gates [B, T, 4 H D] to h [B, H, T, D] and the last states [4, B, H D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            hidden_size=width, num_heads=heads, function="slstm", backend="vanilla", input_shape="BSGNH",
            output_shape="BNSH", bias_init="small_init", recurrent_weight_init="standard", _block_idx=0, _num_blocks=1,
            constants={}, gradient_recurrent_cut=False, gradient_recurrent_clipval=None, forward_clipval=None,
        )  # fmt: skip
        dim, reach = width // heads, width**-0.5
        self._recurrent_kernel_ = nn.Parameter(torch.empty(heads, GATES * dim, dim).uniform_(-reach, reach))
        bias = torch.zeros(GATES, heads, dim)
        bias[1] = torch.linspace(3, 6, dim)  # f
        self._bias_ = nn.Parameter(bias.flatten())

    def forward(self, gates: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch, _, width = gates.shape
        heads, dim = self.config.num_heads, width // GATES // self.config.num_heads
        begins = state is None  # with nothing to keep, whatever the stabiliser says
        if state is None:
            state = gates.new_zeros(4, batch, width // GATES, dtype=torch.float32)
        h, c, n, m = state.unflatten(2, (heads, dim)).unbind()
        bias, weights = self._bias_.view(GATES, heads, dim), self._recurrent_kernel_.transpose(1, 2)
        weights = weights.to(gates.dtype).contiguous()  # once, not in every step
        history = []
        for t in range(gates.shape[1]):
            product = torch.matmul(h.transpose(0, 1), weights).view(heads, batch, GATES, dim).permute(1, 2, 0, 3)
            i, f, z, o = (gates[:, t].unflatten(1, (GATES, heads, dim)) + product + bias).float().unbind(1)
            kept = m + functional.logsigmoid(f)
            new_m = i if begins and t == 0 else torch.maximum(i, kept)
            keep, add = torch.exp(kept - new_m), torch.exp(i - new_m)
            c, n, m = keep * c + add * torch.tanh(z), keep * n + add, new_m
            h = torch.sigmoid(o) * c / n
            history.append(h)
        return torch.stack(history, dim=2), torch.stack([h, c, n, m]).flatten(2)


class Block(nn.Module):
    """Norm, a causal convolution for i and f, gates by head, sLSTM, norm by head; norm, gated feed-forward part."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, self.heads = sizes.width, sizes.heads
        dim = width // sizes.heads
        self.norm, self.norm_inner = nn.LayerNorm(width), nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, 4, groups=width, padding=3)
        self.gates = nn.Parameter(torch.randn(GATES, sizes.heads, dim, dim) * (2 / (5 * width)) ** 0.5)
        self.cell = sLSTMCell(width, sizes.heads)
        self.norm_heads = nn.GroupNorm(sizes.heads, width)
        self.up, self.down = nn.Linear(width, 2 * sizes.inner), nn.Linear(sizes.inner, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, seq, width = x.shape
        normed = self.norm(x)
        early = functional.silu(self.conv(normed.transpose(1, 2))[..., :seq]).transpose(1, 2)
        parts = [part.unflatten(2, (self.heads, -1)) for part in (early, normed)]
        found = [torch.einsum("bthp,ghdp->btghd", part, weights) for part, weights in zip(
            parts, self.gates.view(2, 2, *self.gates.shape[1:]), strict=True
        )]  # fmt: skip
        h, _ = self.cell(torch.cat(found, dim=2).flatten(2))
        h = self.norm_heads(h.transpose(1, 2).reshape(batch * seq, width)).view(batch, seq, width)
        x = x + h
        gate, value = self.up(self.norm_inner(x)).chunk(2, dim=-1)
        return x + self.down(functional.gelu(gate) * value)


class Model(nn.Module):
    """Bytes [B, T] to logits [B, T, 256]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, sizes.width)
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.blocks))
        self.norm, self.readout = nn.LayerNorm(sizes.width), nn.Linear(sizes.width, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.readout(self.norm(x))
        return logits


class Language:
    """The next byte of the documentation."""

    name = "language"
    value = "loss"
    peer = "a loop in PyTorch"
    dtype = peer_dtype = "bfloat16"

    def __init__(self, sizes: Sizes, device: torch.device, seed: int) -> None:
        self.sizes, self.device, self.seed = sizes, device, seed
        pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
        text = b"".join(page.read_bytes() for page in pages)
        self.text = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device)

    def build(self, ours: bool) -> nn.Module:
        torch.manual_seed(self.seed)
        model = Model(self.sizes)
        if ours:
            xlstm.convert(model)
        return model

    def recurrences(self, model: nn.Module) -> Sequence[nn.Module]:
        return [block.cell for block in model.blocks]

    def step(self, model: nn.Module, update: Update, number: int) -> Tensor:
        drawn = torch.Generator().manual_seed(self.seed + 1 + number)
        starts = torch.randint(len(self.text) - self.sizes.seq, (self.sizes.batch, 1), generator=drawn)
        span = torch.arange(self.sizes.seq + 1, device=self.device)
        tokens = self.text[starts.to(self.device) + span].long()
        with update.cast():
            logits = model(tokens[:, :-1])
        loss = functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        update(loss)
        return loss.detach()
