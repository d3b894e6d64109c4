"""Running a cell's step on symbols, and saying in words what the language cannot express."""

from __future__ import annotations

import dis
import inspect
import re
from typing import Any

import sympy

from kernelgen.cells._functions import (
    abs,
    equal,
    exp,
    log,
    log_sigmoid,
    maximum,
    minimum,
    relu,
    sigmoid,
    sign,
    softplus,
    sqrt,
    tanh,
    where,
)
from kernelgen.errors import CellError, near_names

FUNCTIONS = (exp, log, tanh, abs, sign, sigmoid, log_sigmoid, softplus, relu, maximum, minimum, where)
FUNCTION_NAMES = "abs, equal, exp, log, log_sigmoid, maximum, minimum, relu, sigmoid, sign, softplus, sqrt, tanh, where"


class _Namespace:
    """Named symbols, as attributes."""

    def __init__(self, kind: str, names: tuple[str, ...]) -> None:
        self._kind = kind
        self._symbols = {name: sympy.Symbol(name, real=True) for name in names}

    def _sympy_(self) -> Any:
        raise CellError(_WHOLE)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._symbols:
            raise CellError(
                f"the step uses {self._kind}.{name}, which is not declared; {near_names(name, self._symbols)}"
            )
        return self._symbols[name]


UNITS = "a step acts on each unit by itself, so it cannot "
_NO_MATRIX = "multiply by a matrix; a gate with a recurrent product is R h already, and there is no second"
_WHOLE = "the step computes with the gates or the states as a whole; name one, as in gate.i or state.c"
_LIMITS = (
    ("_Namespace", _WHOLE),
    (
        "truth value",
        "the step decides with if, max or min on a symbol, or with a function of NumPy's; "
        "use where(condition, a, b), maximum or minimum",
    ),
    (
        "not callable",
        UNITS + "make a second recurrent product, as a GRU does that resets h before it; act on a gate's sum, R h, "
        "after the product instead",
    ),
    (" @: ", UNITS + _NO_MATRIX),
    ("matmul: ", UNITS + _NO_MATRIX),
    ("not subscriptable", UNITS + "index units: states are one number per unit, not vectors or matrices"),
    ("not iterable", UNITS + "run over units, as normalisation, softmax and attention do"),
    ("has no attribute", UNITS + "use methods of arrays, such as sums over units for a normalisation"),
)
"""What the form cannot express, by the words with which Python refuses it."""

_OF_NUMBERS = (
    "does not support argument",  # NumPy
    "Cannot convert expression to float",  # math, through sympy
    "Cannot convert symbols to int",
    "Cannot round symbolic expression",
    "must be Tensor, not",  # PyTorch
    "received an invalid combination of arguments",
)
"""The words with which functions of numbers, arrays and tensors refuse a symbol."""

_SAME = {"abs": ("fabs", "absolute"), "maximum": ("fmax", "max"), "minimum": ("fmin", "min"), "equal": ("eq",)}
"""What functions of the language are called elsewhere too."""


def _foreign(step: Any, error: BaseException) -> str | None:
    """What to write in the place of a function of NumPy, math or PyTorch that refused a symbol, or of a method of that
    name; None where that is not the error."""
    method = re.search(r"has no attribute '(\w+)'", str(error))
    if not method and not any(words in str(error) for words in _OF_NUMBERS):
        return None
    ours = {other: name for name in FUNCTION_NAMES.split(", ") for other in (name, *_SAME.get(name, ()))}
    # What the step, or a function of the same file that it calls, named last before the call that failed.
    found = [method[1]] if method else []
    file = getattr(getattr(step, "__code__", None), "co_filename", None)
    trace = None if method else error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_filename == file:
            before = [one for one in dis.get_instructions(frame.f_code) if one.offset <= trace.tb_lasti]
            names = [
                one.argval
                for one in before
                if one.opname in ("LOAD_ATTR", "LOAD_METHOD")
                or (one.opname == "LOAD_GLOBAL" and frame.f_globals.get(one.argval) not in (*FUNCTIONS, sqrt, equal))
            ]
            found = [name for name in names if name in ours][-1:]
        trace = trace.tb_next
    named = [ours[name] for name in found if name in ours]
    if method and not named:
        return None
    write = "".join(f"kernelgen.cells.{name}" for name in named)
    return (
        "the step calls a function of numbers, arrays or tensors on a symbol; "
        f"use {write or 'the functions of kernelgen.cells'} instead. They are {FUNCTION_NAMES}"
    )


def _taken(step: Any) -> str:
    """The parameters of a function, as they are written."""
    return f"{getattr(step, '__name__', 'step')}{inspect.signature(step)}"


def run_step(step: Any, gates: tuple[str, ...], states: tuple[str, ...]) -> Any:
    """What ``step`` returns for symbols of these names. Raises CellError for what the language cannot express; any
    other error of the step is its own."""
    try:
        inspect.signature(step).bind("gate", "state")
    except TypeError:
        raise CellError(f"the step must take two arguments, as in def step(gate, state), not {_taken(step)}") from None
    except ValueError:  # a function that tells nothing of what it takes
        pass
    try:
        return step(_Namespace("gate", gates), _Namespace("state", states))
    except (TypeError, AttributeError, ValueError) as error:
        foreign = _foreign(step, error)
        if foreign:
            raise CellError(f"{foreign} ({str(error).splitlines()[0]})") from error
        for words, message in _LIMITS:
            if words in str(error):
                raise CellError(f"{message} ({error})") from error
        raise
