"""Gradients of gradients: a switch, and the backward pass in operations that autograd differentiates."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from kernelgen.cells.registry import differentiated
from kernelgen.torch import passes, reference
from kernelgen.torch.errors import ArgumentTypeError
from kernelgen.torch.sequences import Own


class double_backward:
    """Whether what runs from now on can be differentiated more than once; off at first.

    As a function it stays, as a context manager until its end: ``double_backward(True)``, ``with
    double_backward(True):``. Of the whole process, as torch.autograd.set_detect_anomaly is. The forward pass asks, and
    keeps Wx beside what it keeps anyway. A backward pass with create_graph=True then runs the reference in PyTorch,
    forward and backward, on every device; other passes are what they were.

    Raises ArgumentTypeError for what is neither True nor False.
    """

    on: ClassVar[bool] = False
    """What was said last."""

    def __init__(self, mode: bool) -> None:
        if not isinstance(mode, bool):
            raise ArgumentTypeError(f"double_backward takes True or False, not {mode!r}")
        self._before = double_backward.on
        double_backward.on = mode

    def __enter__(self) -> None:
        """Nothing: making it has set it."""

    def __exit__(self, *_: Any) -> None:
        double_backward.on = self._before


def gradients(
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    initial: Tensor | None,
    own: Own,
    d_states: Tensor | None,
    d_last: Tensor | None,
    key: str,
    cut: bool,
    clip: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of wx, r, b and the initial states, as functions of all tensors that autograd differentiates, any
    number of times.

    wx, r, b, initial, own: as of reference.forward. d_states [K, B, T, H, D], of the first K states, and d_last
    [S, B, H, D]: the gradients of what it returns, None for zeros. key: the cell's; cut and clip: rnn's recurrent_cut
    and recurrent_clip, which are parts of the function that is differentiated.
    """
    cell = differentiated(key, cut, clip)
    with torch.autocast(wx.device.type, enabled=False):
        states, _, gates = reference.forward(cell, wx, r, b, initial, keep_gates=True, own=own)
    known = len(states) if d_states is None else len(d_states)
    return passes.backward_by_reference(
        cell, r, b, initial, states[:known], states[known:], gates, None, d_states, d_last, own
    )
