"""kernelgen: from a recurrent cell, a shape and a GPU to a validated, tuned kernel.

    kernel = kernelgen.load("lstm.yaml")
    states, last, gates = kernel(wx, r, b)

Importing this costs nothing: each name below is imported when it is first used. Planning and tuning are
``kernelgen.plan.plan`` and ``kernelgen.tune.tune``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernelgen.cells import load_cell
    from kernelgen.config import TunedConfig, load_config
    from kernelgen.errors import TilesmithError
    from kernelgen.hardware import Profile, load_profile
    from kernelgen.runtime import Kernel, load
    from kernelgen.shape import Shape

_LAZY = {
    "Kernel": "kernelgen.runtime",
    "Profile": "kernelgen.hardware",
    "Shape": "kernelgen.shape",
    "TilesmithError": "kernelgen.errors",
    "TunedConfig": "kernelgen.config",
    "load": "kernelgen.runtime",
    "load_cell": "kernelgen.cells",
    "load_config": "kernelgen.config",
    "load_profile": "kernelgen.hardware",
}

__all__ = [
    "Kernel",
    "Profile",
    "Shape",
    "TilesmithError",
    "TunedConfig",
    "load",
    "load_cell",
    "load_config",
    "load_profile",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module 'kernelgen' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
