"""Speech-like: two convolutions, bidirectional LSTM layers, CTC; on symbols that are drawn, and drawn out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernelgen.torch import LSTM
from workloads.common import Update

FEATURES, SYMBOLS = 40, 28


@dataclass(frozen=True)
class Sizes:
    """Sequences, symbols in each, channels of the convolutions, LSTM layers and units of a direction."""

    batch: int
    symbols: int
    channels: int
    layers: int
    units: int


TINY, MEDIUM, LARGE = Sizes(2, 4, 8, 2, 8), Sizes(16, 20, 128, 2, 128), Sizes(32, 60, 320, 4, 320)


class Recogniser(nn.Module):
    """[B, T, FEATURES] to log probabilities [T / 2, B, SYMBOLS + 1]; ``ours`` says whose LSTM."""

    def __init__(self, ours: bool, sizes: Sizes) -> None:
        super().__init__()
        self.first = nn.Conv1d(FEATURES, sizes.channels, 5, stride=2, padding=2)
        self.second = nn.Conv1d(sizes.channels, sizes.channels, 5, padding=2)
        kind = LSTM if ours else nn.LSTM
        self.recurrent = kind(sizes.channels, sizes.units, sizes.layers, batch_first=True, bidirectional=True)
        self.readout = nn.Linear(2 * sizes.units, SYMBOLS + 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x.transpose(1, 2)))
        x = functional.relu(self.second(x)).transpose(1, 2).contiguous()
        output, _ = self.recurrent(x)
        return functional.log_softmax(self.readout(output).float(), dim=-1).transpose(0, 1)


class Speech:
    """Each symbol is heard as a pattern of its own for 4 to 8 frames, in noise."""

    name = "speech"
    value = "loss"
    peer = "torch.nn.LSTM"
    dtype, peer_dtype = "bfloat16", "float16"

    def __init__(self, sizes: Sizes, device: torch.device, seed: int) -> None:
        self.sizes, self.device, self.seed = sizes, device, seed
        drawn = torch.Generator().manual_seed(seed)
        self.patterns = torch.randn(SYMBOLS, FEATURES, generator=drawn).to(device)

    def build(self, ours: bool) -> nn.Module:
        torch.manual_seed(self.seed)
        return Recogniser(ours, self.sizes)

    def recurrences(self, model: nn.Module) -> Sequence[nn.Module]:
        return [model.recurrent]

    def step(self, model: nn.Module, update: Update, number: int) -> Tensor:
        sizes, drawn = self.sizes, torch.Generator().manual_seed(self.seed + 1 + number)
        labels = torch.randint(SYMBOLS, (sizes.batch, sizes.symbols), generator=drawn)
        lengths = torch.randint(4, 9, (sizes.batch, sizes.symbols), generator=drawn)
        frames = 6 * sizes.symbols  # all have as many: the last symbol is cut, or goes on
        ends = lengths.cumsum(1)
        heard = torch.searchsorted(ends, torch.arange(frames).expand(sizes.batch, -1).contiguous(), right=True)
        symbols = labels.gather(1, heard.clamp(max=sizes.symbols - 1))
        told = (ends - lengths < frames).sum(1)  # of how many at least a frame is heard
        x = self.patterns[symbols.to(self.device)]
        noise = torch.randn(x.shape, generator=torch.Generator(self.device).manual_seed(number), device=self.device)
        with update.cast():
            found = model(x + noise)
        steps = torch.full((sizes.batch,), found.shape[0])
        loss = functional.ctc_loss(found, labels.to(self.device) + 1, steps, told, zero_infinity=True)
        update(loss)
        return loss.detach()
