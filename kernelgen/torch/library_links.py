"""Products of cuBLASLt as links of a chain, with the copies that they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kernelgen.device import gpu
from kernelgen.device.cublaslt import planned
from kernelgen.device.executor import Launches, in_a_row
from kernelgen.hardware.profile import Profile
from kernelgen.program.arguments import ArrayArgument
from kernelgen.program.product import SCRATCH
from kernelgen.schedules.shared.library_product import Copied, library_product, predicted_seconds
from kernelgen.schedules.shared.matrix_product import MatrixProduct
from kernelgen.schedules.shared.moved_rows import MovedRows

HOST = 1e-6
"""Seconds that a library's call costs the host more than a launch of ours. Not measured."""


@dataclass(frozen=True)
class Part:
    """Launches at one size, on a GPU. workspaces: what lies between them. numbers: their int32 arguments."""

    launches: Launches
    workspaces: tuple[ArrayArgument, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OfLibrary:
    """A product of matrices that the library is to make."""

    product: MatrixProduct

    def part(
        self,
        profile: Profile,
        device: int,
        copy: Callable[[MovedRows], Part],
        numbers: Mapping[str, int],
        *,
        bias: bool,
    ) -> Part:
        """What makes it in a link, of arrays a, b, bias and out. copy: what makes a copy of rows. numbers: batch, seq
        and turned, as of the kernel. bias: whether there is one. Raises LaunchError where the library cannot."""
        made = library_product(self.product, profile, **numbers, bias=bias)

        def copied(one: Copied) -> tuple[Launches, Mapping[str, Any]]:
            part = copy(one.moved)
            return part.launches, {"from": one.source, "second": 0, "to": one.to, **part.numbers}

        with gpu.selected(device):
            plans = planned(made.call, made.gemms, int(gpu.primary_context(device)), made.bias)
        multiplied = Launches(tuple((one, None, one.arguments) for one in plans), {}, (None,) * len(plans))
        own = {name: name for name in multiplied.names}
        rows = [(multiplied, own)]
        launches = in_a_row([*map(copied, made.before), *rows, *map(copied, made.after)])
        sizes = dict(made.between) | {SCRATCH: max(one.result.workspace for one in plans)}
        workspaces = (ArrayArgument(name, ("W",), (size,), "uint8", "workspace", False) for name, size in sizes.items())
        return Part(launches, tuple(workspaces))


def faster_by_library(product: MatrixProduct, seconds: float, profile: Profile) -> bool:
    """Whether the library is expected to make a product in less than so much, by the model."""
    return predicted_seconds(product, profile) + HOST < seconds
