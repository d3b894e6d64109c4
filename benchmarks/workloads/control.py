"""Recurrent PPO: a cue is shown, a corridor is walked through, and the cue must be remembered at its end.

Ours acts by step() and learns by one rnn() with resets; the twin loops over torch.nn.LSTMCell in both, with states that
are masked where a corridor begins, as is usual where a module knows no resets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernelgen.torch import rnn, step
from workloads.common import Update

OBSERVED, ACTIONS = 4, 2
DISCOUNT, TRACE, CLIP, EPOCHS = 0.99, 0.95, 0.2, 2


@dataclass(frozen=True)
class Sizes:
    """Environments, steps of a rollout, units, and the longest corridor."""

    environments: int
    horizon: int
    units: int
    corridor: int


TINY, MEDIUM, LARGE = Sizes(3, 6, 8, 3), Sizes(64, 64, 128, 8), Sizes(256, 128, 256, 12)


class Corridors:
    """Environments that run at once. Seen: the cue (-1, 1, later 0), whether this is the end, two of noise. At the end
    an action is right if it is the cue's; then another corridor begins."""

    def __init__(self, sizes: Sizes, device: torch.device, seed: int) -> None:
        self.sizes, self.device = sizes, device
        self.drawn = torch.Generator(device).manual_seed(seed)
        self.place = torch.zeros(sizes.environments, device=device, dtype=torch.long)
        self.length, self.cue = self._corridors()

    def _corridors(self) -> tuple[Tensor, Tensor]:
        many, drawn = (self.sizes.environments,), self.drawn
        length = torch.randint(2, self.sizes.corridor + 1, many, generator=drawn, device=self.device)
        return length, torch.randint(2, many, generator=drawn, device=self.device)

    def observe(self) -> Tensor:
        """[B, OBSERVED]."""
        noise = torch.randn(self.sizes.environments, 2, generator=self.drawn, device=self.device)
        cue = torch.where(self.place == 0, 2.0 * self.cue - 1, 0.0)
        return torch.cat([torch.stack([cue, (self.place == self.length).float()], dim=1), noise], dim=1)

    def act(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """The reward of actions [B], and where the next observation is a corridor's first, [B] bool."""
        ends = self.place == self.length
        reward = torch.where(ends, (action == self.cue).float(), 0.0)
        length, cue = self._corridors()
        self.length, self.cue = torch.where(ends, length, self.length), torch.where(ends, cue, self.cue)
        self.place = torch.where(ends, 0, self.place + 1)
        return reward, ends


class Core(nn.Module):
    """An LSTM over one step (x [B, D]) or a sequence (x [B, T, D]); where resets [B] or [B, T] are set, from zeros."""

    def __init__(self, ours: bool, size: int) -> None:
        super().__init__()
        self.ours, self.size = ours, size
        self.cell = nn.LSTMCell(size, size)

    def forward(self, x: Tensor, states: Tensor | None, resets: Tensor) -> tuple[Tensor, Tensor]:
        """h [B, D] or [B, T, D], and the last states [2, B, D]; states None for zeros."""
        if not self.ours:
            return self._loop(x, states, resets)
        wx = functional.linear(x, self.cell.weight_ih).unflatten(-1, (4, 1, self.size))
        r = self.cell.weight_hh.view(4, 1, self.size, self.size)
        b = (self.cell.bias_ih + self.cell.bias_hh).view(4, 1, self.size)
        if x.dim() == 2:
            new = step(wx, r, b, None if states is None else states.unsqueeze(2), "lstm", resets=resets).squeeze(2)
            return new[0], new
        every, last = rnn(wx, r, b, None, "lstm", returns="hidden", resets=resets)
        return every[0].flatten(2), last.flatten(2)

    def _loop(self, x: Tensor, states: Tensor | None, resets: Tensor) -> tuple[Tensor, Tensor]:
        """The same, step by step."""
        xs, cuts = (x.unbind(1), resets.unbind(1)) if x.dim() == 3 else ((x,), (resets,))
        h, c = x.new_zeros(2, len(x), self.size) if states is None else states
        history = []
        for one, cut in zip(xs, cuts, strict=True):
            kept = (~cut).unsqueeze(1)
            h, c = self.cell(one, (h * kept, c * kept))
            history.append(h)
        return (torch.stack(history, dim=1) if x.dim() == 3 else h), torch.stack([h, c])


class Policy(nn.Module):
    """Observations to logits of the actions and a value."""

    def __init__(self, ours: bool, size: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(OBSERVED, size), nn.Tanh())
        self.core = Core(ours, size)
        self.head = nn.Linear(size, ACTIONS + 1)

    def forward(self, x: Tensor, states: Tensor | None, resets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, values and the last states, of one step or of a sequence."""
        h, states = self.core(self.encoder(x), states, resets)
        found = self.head(h).float()
        return found[..., :ACTIONS], found[..., ACTIONS], states


class Control:
    """The share of corridors that end with the right action: 0.5 without memory, 1 with it."""

    name = "control"
    value = "reward"
    peer = "torch.nn.LSTMCell, step by step"
    dtype = peer_dtype = "tf32"

    def __init__(self, sizes: Sizes, device: torch.device, seed: int) -> None:
        self.sizes, self.device, self.seed = sizes, device, seed

    def build(self, ours: bool) -> nn.Module:
        torch.manual_seed(self.seed)
        return Policy(ours, self.sizes.units)

    def recurrences(self, model: nn.Module) -> Sequence[nn.Module]:
        return [model.core]

    def step(self, model: nn.Module, update: Update, number: int) -> Tensor:
        """A rollout that begins with new corridors, and as many updates as EPOCHS."""
        corridors = Corridors(self.sizes, self.device, self.seed + 1 + number)
        with torch.no_grad(), update.cast():
            seen, taken, chances, rewards, firsts, values = self._act(model, corridors)
        advantages, returns = _advantages(rewards, values, firsts)
        for _ in range(EPOCHS):
            with update.cast():
                logits, found, _ = model(seen, None, firsts[:, :-1])
            every = functional.log_softmax(logits, dim=-1)
            ratio = torch.exp(every.gather(2, taken.unsqueeze(2)).squeeze(2) - chances)
            gain = torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)
            entropy = -(every.exp() * every).sum(2)
            update(-gain.mean() + 0.5 * functional.mse_loss(found, returns) - 0.01 * entropy.mean())
        return rewards.sum() / firsts[:, 1:].sum().clamp(min=1)

    def _act(self, model: nn.Module, corridors: Corridors) -> tuple[Tensor, ...]:
        """A rollout: observations [B, T, OBSERVED], actions, their log probabilities and rewards [B, T]; whether a
        corridor begins, and the value [B, T + 1]."""
        first = torch.ones(self.sizes.environments, dtype=torch.bool, device=self.device)
        states = None
        rows: list[tuple[Tensor, ...]] = []
        for _ in range(self.sizes.horizon):
            seen = corridors.observe()
            logits, value, states = model(seen, states, first)
            every = functional.log_softmax(logits, dim=-1)
            draw = torch.rand(len(seen), 1, generator=corridors.drawn, device=self.device)
            taken = (every.exp().cumsum(1) < draw).sum(1).clamp(max=ACTIONS - 1)
            reward, ends = corridors.act(taken)
            rows.append((seen, taken, every.gather(1, taken.unsqueeze(1)).squeeze(1), reward, first, value))
            first = ends
        _, last, _ = model(corridors.observe(), states, first)
        seen, taken, chances, rewards, firsts, values = (torch.stack(row, dim=1) for row in zip(*rows, strict=True))
        firsts, values = (torch.cat([rest, one.unsqueeze(1)], dim=1) for rest, one in ((firsts, first), (values, last)))
        return seen, taken, chances, rewards, firsts, values


def _advantages(rewards: Tensor, values: Tensor, firsts: Tensor) -> tuple[Tensor, Tensor]:
    """Generalised advantages, normalised, and returns [B, T]; values and firsts [B, T + 1]."""
    goes_on = (~firsts[:, 1:]).float()
    errors = rewards + DISCOUNT * values[:, 1:] * goes_on - values[:, :-1]
    found, after = [], torch.zeros_like(errors[:, 0])
    for t in reversed(range(errors.shape[1])):
        after = errors[:, t] + DISCOUNT * TRACE * goes_on[:, t] * after
        found.append(after)
    advantages = torch.stack(found[::-1], dim=1)
    returns = advantages + values[:, :-1]
    return (advantages - advantages.mean()) / (advantages.std() + 1e-6), returns
