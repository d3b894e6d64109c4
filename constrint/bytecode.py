"""What a Python function's code says of it: whether expressions in place of integers go every way that integers go.

Nothing is run. What is not known here is answered with "no", and so a newer Python's instructions are.
"""

from __future__ import annotations

import builtins
import dis
import linecache
import re
import types
from collections.abc import Callable, Collection, Iterator
from functools import cache
from typing import Any

_IDENTITY = frozenset(code for name, code in dis.opmap.items() if name == "IS_OP" or name.endswith("NONE"))
_KINDS = frozenset(("isinstance", "type", "id", "callable", "hasattr", "getattr", "repr", "str", "format"))

_MARKS = re.compile(r"""'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|[()\[\]{},\n]""")
"""Quoted text, brackets, and what else may end a lambda."""

_MOVES = """
BUILD_LIST BUILD_TUPLE CACHE COPY COPY_FREE_VARS END_FOR EXTENDED_ARG FOR_ITER GET_ITER JUMP_BACKWARD JUMP_FORWARD
JUMP_IF_FALSE_OR_POP JUMP_IF_TRUE_OR_POP LIST_EXTEND LOAD_CONST LOAD_DEREF LOAD_FAST LOAD_FAST_BORROW
LOAD_FAST_BORROW_LOAD_FAST_BORROW LOAD_FAST_CHECK LOAD_FAST_LOAD_FAST LOAD_GLOBAL LOAD_SMALL_INT NOP NOT_TAKEN
POP_ITER POP_JUMP_BACKWARD_IF_FALSE POP_JUMP_BACKWARD_IF_TRUE POP_JUMP_FORWARD_IF_FALSE POP_JUMP_FORWARD_IF_TRUE
POP_JUMP_IF_FALSE POP_JUMP_IF_TRUE POP_TOP PRECALL PUSH_NULL RESUME RETURN_CONST RETURN_VALUE STORE_FAST
STORE_FAST_LOAD_FAST STORE_FAST_STORE_FAST SWAP UNPACK_SEQUENCE
"""
_COMPUTES = "BINARY_OP BINARY_SUBSCR CALL COMPARE_OP CONTAINS_OP TO_BOOL UNARY_NEGATIVE UNARY_NOT"
_INSTRUCTIONS = frozenset(_MOVES.split()) | frozenset(_COMPUTES.split())
_OPERATORS = ("+", "-", "*", "//", "%", "&", "|", "+=", "-=", "*=", "//=", "%=", "&=", "|=")
_BINARY_OP = dis.opmap["BINARY_OP"]
_CALLED = (abs, all, any, int, max, min, range, sum)
"""What asks expressions for nothing but arithmetic, comparisons and whether they hold."""


def asks_what_it_is_given(function: Callable[..., Any]) -> bool:
    """Whether a function tells an expression from a value: by ``is``, or by its type or text."""
    # Every other byte of a code is an operator, or 0.
    return any(_KINDS & set(code.co_names) or not _IDENTITY.isdisjoint(code.co_code[::2]) for code in _codes(function))


def texts(function: Callable[..., Any]) -> set[str]:
    """The text that stands in a function's code."""
    return {constant for code in _codes(function) for constant in code.co_consts if isinstance(constant, str)}


def is_arithmetic(function: Callable[..., Any], names: Collection[str]) -> bool:
    """Whether a function does nothing with what it is called with, integers or a mapping of them by ``names``, but
    whole-number arithmetic, comparisons and branches, so that what it says of expressions it says of integers: it
    calls nothing that could tell them apart, catches nothing, and all else that it holds are whole numbers."""
    if not isinstance(function, types.FunctionType):
        return False
    code = function.__code__
    if code.co_exceptiontable or function.__kwdefaults__:
        return False
    held = list(function.__defaults__ or ())
    try:
        held += [cell.cell_contents for cell in function.__closure__ or ()]
        held += [_global(function, name) for name in code.co_names]
    except (LookupError, ValueError):  # what is not there yet
        return False
    if not all(_is_whole(value) or any(value is known for known in _CALLED) for value in held):
        return False
    if not all(_is_constant(value, names) or value == function.__doc__ for value in code.co_consts):
        return False
    instructions, operators = _known()
    operations, arguments = code.co_code[::2], code.co_code[1::2]
    return instructions.issuperset(operations) and all(
        argument in operators
        for operation, argument in zip(operations, arguments, strict=True)
        if operation == _BINARY_OP
    )


def lambda_text(function: Callable[..., Any]) -> str | None:
    """A lambda as it is written, in one line; None where its file is not there."""
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    lines = linecache.getlines(code.co_filename, getattr(function, "__globals__", None))
    # RESUME and the like have no column, or none but 0.
    spans = {
        (row, column, end_row, end)
        for row, end_row, column, end in code.co_positions()
        if row and column and end_row and end
    }
    if not spans:
        return None
    first, last = min(spans)[:2], max([span[2:] for span in spans])
    if last[0] > len(lines):
        return None
    lines = lines[code.co_firstlineno - 1 : last[0] + 3]

    def offset(row: int, column: int) -> int:
        place = row - code.co_firstlineno
        return sum(map(len, lines[:place])) + len(lines[place].encode()[:column].decode())

    text = "".join(lines)
    start = text.rfind("lambda", 0, offset(*first))
    return _closed(text, start, offset(*last)) if start >= 0 else None


@cache
def _known() -> tuple[frozenset[int], frozenset[int]]:
    """The instructions that compute or only move things, and the operators among the arguments of BINARY_OP; as they
    stand in a code, where 0 fills what a running function keeps of its own."""
    instructions = {dis.opmap[name] for name in _INSTRUCTIONS if name in dis.opmap}
    written = [compile(f"a {operator} b", "", "exec").co_code for operator in _OPERATORS]
    written.append(compile("a[b]", "", "eval").co_code)  # a binary operator from 3.14 on
    pairs = [pair for code in written for pair in zip(code[::2], code[1::2], strict=True)]
    operators = {argument for operation, argument in pairs if operation == _BINARY_OP}
    return frozenset(instructions | {0}), frozenset(operators)


def _codes(function: Callable[..., Any]) -> Iterator[types.CodeType]:
    """A function's code, and that of the functions in it."""
    waiting = [getattr(function, "__code__", None)]
    while waiting:
        code = waiting.pop()
        if code is not None:
            yield code
            waiting += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]


def _global(function: types.FunctionType, name: str) -> object:
    return function.__globals__[name] if name in function.__globals__ else vars(builtins)[name]


def _is_whole(value: object) -> bool:
    return type(value) is int or type(value) is bool


def _is_constant(value: object, names: Collection[str]) -> bool:
    """Whether a constant is a whole number, a name, nothing at all, or a tuple of these."""
    if isinstance(value, tuple):
        return all(_is_constant(each, names) for each in value)
    return value is None or _is_whole(value) or (isinstance(value, str) and value in names)


def _closed(text: str, start: int, end: int) -> str:
    """The lambda at ``start`` whose body goes on to ``end`` at least, up to the bracket, comma or line that ends it."""
    depth = 0
    stop = len(text)
    for found in _MARKS.finditer(text, start):
        mark, place = found[0], found.start()
        if mark in "([{":
            depth += 1
        elif mark in ")]}":
            depth -= 1
        if place >= end and (depth < 0 or (depth == 0 and mark in ",\n")):
            stop = place
            break
    return " ".join(text[start:stop].split())
