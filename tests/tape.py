"""In the place of CUDA graphs on a machine without a GPU: what PyTorch calls is written down, and called once more.

As in a graph, every call reads and writes the memory that it did when it was captured, and nothing else of the captured
function runs again. Kernels that PyTorch knows nothing of are not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):  # type: ignore[misc]
    """The calls, in order, each with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        found = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, found))
        return found

    def replay(self) -> None:
        """Call all of it once more."""
        with torch.no_grad():
            for function, args, kwargs, found in self.calls:
                given = {one.untyped_storage().data_ptr() for one in tensors((args, kwargs))}
                for old, new in zip(tensors(found), tensors(function(*args, **kwargs)), strict=True):
                    if old.untyped_storage().data_ptr() not in given:
                        old.data.copy_(new)


def tensors(tree: Any) -> list[Tensor]:
    """Those with values in lists, tuples and dicts."""
    return [one for one in tree_leaves(tree) if isinstance(one, Tensor) and one.numel()]


class TapeCapturer:
    """See kernelgen.torch.graph_capture.Capturer. captures, replays: how many there were; busy: whether another capture
    is under way; current: the number of the current stream."""

    kind = "cpu"

    def __init__(self) -> None:
        self.captures = self.replays = self.current = 0
        self.busy = False

    def capturing(self) -> bool:
        return self.busy

    def stream(self, device: torch.device) -> int:
        return self.current

    @contextmanager
    def beside(self, like: Tensor) -> Iterator[None]:
        yield

    def capture(self, run: Callable[[], Any], like: Tensor, pool: Any) -> tuple[Callable[[], None], Any, Any]:
        assert not self.busy
        self.busy, tape, drawn = True, Tape(), torch.get_rng_state()
        try:
            with tape:
                found = run()
        finally:
            self.busy = False
            torch.set_rng_state(drawn)  # a capture draws nothing
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return replay, found, pool
