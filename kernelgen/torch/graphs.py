"""graphed: a module's or a function's calls as CUDA graphs, one for each form of its arguments."""

from __future__ import annotations

import copy
import functools
import operator
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kernelgen.torch import graph_capture
from kernelgen.torch.arguments import any_autocast, autocast_dtype
from kernelgen.torch.errors import ArgumentError, ArgumentTypeError, GraphError
from kernelgen.torch.graph_capture import BUSY
from kernelgen.torch.graph_slot import Pass, Slot
from kernelgen.torch.graph_tree import flatten, rebuilt
from kernelgen.torch.operator import own_tensors
from kernelgen.torch.precision import tf32_allowed
from kernelgen.torch.transforms import undisturbed

Called = TypeVar("Called", bound=Callable[..., Any])

LIMIT = 8


def graphed(called: Called, limit: int = LIMIT) -> Called:
    """Run a module's forward pass, or a function of tensors, and its backward pass, as CUDA graphs on a GPU.

    A module is changed in place and returned; its parameters, state_dict and hooks stay as they are. Of a function a
    new one is returned, in which arguments that are Parameters are read where they lie, like a module's. limit: how
    many graphs are kept, those that were called the longest ago being dropped; 0 takes graphed() of a module back.

    A call with new shapes, dtypes, values that are no tensors, training or autocast state, or with moved parameters,
    runs as ever; the second such call is captured and from then on replayed: arguments are copied into the graph's
    memory, and results and gradients out of it, into tensors that are the caller's. Parameters are read where they lie.
    A forward pass whose backward pass is still to come keeps its graph, so that another call meanwhile takes another
    one, or runs as ever where ``limit`` leaves none. On a CPU, inside another capture, torch.compile and torch.func all
    runs as ever.

    A call raises GraphError for a PackedSequence and for lengths that are on the CPU, whose values a graph would
    repeat, and for what cannot be captured; arguments that are changed in place keep their values. Raises
    ArgumentTypeError for what cannot be called, ArgumentError for a limit below 0.
    """
    if limit < 0:
        raise ArgumentError(f"limit is how many graphs are kept; it must be at least 0, not {limit}")
    if isinstance(called, nn.Module):
        if isinstance(vars(called).get("forward"), GraphedForward):
            del called.forward
        if "forward" in vars(called):
            raise ArgumentError("graphed() replaces a module's forward method, but somebody has done so already")
        if limit:
            called.forward = GraphedForward(called, limit)
        return called
    if not callable(called):
        raise ArgumentTypeError(f"graphed() takes a module or a function of tensors, not {type(called).__name__}")
    graphs = Graphs(called, (), limit, getattr(called, "__name__", type(called).__name__))

    @functools.wraps(called)
    def call(*args: Any, **kwargs: Any) -> Any:
        return graphs.call(*args, **kwargs)

    return call  # type: ignore[return-value]


class GraphedForward:
    """The forward method of a module, by graphs. A copy of a module has graphs of its own."""

    def __init__(self, module: nn.Module, limit: int) -> None:
        self.module = module
        self.limit = limit
        self._graphs: Graphs | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the module's class has it."""
        if self._graphs is None:  # not earlier, for a module that is being copied is not there yet
            kind = type(self.module)
            forward = functools.partial(kind.forward, self.module)
            self._graphs = Graphs(forward, tuple(self.module.modules()), self.limit, kind.__name__)
        return self._graphs.call(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphedForward:
        return GraphedForward(copy.deepcopy(self.module, memo), self.limit)

    def __reduce__(self) -> Any:
        return GraphedForward, (self.module, self.limit)


@dataclass
class _Form:
    """Of calls that one graph can repeat: how many there were, and the graphs."""

    calls: int = 0
    slots: list[Slot] = field(default_factory=list)


class Graphs:
    """The graphs of a function's calls. owners: the modules whose parameters it reads. name: the function's."""

    def __init__(self, function: Callable[..., Any], owners: Sequence[nn.Module], limit: int, name: str) -> None:
        self._function = function
        self._owners = owners
        self._limit = limit
        self._name = name
        self._forms: OrderedDict[Hashable, _Form] = OrderedDict()
        self._lock = threading.RLock()
        self._found: list[Tensor | None] = []
        self._parameters: list[Tensor] = []

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, or a graph of it."""
        capturer = graph_capture.CAPTURER
        if not undisturbed():
            return self._function(*args, **kwargs)
        parameters = self._own()
        somewhere = parameters or _tensors_of((args, kwargs))
        if not somewhere or somewhere[0].device.type != capturer.kind or capturer.capturing():
            return self._function(*args, **kwargs)
        tensors: list[Tensor] = []
        form = flatten((args, kwargs), tensors)
        _refuse_values(tensors, kwargs, capturer.kind)
        if not tensors or not own_tensors(*tensors, *parameters):
            return self._function(*args, **kwargs)
        every = (*tensors, *parameters)
        learn = tuple([one.requires_grad for one in every])
        learning = True in learn and torch.is_grad_enabled()
        key = (
            form,
            learn,
            self._state(learning, somewhere[0].device),
            tuple([one.dtype for one in every]),
            tuple([one.data_ptr() if type(one) is nn.Parameter else one.shape for one in tensors]),
            tuple(map(Tensor.data_ptr, parameters)),
        )
        with self._lock:
            slot = self._slot(key, lambda made: made.capture(
                self._function, form, tensors, self._owners, parameters, learning
            ))  # fmt: skip
            if slot is not None:
                found = Pass.apply(slot, len(tensors), *tensors, *parameters) if learning else slot.run(tensors)
        return self._function(*args, **kwargs) if slot is None else rebuilt(slot.result, iter(found))

    def _own(self) -> list[Tensor]:
        """The modules' parameters, without repetition."""
        found = [one for owner in self._owners for one in owner._parameters.values()]
        if len(found) != len(self._found) or not all(map(operator.is_, found, self._found)):
            self._found = found
            self._parameters = [one for one in dict.fromkeys(found) if one is not None]
        return self._parameters

    def _state(self, learning: bool, device: torch.device) -> Hashable:
        """What else a graph depends on."""
        capturer = graph_capture.CAPTURER
        return (
            learning,
            torch.is_inference_mode_enabled(),
            autocast_dtype(capturer.kind) if any_autocast() else None,
            tf32_allowed(),
            torch.are_deterministic_algorithms_enabled(),
            device,
            capturer.stream(device),
            tuple([one.training for one in self._owners]),
            tuple([b.data_ptr() for one in self._owners for b in one._buffers.values() if b is not None]),
        )

    def _slot(self, key: Hashable, capture: Callable[[Slot], None]) -> Slot | None:
        """A slot for a call of this form that no backward pass is to come for, captured; or None for a call to run as
        ever: the first one, and those that there is no room for."""
        form = self._forms.get(key)
        if form is None:
            form = self._forms[key] = _Form()
        self._forms.move_to_end(key)
        form.calls += 1
        while len(self._forms) > self._limit:
            self._forms.popitem(last=False)
        free = next((one for one in form.slots if one.free), None)
        if free is not None or form.calls == 1 or not self._room(form) or not BUSY.acquire(blocking=False):
            return free
        try:
            made = Slot(graph_capture.CAPTURER, self._name)
            capture(made)
        finally:
            BUSY.release()
        form.slots.append(made)
        return made

    def _room(self, form: _Form) -> bool:
        """Whether there may be one graph more, for this form; others that were called longer ago are dropped."""
        for other in self._forms.values():
            if sum(len(one.slots) for one in self._forms.values()) < self._limit:
                break
            if other is not form:
                other.slots.clear()
        return sum(len(one.slots) for one in self._forms.values()) < self._limit


def _tensors_of(value: Any) -> list[Tensor]:
    """The tensors within tuples, lists and dicts, those of a PackedSequence too."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    return [found for one in value for found in _tensors_of(one)] if isinstance(value, (tuple, list)) else []


def _refuse_values(tensors: Sequence[Tensor], named: dict[str, Any], kind: str) -> None:
    """Raise GraphError for numbers on the host that a graph would repeat."""
    lengths = named.get("lengths")
    if lengths is not None and not isinstance(lengths, Tensor):
        raise GraphError(
            "lengths in a list lie on the CPU, and a CUDA graph would repeat those of the first call; give a tensor on "
            "the GPU: torch.tensor(lengths, device=input.device)"
        )
    for one in tensors:
        if one.device.type != kind:
            name = next((name for name, value in named.items() if value is one), "an argument")
            raise GraphError(
                f"{name} lies on the {one.device.type.upper()}, and a CUDA graph would repeat what it holds in the "
                "first call; give it on the GPU: .to(device) moves it"
            )
