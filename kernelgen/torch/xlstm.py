"""The sLSTM of NX-AI's xLSTM and of TiRex on our kernels: convert(model) puts it into a model that is there.

A cell of theirs is SLSTMCell's twin: the same parameters, arguments, results and state_dict.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kernelgen.cells.registry import cell_of, register
from kernelgen.errors import ConfigError, near_names
from kernelgen.torch.arguments import autocast_dtype, require_tensors
from kernelgen.torch.convert import Conversion, Replacement, changed_since_made, replace_modules
from kernelgen.torch.errors import TensorShapeError
from kernelgen.torch.flash_config import DTYPES
from kernelgen.torch.operator import rnn
from kernelgen.torch.precision import as_parameter, holding

GATES = 4
CELLS = {"slstm": "slstm_xlstm", "lstm": "lstm"}
"""Our cell for each function of xLSTM's."""

INPUTS = ("BSGNH", "SBGNH")
OUTPUTS = ("BNSH", "SBH", "BSH", "SBNH")
BIAS_INITS = ("powerlaw_blockdependent", "small_init", "zeros", "standard")
RECURRENT_INITS = ("zeros", "standard")


class Dtypes(NamedTuple):
    """What is computed in, and what R, b and states are rounded to."""

    work: torch.dtype
    r: torch.dtype
    b: torch.dtype
    states: torch.dtype


@dataclass(frozen=True)
class Settings:
    """What a cell of xLSTM's was made with.

    backend: whose layout the parameters have. dtypes: None for the input's, as the vanilla backend has it.
    keeps_dtype: whether results are of the input's dtype inside autocast too. cut, clip, bound: of the recurrent
    gradient and of h, see rnn(). block, blocks: which of the residual blocks it is in.
    """

    hidden_size: int
    num_heads: int
    function: str = "slstm"
    backend: str = "cuda"
    input_shape: str = "BSGNH"
    output_shape: str = "BNSH"
    dtypes: Dtypes | None = None
    keeps_dtype: bool = False
    cut: bool = False
    clip: float | None = None
    bound: float | None = None
    bias_init: str = "powerlaw_blockdependent"
    recurrent_weight_init: str = "zeros"
    block: int = 0
    blocks: int = 1

    @property
    def head_dim(self) -> int:
        """Units of a head."""
        return self.hidden_size // self.num_heads

    @property
    def states(self) -> int:
        """How many states there are: h, c, n and m, or h and c."""
        return 4 if self.function == "slstm" else 2

    @property
    def recurrent_size(self) -> tuple[int, int, int]:
        """That of _recurrent_kernel_: [H, P, G D] for the CUDA backend, [H, G D, P] for the vanilla one."""
        wide = GATES * self.head_dim
        last = (self.head_dim, wide) if self.backend == "cuda" else (wide, self.head_dim)
        return (self.num_heads, *last)

    def with_backend(self, backend: str) -> Settings:
        """The same in another layout of the parameters."""
        return replace(self, backend=backend)


class SLSTMCell(nn.Module):  # type: ignore[misc]
    """The sLSTM cell (or LSTM) of xLSTM's and TiRex's layers over rnn().

    Parameters, for H heads of D units: _recurrent_kernel_ [H, D, 4 D] in the layout of xLSTM's CUDA backend, or
    [H, 4 D, D] in that of its vanilla one, and _bias_ [4 H D]; gates i, f, z, o. A state_dict of either layout loads
    into either. config: kept for those who look for it.
    """

    def __init__(self, settings: Settings, config: Any = None, device: Any = None) -> None:
        super().__init__()
        self.settings = settings
        self.config = config
        self._cell = _key(settings)
        self._recurrent_kernel_ = nn.Parameter(torch.empty(settings.recurrent_size, device=device))
        self._bias_ = nn.Parameter(torch.empty(GATES * settings.hidden_size, device=device))
        self.reset_parameters()

    @property
    def recurrent_kernel(self) -> Tensor:
        """The recurrent weights as [H, P, G, D], from previous unit p to unit d: the parameter's memory."""
        return _weights(self._recurrent_kernel_.detach(), self.settings).permute(1, 3, 0, 2)

    @property
    def bias(self) -> Tensor:
        """The biases as [H, G, D]: the parameter's memory."""
        return _biases(self._bias_.detach(), self.settings).transpose(0, 1)

    def extra_repr(self) -> str:
        """The function and the sizes, for print()."""
        one = self.settings
        return f"function={one.function}, hidden_size={one.hidden_size}, num_heads={one.num_heads}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickle: a cell whose h is clamped gets its name in this process."""
        super().__setstate__(state)
        self._cell = _key(self.settings)

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as xLSTM initialises them: recurrent weights of zeros, or uniform; biases of zeros
        but for the forget gate's, which fall by a power of the unit, the steeper the later the block; or of zeros and
        3 to 6; or uniform."""
        one = self.settings
        reach = 1 / sqrt(one.hidden_size)
        with torch.no_grad():
            if one.recurrent_weight_init == "standard":
                self._recurrent_kernel_.uniform_(-reach, reach)
            else:
                self._recurrent_kernel_.zero_()
            if one.bias_init == "standard":
                self._bias_.uniform_(-reach, reach)
                return
            self._bias_.zero_()
            place = torch.linspace(0, 1, one.head_dim, device=self._bias_.device)
            if one.bias_init == "powerlaw_blockdependent":
                power = 0.3 + 1.3 * (one.block / (one.blocks - 1) if one.blocks > 1 else 0.0)
                self.bias[:, 1] = 5 - 12 * place**power
            elif one.bias_init == "small_init":
                self.bias[:, 1] = 3 + 3 * place

    def forward(
        self, input: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As xLSTM's: input [B, T, 4 H D] or [T, B, 4 H D], by gate, head, unit, and the states [S, B, H D], None for
        zeros. lengths [B]: of each sequence, see rnn(). Returns h as [B, H, T, D], [T, B, H D], [B, T, H D] or
        [T, B, H, D], whatever its config says, and the last states [S, B, H D].

        Raises TensorShapeError (a RuntimeError) for tensors of other sizes, ArgumentTypeError for what is no tensor.
        """
        require_tensors("state", input=input, state=state)
        one = self.settings
        if input.dim() != 3 or input.shape[2] != GATES * one.hidden_size:
            wanted = "[B, T" if one.input_shape == "BSGNH" else "[T, B"
            raise TensorShapeError(
                f"input must be {wanted}, {GATES} hidden_size = {GATES * one.hidden_size}], not {list(input.shape)}"
            )
        wx = input if one.input_shape == "BSGNH" else input.transpose(0, 1)
        wx = wx.unflatten(2, (GATES, one.num_heads, one.head_dim))
        if state is not None:
            sizes = [one.states, wx.shape[0], one.hidden_size]
            if list(state.shape) != sizes:
                raise TensorShapeError(f"state must be [S, B, hidden_size] = {sizes}, not {list(state.shape)}")
            state = state.unflatten(2, (one.num_heads, one.head_dim))
        every, last = self._run(wx, state, lengths)
        h, last = every[0], last.flatten(2)
        if one.output_shape == "BNSH":
            h = h.transpose(1, 2)
        elif one.output_shape == "BSH":
            h = h.flatten(2)
        else:
            h = h.transpose(0, 1) if one.output_shape == "SBNH" else h.transpose(0, 1).flatten(2)
        if autocast_dtype(input.device.type) is not None and not one.keeps_dtype:
            kind = last.dtype if one.dtypes is None else one.dtypes.states
            return h.to(kind), last.to(kind)
        return h.to(input.dtype), last.to(input.dtype)

    def step(self, input: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step, as for one new token: forward() of an input with T = 1, one kernel on a GPU. (xLSTM's cell returns
        the states that it was given; here they are the new ones.) Raises TensorShapeError, too, for several steps."""
        seq = input.shape[1 if self.settings.input_shape == "BSGNH" else 0] if input.dim() == 3 else 1
        if seq != 1:
            raise TensorShapeError(f"a step is one step, not {seq}: forward() takes more")
        return self.forward(input, state)

    def _run(self, wx: Tensor, state: Tensor | None, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """rnn() over wx [B, T, 4, H, D] in the dtype of the settings."""
        one = self.settings
        r, b = _weights(self._recurrent_kernel_, one), _biases(self._bias_, one)
        options: dict[str, Any] = {
            "returns": "hidden", "recurrent_cut": one.cut, "recurrent_clip": one.clip, "lengths": lengths,
        }  # fmt: skip
        if one.dtypes is None:
            if autocast_dtype(wx.device.type) is None:
                kind = wx.dtype
                r, b = as_parameter(r, kind, kind), as_parameter(b, kind, kind)
                state = None if state is None else as_parameter(state, kind, kind)
            return rnn(wx, r, b, state, self._cell, **options)
        kinds, work = one.dtypes, one.dtypes.work
        with torch.autocast(wx.device.type, enabled=False):
            r, b = as_parameter(r, kinds.r, work), as_parameter(b, kinds.b, work)
            state = None if state is None else as_parameter(state, kinds.states, work)
            return rnn(wx.to(work), r, b, state, self._cell, **options)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        """Load parameters of either layout."""
        names = (f"{prefix}_recurrent_kernel_", f"{prefix}_bias_")
        if all(name in state_dict for name in names):
            r, b = (state_dict[name] for name in names)
            one = self.settings
            other = one.with_backend("vanilla" if one.backend == "cuda" else "cuda")
            if list(r.shape) == list(other.recurrent_size) and b.numel() == self._bias_.numel():
                weights, biases = _weights(r, other), _biases(b, other)
                order = (1, 3, 0, 2) if one.backend == "cuda" else (1, 0, 2, 3)
                state_dict[names[0]] = weights.permute(order).reshape(one.recurrent_size)
                turned = biases.transpose(0, 1) if one.backend == "cuda" else biases
                state_dict[names[1]] = turned.reshape(-1)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def convert(model: nn.Module) -> Conversion:
    """Replace every sLSTM cell of xLSTM's or TiRex's in a model by an SLSTMCell, in place.

    The parameters stay the same tensors, in their layout, so that optimisers and state_dicts go on as they are. What a
    cell's config says is done: its dtypes for the CUDA backend, the input's for the vanilla one; for both its
    gradient_recurrent_cut, gradient_recurrent_clipval and forward_clipval. Left is what would not do the same: cells
    with hooks, another forward, constants for xLSTM's compiler, or parameters of another form.

    Raises ArgumentTypeError for what is no module.
    """
    how = Replacement(_is_cell, _why_not, _made_of, "kernelgen.torch.xlstm")
    return replace_modules(model, how, "sLSTM cell of xLSTM's or TiRex's")


def _is_cell(module: nn.Module) -> bool:
    """Whether a module is xLSTM's sLSTMCell, of either backend, or TiRex's. Neither package is imported for that."""
    named = any(kind.__name__ in ("sLSTMCellBase", "sLSTMCell") for kind in type(module).__mro__)
    return named and hasattr(module, "config") and hasattr(module, "_recurrent_kernel_")


def _why_not(module: Any) -> str | None:
    """Why a cell cannot be replaced, in words, or None."""
    changed = changed_since_made(module)
    if changed is not None:
        return changed
    if getattr(module.config, "constants", None):
        return f"its config has constants, {module.config.constants}, for xLSTM's CUDA source; leave them out"
    try:
        settings = settings_of(module)
    except ConfigError as error:
        return str(error)
    found = {name: list(one.shape) for name, one in module.named_parameters()}
    wanted = {"_recurrent_kernel_": list(settings.recurrent_size), "_bias_": [GATES * settings.hidden_size]}
    if found != wanted:
        return f"its parameters are {found}, where {wanted} were expected"
    return None


def _made_of(module: Any) -> SLSTMCell:
    """An SLSTMCell with a cell's parameters."""
    made = SLSTMCell(settings_of(module), module.config, device="meta")
    made._recurrent_kernel_, made._bias_ = module._recurrent_kernel_, module._bias_
    made.train(module.training)
    return made


def settings_of(cell: Any) -> Settings:
    """What one of xLSTM's or TiRex's cells was made with. Raises ConfigError for what there is nothing for."""
    config = cell.config
    hidden, heads = getattr(config, "hidden_size", getattr(config, "embedding_dim", 0)), config.num_heads
    rows = cell._recurrent_kernel_.shape[1:]
    backend = "cuda" if len(rows) < 2 or rows[0] < rows[1] else "vanilla"
    if not hasattr(config, "hidden_size"):  # TiRex's has sizes alone; both of its backends compute in bfloat16
        kinds = Dtypes(torch.bfloat16, torch.bfloat16, torch.float32, torch.bfloat16)
        return Settings(hidden, heads, backend=backend, dtypes=kinds, keeps_dtype=True)
    for name, known in {
        "function": tuple(CELLS), "input_shape": INPUTS, "output_shape": OUTPUTS, "bias_init": BIAS_INITS,
        "recurrent_weight_init": RECURRENT_INITS,
    }.items():  # fmt: skip
        said = getattr(config, name)
        if said not in known:
            raise ConfigError(f"unknown {name} {said!r}; {near_names(str(said), known)}")
    return Settings(
        hidden,
        heads,
        function=config.function,
        backend=backend,
        input_shape=config.input_shape,
        output_shape=config.output_shape,
        dtypes=None if config.backend == "vanilla" else _dtypes(config),
        cut=bool(config.gradient_recurrent_cut),
        clip=config.gradient_recurrent_clipval,
        bound=config.forward_clipval,
        bias_init=config.bias_init,
        recurrent_weight_init=config.recurrent_weight_init,
        block=config._block_idx or 0,
        blocks=config._num_blocks or 1,
    )


def _dtypes(config: Any) -> Dtypes:
    """The dtypes of a config for the CUDA backend. Raises ConfigError for an unknown one."""
    names = [getattr(config, f"dtype{part}") for part in ("", "_w", "_g", "_r", "_s", "_b")]
    for name in names:
        if name not in DTYPES:
            raise ConfigError(f"unknown dtype {name!r}; {near_names(str(name), DTYPES)}")
    *others, r, s, b = (getattr(torch, name) for name in names)
    return Dtypes(holding(*others, r, s), r, b, s)


def _weights(parameter: Tensor, settings: Settings) -> Tensor:
    """_recurrent_kernel_ as rnn() takes R: a view [G, H, D, P]."""
    heads, dim = settings.num_heads, settings.head_dim
    if settings.backend == "cuda":
        return parameter.view(heads, dim, GATES, dim).permute(2, 0, 3, 1)
    return parameter.view(heads, GATES, dim, dim).transpose(0, 1)


def _biases(parameter: Tensor, settings: Settings) -> Tensor:
    """_bias_ as rnn() takes b: a view [G, H, D]."""
    heads, dim = settings.num_heads, settings.head_dim
    if settings.backend == "cuda":
        return parameter.view(heads, GATES, dim).transpose(0, 1)
    return parameter.view(GATES, heads, dim)


def _key(settings: Settings) -> str:
    """The cell, as rnn() takes it."""
    name = CELLS[settings.function]
    return name if settings.bound is None else register(cell_of(name).clipped(float(settings.bound)))
