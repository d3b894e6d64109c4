"""The ConstrINT text format, read; ``constrint.constrint_printing`` writes it.

    # a comment
    WARPS == [1, 2, 4, 8];                  a value list: the variable's domain
    HIDDEN == 768;
    HIDDEN % WARPS * TILE == 0;             % binds loosest: WARPS * TILE divides HIDDEN
    SHARED == 2 * HIDDEN * TILE ^ 2;
    SHARED <= 165000;
    WARPS == 1 |
    TILE <= 16;                             or

The format is that of FlashRNN's ConstrINT (Poeppel, Beck, Hochreiter, arXiv:2412.07752) with these extensions:
parentheses group, ``!= < > >=``, ``& ~``, ``- // /``, ``cdiv min max abs``, a range ``[1 .. 64]`` or
``[8 .. 64 by 8]`` in a value list, a value list after any expression, not only a variable, and a table of rows,
``(A, B) == [(1, 2), (2, 4)]``. Strongest to weakest:
``^``, unary ``-``, ``* // /``, ``+ -``, ``%``, comparisons, ``~``, ``&``, ``|``. A chain ``1 <= A <= 4`` means both.

A variable is declared where it first appears. Its domain is the first list it is equated with, in a statement of its
own; without one, 1 to 2**30, as in ConstrINT.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from constrint import expr as build
from constrint import operators
from constrint.domains import Domain, size
from constrint.errors import ConstrintError, ParseError
from constrint.expr import COMPARISONS, Expr
from constrint.integers import shown
from constrint.model import Problem

DEFAULT_DOMAIN = range(1, 2**30 + 1)
MAX_DEPTH = 50

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\f]+|#[^\n]*)|(?P<newline>\n)|(?P<number>\d+)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<symbol>//|==|!=|<=|>=|\.\.|[-+*/%^()\[\],;|&~<>])"
)
_INTEGERS = "this text holds integers alone; a space, in JSON or YAML, also holds decimals and text"
_MEANT = {"=": "equality is written ==", "!": "not is written ~", ".": _INTEGERS, '"': _INTEGERS, "'": _INTEGERS}
"""Characters of other languages, and what to write instead."""
_DOUBLED = {"&": "and is written &", "|": "or is written |"}
_FUNCTIONS = ("cdiv", "min", "max", "abs")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int


@dataclass(frozen=True)
class _Values:
    """A value list, and where it stands. No values: the domain is an empty tuple."""

    domain: Domain
    token: _Token


@dataclass(frozen=True)
class _Rows:
    """A list of rows, and where it stands."""

    rows: list[tuple[int, ...]]
    token: _Token


@dataclass(frozen=True)
class _Columns:
    """The columns of a table, and where they stand."""

    columns: list[Expr]
    token: _Token


_Operand = Expr | _Values | _Rows | _Columns


def parse_constrint(text: str, name: str = "problem") -> Problem:
    """The problem written in ``text``. name: what messages call it.

    Raises ParseError with line and column for text that does not follow the grammar.
    """
    if not isinstance(text, str):
        raise ConstrintError(f"ConstrINT text must be a string, not {shown(text)} ({type(text).__name__})")
    parser = _Parser(text, name)
    try:
        return parser.problem()
    except RecursionError:
        raise parser.error("nested too deeply", parser.tokens[-1].start if parser.tokens else 0) from None


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self.text, self.name = text, name
        self.tokens: list[_Token] = []
        self.place = self.position = self.depth = 0
        self.order: dict[str, None] = {}
        self.domains: dict[str, Domain] = {}
        self.constraints: list[tuple[Expr, str]] = []

    def problem(self) -> Problem:
        while self._peek().kind != "end":
            self._statement()
        problem = Problem(self.name)
        for variable in self.order:
            problem.variable(variable, self.domains.get(variable, DEFAULT_DOMAIN))
        for condition, label in self.constraints:
            problem.add(condition, label)
        return problem

    def _token(self, number: int) -> _Token:
        """The token of that number (beyond the last, the end). The text is read no further than the parser looks."""
        while len(self.tokens) <= number:
            if self.place >= len(self.text):
                return _Token("end", "", len(self.text.rstrip()))
            match = _TOKEN.match(self.text, self.place)
            if match is None:
                raise self._strange()
            if match.lastgroup == "name" and unicodedata.normalize("NFKC", match.group()) != match.group():
                raise self.error(f"the name {match.group()!r} is not in Unicode's normal form", self.place)
            if match.lastgroup not in ("space", "newline"):
                self.tokens.append(_Token(match.lastgroup or "", match.group(), self.place))
            self.place = match.end()
        return self.tokens[number]

    def _strange(self) -> ParseError:
        """The error for a character that begins nothing, with what may have been meant."""
        character = self.text[self.place]
        hint = _MEANT.get(character, "")
        return self.error(f"unexpected character {character!r}" + (f"; {hint}" if hint else ""), self.place)

    def error(self, reason: str, start: int) -> ParseError:
        """An error at a place in the text, in characters from 0."""
        line = self.text.count("\n", 0, start) + 1
        first = self.text.rfind("\n", 0, start) + 1
        source = self.text[first:].split("\n", 1)[0]
        return ParseError(reason, source, line, start - first + 1, self.name)

    def _peek(self) -> _Token:
        return self._token(self.position)

    def _take(self, *symbols: str) -> str | None:
        """Consume one of ``symbols`` if it comes next."""
        token = self._peek()
        if token.kind == "symbol" and token.text in symbols:
            self.position += 1
            return token.text
        return None

    def _expect(self, symbol: str, after: str) -> None:
        if self._take(symbol) is None:
            raise self._unexpected(f"expected '{symbol}' {after}")

    def _unexpected(self, reason: str) -> ParseError:
        token = self._peek()
        found = f"found {token.text!r}" if token.text else "found the end of the text"
        twice = self.text[token.start - 1 : token.start] == token.text
        meant = f"; {_DOUBLED[token.text]}" if twice and token.text in _DOUBLED else ""
        return self.error(f"{reason}, {found}{meant}", token.start)

    def _statement(self) -> None:
        first = self._peek()
        if self._take(";"):
            return
        if self._domain():
            return
        condition = self._condition(first, self._any())
        label = " ".join(self.text[first.start : self._peek().start].split("#")[0].split())
        if "#" in self.text[first.start : self._peek().start]:
            label = str(condition)
        self._expect(";", "at the end of the statement")
        self.constraints.append((condition, label))

    def _domain(self) -> bool:
        """A statement NAME == [values]; that declares a variable, if that is what comes next."""
        name, equals, bracket = (self._token(self.position + ahead) for ahead in range(3))
        if name.kind != "name" or equals.text != "==" or bracket.text != "[" or name.text in self.domains:
            return False
        start = self.position
        self.position += 2
        values = self._list()
        if isinstance(values, _Rows) or not values.domain or self._take(";") is None:
            self.position = start
            return False
        self.order[name.text] = None
        self.domains[name.text] = values.domain
        return True

    def _condition(self, token: _Token, value: _Operand) -> Expr:
        if not isinstance(value, Expr):
            raise self.error(f"{_words(value)} on one side of == or !=", value.token.start)
        if not value.is_condition:
            raise self.error("expected a condition, such as A <= B; this is a number", token.start)
        return value

    def _number(self, token: _Token, value: _Operand) -> Expr:
        if not isinstance(value, Expr):
            raise self.error(f"{_words(value)} alone on one side of == or !=", value.token.start)
        if value.is_condition:
            raise self.error("expected a number; this is a condition", token.start)
        return value

    def _any(self) -> _Operand:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"parentheses nested more than {MAX_DEPTH} deep", self._peek().start)
        value = self._joined(0)
        self.depth -= 1
        return value

    def _joined(self, level: int) -> _Operand:
        """Conditions joined by | (level 0) or & (level 1)."""
        if level == 2:
            return self._negated()
        token = self._peek()
        value = self._joined(level + 1)
        while self._take("|&"[level]):
            right_token = self._peek()
            right = self._condition(right_token, self._joined(level + 1))
            left = self._condition(token, value)
            value = left | right if level == 0 else left & right
        return value

    def _negated(self) -> _Operand:
        inversions = 0
        while self._take("~"):
            inversions += 1
        token = self._peek()
        value = self._comparison()
        for _ in range(inversions):
            value = ~self._condition(token, value)
        return value

    def _comparison(self) -> _Operand:
        token = self._peek()
        left = self._modulo()
        result: Expr | None = None
        while op := self._take(*COMPARISONS):
            right_token = self._peek()
            right = self._modulo()
            part = self._compare(op, token, left, right_token, right)
            result = part if result is None else result & part
            token, left = right_token, right
        return left if result is None else result

    def _compare(self, op: str, token: _Token, left: _Operand, right_token: _Token, right: _Operand) -> Expr:
        lists = _Values | _Rows
        if isinstance(left, lists) and not isinstance(right, lists):
            token, left, right_token, right = right_token, right, token, left
        if isinstance(right, lists) and op not in ("==", "!="):
            raise self.error("a value list can only be compared with == or !=", right.token.start)
        if isinstance(left, _Columns):
            member = self._table(left, right_token, right)
            return member if op == "==" else ~member
        number = self._number(token, left)
        if isinstance(right, _Values):
            member = number.isin(right.domain)
            return member if op == "==" else ~member
        other = self._number(right_token, right)
        return operators.compare(op, number, other)

    def _table(self, left: _Columns, right_token: _Token, right: _Operand) -> Expr:
        rows: list[tuple[int, ...]] = []
        if isinstance(right, _Rows):
            rows = right.rows
        elif not isinstance(right, _Values) or right.domain:
            raise self.error("columns in parentheses are compared with a list of rows, [(1, 2)]", right_token.start)
        for row in rows:
            if len(row) != len(left.columns):
                words = f"{len(left.columns)} columns, but a row of {len(row)} values"
                raise self.error(words, right_token.start)
        return operators.table(left.columns, rows)

    def _modulo(self) -> _Operand:
        """Terms joined by %, which binds looser than + and *."""
        token = self._peek()
        value = self._sum()
        while self._take("%"):
            right_token = self._peek()
            value = self._number(token, value) % self._number(right_token, self._sum())
        return value

    def _sum(self) -> _Operand:
        token = self._peek()
        value = self._product()
        while op := self._take("+", "-"):
            right_token = self._peek()
            value = Expr(op, (self._number(token, value), self._number(right_token, self._product())))
        return value

    def _product(self) -> _Operand:
        token = self._peek()
        value = self._unary()
        while op := self._take("*", "//", "/"):
            right_token = self._peek()
            value = Expr(op, (self._number(token, value), self._number(right_token, self._unary())))
        return value

    def _unary(self) -> _Operand:
        negative = False
        while self._take("-"):
            negative = not negative
        token = self._peek()
        value = self._power()
        if not negative:
            return value
        number = self._number(token, value)
        return build.as_expr(-number.value) if number.op == "const" else -number

    def _power(self) -> _Operand:
        token = self._peek()
        value = self._atom()
        if self._take("^"):
            right_token = self._peek()
            return self._number(token, value) ** self._number(right_token, self._power())
        return value

    def _atom(self) -> _Operand:
        token = self._peek()
        if token.kind == "number":
            self.position += 1
            return build.as_expr(self._integer(token))
        if token.kind == "name":
            self.position += 1
            if token.text in _FUNCTIONS and self._peek().text == "(":
                return self._call(token)
            self.order[token.text] = None
            return build.variable(token.text)
        if token.text == "[":
            return self._list()
        if self._take("("):
            inner = self._peek()
            value = self._any()
            if self._peek().text == ",":
                columns = [self._number(inner, value)]
                while self._take(","):
                    inner = self._peek()
                    columns.append(self._number(inner, self._any()))
                self._expect(")", "to close the columns")
                return _Columns(columns, token)
            self._expect(")", "to close the parenthesis")
            return value
        raise self._unexpected("expected a number, a variable, a value list or '('")

    def _integer(self, token: _Token) -> int:
        try:
            return int(token.text)
        except ValueError:
            raise self.error("a number of more digits than Python reads", token.start) from None

    def _call(self, function: _Token) -> Expr:
        self._expect("(", f"after {function.text}")
        args = []
        while True:
            token = self._peek()
            args.append(self._number(token, self._any()))
            if not self._take(","):
                break
        self._expect(")", f"to close {function.text}(")
        wanted = {"cdiv": 2, "abs": 1}.get(function.text)
        if wanted is not None and len(args) != wanted:
            raise self.error(f"{function.text} takes {wanted} numbers, not {len(args)}", function.start)
        return args[0] if function.text in ("min", "max") and len(args) == 1 else Expr(function.text, tuple(args))

    def _list(self) -> _Values | _Rows:
        bracket = self._peek()
        self._expect("[", "to open a value list")
        if self._take("]"):
            return _Values((), bracket)
        if self._peek().text == "(":
            return self._rows(bracket)
        items: list[range] = []
        while True:
            low = self._signed()
            high, step = low, 1
            if self._take(".."):
                high = self._signed()
                if self._peek().text == "by":
                    self.position += 1
                    step = self._signed()
            if step < 1 or high < low:
                raise self.error("an empty range in the value list", bracket.start)
            items.append(range(low, high + 1, step))
            if not self._take(","):
                break
        self._expect("]", "to close the value list")
        if len(items) == 1:
            return _Values(items[0], bracket)
        total = sum(size(item) for item in items)
        if total > 1_000_000:
            raise self.error(f"the value list has {total:,} values; at most 1,000,000", bracket.start)
        return _Values(tuple(sorted({value for item in items for value in item})), bracket)

    def _rows(self, bracket: _Token) -> _Rows:
        rows = []
        while True:
            self._expect("(", "to open a row")
            row = [self._signed()]
            while self._take(","):
                row.append(self._signed())
            self._expect(")", "to close the row")
            rows.append(tuple(row))
            if not self._take(","):
                break
        self._expect("]", "to close the list of rows")
        return _Rows(rows, bracket)

    def _signed(self) -> int:
        negative = self._take("-") is not None
        token = self._peek()
        if token.kind != "number":
            raise self._unexpected("expected an integer in the value list")
        self.position += 1
        return -self._integer(token) if negative else self._integer(token)


def _words(value: _Values | _Rows | _Columns) -> str:
    return "the columns of a table stand" if isinstance(value, _Columns) else "a value list stands"
