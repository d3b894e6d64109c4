"""Layers in a wavefront: while one works on a chunk of steps the next works on the chunk before, in the same kernel.

By calls of PyTorch's, for what wave_pass.py has no kernels for: any device, lengths, projections, dropout, tracing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional

from kernelgen.torch import padding
from kernelgen.torch.layers import LayerResult, Together, own_ends


def run_wavefront(
    together: Together,
    x: Tensor,
    initial: Sequence[Tensor] | None,
    lengths: Tensor | None,
    every: bool,
    chunk: int,
    dropout: float,
) -> list[LayerResult]:
    """The results of layers in one direction over x [B, T, I], one after another: see LayerResult.

    together: the layers. initial: the states, each [L, B, D], or None for zeros. lengths: [B] on x's device, or None.
    every: whether to give every state. chunk: steps of a chunk; rnn() is called about T / chunk + L times, and from one
    call to the next the states are rounded to the tensors' dtype. dropout: the share of zeros between layers.
    """
    count = len(together.sets)
    whole = every or lengths is not None
    within = None if lengths is None else padding.inside(lengths, x.shape[1])
    # What each layer reads, in chunks; and what each has made, for each state.
    inputs: list[list[Tensor]] = [list(padding.masked(x, within).split(chunk, dim=1)), *([] for _ in range(count))]
    made: list[list[list[Tensor]]] = [[] for _ in range(count)]
    carried = [[state[layer] for state in initial or _zeros(together, x)] for layer in range(count)]
    chunks = len(inputs[0])
    for wave in range(chunks + count - 1):
        active = [layer for layer in range(count) if 0 <= wave - layer < chunks]
        for at_once in _alike(active, [inputs[layer][wave - layer].shape[1] for layer in active]):
            states = [torch.stack(each) for each in zip(*(carried[layer] for layer in at_once), strict=True)]
            some = together.only(at_once[0], at_once[-1] + 1)
            tracks, ends = some.run([inputs[layer][wave - layer] for layer in at_once], states, whole)
            for index, layer in enumerate(at_once):
                made[layer].append([track[index] for track in tracks])
                carried[layer] = [end[index] for end in ends]
                h = tracks[0][index]
                inputs[layer + 1].append(functional.dropout(h, dropout) if dropout and layer + 1 < count else h)
    results = []
    for layer in range(count):
        whole_tracks = [[torch.cat(parts, dim=1)] for parts in zip(*made[layer], strict=True)]
        last = [[state] for state in carried[layer]]
        if lengths is not None:
            begun = None if initial is None else [state[layer : layer + 1] for state in initial]
            last = own_ends(whole_tracks, begun, lengths)
        of_layer = [padding.masked(track[0], within) for track in whole_tracks]
        all_states = tuple(track.unsqueeze(0) for track in of_layer) if every else None
        results.append(LayerResult(of_layer[0], tuple(torch.stack(state) for state in last), all_states))
    return results


def _zeros(together: Together, x: Tensor) -> list[Tensor]:
    """States [L, B, D] to start from."""
    units = [together.heads * together.dim] * len(together.parts.states)
    units[0] = together.sets[0]["weight_hr"].shape[0] if "weight_hr" in together.sets[0] else units[0]
    return [x.new_zeros((len(together.sets), x.shape[0], size)) for size in units]


def _alike(layers: list[int], steps: list[int]) -> list[list[int]]:
    """The layers that can run at once: with as many steps each, since the last chunk may be shorter."""
    kinds = dict(zip(layers, steps, strict=True))
    return [list(group) for _, group in groupby(layers, key=kinds.__getitem__)]
