"""convert: every recurrent module of torch.nn's in a model, replaced by ours with the same parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from kernelgen.torch.cell_modules import GRUCell, LSTMCell, RNNCell
from kernelgen.torch.errors import ArgumentTypeError
from kernelgen.torch.modules import GRU, LSTM, RNN
from kernelgen.torch.reference import DTYPES

_SOUGHT = "recurrent module of torch.nn's"


@dataclass(frozen=True)
class Conversion:
    """What convert() did. model: the model, or what stands in its place where it is a recurrent module itself.
    replaced: what each is now, by its name in the model; left: why one was left as it is, by its name. sought: what
    there was none of, where both are empty."""

    model: nn.Module
    replaced: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    sought: str = _SOUGHT

    def __str__(self) -> str:
        """A line for each module."""
        lines = [f"{name or 'the model'}: replaced by {what}" for name, what in self.replaced.items()]
        lines += [f"{name or 'the model'}: left, {why}" for name, why in self.left.items()]
        return "\n".join(lines) if lines else f"no {self.sought}"


def convert(model: nn.Module) -> Conversion:
    """Replace every LSTM, GRU, RNN and their cells of torch.nn's in a model, in place.

    The parameters stay the same tensors, so that optimisers, tied weights and state_dicts go on as they are, and so do
    train() and eval(). A module used in several places stays one. Left is what would not do the same: subclasses with
    code of their own, hooks, parametrised weights, dtypes that there is nothing for.

    Raises ArgumentTypeError for what is no module.
    """
    return replace_modules(model, Replacement(_is_recurrent, _why_not, _made_of, "kernelgen.torch"), _SOUGHT)


@dataclass(frozen=True)
class Replacement:
    """How modules of one kind are replaced. sought: whether a module is of the kind. why_not: why one cannot be
    replaced, in words, or None. made_of: what replaces it. place: the name of the Python module that has that."""

    sought: Callable[[nn.Module], bool]
    why_not: Callable[[nn.Module], str | None]
    made_of: Callable[[nn.Module], nn.Module]
    place: str


def replace_modules(model: nn.Module, how: Replacement, kind: str) -> Conversion:
    """Replace the modules of a kind, told in words, in a model, in place; one that is used in several places stays one.

    Raises ArgumentTypeError for what is no module.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    replaced: dict[str, str] = {}
    left: dict[str, str] = {}
    made: dict[nn.Module, nn.Module] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if not how.sought(module):
            continue
        why = None if module in made else how.why_not(module)
        if why is not None:
            left[name] = why
            continue
        if module not in made:
            made[module] = how.made_of(module)
        replaced[name] = f"{how.place}.{type(made[module]).__name__}"
        if name:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, made[module])
    return Conversion(made.get(model, model), replaced, left, kind)


_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
    "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip


def changed_since_made(module: nn.Module) -> str | None:
    """What was changed of a module that a replacement would not have, in words, or None: hooks, another forward."""
    hooks = [name.strip("_") for name in _HOOKS if getattr(module, name)]
    if hooks:
        return f"it has hooks ({', '.join(hooks)}), such as those of weight_norm; remove them first"
    return "its forward method was replaced" if "forward" in vars(module) else None


def _is_recurrent(module: nn.Module) -> bool:
    """Whether a module is one of torch.nn's recurrent ones, of a subclass, or what TorchScript made of one."""
    if isinstance(module, torch.jit.ScriptModule) and hasattr(nn, str(module.original_name)):
        kind = getattr(nn, module.original_name)
        return isinstance(kind, type) and issubclass(kind, (nn.RNNBase, nn.RNNCellBase))
    return isinstance(module, (nn.RNNBase, nn.RNNCellBase))


def _why_not(module: nn.Module) -> str | None:
    """Why a module cannot be replaced, in words, or None."""
    if isinstance(module, torch.jit.ScriptModule):
        return f"it is TorchScript of torch.nn.{module.original_name}; convert the model before scripting"
    kind = type(module)
    if kind not in _OURS:
        if nn.utils.parametrize.is_parametrized(module):
            return "its weights are parametrised; torch.nn.utils.parametrize.remove_parametrizations makes them plain"
        return f"{kind.__module__}.{kind.__qualname__} is a subclass of torch.nn's with code of its own"
    changed = changed_since_made(module)
    if changed is not None:
        return changed
    parameters = dict(module.named_parameters(remove_duplicate=False))
    if parameters.keys() != dict(_empty(module).named_parameters()).keys():
        return f"its parameters, {', '.join(parameters)}, are not those that it was made with"
    dtypes = {str(parameter.dtype).removeprefix("torch.") for parameter in parameters.values()}
    if len(dtypes) > 1 or not dtypes.issubset(DTYPES):
        return f"its parameters are {' and '.join(sorted(dtypes))}, where one of {', '.join(DTYPES)} is taken"
    return None


_LAYERS = ("num_layers", "bias", "batch_first", "dropout", "bidirectional")
_OURS: Mapping[type[nn.Module], tuple[Callable[..., Any], tuple[str, ...]]] = {
    nn.LSTM: (LSTM, (*_LAYERS, "proj_size")),
    nn.GRU: (GRU, _LAYERS),
    nn.RNN: (RNN, (*_LAYERS, "nonlinearity")),
    nn.LSTMCell: (LSTMCell, ("bias",)),
    nn.GRUCell: (GRUCell, ("bias",)),
    nn.RNNCell: (RNNCell, ("bias", "nonlinearity")),
}
"""Ours in the place of each of torch.nn's, and its arguments besides the two sizes."""


def _empty(module: nn.Module) -> Any:
    """Ours in the place of one of torch.nn's, on the meta device."""
    kind, names = _OURS[type(module)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of dropout that does nothing, which torch.nn has told
        return kind(
            module.input_size, module.hidden_size, **{name: getattr(module, name) for name in names}, device="meta"
        )


def _made_of(module: nn.Module) -> Any:
    """Ours in the place of one of torch.nn's, with its parameters."""
    made = _empty(module)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        setattr(made, name, parameter)
    return made.train(module.training)
