"""FlashRNNConfig, and what a configuration of FlashRNN's asks for: honoured, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from kernelgen.errors import ConfigError, near_names
from kernelgen.torch.errors import ArgumentTypeError
from kernelgen.torch.precision import holding

FUNCTIONS = ("elman", "gru", "lstm", "slstm")
BACKENDS = ("cuda", "cuda_fused", "triton_fused", "vanilla", "vanilla_fwbw")
DTYPES = ("bfloat16", "float16", "float32", "float64")
UNCAST = ("vanilla", "vanilla_fwbw")
"""The backends that compute in the tensors' own dtypes, whatever the config says."""

LAYOUTS = {
    "input_shape": "BTGHD",
    "output_shape": "SBTHD",
    "recurrent_shape": "GHDP",
    "bias_shape": "GHD",
}
"""The axes of Wx, of states, of R and of b, in our order; a config may ask for any other."""

_COUNTS = ("num_gates_r", "num_gates_w", "num_gates_i", "num_gates_t", "num_states")
_COUNTED = {"elman": (1, 1, 1, 1, 1), "gru": (3, 3, 4, 4, 1), "lstm": (4, 4, 4, 4, 2), "slstm": (4, 4, 4, 4, 4)}
"""How many gates get R h, get Wx, are summed of both, and are there at all; and how many states."""

_SIZES = ("hidden_dim", "num_heads", "head_dim")
_KINDS = {"dtype_w": "dtype", "dtype_r": "dtype", "dtype_b": "dtype", "dtype_s": "dtype_w", "dtype_g": "dtype_r"}
"""The attributes for a dtype, and which other counts where one is left out."""

_HONOURED = (
    "function", "backend", "dtype", "gradient_recurrent_cut", "gradient_recurrent_clipval", "forward_clipval",
    "initial_val", "enable_automatic_mixed_precision", *LAYOUTS, *_KINDS,
)  # fmt: skip
_WITHOUT_MEANING = ("batch_size",)
"""What changes no result: a hint for the choice of FlashRNN's kernels."""


@dataclass
class FlashRNNConfig:
    """FlashRNN's configuration, with its fields, their order and their defaults, for flashrnn().

    What a field left out becomes is as in FlashRNN: num_heads or head_dim follow from each other and hidden_dim; the
    dtypes of parts from ``dtype`` (dtype_s from dtype_w, dtype_g from dtype_r, dtype_a from dtype_b); the numbers of
    gates and states, constants and simple_agg from the function. What flashrnn() does with each is told there.

    Raises ConfigError for an unknown function, backend or dtype, for axes that are not those of the tensor, and for an
    accumulation in 16 bits that is not float16's.
    """

    backend: str = "cuda_fused"
    function: str = "lstm"
    gradient_recurrent_cut: bool = False
    gradient_recurrent_clipval: float | None = None
    forward_clipval: float | None = None
    constants: dict[str, float] | None = None
    simple_agg: bool = True
    hidden_dim: int = -1
    num_heads: int = -1
    head_dim: int = -1
    num_states: int = 4
    num_gates_r: int = 4
    num_gates_w: int = 4
    num_gates_i: int = 4
    num_gates_t: int = 4
    batch_size: int = 8
    input_shape: str = "BTGHD"
    output_shape: str = "SBTHD"
    recurrent_shape: str = "GHDP"
    bias_shape: str = "GHD"
    dtype: str = "bfloat16"
    dtype_acc: str | None = "float32"
    dtype_b: str | None = None
    dtype_r: str | None = None
    dtype_w: str | None = None
    dtype_g: str | None = None
    dtype_s: str | None = None
    dtype_a: str | None = None
    enable_automatic_mixed_precision: bool = True
    trainable_r: list[bool] | bool = True
    trainable_b: list[bool] | bool = True
    initial_val: float | Sequence[float] = 0.0

    def __post_init__(self) -> None:
        """Fill in what was left out."""
        _known("function", self.function, FUNCTIONS)
        _known("backend", self.backend, BACKENDS)
        for name in LAYOUTS:
            _order(name, getattr(self, name))
        if self.dtype_acc != "float32" and (self.dtype_acc, self.dtype) != ("float16", "float16"):
            raise ConfigError(
                f"config.dtype_acc is {self.dtype_acc!r} for dtype {self.dtype!r}; sums are in 'float32', or, for "
                "dtype 'float16' alone, in 'float16'"
            )
        if self.num_heads <= 0:
            self.num_heads = self.hidden_dim // self.head_dim if self.hidden_dim > 0 and self.head_dim > 0 else 1
        if self.head_dim <= 0:
            self.head_dim = self.hidden_dim // self.num_heads
        if self.hidden_dim <= 0:
            self.hidden_dim = self.num_heads * self.head_dim
        _known("dtype", self.dtype, DTYPES)
        for name, other in _KINDS.items():
            if getattr(self, name) is None:
                setattr(self, name, getattr(self, other))
            _known(name, getattr(self, name), DTYPES)
        self.dtype_a = self.dtype_a or self.dtype_b
        for name, count in zip(_COUNTS, _COUNTED[self.function], strict=True):
            setattr(self, name, count)
        self.constants = {} if self.constants is None else self.constants
        self.simple_agg = self.function != "gru"

    @property
    def input_dim(self) -> int:
        """How many numbers of Wx there are in a step of a sequence."""
        return self.num_gates_w * self.hidden_dim

    @property
    def torch_dtype(self) -> torch.dtype:
        """``dtype`` as PyTorch's."""
        return _torch(self.dtype)

    @property
    def torch_dtype_b(self) -> torch.dtype:
        """That of b."""
        return _torch(self.dtype_b)

    @property
    def torch_dtype_r(self) -> torch.dtype:
        """That of R."""
        return _torch(self.dtype_r)

    @property
    def torch_dtype_w(self) -> torch.dtype:
        """That of Wx."""
        return _torch(self.dtype_w)

    @property
    def torch_dtype_s(self) -> torch.dtype:
        """That of states."""
        return _torch(self.dtype_s)


@dataclass(frozen=True)
class Options:
    """What a call of flashrnn() does.

    w, r, b, s: the dtypes that Wx, R, b and given states are rounded to, s that of results too. work: what the
    recurrence runs in, the narrowest dtype that holds what w, r, s and the gates' are. strict: nothing is cast, so that
    tensors of other dtypes are refused. cut, clip: see rnn(); bound: that of h, or None. initial: the value of each
    state where none are given.
    """

    function: str
    backend: str
    w: torch.dtype
    r: torch.dtype
    b: torch.dtype
    s: torch.dtype
    work: torch.dtype
    strict: bool
    cut: bool
    clip: float | None
    bound: float | None
    initial: tuple[float, ...]


def orders(config: Any) -> dict[str, tuple[int, ...]]:
    """Where each axis of ours stands in a config's order, by the names of LAYOUTS. Raises ConfigError."""
    found = {}
    for name, ours in LAYOUTS.items():
        asked = getattr(config, name, None)
        found[name] = _order(name, ours if asked is None else asked)
    return found


def options(config: Any, function: str | None, backend: str | None, dtype: str | None, wx: Tensor) -> Options:
    """The options of a call, of its arguments and of a config, an object with FlashRNN's attributes.

    What a config says counts, else the argument. wx [B, T, G, H, D] is the call's, in our order of axes: sizes are
    compared with its, and backends that do not cast compute in its dtype. Raises ConfigError for an unknown function,
    backend or dtype, for an attribute that FlashRNN does not have, and for one that asks for something else than what
    is done; ArgumentTypeError for a dict.
    """
    if isinstance(config, (Mapping, str)):
        raise ArgumentTypeError(
            f"config must be an object with FlashRNN's attributes, not a {type(config).__name__}; "
            "kernelgen.torch.FlashRNNConfig(function='gru') is one"
        )
    chosen = _one(config, "function", function, FUNCTIONS, "lstm")
    how = _one(config, "backend", backend, BACKENDS, "cuda_fused")
    said = _one(config, "dtype", dtype, DTYPES, "bfloat16")
    kinds = {"dtype": said}
    for name, other in _KINDS.items():
        kinds[name] = _one(config, name, None, DTYPES, kinds[other])
    w, r, b, s, g = (_torch(kinds[name]) for name in _KINDS)
    work = holding(_torch(said), w, r, s, g)
    mixed = getattr(config, "enable_automatic_mixed_precision", None)
    uncast = how in UNCAST and (config is not None or dtype is None)
    if uncast:
        w = r = b = s = work = wx.dtype
    result = Options(
        function=chosen, backend=how, w=w, r=r, b=b, s=s, work=work,
        strict=mixed is not None and not mixed and not uncast,
        cut=bool(getattr(config, "gradient_recurrent_cut", None)),
        clip=getattr(config, "gradient_recurrent_clipval", None),
        bound=getattr(config, "forward_clipval", None),
        initial=_initial(getattr(config, "initial_val", None), _COUNTED[chosen][-1]),
    )  # fmt: skip
    if config is not None:
        _refuse(config, _done(chosen, wx, work))
    return result


def _refuse(config: Any, done: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise ConfigError for an attribute that asks for something else than what is done, or that there is none of."""
    names = (*_HONOURED, *done)
    known = {*names, *_WITHOUT_MEANING}
    if not all(hasattr(config, name) for name in names):  # FlashRNN's class and its subclasses say themselves
        for name in getattr(config, "__dict__", {}):
            if not (name.startswith("_") or name in known):
                raise ConfigError(f"config.{name} is no attribute of FlashRNN's; {near_names(name, names)}")
    # FlashRNN's own config, made without any size, has one head of -1.
    sized = not (getattr(config, "head_dim", 1) == getattr(config, "hidden_dim", 1) == -1)
    for name, accepted in done.items():
        asked = getattr(config, name, None)
        if asked is None or asked in accepted or (name in _SIZES and (not sized or asked <= 0)):
            continue
        if isinstance(asked, (list, tuple)) and asked and all(part in accepted for part in asked):
            continue  # one value for each gate
        raise ConfigError(
            f"config.{name} is {asked!r}, which flashrnn() does not do here: it does {accepted[0]!r}; change it, or "
            "leave it out"
        )


def _done(function: str, wx: Tensor, work: torch.dtype) -> dict[str, tuple[Any, ...]]:
    """What is done, by the attributes of FlashRNN's that could ask for something else; what is accepted for each."""
    heads, dim = (wx.shape[3], wx.shape[4]) if wx.dim() == 5 else (0, 0)  # the shape check tells
    counts: dict[str, tuple[Any, ...]] = {
        name: (count,) for name, count in zip(_COUNTS, _COUNTED[function], strict=True)
    }
    return counts | {
        "hidden_dim": (heads * dim,),
        "num_heads": (heads,),
        "head_dim": (dim,),
        "simple_agg": (function != "gru",),
        "constants": ({},),
        # What is computed in float32 is no less exact than in 16 bits.
        "dtype_acc": ("float32", "float16"),
        "dtype_a": ("float32", "bfloat16", "float16", *(["float64"] if work is torch.float64 else [])),
        "trainable_r": (True,),
        "trainable_b": (True,),
    }


def _one(config: Any, name: str, given: str | None, known: tuple[str, ...], default: str) -> str:
    """What the config says, else the argument, else the default."""
    asked = getattr(config, name, None)
    for value in (given, asked):
        if value is not None:
            _known(name, value, known)
    chosen: str = asked if asked is not None else given if given is not None else default
    return chosen


def _known(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Raise ConfigError for what is not among the known."""
    if value not in known:
        raise ConfigError(f"unknown {name} {value!r}; {near_names(str(value), known)}")


def _order(name: str, asked: Any) -> tuple[int, ...]:
    """Where each axis of ours stands in the order asked for. Raises ConfigError for other axes."""
    ours = LAYOUTS[name]
    if not isinstance(asked, str) or sorted(asked) != sorted(ours):
        raise ConfigError(
            f"config.{name} is {asked!r}, which is no order of the axes {', '.join(ours)}; {ours!r} is one"
        )
    return tuple(asked.index(axis) for axis in ours)


def _initial(value: Any, states: int) -> tuple[float, ...]:
    """The value of each state. Raises ConfigError for what is no number, and no sequence of one for each state."""
    if value is None:
        return (0.0,) * states
    values = [value] * states if isinstance(value, Real) else value
    if not isinstance(values, Sequence) or len(values) != states or not all(isinstance(one, Real) for one in values):
        raise ConfigError(f"config.initial_val is {value!r}; give a number, or one for each of the {states} states")
    return tuple(float(one) for one in values)


def _torch(name: str | None) -> torch.dtype:
    found: torch.dtype = getattr(torch, str(name))
    return found
