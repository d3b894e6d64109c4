"""Restrictions written as Python expressions: from the nodes of Python's syntax tree to expressions."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from fractions import Fraction
from functools import reduce
from typing import Any

from constrint import expr as build
from constrint import operators
from constrint.errors import ConstrintError, ParseError
from constrint.expr import Expr
from constrint.functions import FUNCTIONS
from constrint.global_constraints import all_different, count, cumulative
from constrint.python_names import Substituted
from constrint.vocabulary import Reading

_BINARY: dict[type, str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
_COMPARE: dict[type, str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_REFUSED: dict[type, str] = {
    ast.Attribute: "an attribute",
    ast.Subscript: "a subscript",
    ast.Lambda: "a lambda",
    ast.NamedExpr: "an assignment",
    ast.JoinedStr: "a string with parts to compute",
    ast.Await: "await",
    ast.Starred: "a starred expression",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.List: "a list where a number is expected",
    ast.Tuple: "a tuple where a number is expected",
    ast.Set: "a set where a number is expected",
}
_MODULES = ("math", "np", "numpy")
_LISTS = (ast.List, ast.Tuple, ast.Set)
_GATHERED = ("min", "max", "sum", "any", "all", "len")
_SINGLE = ("abs", "int", "float", "bool", "floor", "ceil", "trunc", "fabs", "round")
_GLOBAL: dict[str, tuple[Callable[..., Expr], int, int]] = {
    "all_different": (all_different, 1, 0),
    "cumulative": (cumulative, 3, 1),
    "count": (count, 1, 1),
}
"""Constraints of many variables: how each is built, and how many lists and then numbers it takes."""
_KNOWN = "min, max, abs, sum, any, all, len, int, float, bool, round, divmod, pow, ceil, floor and functions of math"
CONSTANTS = ("True", "False", "None")
"""Python's constants: a variable may be called so, and is then meant wherever the name stands."""


class Translator:
    """Translates the nodes of one restriction; see ``constrint.python_text.parse_restriction`` for its arguments."""

    def __init__(
        self,
        text: str,
        read: Substituted,
        variables: Collection[str],
        name: str,
        texts: Collection[str],
        reading: Reading,
    ) -> None:
        self.reading = reading
        self.lines, self.read = text.split("\n"), read.text.split("\n")
        self.substituted, self.variables, self.name, self.texts = read, variables, name, texts

    def error(self, line: int, offset: int, reason: str) -> ParseError:
        """An error at a position of the text in parentheses. offset: in characters, from 0."""
        if line > len(self.lines):
            line, offset = len(self.lines), len(self.read[-1]) + 1
        source = self.lines[line - 1]
        column = self.substituted.original(line, offset - (1 if line == 1 else 0))
        return ParseError(reason, source, line, min(max(column, 0), len(source)) + 1, self.name)

    def refuse(self, node: ast.AST, reason: str) -> ParseError:
        line = getattr(node, "lineno", 1)
        source = ("(" if line == 1 else "") + (self.read[line - 1] if line <= len(self.read) else "")
        offset = len(source.encode()[: getattr(node, "col_offset", 0)].decode(errors="replace"))
        return self.error(line, offset, reason)

    def condition(self, node: ast.expr) -> Expr:
        """A node where a condition is expected."""
        if isinstance(node, ast.BoolOp):
            return self._logic(node.op, [self.condition(value) for value in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return Expr("not", (self.condition(node.operand),))
        if isinstance(node, ast.IfExp):
            return build.where(self.condition(node.test), self.condition(node.body), self.condition(node.orelse))
        return self._truth(self.expression(node))

    def _logic(self, op: ast.boolop, parts: list[Expr]) -> Expr:
        word = "and" if isinstance(op, ast.And) else "or"
        return reduce(lambda left, right: Expr(word, (left, right)), parts)

    def _truth(self, value: Expr) -> Expr:
        """Whether Python finds a value true: of a number, whether it is other than 0."""
        if value.is_condition:
            return value
        waiting = [value]
        while waiting:
            node = waiting.pop()
            if node.op == "value" or (node.op == "var" and node.name in self.texts):
                return Expr("truth", (value,))
            waiting += node.args if node.op in ("if", "element") else ()
        return value != 0

    def expression(self, node: ast.expr) -> Expr:
        """A node where a number or a condition may stand."""
        translate = _TRANSLATED.get(type(node))
        if translate is not None:
            return translate(self, node)
        what = _REFUSED.get(type(node), type(node).__name__)
        raise self.refuse(node, f"{what} is more than arithmetic; only numbers, text, names, operators and functions")

    def _written(self, node: ast.Name) -> Expr:
        return self._name(node, self.substituted.names.get(node.id, node.id))

    def _if(self, node: ast.IfExp) -> Expr:
        return build.where(self.condition(node.test), self.expression(node.body), self.expression(node.orelse))

    def _name(self, node: ast.expr, name: str) -> Expr:
        if name not in self.variables:
            word = self.reading.word(name)
            if word is not None:
                return word
            known = (", ".join(self.variables) or "none") + self.reading.vocabulary.listed()
            near = get_close_matches(name, [*self.variables, *self.reading.vocabulary.names()], n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}? The" if near else "the"
            raise self.refuse(node, f"unknown name {name!r}; {hint} variables are: {known}")
        return Expr("var", name=name)

    def _chosen(self, node: ast.BoolOp) -> Expr:
        """``and`` and ``or`` as Python has them: of numbers, one of these."""
        parts = [self.expression(value) for value in node.values]
        if all(part.is_condition for part in parts):
            return self._logic(node.op, parts)
        result = parts[-1]
        for part in reversed(parts[:-1]):
            chosen = (result, part) if isinstance(node.op, ast.And) else (part, result)
            result = build.where(self._truth(part), *chosen)
        return result

    def _constant(self, node: ast.Constant) -> Expr:
        value = node.value
        if type(value) is int:
            return Expr("const", value=value)
        if str(value) in CONSTANTS and not isinstance(value, str) and str(value) in self.variables:
            return build.variable(str(value))
        if value is None or isinstance(value, bool | int | str):
            return build.as_expr(value)
        if isinstance(value, float) and value == value and abs(value) != float("inf"):
            # The decimal as it is written: 0.1 means 1/10.
            fraction = Fraction(repr(value))
            numerator = build.as_expr(fraction.numerator)
            return numerator if fraction.denominator == 1 else numerator / fraction.denominator
        raise self.refuse(node, f"{value!r} is no number; only integers, decimals, text, True, False and None")

    def _binary(self, node: ast.BinOp) -> Expr:
        left, right = self.expression(node.left), self.expression(node.right)
        op = _BINARY.get(type(node.op))
        if op is None:
            return self._bits(node, left, right)
        if op == "**" and right.op == "neg" and right.args[0].op == "const":
            return Expr("/", (build.as_expr(1), Expr("**", (left, right.args[0]))))
        return Expr(op, (left, right))

    def _bits(self, node: ast.BinOp, left: Expr, right: Expr) -> Expr:
        match node.op:
            case ast.BitAnd():
                return left & right
            case ast.BitOr():
                return left | right
            case ast.BitXor():
                return left ^ right
        raise self.refuse(node, "@ is not supported; only + - * / // % ** << >> & | ^")

    def _unary(self, node: ast.UnaryOp) -> Expr:
        if isinstance(node.op, ast.Not):
            return Expr("not", (self.condition(node.operand),))
        operand = self.expression(node.operand)
        if isinstance(node.op, ast.Invert):
            return ~operand
        return -operand if isinstance(node.op, ast.USub) else operand

    def _compare(self, node: ast.Compare) -> Expr:
        result: Expr | None = None
        left_node = node.left
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            part = self._compared(node, op, left_node, right_node)
            result = part if result is None else Expr("and", (result, part))
            left_node = right_node
        assert result is not None
        return result

    def _compared(self, node: ast.Compare, op: ast.cmpop, left_node: ast.expr, right_node: ast.expr) -> Expr:
        if isinstance(op, (ast.In, ast.NotIn)):
            part = self._member(left_node, right_node)
            return part if isinstance(op, ast.In) else Expr("not", (part,))
        if isinstance(op, (ast.Is, ast.IsNot)):
            if not isinstance(right_node, ast.Constant) or right_node.value is not None:
                raise self.refuse(node, "'is' compares objects; use == or !=")
            equal = self.expression(left_node) == self.expression(right_node)
            return equal if isinstance(op, ast.Is) else Expr("not", (equal,))
        left = right = None
        if isinstance(op, (ast.Eq, ast.NotEq)):
            left, right = self._pair(left_node), self._pair(right_node)
        if left is not None and right is not None:
            if len(left) != len(right):
                return build.as_expr(isinstance(op, ast.NotEq))
            same = reduce(
                lambda a, b: Expr("and", (a, b)),
                (a == b for a, b in zip(left, right, strict=True)),
                build.as_expr(True),
            )
            return same if isinstance(op, ast.Eq) else Expr("not", (same,))
        return operators.compare(_COMPARE[type(op)], self.expression(left_node), self.expression(right_node))

    def _pair(self, node: ast.expr) -> list[Expr] | None:
        """The parts of a tuple, a list or a divmod; None for anything else."""
        if isinstance(node, (ast.Tuple, ast.List)):
            return [self.expression(part) for part in node.elts]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "divmod":
            if len(node.args) != 2 or node.keywords:
                raise self.refuse(node, "divmod takes two numbers")
            number, divisor = map(self.expression, node.args)
            return [number // divisor, number % divisor]
        return None

    def _member(self, left: ast.expr, right: ast.expr) -> Expr:
        if isinstance(right, ast.Call) and isinstance(right.func, ast.Name) and right.func.id == "list":
            right = right.args[0] if len(right.args) == 1 and not right.keywords else right
        if isinstance(right, ast.Call) and isinstance(right.func, ast.Name) and right.func.id == "range":
            return self._in_range(self.expression(left), right)
        if not isinstance(right, _LISTS):
            raise self.refuse(right, "'in' needs a list in brackets or a range")
        columns = [self.expression(part) for part in (left.elts if isinstance(left, ast.Tuple) else [left])]
        rows: list[list[Expr]] = []
        for item in right.elts:
            items = list(item.elts) if isinstance(left, ast.Tuple) and isinstance(item, ast.Tuple) else [item]
            if len(items) != len(columns):
                raise self.refuse(item, f"expected a tuple of {len(columns)} values")
            rows.append([self.expression(part) for part in items])
        known = [[_known(value) for value in row] for row in rows]
        if all(value is not _UNKNOWN for row in known for value in row):
            return operators.table(columns, known)
        tests = [
            reduce(lambda a, b: Expr("and", (a, b)), (c == v for c, v in zip(columns, row, strict=True)))
            for row in rows
        ]
        return _halved("or", tests)

    def _in_range(self, value: Expr, call: ast.Call) -> Expr:
        """x in range(start, stop, step): whole, between the two, a multiple of the step from the start."""
        parts = [self.expression(arg) for arg in call.args]
        if call.keywords or not 0 < len(parts) < 4:
            raise self.refuse(call, "range takes one to three numbers")
        start, stop = (build.as_expr(0), parts[0]) if len(parts) == 1 else (parts[0], parts[1])
        step = _known(parts[2]) if len(parts) == 3 else 1
        if not isinstance(step, int) or not step:
            raise self.refuse(call, "the step of a range must be a number other than 0")
        first, last = _known(start), _known(stop)
        if isinstance(first, int) and isinstance(last, int):
            return value.isin(range(first, last, step))
        inside = (value >= start) & (value < stop) if step > 0 else (value <= start) & (value > stop)
        return inside & operators.divides(build.as_expr(abs(step)), value - start)

    def _subscript(self, node: ast.Subscript) -> Expr:
        """``p["name"]``, the element of a list, a part of a divmod."""
        key = node.slice
        if isinstance(node.value, ast.Name) and isinstance(key, ast.Constant) and isinstance(key.value, str):
            if node.value.id in self.variables:
                raise self.refuse(node, "a subscript of a variable is more than arithmetic")
            return self._name(node, key.value)
        choices = self._pair(node.value)
        if choices is None or isinstance(key, ast.Slice | ast.Tuple):
            raise self.refuse(node, "a subscript is more than arithmetic; only of a list in brackets, or p['name']")
        if not choices:
            raise self.refuse(node, "an empty list has no elements")
        return operators.element(self.expression(key), choices)

    def _call(self, node: ast.Call) -> Expr:
        function = self._function(node.func)
        if function[:1] == "." and isinstance(node.func, ast.Attribute) and not node.args and not node.keywords:
            value = self.expression(node.func.value)
            if function == ".is_integer":
                return operators.divides(build.as_expr(1), value)
            return Expr("call", (value,), name=function[1:])
        if function in _GATHERED and len(node.args) == 1 and isinstance(node.args[0], _LISTS) and not node.keywords:
            return self._gather(node, function, node.args[0].elts)
        if function in _GLOBAL:
            return self._global(node, function)
        known = self.reading.vocabulary.functions.get(function)
        if known is not None:
            if len(node.args) != len(known.parameters) or node.keywords:
                raise self.refuse(node, f"{function} takes {len(known.parameters)}: {', '.join(known.parameters)}")
            return self.reading.call(known, [self.expression(arg) for arg in node.args])
        if function not in (*_GATHERED, *_SINGLE, "pow", *FUNCTIONS) or function in ("sum", "any", "all"):
            more = "".join(f", {name}" for name in self.reading.vocabulary.functions)
            raise self.refuse(node, f"a call of anything but {_KNOWN}{more} is more than arithmetic")
        if function in ("min", "max"):
            if len(node.args) < 2 or node.keywords:
                raise self.refuse(node, f"{function} takes two or more numbers")
            return Expr(function, tuple(self.expression(arg) for arg in node.args))
        if node.keywords:
            raise self.refuse(node, f"{function} takes numbers without names")
        if function in _SINGLE or function == "len":
            return self._single(node, function)
        if function == "pow":
            if len(node.args) != 2:
                raise self.refuse(node, "pow takes two numbers")
            return self._binary(ast.copy_location(ast.BinOp(node.args[0], ast.Pow(), node.args[1]), node))
        _, fewest, most = FUNCTIONS[function]
        if not fewest <= len(node.args) <= most:
            count = str(fewest) if fewest == most else f"{fewest} to {most}"
            raise self.refuse(node, f"{function} takes {count} numbers")
        return Expr("call", tuple(self.expression(arg) for arg in node.args), name=function)

    def _global(self, node: ast.Call, function: str) -> Expr:
        """A constraint of many variables: lists in brackets, and what follows them."""
        builder, lists, others = _GLOBAL[function]
        if len(node.args) != lists + others or node.keywords:
            raise self.refuse(node, f"{function} takes {lists} lists in brackets and {others} numbers")
        given: list[Any] = [self._pair(arg) for arg in node.args[:lists]]
        if None in given:
            raise self.refuse(node, f"{function} takes lists in brackets")
        try:
            return builder(*given, *map(self.expression, node.args[lists:]))
        except ConstrintError as error:
            raise self.refuse(node, str(error)) from None

    def _function(self, node: ast.expr) -> str:
        """The name of what is called: a function of Python or of math, or a method; empty for anything else."""
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id in _MODULES and node.value.id not in self.variables:
                return node.attr
            if node.attr in ("is_integer", "bit_length", "bit_count"):
                return f".{node.attr}"
        return ""

    def _single(self, node: ast.Call, function: str) -> Expr:
        if len(node.args) != 1 and not (function == "round" and len(node.args) == 2):
            raise self.refuse(node, f"{function} takes one number")
        if function == "bool":
            return self.condition(node.args[0])
        value = self.expression(node.args[0])
        match function:
            case "len":
                if value.op == "value" and isinstance(value.other, str):
                    return build.as_expr(len(value.other))
                if value.op not in ("var", "if", "element"):
                    raise self.refuse(node, "len takes text or a list in brackets")
                return Expr("len", (value,))
            case "float":
                return value if not value.is_condition else value + 0
            case "fabs":
                return abs(value)
            case "trunc":
                return Expr("int", (value,))
            case "round":
                digits = _known(self.expression(node.args[1])) if len(node.args) == 2 else None
                if digits is not None and (not isinstance(digits, int) or abs(digits) > 30):
                    raise self.refuse(node, "the decimals of round must be a whole number of at most 30")
                return build.rounded(value, digits)
        return Expr(function, (value,))

    def _gather(self, node: ast.Call, function: str, parts: Sequence[ast.expr]) -> Expr:
        """A function of a list in brackets."""
        if function == "len":
            if isinstance(node.args[0], ast.Set):
                raise self.refuse(node, "the length of a set depends on what is equal in it")
            return build.as_expr(len(parts))
        if function in ("any", "all"):
            return _halved("or" if function == "any" else "and", [self.condition(part) for part in parts])
        values = [self.expression(part) for part in parts]
        if function == "sum":
            return _halved("+", values)
        if not values:
            raise self.refuse(node, f"{function} of nothing")
        return Expr(function, tuple(values)) if len(values) > 1 else values[0]


_TRANSLATED: dict[type, Callable[[Translator, Any], Expr]] = {
    ast.Constant: Translator._constant,
    ast.Name: Translator._written,
    ast.BinOp: Translator._binary,
    ast.UnaryOp: Translator._unary,
    ast.BoolOp: Translator._chosen,
    ast.IfExp: Translator._if,
    ast.Compare: Translator._compare,
    ast.Call: Translator._call,
    ast.Subscript: Translator._subscript,
}
"""How each kind of node where a number or a condition may stand is translated."""
_UNKNOWN = object()


def _known(value: Expr) -> object:
    """The value of a constant; _UNKNOWN for anything else."""
    if value.op == "const":
        return value.value
    if value.op in ("true", "false"):
        return value.op == "true"
    if value.op == "value":
        return value.other if isinstance(value.other, str) else None
    if value.op == "neg":
        inner = _known(value.args[0])
        return -inner if isinstance(inner, int | Fraction) else _UNKNOWN
    if value.op == "/" and all(arg.op == "const" for arg in value.args) and value.args[1].value:
        return Fraction(value.args[0].value, value.args[1].value)
    return _UNKNOWN


def _halved(op: str, parts: Sequence[Expr]) -> Expr:
    """Parts joined by an operator, in halves, so that the result is not deep."""
    if not parts:
        return build.as_expr(0) if op == "+" else build.as_expr(op == "and")
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return Expr(op, (_halved(op, parts[:middle]), _halved(op, parts[middle:])))
