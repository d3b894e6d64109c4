"""Restrictions written as Python expressions, as Kernel Tuner writes them: parse.

The text is parsed with the ``ast`` module and translated node by node; nothing is ever evaluated as Python.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Collection

from constrint.errors import ConstrintError, ParseError
from constrint.expr import Expr
from constrint.integers import shown
from constrint.python_names import substitute
from constrint.python_translator import CONSTANTS, Translator
from constrint.vocabulary import NONE, Reading, Vocabulary

MAX_LENGTH = 100_000
_NO_CONDITION = "the restriction is empty; it must be a condition, such as x <= 4"


def check_python_name(name: object, where: str) -> None:
    """Raise ConstrintError for a name that no restriction could mention: no identifier, or a keyword."""
    if not isinstance(name, str):
        hint = "; YAML reads on, off, yes and no as truth values: quote the name" if isinstance(name, bool) else ""
        raise ConstrintError(f"the parameter name {shown(name)} in {where} is no identifier{hint}")
    if keyword.iskeyword(name) and name not in CONSTANTS:
        raise ConstrintError(
            f"the parameter name {name!r} in {where} is a keyword of Python, which no restriction can use as a name; "
            "rename it"
        )


def parse_restriction(
    text: str,
    variables: Collection[str],
    name: str = "",
    texts: Collection[str] = (),
    vocabulary: Vocabulary = NONE,
) -> Expr:
    """Translate one restriction to a condition.

    variables: the names it may use; one that is no identifier may also be written ``p["its name"]``. name: what
    messages call the text. texts: the variables whose values are not all numbers. vocabulary: other names it may use.
    Python's precedence and true division (kept exact), chained comparisons, ``and or not`` (also ``& | ^ ~`` between
    comparisons, and on the bits of numbers), ``in`` a list, a range or, of a tuple, a list of tuples, conditional
    expressions, a list's element, functions. A number where a condition is expected means: is not 0.

    Raises ParseError for anything that is more than arithmetic, an unknown name or a syntax error.
    """
    return _parsed(text, variables, name, texts, False, Reading(vocabulary))


def parse_constraints(
    text: str, variables: Collection[str], name: str, texts: Collection[str], vocabulary: Vocabulary
) -> list[tuple[Expr, str]]:
    """One restriction as conditions with the words for them: see ``Reading.constraints``. Raises as above."""
    reading = Reading(vocabulary)
    condition = _parsed(text, variables, name, texts, False, reading)
    return reading.constraints(condition, text.strip())


def parse_number(
    text: str,
    variables: Collection[str],
    name: str = "",
    vocabulary: Vocabulary = NONE,
    texts: Collection[str] = (),
) -> Expr:
    """Translate an expression, such as an objective, as ``parse_restriction`` does; what is a condition stays one."""
    return _parsed(text, variables, name, texts, True, Reading(vocabulary))


def _parsed(
    text: str, variables: Collection[str], name: str, texts: Collection[str], number: bool, reading: Reading
) -> Expr:
    if not isinstance(text, str):
        raise ConstrintError(f"a restriction must be a string, not {shown(text)}")
    if len(text) > MAX_LENGTH:
        raise ConstrintError(f"the restriction has {len(text):,} characters; at most {MAX_LENGTH:,} are read")
    read = substitute(text, variables, name)
    translator = Translator(text, read, variables, name, texts, reading)
    try:
        # In parentheses, so that leading spaces and line breaks mean nothing.
        tree = ast.parse(f"({read.text}\n)", mode="eval", feature_version=(3, 11))
    except SyntaxError as error:
        raise translator.error(
            error.lineno or 1, (error.offset or 1) - 1, f"not a Python expression: {error.msg}"
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ParseError(f"not a Python expression: {error}", text[:80].split("\n")[0], 1, 1, name) from None
    body = tree.body
    if isinstance(body, ast.Tuple) and not body.elts and "(" not in text:
        needed = "the expression is empty; it must be a number, such as 2 * x" if number else _NO_CONDITION
        raise ParseError(needed, text.split("\n")[0], 1, 1, name)
    if body.lineno == 1 and body.col_offset == 0 and not isinstance(body, ast.Tuple | ast.GeneratorExp):
        # The expression begins at our own parenthesis, so the text closed it.
        raise translator.error(1, 1, "not a Python expression: unbalanced parentheses")
    try:
        return translator.expression(body) if number else translator.condition(body)
    except RecursionError:
        raise ParseError("nested too deeply", text[:80].split("\n")[0], 1, 1, name) from None
