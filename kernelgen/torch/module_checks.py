"""What is wrong with a module's arguments, in torch.nn's exception types and with what its messages say."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from kernelgen.errors import ShapeError
from kernelgen.torch.arguments import autocast_dtype, require_tensors
from kernelgen.torch.errors import ArgumentError, ArgumentTypeError, TensorShapeError
from kernelgen.torch.exporting import untraced


def check_sizes(**sizes: Any) -> None:
    """Raise ArgumentTypeError for what is no int, ArgumentError for what is not positive."""
    for name, size in sizes.items():
        if not isinstance(size, Integral):
            raise ArgumentTypeError(f"{name} should be of type int, got: {type(size).__name__} {size!r}")
        if int(size) <= 0:
            raise ArgumentError(f"{name} must be greater than zero, not {size}")


def check_switches(**switches: Any) -> None:
    """Raise ArgumentTypeError for what is neither True nor False."""
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ArgumentTypeError(
                f"{name} should be of type bool, got: {type(value).__name__} {value!r}; give True or False"
            )


def check_dropout(dropout: Any, num_layers: int) -> None:
    """Raise ArgumentError for what is no share of zeros; warn where it does nothing."""
    if isinstance(dropout, bool) or not isinstance(dropout, Real) or not 0 <= float(dropout) <= 1:
        raise ArgumentError(f"dropout should be a number in range [0, 1], the share of zeros, not {dropout!r}")
    if dropout and num_layers == 1:
        warnings.warn(f"dropout={dropout} lies between layers, and there is only one", UserWarning, stacklevel=4)


def check_heads(heads: Any, hidden_size: int, proj_size: Any) -> None:
    """Raise ArgumentTypeError or ArgumentError where hidden_size units cannot be that many heads, or be projected."""
    check_sizes(heads=heads)
    if hidden_size % heads:
        raise ArgumentError(f"heads must divide hidden_size, but {hidden_size} units do not make {heads} heads")
    if not isinstance(proj_size, Integral):
        raise ArgumentTypeError(f"proj_size should be of type int, got: {type(proj_size).__name__} {proj_size!r}")
    if int(proj_size) < 0:
        raise ArgumentError(f"proj_size should be a positive integer, or zero for no projection, not {proj_size}")
    if int(proj_size) >= hidden_size:
        raise ArgumentError(f"proj_size has to be smaller than hidden_size = {hidden_size}, but it is {proj_size}")
    if proj_size and heads > 1:
        raise ArgumentError(f"a projection mixes the units of one head; there is none for heads={heads}, leave one out")


def check_wavefront(chunk: Any, *, num_layers: int, bidirectional: bool, checkpointed: bool) -> None:
    """Raise ArgumentTypeError or ArgumentError for what is no number of steps, or where layers cannot run at once."""
    if chunk is None or chunk is False:
        return
    if chunk is not True:
        check_sizes(wavefront=chunk)
    if num_layers < 2:
        raise ArgumentError("a wavefront runs several layers at the same time, but there is one; leave wavefront out")
    if bidirectional:
        raise ArgumentError(
            "a layer above one with a reverse direction needs all of its steps first; leave one of them out"
        )
    if checkpointed:
        raise ArgumentError("a wavefront keeps what checkpoint and memory_limit would not; leave it out, or them")


def check_dtypes(input: Tensor, weights: torch.dtype, kind: type[ShapeError] = ArgumentError) -> None:
    """Raise ``kind`` for an input that is not of the weights' dtype, where autocast is off."""
    if input.dtype != weights and autocast_dtype(input.device.type) is None:
        raise kind(
            f"RNN input dtype ({input.dtype}) does not match weight dtype ({weights}). "
            f"Convert input: input.to({weights}), or convert model: model.to({input.dtype})"
        )


@untraced
def check_input(input: Any, input_size: int, weights: torch.dtype, batch_first: bool) -> None:
    """Raise what torch.nn raises for an input, a tensor or a PackedSequence, that does not fit."""
    if isinstance(input, PackedSequence):
        check_dtypes(input.data, weights)
        if input.data.dim() != 2:
            raise TensorShapeError(
                f"the data of a PackedSequence must have 2 dimensions, got {input.data.dim()}: {list(input.data.shape)}"
            )
        sizes = input.data.shape
    else:
        require_tensors(input=input)
        if input.dim() not in (2, 3):
            layout = "[B, T, I]" if batch_first else "[T, B, I]"
            raise ArgumentError(f"the input must be {layout} or [T, I], not of {input.dim()} axes")
        check_dtypes(input, weights)
        sizes = input.shape
        if not sizes[1 if batch_first and input.dim() == 3 else 0]:
            raise TensorShapeError(f"the input has no steps: it is {list(sizes)}, and T must be at least 1")
    if sizes[-1] != input_size:
        raise TensorShapeError(f"the input's last axis must be input_size = {input_size}, but it is {list(sizes)}")


@untraced
def check_states(
    hx: Any, names: Sequence[str], sizes: Sequence[Sequence[int]], axes: str, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Initial states, one for each name, of these sizes. A single one is a tensor, several are a tuple or a list.

    axes: what the sizes mean, for messages. Raises ArgumentTypeError and TensorShapeError (a RuntimeError).
    """
    if len(names) == 1:
        hx = (hx,)
    else:
        # The first state may be of another size than the others, where it is projected.
        wanted = f"{axes} = {list(sizes[1])}"
        what = f"hx must be {'the pair' if len(names) == 2 else 'a tuple'} ({', '.join(names)}), each {wanted}"
        if isinstance(hx, Tensor):
            raise TensorShapeError(f"{what}, not one tensor {list(hx.shape)}")
        if not isinstance(hx, (tuple, list)):
            raise ArgumentTypeError(f"{what}, not {type(hx).__name__}")
        if len(hx) != len(names):
            raise TensorShapeError(f"{what}, not {len(hx)} tensors")
    for name, state, size in zip(names, hx, sizes, strict=True):
        what = f"{name} of hx" if len(names) > 1 else "hx"
        require_tensors(**{what: state})
        if list(state.shape) != list(size):
            raise TensorShapeError(f"{what} must be {axes} = {list(size)}, not {list(state.shape)}")
        if state.dtype != dtype and autocast_dtype(state.device.type) is None:
            raise TensorShapeError(f"{what} is {state.dtype}, but the input is {dtype}; convert one of them")
    return tuple(hx)
