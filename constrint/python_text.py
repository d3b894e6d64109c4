"""Restrictions written as Python expressions, as Kernel Tuner writes them: parse.

The text is parsed with the ``ast`` module and translated node by node; nothing is ever evaluated as Python.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Collection
from fractions import Fraction

from constrint import expr as build
from constrint.errors import ConstrintError, ParseError
from constrint.expr import Expr
from constrint.integers import shown

_BINARY: dict[type, str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
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
    ast.IfExp: "a conditional expression",
    ast.JoinedStr: "a string",
    ast.Await: "await",
    ast.Starred: "a starred expression",
    ast.ListComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.List: "a list outside of 'in'",
    ast.Tuple: "a tuple outside of 'in'",
}
MAX_LENGTH = 100_000
CONSTANTS = ("True", "False", "None")
"""Python's constants: a variable may be called so, and is then meant wherever the name stands."""


def check_python_name(name: object, where: str) -> None:
    """Raise ConstrintError for a name that no restriction could mention: no identifier, or a keyword."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ConstrintError(f"the parameter name {shown(name)} in {where} is no identifier")
    if keyword.iskeyword(name) and name not in CONSTANTS:
        raise ConstrintError(
            f"the parameter name {name!r} in {where} is a keyword of Python, which no restriction can use as a name; "
            "rename it"
        )


def parse_restriction(text: str, variables: Collection[str], name: str = "") -> Expr:
    """Translate one restriction to a condition.

    variables: the names it may use. name: what messages call the text. Python's precedence and true division (kept
    exact), chained comparisons, ``and or not`` (also ``& | ~`` between comparisons), ``in`` a list of integers, a
    tuple of names ``in`` a list of tuples, ``min max abs``. A number where a condition is expected means: is not 0.

    Raises ParseError for anything that is more than arithmetic, an unknown name or a syntax error.
    """
    if not isinstance(text, str):
        raise ConstrintError(f"a restriction must be a string, not {shown(text)}")
    if len(text) > MAX_LENGTH:
        raise ConstrintError(f"the restriction has {len(text):,} characters; at most {MAX_LENGTH:,} are read")
    translator = _Translator(text, variables, name)
    try:
        # In parentheses, so that leading spaces and line breaks mean nothing.
        tree = ast.parse(f"({text}\n)", mode="eval", feature_version=(3, 11))
    except SyntaxError as error:
        raise translator.error(
            error.lineno or 1, (error.offset or 1) - 1, f"not a Python expression: {error.msg}"
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ParseError(f"not a Python expression: {error}", text[:80].split("\n")[0], 1, 1, name) from None
    body = tree.body
    if isinstance(body, ast.Tuple) and not body.elts and "(" not in text:
        raise ParseError(
            "the restriction is empty; it must be a condition, such as x <= 4", text.split("\n")[0], 1, 1, name
        )
    if body.lineno == 1 and body.col_offset == 0 and not isinstance(body, ast.Tuple | ast.GeneratorExp):
        # The expression begins at our own parenthesis, so the text closed it.
        raise translator.error(1, 1, "not a Python expression: unbalanced parentheses")
    try:
        return translator.condition(body)
    except RecursionError:
        raise ParseError("nested too deeply", text[:80].split("\n")[0], 1, 1, name) from None


class _Translator:
    def __init__(self, text: str, variables: Collection[str], name: str) -> None:
        self.lines, self.variables, self.name = text.split("\n"), variables, name

    def error(self, line: int, offset: int, reason: str) -> ParseError:
        """An error at a position of the text in parentheses. offset: in characters, from 0."""
        if line > len(self.lines):
            line, offset = len(self.lines), len(self.lines[-1]) + 1
        source = self.lines[line - 1]
        column = offset - (1 if line == 1 else 0)
        return ParseError(reason, source, line, min(max(column, 0), len(source)) + 1, self.name)

    def refuse(self, node: ast.AST, reason: str) -> ParseError:
        line = getattr(node, "lineno", 1)
        source = ("(" if line == 1 else "") + (self.lines[line - 1] if line <= len(self.lines) else "")
        offset = len(source.encode()[: getattr(node, "col_offset", 0)].decode(errors="replace"))
        return self.error(line, offset, reason)

    def condition(self, node: ast.expr) -> Expr:
        """A node where a condition is expected."""
        if isinstance(node, ast.BoolOp):
            op = "and" if isinstance(node.op, ast.And) else "or"
            result = self.condition(node.values[0])
            for value in node.values[1:]:
                result = Expr(op, (result, self.condition(value)))
            return result
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return Expr("not", (self.condition(node.operand),))
        result = self.expression(node)
        return result if result.is_condition else result != 0

    def expression(self, node: ast.expr) -> Expr:
        """A node where a number or a condition may stand."""
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name():
                if node.id not in self.variables:
                    known = ", ".join(self.variables) or "none"
                    raise self.refuse(node, f"unknown name {node.id!r}; the variables are: {known}")
                return build.variable(node.id)
            case ast.BinOp():
                return self._binary(node)
            case ast.UnaryOp():
                return self._unary(node)
            case ast.BoolOp():
                parts = [self.expression(value) for value in node.values]
                if not all(part.is_condition for part in parts):
                    raise self.refuse(node, "'and' and 'or' of numbers cannot be used as a number; compare each part")
                return self.condition(node)
            case ast.Compare():
                return self._compare(node)
            case ast.Call():
                return self._call(node)
        what = _REFUSED.get(type(node), type(node).__name__)
        raise self.refuse(node, f"{what} is more than arithmetic; only numbers, names, operators, min, max and abs")

    def _constant(self, node: ast.Constant) -> Expr:
        value = node.value
        if str(value) in CONSTANTS and str(value) in self.variables:
            return build.variable(str(value))
        if isinstance(value, bool | int):
            return build.as_expr(value)
        if isinstance(value, float) and value == value and abs(value) != float("inf"):
            # The decimal as it is written: 0.1 means 1/10.
            fraction = Fraction(repr(value))
            numerator = build.as_expr(fraction.numerator)
            return numerator if fraction.denominator == 1 else numerator / fraction.denominator
        raise self.refuse(node, f"{value!r} is no number; only integers and decimals")

    def _binary(self, node: ast.BinOp) -> Expr:
        left, right = self.expression(node.left), self.expression(node.right)
        if isinstance(node.op, ast.BitAnd | ast.BitOr):
            if not (left.is_condition and right.is_condition):
                raise self.refuse(node, "& and | join comparisons; bitwise arithmetic is not supported")
            return left & right if isinstance(node.op, ast.BitAnd) else left | right
        if type(node.op) not in _BINARY:
            raise self.refuse(node, "shifts, ^ and @ are not supported; only + - * / // % **")
        if isinstance(node.op, ast.Pow) and right.op == "neg" and right.args[0].op == "const":
            return Expr("/", (build.as_expr(1), Expr("**", (left, right.args[0]))))
        return Expr(_BINARY[type(node.op)], (left, right))

    def _unary(self, node: ast.UnaryOp) -> Expr:
        if isinstance(node.op, ast.Not):
            return Expr("not", (self.condition(node.operand),))
        operand = self.expression(node.operand)
        if isinstance(node.op, ast.Invert):
            if not operand.is_condition:
                raise self.refuse(node, "~ negates comparisons; bitwise arithmetic is not supported")
            return Expr("not", (operand,))
        return -operand if isinstance(node.op, ast.USub) else operand

    def _compare(self, node: ast.Compare) -> Expr:
        result: Expr | None = None
        left_node = node.left
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                part = self._member(left_node, right_node)
                part = part if isinstance(op, ast.In) else Expr("not", (part,))
            elif type(op) in _COMPARE:
                left, right = self.expression(left_node), self.expression(right_node)
                part = build.compare(_COMPARE[type(op)], left, right)
            else:
                raise self.refuse(node, "'is' compares objects; use == or !=")
            result = part if result is None else Expr("and", (result, part))
            left_node = right_node
        assert result is not None
        return result

    def _member(self, left: ast.expr, right: ast.expr) -> Expr:
        if not isinstance(right, ast.List | ast.Tuple | ast.Set):
            raise self.refuse(right, "'in' needs a list of integers in brackets")
        columns = list(left.elts) if isinstance(left, ast.Tuple) else [left]
        rows = []
        for element in right.elts:
            items = list(element.elts) if isinstance(left, ast.Tuple) and isinstance(element, ast.Tuple) else [element]
            if len(items) != len(columns):
                raise self.refuse(element, f"expected a tuple of {len(columns)} integers")
            rows.append([self._integer(item) for item in items])
        return build.table([self.expression(column) for column in columns], rows)

    def _integer(self, node: ast.expr) -> int:
        sign = 1
        while isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            sign, node = -sign, node.operand
        if isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool):
            return sign * node.value
        raise self.refuse(node, "expected an integer")

    def _call(self, node: ast.Call) -> Expr:
        function = node.func.id if isinstance(node.func, ast.Name) else ""
        if function not in ("min", "max", "abs"):
            raise self.refuse(node, "a call of anything but min, max and abs is more than arithmetic")
        if node.keywords or not node.args or (function == "abs") != (len(node.args) == 1):
            raise self.refuse(node, f"{function} takes {'one number' if function == 'abs' else 'two or more numbers'}")
        return Expr(function, tuple(self.expression(arg) for arg in node.args))
