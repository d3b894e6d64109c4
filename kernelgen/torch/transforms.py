"""Forward-mode differentiation and torch.func: what kernels and their operator know nothing of.

An operator of torch.library has no rule for tangents: it would drop them without a word. Where one of these is active,
the reference runs, which PyTorch differentiates and batches by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kernelgen.cells.registry import cell_of
from kernelgen.torch import kernels, passes, reference
from kernelgen.torch.errors import DifferentiationError
from kernelgen.torch.sequences import Own
from kernelgen.torch.traced import constant_result

_COMPILED = (
    "inside torch.compile, rnn() has no rule for forward-mode differentiation (jvp, jacfwd, hessian, dual numbers) and "
    "for torch.func's gradients; differentiate the function that is not compiled, or use backward()"
)
_Transform = torch._C._functorch.TransformType


def _active() -> bool:
    return bool(torch._C._are_functorch_transforms_active())


def _differentiating() -> bool:
    if forward_ad._current_level >= 0:  # torch.func.jvp opens such a level too
        return True
    layers = torch._C._functorch.get_interpreter_stack() if _active() else ()
    return any(layer.key() in (_Transform.Grad, _Transform.Jvp) for layer in layers)


# torch.compile asks once, while it traces, and guards by itself that the transforms of torch.func stay the same.
active = constant_result(_active)
"""Whether a transform of torch.func is active: its tensors hide whether what they wrap requires a gradient."""

differentiating = constant_result(_differentiating)
"""Whether a forward-mode level is open, or a transform of torch.func that differentiates."""


def undisturbed() -> bool:
    """Whether nothing is compiled, traced or transformed: then an eager call need not look further than at its tensors.
    Cheap, for it is asked in every call."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def learns(*tensors: Tensor | None) -> bool:
    """Whether autograd records what becomes of the tensors."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def refuse_forward_mode() -> None:
    """Raise DifferentiationError where a forward-mode level is open around the operator: a function was compiled
    before, without one."""
    if forward_ad._current_level >= 0:
        raise DifferentiationError(_COMPILED)


def forward(
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    initial: Tensor | None,
    own: Own,
    key: str,
    cut: bool,
    clip: float | None,
    *,
    hidden: bool,
) -> tuple[Tensor, Tensor]:
    """The states and the last ones, as rnn() returns them, by the reference; on a GPU with one warning.

    own: what sequences have of their own. key: of the cell; cut and clip: rnn's recurrent_cut and recurrent_clip.
    Raises ShapeError, CellError, and DifferentiationError inside torch.compile, which cannot trace the reference, and
    for a recurrent gradient that is cut or clipped.
    """
    if torch.compiler.is_compiling():
        raise DifferentiationError(_COMPILED)
    if cut or clip is not None:
        raise DifferentiationError(
            "recurrent_cut and recurrent_clip change the backward pass alone: they have no meaning for forward-mode "
            "differentiation and none under torch.func's transforms; leave them out, or use backward()"
        )
    cell = cell_of(key)
    if passes.engine_of(wx.device.type) is not None:
        kernels.warn(cell, ("transforms",), "kernels know nothing of forward mode and of torch.func's derivatives.")
    states, last, _ = reference.forward(cell, wx, r, b, initial, own=own)
    return states[:1] if hidden else states, last
