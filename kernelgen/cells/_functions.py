"""The functions a cell may use, as real sympy functions that know their derivatives.

tanh, exp, log, sqrt and abs are sympy's own; what sympy lacks, or has in a form that kernels cannot print well
(Max, Min, Piecewise), is defined here. All arguments are real.
"""

from __future__ import annotations

from typing import Any

import sympy
from sympy.logic.boolalg import Boolean, BooleanFalse, BooleanTrue

from kernelgen.errors import CellError

abs = sympy.Abs  # a cell file may import every function from one place
exp = sympy.exp
log = sympy.log
sign = sympy.sign
sqrt = sympy.sqrt
tanh = sympy.tanh


class sigmoid(sympy.Function):  # type: ignore[misc]
    """1 / (1 + exp(-x))."""

    nargs = 1
    is_real = True

    @classmethod
    def eval(cls, x: Any) -> Any:
        """Constants fold."""
        return 1 / (1 + exp(-x)) if x.is_number else None

    def fdiff(self, argindex: int = 1) -> Any:
        """The derivative, s (1 - s)."""
        return self * (1 - self)


class log_sigmoid(sympy.Function):  # type: ignore[misc]
    """log(sigmoid(x)) = min(x, 0) - log(1 + exp(-|x|)): never overflows."""

    nargs = 1
    is_real = True

    @classmethod
    def eval(cls, x: Any) -> Any:
        """Constants fold."""
        return -log(1 + exp(-x)) if x.is_number else None

    def fdiff(self, argindex: int = 1) -> Any:
        """The derivative, sigmoid(-x)."""
        return sigmoid(-self.args[0])


class softplus(sympy.Function):  # type: ignore[misc]
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)): never overflows."""

    nargs = 1
    is_real = True

    @classmethod
    def eval(cls, x: Any) -> Any:
        """Constants fold."""
        return log(1 + exp(x)) if x.is_number else None

    def fdiff(self, argindex: int = 1) -> Any:
        """The derivative, sigmoid(x)."""
        return sigmoid(self.args[0])


class relu(sympy.Function):  # type: ignore[misc]
    """max(x, 0); its derivative at 0 is 0, as in PyTorch."""

    nargs = 1
    is_real = True

    @classmethod
    def eval(cls, x: Any) -> Any:
        """Constants fold."""
        return sympy.Max(x, 0) if x.is_number else None

    def fdiff(self, argindex: int = 1) -> Any:
        """The derivative, 1 where x > 0."""
        return where(self.args[0] > 0, 1, 0)


def _constant_first(cls: Any, a: Any, b: Any) -> Any:
    """A canonical order for commutative pairs; printers rely on a constant being the first argument."""
    if a == b:
        return a
    if b.is_number and not a.is_number:
        return cls(b, a)
    return None


class maximum(sympy.Function):  # type: ignore[misc]
    """The larger of two values; at a tie the derivative goes to the first argument that is no constant."""

    nargs = 2
    is_real = True

    @classmethod
    def eval(cls, a: Any, b: Any) -> Any:
        """Constants fold; a lone constant comes first."""
        return sympy.Max(a, b) if a.is_number and b.is_number else _constant_first(cls, a, b)

    def fdiff(self, argindex: int = 1) -> Any:
        """1 for the argument that is larger, else 0."""
        a, b = self.args
        first = a > b if a.is_number else a >= b
        return where(first, 1, 0) if argindex == 1 else where(first, 0, 1)


class minimum(sympy.Function):  # type: ignore[misc]
    """The smaller of two values; at a tie the derivative goes to the first argument that is no constant."""

    nargs = 2
    is_real = True

    @classmethod
    def eval(cls, a: Any, b: Any) -> Any:
        """Constants fold; a lone constant comes first."""
        return sympy.Min(a, b) if a.is_number and b.is_number else _constant_first(cls, a, b)

    def fdiff(self, argindex: int = 1) -> Any:
        """1 for the argument that is smaller, else 0."""
        a, b = self.args
        first = a < b if a.is_number else a <= b
        return where(first, 1, 0) if argindex == 1 else where(first, 0, 1)


class where(sympy.Function):  # type: ignore[misc]
    """``where(condition, a, b)``: a where the condition holds, else b. Both are always evaluated.

    A condition compares with <, <=, >, >= or ``equal(a, b)``; conditions combine with & and |, and ~ negates.
    """

    nargs = 3
    is_real = True

    def __new__(cls, condition: Any, a: Any, b: Any, **options: Any) -> Any:
        """Refuse a plain True or False: it comes from ``x == 0``, which Python has already decided."""
        if isinstance(condition, bool):
            raise CellError("where() got a plain True or False instead of a condition; for x == 0 write equal(x, 0)")
        return super().__new__(cls, condition, a, b, **options)

    @classmethod
    def eval(cls, condition: Any, a: Any, b: Any) -> Any:
        """Choose at once where the condition is known. Raises CellError where it is no condition."""
        if isinstance(condition, BooleanTrue) or a == b:
            return a
        if isinstance(condition, BooleanFalse):
            return b
        if not isinstance(condition, Boolean):
            raise CellError(f"where() needs a condition such as x > 0 or equal(x, 0), not {condition}")
        return None

    def _eval_derivative(self, symbol: Any) -> Any:
        condition, a, b = self.args
        return where(condition, a.diff(symbol), b.diff(symbol))


def equal(a: Any, b: Any) -> Any:
    """The condition a = b. (Python's ``a == b`` compares the formulas, not their values.)"""
    return sympy.Eq(sympy.sympify(a), sympy.sympify(b))
