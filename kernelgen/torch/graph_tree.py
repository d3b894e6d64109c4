"""The tensors in arguments and results, and all that is around them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from kernelgen.torch.errors import GraphError

_TENSOR = "tensor"
_PLAIN = (bool, int, float, str, type(None))


def flatten(value: Any, tensors: list[Tensor]) -> Hashable:
    """Append the tensors within tuples, lists and dicts, and return the rest, with the kinds of all values.

    Raises GraphError for a PackedSequence, and for what could not be told apart from another of its kind.
    """
    kind = type(value)
    if isinstance(value, Tensor):
        tensors.append(value)
        return _TENSOR
    if kind in _PLAIN:
        return kind, value
    if isinstance(value, PackedSequence):
        raise GraphError(
            "a PackedSequence says on the CPU where its steps are, and a CUDA graph would repeat those of the first; "
            "give a padded tensor, with lengths= on the GPU"
        )
    if isinstance(value, (tuple, list)):
        return kind, tuple([flatten(one, tensors) for one in value])
    if isinstance(value, dict):
        return kind, tuple(value), tuple([flatten(one, tensors) for one in value.values()])
    try:
        hash(value)
    except TypeError:
        raise GraphError(
            f"a {kind.__name__} can change from call to call without being told apart, and a CUDA graph would repeat "
            "what it was; give tensors, numbers, names, and tuples, lists and dicts of them"
        ) from None
    return kind, value


def rebuilt(form: Any, tensors: Iterator[Any]) -> Any:
    """The reverse of flatten, with other tensors."""
    if form == _TENSOR:
        return next(tensors)
    kind, *rest = form
    if issubclass(kind, (tuple, list)):
        values = [rebuilt(one, tensors) for one in rest[0]]
        return kind(*values) if hasattr(kind, "_fields") else kind(values)
    if issubclass(kind, dict):
        names, forms = rest
        return kind(zip(names, [rebuilt(one, tensors) for one in forms], strict=True))
    return rest[0]
