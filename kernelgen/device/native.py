"""The launcher in C++, where it was built and finds the driver: a program's calls at one shape, queued by one call."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from kernelgen.device import gpu
from kernelgen.errors import LaunchError
from kernelgen.program.lanes import Turn
from kernelgen.program.launch import Launch

if TYPE_CHECKING:
    from kernelgen.device.cublaslt import PlannedProduct
    from kernelgen.device.launcher import DeviceKernel

SOURCES = Path(__file__).parent / "_launcher"
"""What the launcher is built from. A checkout has it; an installed package does not."""

DRIVER = "libcuda.so.1"
"""The library in which the launcher looks the driver up."""

CLUSTER_DIMENSION, COOPERATIVE = 4, 2
"""CUlaunchAttributeID (CUDA driver API)."""


@cache
def launcher() -> Any:
    """The launcher; None where it was not built, has no driver or, with a warning, was built from other sources."""
    try:
        found: Any = importlib.import_module("kernelgen.device._launcher_native")
    except ImportError:
        return None
    if SOURCES.is_dir():
        from constrint.core import sources_digest

        if getattr(found, "SOURCES", "") != sources_digest(SOURCES):
            warnings.warn(
                "the launcher in C++ was built from other sources than these and is not used: launches take longer. "
                "Build it anew: python setup.py build_ext --inplace, or pip install .",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
    return found if found.open(DRIVER) else None


class Memory(NamedTuple):
    """Where the arrays are that a run is not given. offsets: where each begins, by name, in bytes, in what ``allocate``
    makes for every run, an object with data_ptr(). inside: those that lie in one that is given, each with that one's
    name and where it begins there; where that one is a null pointer, they are."""

    offsets: Mapping[str, int]
    allocate: Callable[[], Any]
    inside: Mapping[str, tuple[str, int]] = MappingProxyType({})


NO_MEMORY = Memory({}, lambda: None)


def queue(
    device: int,
    context: int,
    names: Sequence[str],
    steps: Sequence[tuple[DeviceKernel | PlannedProduct, Launch | None, Sequence[Any]]],
    numbers: Mapping[str, Any],
    *,
    stream: Callable[[int], int],
    memory: Memory = NO_MEMORY,
    poisoned: Mapping[str, int] = MappingProxyType({}),
    turns: Sequence[Turn] = (),
) -> Callable[[Sequence[Any]], None]:
    """Calls at one shape on one GPU as a function of the arrays ``names``, through the launcher, which must be there.

    steps: for each call its kernel, which is prepared, its launch, and its arguments: names, or values of the launch's
    own; of a library's product None for the launch, and the names of its arrays or 0. numbers: those of the names that
    are int32. stream: the raw stream to queue on, of a device. poisoned: the bytes of the arrays that are filled with
    0xFF before. turns: of each call; none where all run one after another. The function takes addresses, None for null
    pointers, or what has data_ptr(), and raises LaunchError.
    """
    kernels = [kernel for kernel, _, _ in steps]  # they live as long as what queues them

    def refuse(code: int, call: int) -> NoReturn:
        what = "preparing a launch" if call < 0 else f"the launch of {kernels[call].entry}"
        if call >= 0 and steps[call][1] is None:
            raise LaunchError(f"{what} failed: cuBLASLt says {code}")
        gpu.checked((gpu.require_driver().CUresult(code),), what)
        raise LaunchError(f"{what} failed")

    slots = {name: slot for slot, name in enumerate((*names, *memory.offsets, *memory.inside))}
    parts = [(-1, offset) for offset in memory.offsets.values()]
    parts += [(slots[whole], offset) for whole, offset in memory.inside.values()]
    made = launcher().Queue(context, len(names), parts, memory.allocate, stream, device, refuse)
    for name, size in poisoned.items():
        made.fill(slots[name], size)
    for (kernel, launch, arguments), turn in zip(steps, turns or [Turn()] * len(steps), strict=True):
        laid = [
            (slots[one], 0) if one in slots else (-1, int(numbers[one] if isinstance(one, str) else one))
            for one in arguments
        ]
        if launch is None:
            _add_product(made, kernel, [slot for slot, _ in laid], turn)
            continue
        attributes = _attributes(launch)
        made.call(kernel.handle, launch.grid, launch.block, launch.shared_memory, attributes, laid, *turn)
    return made.run  # type: ignore[no-any-return]


def _add_product(made: Any, product: Any, slots: Sequence[int], turn: Turn) -> None:
    """Lay out a product of a library's. slots: of its arguments, -1 for null pointers."""
    places = [*slots, -1][: len(product.offsets)]  # a bias is the last, if there is one
    made.product(
        product.function,
        product.set_function if product.bias else 0,
        product.handle,
        product.operation,
        product.layouts,
        product.scales,
        product.algorithm,
        product.result.workspace,
        list(zip(places, product.offsets, strict=True)),
        *turn,
    )


def _attributes(launch: Launch) -> list[tuple[int, int, int, int]]:
    """A launch's attributes: number and value in up to three words."""
    found = []
    if launch.cluster > 1:
        if launch.grid[0] % launch.cluster:
            raise LaunchError(f"a grid of {launch.grid[0]} blocks cannot be cut into clusters of {launch.cluster}")
        found.append((CLUSTER_DIMENSION, launch.cluster, 1, 1))
    if launch.cooperative:
        found.append((COOPERATIVE, 1, 0, 0))
    return found
