"""One call that was captured: its memory, a graph of its forward pass, and graphs of its backward pass.

The forward pass is captured with autograd's graph of it, which is kept. What it saved lies in the captured memory,
where each replay writes it anew, so a backward pass is that of the kept graph: run as it is when gradients come for a
set of outputs for the first time, captured then, and replayed from then on.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kernelgen.torch.graph_capture import BUSY, Capturer, captured
from kernelgen.torch.graph_tree import flatten, rebuilt
from kernelgen.torch.once import Once


class Lease:
    """Of a slot by a forward pass that waits for its backward pass: until that, or until nobody can ask for it."""

    done = False


class Slot:
    """Captured memory and graphs for one call at a time. what: the call, in words, for errors."""

    def __init__(self, capturer: Capturer, what: str) -> None:
        self.capturer = capturer
        self.what = what
        self.result: Hashable = None
        self.outputs: list[Tensor] = []
        self._results: list[Tensor] = []
        self._into: list[Tensor] = []
        self._leaves: list[Tensor] = []
        self._replay: Callable[[], None] = _nothing
        self._pool: Any = None
        self._backward: dict[tuple[bool, ...], tuple[list[Tensor], Callable[[], None], list[Tensor | None]]] = {}
        self._lease: weakref.ref[Lease] | None = None

    @property
    def free(self) -> bool:
        """Whether no backward pass can come for what is in its memory."""
        lease = None if self._lease is None else self._lease()
        return lease is None or lease.done

    def leased(self) -> Lease:
        """Take the slot until its backward pass."""
        lease = Lease()
        self._lease = weakref.ref(lease)
        return lease

    def capture(
        self,
        function: Callable[..., Any],
        form: Hashable,
        tensors: Sequence[Tensor],
        owners: Sequence[nn.Module],
        parameters: Sequence[Tensor],
        learning: bool,
    ) -> None:
        """Capture the forward pass. form, tensors: the arguments, see graph_tree; Parameters among them are read where
        they lie, the others copied. owners: the modules that have the parameters, all without repetition."""
        in_place = (*parameters, *(one for one in tensors if type(one) is nn.Parameter))
        aliases = {id(one): _alias(one) for one in in_place}
        own = [aliases[id(one)] if id(one) in aliases else _memory_for(one) for one in tensors]
        self._into = [mine.data for mine, one in zip(own, tensors, strict=True) if id(one) not in aliases]
        self._leaves = [*own, *(aliases[id(one)] for one in parameters)]
        with torch.no_grad():
            self.fill(tensors)
        args, kwargs = rebuilt(form, iter(own))

        def run() -> Any:
            with torch.set_grad_enabled(learning), _uncached_casts():
                return function(*args, **kwargs)

        with _in_place_of(owners, aliases):
            self._replay, found, self._pool = captured(self.capturer, run, own[0], None, self.what)
        self.result = flatten(found, self.outputs)
        self._results = [one.detach() for one in self.outputs]

    def fill(self, tensors: Sequence[Tensor]) -> None:
        """Copy what arguments hold into the captured memory."""
        given = [one for one in tensors if type(one) is not nn.Parameter]
        if given:
            torch._foreach_copy_(self._into, given)

    def run(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The forward pass. Returns copies of its results."""
        self.fill(tensors)
        self._replay()
        return _copies(self._results)

    def backward(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The gradients of arguments and parameters from those of the results; None where nobody needs one."""
        there = tuple(one is not None for one in gradients)
        known = self._backward.get(there)
        given = [one for one in gradients if one is not None]
        if known is not None:
            into, replay, found = known
            torch._foreach_copy_(into, given)
            replay()
            fresh = iter(_copies([one for one in found if one is not None]))
            return [None if one is None else next(fresh) for one in found]
        with self.capturer.beside(given[0]):
            into = [one.clone() for one in given]
            found = self._differentiated(there, into)
        if BUSY.acquire(blocking=False):
            try:
                replay, kept, _ = captured(
                    self.capturer,
                    lambda: self._differentiated(there, into),
                    given[0],
                    self._pool,
                    f"the backward pass of {self.what}",
                )
            finally:
                BUSY.release()
            self._backward[there] = (into, replay, kept)
        return found

    def _differentiated(self, there: Sequence[bool], gradients: Sequence[Tensor]) -> list[Tensor | None]:
        """See backward; by autograd's graph of the forward pass."""
        outputs = [one for one, is_there in zip(self.outputs, there, strict=True) if is_there]
        wanted = [one for one in self._leaves if one.requires_grad]
        options = {"retain_graph": True, "allow_unused": True}
        with torch.autocast(self.capturer.kind, enabled=False):
            found = iter(torch.autograd.grad(outputs, wanted, gradients, **options))
        return [next(found) if one.requires_grad else None for one in self._leaves]


class Pass(torch.autograd.Function):  # type: ignore[misc]
    """A slot's call with gradients."""

    @staticmethod
    def forward(ctx: Any, slot: Slot, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """tensors: ``count`` arguments, then the parameters."""
        ctx.set_materialize_grads(False)
        ctx.slot, ctx.lease = slot, slot.leased()
        # For autograd's errors alone: of a second backward pass, and of what was changed in place before the first.
        ctx.save_for_backward(*(one for one in tensors if one.requires_grad))
        found = slot.run(tensors[:count])
        pairs = zip(found, slot.outputs, strict=True)
        ctx.mark_non_differentiable(*(one for one, kept in pairs if not kept.requires_grad))
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        """See Slot.backward."""
        saved, slot = ctx.saved_tensors, ctx.slot
        with torch.no_grad():
            found: list[Tensor | None] = slot.backward(gradients)
        ctx.lease.done = not torch._C._autograd._get_current_graph_task_keep_graph()
        if torch.is_grad_enabled():  # somebody wants a second derivative
            found = Once.refusing(found, *saved, *gradients)
        return (None, None, *found)


def _nothing() -> None:
    """A replay of no graph."""


def _alias(parameter: Tensor) -> nn.Parameter:
    """The same memory as a leaf of autograd's of its own, which an optimizer's step does not outdate."""
    return nn.Parameter(parameter.data, parameter.requires_grad)


def _memory_for(tensor: Tensor) -> Tensor:
    """A tensor like that, a leaf."""
    return torch.empty_like(tensor, requires_grad=tensor.requires_grad)


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """As new tensors, by one kernel if all have one dtype."""
    found = [torch.empty_like(one) for one in tensors]
    if found:
        torch._foreach_copy_(found, tensors)
    return found


@contextmanager
def _in_place_of(owners: Sequence[nn.Module], aliases: dict[int, nn.Parameter]) -> Iterator[None]:
    """Modules with other parameters, meanwhile."""
    before = [dict(one._parameters) for one in owners]
    try:
        for owner in owners:
            for name, value in owner._parameters.items():
                owner._parameters[name] = aliases.get(id(value), value)
        yield
    finally:
        for owner, parameters in zip(owners, before, strict=True):
            owner._parameters.update(parameters)


@contextmanager
def _uncached_casts() -> Iterator[None]:
    """Autocast casts parameters anew: what it has cast already lies in memory that will not last."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
