"""What captures calls on a GPU as a CUDA graph. It is all of graphs.py that needs a GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from kernelgen.torch.errors import GraphError

BUSY = threading.Lock()
"""Held while something is captured: there is one capture at a time in a process."""


class Capturer(Protocol):
    """Captures calls on one type of device."""

    kind: str

    def capturing(self) -> bool:
        """Whether the current stream is being captured already."""

    def stream(self, device: torch.device) -> int:
        """A number for the current stream of a device: calls on two streams share no memory."""

    def beside(self, like: Tensor) -> AbstractContextManager[None]:
        """The stream on which graphs are captured, after what is queued so far and before what is queued next."""

    def capture(self, run: Callable[[], Any], like: Tensor, pool: Any) -> tuple[Callable[[], None], Any, Any]:
        """Capture what a function queues on a tensor's device, without running it. pool: that of an earlier capture,
        whose memory this one uses too, or None. Returns what runs it again on the current stream, what the function
        returned, whose tensors are written anew by each run, and the pool."""


class CudaCapturer:
    """See Capturer."""

    kind = "cuda"

    def __init__(self) -> None:
        self._streams: dict[int, torch.cuda.Stream] = {}

    def capturing(self) -> bool:
        return bool(torch.cuda.is_current_stream_capturing())

    def stream(self, device: torch.device) -> int:
        index = torch.cuda.current_device() if device.index is None else device.index
        return int(torch._C._cuda_getCurrentRawStream(index))

    @contextmanager
    def beside(self, like: Tensor) -> Iterator[None]:
        with torch.cuda.device(like.device):
            own, current = self._own(like.get_device()), torch.cuda.current_stream()
            own.wait_stream(current)
            with torch.cuda.stream(own):
                yield
            current.wait_stream(own)

    def capture(self, run: Callable[[], Any], like: Tensor, pool: Any) -> tuple[Callable[[], None], Any, Any]:
        with torch.cuda.device(like.device):
            graph, own = torch.cuda.CUDAGraph(), self._own(like.get_device())
            # Other threads may go on meanwhile: one that loads data, say, allocates memory.
            try:
                with torch.cuda.graph(graph, pool=pool, stream=own, capture_error_mode="thread_local"):
                    found = run()
            except RuntimeError:
                del self._streams[like.get_device()]  # it may still be held to be captured
                raise
        return graph.replay, found, graph.pool()

    def _own(self, device: int) -> torch.cuda.Stream:
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        return self._streams[device]


CAPTURER: Capturer = CudaCapturer()


def captured(
    capturer: Capturer, run: Callable[[], Any], like: Tensor, pool: Any, what: str
) -> tuple[Callable[[], None], Any, Any]:
    """See Capturer.capture. what: told in the GraphError that is raised where the function cannot be captured."""
    try:
        return capturer.capture(run, like, pool)
    except RuntimeError as error:
        first = error.__context__ or error  # the end of a capture that failed fails, too
        raise GraphError(
            f"{what} cannot be captured as a CUDA graph ({str(first).splitlines()[0]}): a graph cannot wait for the "
            "GPU nor ask for what it computed (item(), nonzero(), a copy to the CPU); leave graphed() out, or graph "
            "the modules inside that do nothing of the kind"
        ) from error
