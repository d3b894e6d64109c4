"""What a configuration of FlashRNN's asks for: honoured, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kernelgen.errors import ConfigError, near_names
from kernelgen.torch.errors import ArgumentTypeError

FUNCTIONS = ("elman", "gru", "lstm", "slstm")
BACKENDS = ("cuda", "cuda_fused", "triton_fused", "vanilla", "vanilla_fwbw")
DTYPES = ("bfloat16", "float16", "float32")

_COUNTS = ("num_gates_r", "num_gates_w", "num_gates_i", "num_gates_t", "num_states")
_COUNTED = {"elman": (1, 1, 1, 1, 1), "gru": (3, 3, 4, 4, 1), "lstm": (4, 4, 4, 4, 2), "slstm": (4, 4, 4, 4, 4)}
"""How many gates get R h, get Wx, are summed of both, and are there at all; and how many states."""

_HONOURED = (
    "function", "backend", "dtype", "gradient_recurrent_cut", "gradient_recurrent_clipval", "forward_clipval",
)  # fmt: skip
_WITHOUT_MEANING = ("batch_size",)
"""What changes no result: a hint for the choice of FlashRNN's kernels."""


@dataclass(frozen=True)
class Options:
    """What a call of flashrnn() does. cut, clip: see rnn(); bound: that of h, or None."""

    function: str
    backend: str
    dtype: str
    cut: bool
    clip: float | None
    bound: float | None


def options(
    config: Any, function: str | None, backend: str | None, dtype: str | None, wx: Tensor, states: Tensor | None
) -> Options:
    """The options of a call, of its arguments and of a config, an object with FlashRNN's attributes.

    What only one of them says counts. wx [B, T, G, H, D] and states are the call's: sizes are compared with wx's.
    Raises ConfigError where both say different things, for an unknown function, backend or dtype, for an attribute
    that FlashRNN does not have, and for one that asks for something else than what is done; ArgumentTypeError for a
    dict.
    """
    if isinstance(config, (Mapping, str)):
        raise ArgumentTypeError(
            f"config must be an object with FlashRNN's attributes, not a {type(config).__name__}; "
            "types.SimpleNamespace(function='gru') is one"
        )
    chosen_backend = _one(config, "backend", backend, BACKENDS, "cuda_fused")
    result = Options(
        function=_one(config, "function", function, FUNCTIONS, "lstm"),
        backend=chosen_backend,
        dtype=_one(config, "dtype", dtype, DTYPES, "bfloat16"),
        cut=bool(getattr(config, "gradient_recurrent_cut", None)),
        clip=getattr(config, "gradient_recurrent_clipval", None),
        bound=getattr(config, "forward_clipval", None),
    )
    if config is None:
        return result
    done = _done(result, wx)
    for name in getattr(config, "__dict__", {}):
        if not (name.startswith("_") or name in _HONOURED or name in _WITHOUT_MEANING or name in done):
            raise ConfigError(f"config.{name} is no attribute of FlashRNN's; {near_names(name, (*_HONOURED, *done))}")
    sizes = _sizes_said(config)
    for name, accepted in done.items():
        asked = getattr(config, name, None)
        if asked is None or asked in accepted or (name in _SIZES and not sizes):
            continue
        if name in _SIZES and asked <= 0:  # FlashRNN's way of saying nothing
            continue
        if isinstance(asked, (list, tuple)) and asked and all(part in accepted for part in asked):
            continue  # one value for each gate or state
        if name == "initial_val" and states is not None:
            continue
        raise ConfigError(
            f"config.{name} is {asked!r}, which flashrnn() does not do here: it does {accepted[0]!r}; change it, or "
            "leave it out"
        )
    return result


_SIZES = ("hidden_dim", "num_heads", "head_dim")


def _done(chosen: Options, wx: Tensor) -> dict[str, tuple[Any, ...]]:
    """What is done, by the attributes of FlashRNN's that would ask for something else; what is accepted for each."""
    heads, dim = (wx.shape[3], wx.shape[4]) if wx.dim() == 5 else (0, 0)  # the shape check tells
    counts: dict[str, tuple[Any, ...]] = {
        name: (count,) for name, count in zip(_COUNTS, _COUNTED[chosen.function], strict=True)
    }
    return counts | {
        "hidden_dim": (heads * dim,),
        "num_heads": (heads,),
        "head_dim": (dim,),
        "simple_agg": (chosen.function != "gru",),
        "constants": ({},),
        "input_shape": ("BTGHD",),
        "output_shape": ("SBTHD",),
        "recurrent_shape": ("GHDP",),
        "bias_shape": ("GHD",),
        "dtype_acc": ("float32",),
        "dtype_a": (chosen.dtype, "float32"),
        "dtype_b": (chosen.dtype,),
        "dtype_r": (chosen.dtype,),
        "dtype_w": (chosen.dtype,),
        "dtype_g": (chosen.dtype,),
        "dtype_s": (chosen.dtype,),
        "enable_automatic_mixed_precision": (True,),
        "trainable_r": (True,),
        "trainable_b": (True,),
        "initial_val": (0.0,),
    }


def _one(config: Any, name: str, given: str | None, known: tuple[str, ...], default: str) -> str:
    """What the argument says, else what the config says, else the default."""
    asked = getattr(config, name, None)
    for value in (given, asked):
        if value is not None and value not in known:
            raise ConfigError(f"unknown {name} {value!r}; {near_names(str(value), known)}")
    # All backends but one run the same.
    same = given == asked or (name == "backend" and "vanilla" not in (given, asked))
    if given is not None and asked is not None and not same:
        raise ConfigError(f"the argument {name} is {given!r}, but config.{name} is {asked!r}; leave one of them out")
    chosen: str = given if given is not None else asked if asked is not None else default
    return chosen


def _sizes_said(config: Any) -> bool:
    """Whether a config says sizes: FlashRNN's own, made without any, has one head of -1."""
    return not (getattr(config, "head_dim", 1) == getattr(config, "hidden_dim", 1) == -1)
