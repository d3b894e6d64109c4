"""kernelgen: from a recurrent cell, a shape and a GPU to a validated, tuned kernel.

    kernel = kernelgen.load("lstm.yaml")
    states, last, gates = kernel(wx, r, b)

Importing this costs nothing: each name below is imported when it is first used. Planning and tuning are
``kernelgen.tuning.plan.plan`` and ``kernelgen.tuning.tune.tune``.
"""

from __future__ import annotations

TYPE_CHECKING = False  # instead of importing typing: the command line takes Ctrl-C in hand as soon as it can
if TYPE_CHECKING:
    from typing import Any

    from kernelgen.cells import load_cell
    from kernelgen.device.runtime import Kernel, load
    from kernelgen.errors import TilesmithError
    from kernelgen.hardware.profile import Profile, load_profile
    from kernelgen.program.shape import Shape
    from kernelgen.records.config import TunedConfig
    from kernelgen.records.config_reading import load_config

_LAZY = {
    "Kernel": "kernelgen.device.runtime",
    "Profile": "kernelgen.hardware.profile",
    "Shape": "kernelgen.program.shape",
    "TilesmithError": "kernelgen.errors",
    "TunedConfig": "kernelgen.records.config",
    "load": "kernelgen.device.runtime",
    "load_cell": "kernelgen.cells",
    "load_config": "kernelgen.records.config_reading",
    "load_profile": "kernelgen.hardware.profile",
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
    if name == "__version__":
        import constrint

        return constrint.__version__  # one distribution holds both packages
    if name not in _LAZY:
        raise AttributeError(f"module 'kernelgen' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, whether they were used already or not."""
    return sorted([*__all__, "__doc__", "__version__"])
