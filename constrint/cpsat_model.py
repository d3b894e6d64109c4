"""A program as a model of OR-tools CP-SAT.

Every node becomes a CP-SAT variable or literal. A node that may be undefined carries a literal that says whether it is
defined, so that Kleene's logic (see ``constrint.evaluate``) is kept exactly. CP-SAT's division rounds towards zero and
its modulo takes the sign of the dividend: both are stated here by floor quotient and remainder instead. What it cannot
hold (numbers beyond 2**61) raises ConstrintError.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from constrint import intervals
from constrint.errors import ConstrintError
from constrint.expr import Expr
from constrint.lower import Lowering
from constrint.native import SAFE, fits
from constrint.program import Code, Op, Program, Tree
from constrint.statement import Constraint

TABLE_LIMIT = 1 << 16
"""A power is stated as a table of base, exponent and result; its domains may multiply to this many rows."""

TOO_LARGE = "CP-SAT cannot hold numbers beyond 2**61, which this problem may reach; use the native engine"


@dataclass(frozen=True)
class Node:
    """One node of a constraint in the model. Every operation is made total, so that the values of the variables
    decide every node: what is undefined has the value 0 or false, or computes with it.

    value: a linear expression, or a literal: true where the condition is. defined: a literal. low, high: what the
    number can be, placeholders included.
    """

    value: Any
    defined: Any
    low: int = 0
    high: int = 1


class Model:
    """One program as a CP-SAT model. variables: by position; holds: the objective of ``best``, if there is one.

    constraints: of the problem, by number: those of many variables are stated as CP-SAT's own.
    """

    def __init__(self, program: Program, constraints: Sequence[Constraint] = (), objective: Tree | None = None) -> None:
        from ortools.sat.python import cp_model

        objective_code = None if objective is None else Code.of(objective)
        checked = [*program.codes, *([] if objective_code is None else [objective_code])]
        if not fits(Program(program.names, program.domains, checked)):
            raise ConstrintError(TOO_LARGE)
        self.cp, self.program = cp_model, program
        self.model: Any = cp_model.CpModel()
        self.low = [domain[0] for domain in program.domains]
        self.high = [domain[-1] for domain in program.domains]
        self.variables = [self._variable(v) for v in range(len(program.names))]
        self.true = self.model.new_constant(1)
        stated = {
            number
            for number in {code.source for code in program.codes if code.source < len(constraints)}
            if self._whole(constraints[number].whole)
        }
        for code in program.codes:
            if code.source not in stated:
                self._require(code)
        self.objective: Any = None
        if objective_code is not None:
            node = self._build(objective_code)[-1]
            self.objective, self.least = node.value, node.low
            self.model.add_bool_and([node.defined])

    def _whole(self, expr: Expr | None) -> bool:
        """State a constraint of many variables; whether it could be."""
        if expr is None:
            return False
        places = {name: v for v, name in enumerate(self.program.names)}
        lowering = Lowering(places, lambda v: (self.low[v], self.high[v]))
        trees = [lowering.number(arg) for arg in expr.args]
        if any(denominator is not None for _, denominator in trees):
            return False
        codes = [Code.of(numerator) for numerator, _ in trees]
        if not fits(Program(self.program.names, self.program.domains, codes)):
            return False
        nodes = [self._build(code)[-1] for code in codes]
        if any(node.defined is not self.true for node in nodes):
            return False
        if expr.op == "all_different":
            self.model.add_all_different([node.value for node in nodes])
            return True
        size = len(nodes) // 3
        starts, durations, demands = (nodes[size * i : size * (i + 1)] for i in range(3))
        if any(node.low < 0 for node in (*durations, *demands)):
            return False
        intervals_ = [
            self.model.new_interval_var(
                begin := self._alone(start),
                length := self._alone(duration),
                self._end(start, duration, begin, length),
                "",
            )
            for start, duration in zip(starts, durations, strict=True)
        ]
        self.model.add_cumulative(intervals_, [self._alone(demand) for demand in demands], self._alone(nodes[-1]))
        return True

    def _alone(self, node: Node) -> Any:
        """A number as one variable, or a constant."""
        if isinstance(node.value, int):
            return node.value
        variable = self._number(node.low, node.high)
        self.model.add(variable == node.value)
        return variable

    def _end(self, start: Node, duration: Node, begin: Any, length: Any) -> Any:
        end = self._number(start.low + duration.low, start.high + duration.high)
        self.model.add(end == begin + length)
        return end

    def _variable(self, v: int) -> Any:
        domain, name = self.program.domains[v], self.program.names[v]
        if not isinstance(domain, range):
            return self.model.new_int_var_from_domain(self.cp.Domain.from_values(list(domain)), name)
        if domain.step == 1:
            return self.model.new_int_var(domain[0], domain[-1], name)
        place = self.model.new_int_var(0, (domain[-1] - domain[0]) // domain.step, f"place of {name}")
        variable = self.model.new_int_var(domain[0], domain[-1], name)
        self.model.add(variable == domain[0] + domain.step * place)
        return variable

    def _number(self, low: int, high: int) -> Any:
        # OR-tools refuses larger ones in one way or another: here, whatever its version, in words. The sum of two
        # numbers that are safe may be held.
        if max(abs(low), abs(high)) > 2 * SAFE:
            raise ConstrintError(TOO_LARGE)
        return self.model.new_int_var(low, high, "")

    def _literal(self) -> Any:
        return self.model.new_bool_var("")

    def _both(self, *literals: Any) -> Any:
        """A literal that is the conjunction of others."""
        needed = [literal for literal in literals if literal is not self.true]
        if len(needed) < 2:
            return needed[0] if needed else self.true
        result = self._literal()
        self.model.add_bool_and(needed).only_enforce_if(result)
        self.model.add_bool_or([*(literal.Not() for literal in needed), result])
        return result

    def _require(self, code: Code) -> None:
        """State a constraint, without a literal where CP-SAT has it as its own."""
        nodes = self._build(code, len(code.ops) - 1)
        op, a, b = code.ops[-1], code.a[-1], code.b[-1]
        if op in (Op.TABLE, Op.NOT_TABLE):
            operands, rows = code.tables[a]
            if all(nodes[node].defined is self.true for node in operands):
                columns = [self._column(code, node, nodes[node]) for node in operands]
                if op == Op.TABLE:
                    self.model.add_allowed_assignments(columns, rows)
                else:
                    self.model.add_forbidden_assignments(columns, rows)
                return
        if op in (Op.EQ, Op.NE, Op.LE):
            left, right = nodes[a], nodes[b]
            compared = self._compared(op, left.value, right.value)[0]
            if left.defined is self.true and right.defined is self.true and not isinstance(compared, bool):
                self.model.add(compared)
                return
        self.model.add_bool_and([self._node(code, len(code.ops) - 1, nodes).value])

    def _column(self, code: Code, node: int, built: Node) -> Any:
        if code.ops[node] == Op.VAR:
            return built.value
        value = self._alone(built)
        return self.model.new_constant(value) if isinstance(value, int) else value

    def _build(self, code: Code, stop: int | None = None) -> list[Node]:
        """The nodes of a code; those before number ``stop``, by default all."""
        nodes: list[Node] = []
        for number in range(len(code.ops) if stop is None else stop):
            nodes.append(self._node(code, number, nodes))
        return nodes

    def _node(self, code: Code, number: int, nodes: Sequence[Node]) -> Node:
        """A node, of those before it. Raises ConstrintError for a number that CP-SAT cannot hold."""
        op, a, b = code.ops[number], code.a[number], code.b[number]
        if op == Op.VAR:
            node = Node(self.variables[a], self.true, self.low[a], self.high[a])
        elif op == Op.CONST:
            node = Node(a, self.true, a, a)
        elif op in (Op.TRUE, Op.FALSE):
            node = Node(self.true if op == Op.TRUE else self.true.Not(), self.true)
        elif op in (Op.TABLE, Op.NOT_TABLE):
            node = self._table(code, op, a, nodes)
        elif op < Op.INDICATOR:
            node = self._arithmetic(op, nodes[a], nodes[b])
        elif op == Op.INDICATOR:
            node = nodes[a]
        elif op in (Op.AND, Op.OR):
            node = self._logic(op, nodes[a], nodes[b])
        else:
            node = self._comparison(op, nodes[a], nodes[b])
        if max(abs(node.low), abs(node.high)) > SAFE:
            raise ConstrintError(TOO_LARGE)
        return node

    def _logic(self, op: int, left: Node, right: Node) -> Node:
        # A literal is false where its node is undefined, so "is false" needs the definedness too.
        p_false, q_false = self._both(left.value.Not(), left.defined), self._both(right.value.Not(), right.defined)
        if op == Op.AND:
            truth = self._both(left.value, right.value)
            falsehood = self._both(p_false.Not(), q_false.Not()).Not()
        else:
            truth = self._both(left.value.Not(), right.value.Not()).Not()
            falsehood = self._both(p_false, q_false)
        if left.defined is self.true and right.defined is self.true:
            return Node(truth, self.true)
        return Node(truth, self._both(truth.Not(), falsehood.Not()).Not())

    def _comparison(self, op: int, left: Node, right: Node) -> Node:
        p, q = left.value, right.value
        if op in (Op.DIVIDES, Op.NOT_DIVIDES):
            rest = self._divide(right, left)[1]
            defined, p, q = rest.defined, rest.value, 0
            op = Op.EQ if op == Op.DIVIDES else Op.NE
        else:
            defined = self._both(left.defined, right.defined)
        return Node(self._both(self._reify(*self._compared(op, p, q)), defined), defined)

    def _compared(self, op: int, p: Any, q: Any) -> tuple[Any, Any]:
        """A comparison and its opposite."""
        if op == Op.LE:
            return p <= q, p > q
        return (p == q, p != q) if op == Op.EQ else (p != q, p == q)

    def _reify(self, condition: Any, opposite: Any) -> Any:
        """The literal of a linear condition, which is a plain bool between constants."""
        if isinstance(condition, bool):
            return self.true if condition else self.true.Not()
        literal = self._literal()
        self.model.add(condition).only_enforce_if(literal)
        self.model.add(opposite).only_enforce_if(literal.Not())
        return literal

    def _table(self, code: Code, op: int, number: int, nodes: Sequence[Node]) -> Node:
        operands, rows = code.tables[number]
        columns = [nodes[node] for node in operands]
        defined = self._both(*(column.defined for column in columns))
        matches = []
        for row in rows:
            tests = [self._reify(column.value == x, column.value != x) for column, x in zip(columns, row, strict=True)]
            matches.append(self._both(*tests))
        member = self._both(*(match.Not() for match in matches)).Not()
        return Node(self._both(member if op == Op.TABLE else member.Not(), defined), defined)

    def _arithmetic(self, op: int, left: Node, right: Node) -> Node:
        p, q = left.value, right.value
        if op in (Op.FDIV, Op.MOD):
            return self._divide(left, right)[0 if op == Op.FDIV else 1]
        if op == Op.NONZERO:
            return Node(p, self._both(left.defined, self._reify(p != 0, p == 0)), left.low, left.high)
        defined = self._both(left.defined, right.defined)
        if op == Op.POW:
            return self._power(left, right, defined)
        x, y = (left.low, left.high, 0), (right.low, right.high, 0)
        low, high, _ = intervals.absolute(x) if op == Op.ABS else intervals.ARITHMETIC[Op(op)](x, y)
        if op in (Op.ADD, Op.SUB):
            return Node(p + q if op == Op.ADD else p - q, defined, low, high)
        if op == Op.MUL and (left.low == left.high or right.low == right.high):
            scale, scaled = (left.low, q) if left.low == left.high else (right.low, p)
            # Where the product is 0 its factor may be any number, and too large.
            return Node(scale * scaled if low or high else 0, defined, low, high)
        value = self._number(low, high)
        if op == Op.MUL:
            self.model.add_multiplication_equality(value, [p, q])
        elif op == Op.ABS:
            self.model.add_abs_equality(value, p)
        elif op == Op.MIN:
            self.model.add_min_equality(value, [p, q])
        else:
            self.model.add_max_equality(value, [p, q])
        return Node(value, defined, low, high)

    def _divide(self, number: Node, divisor: Node) -> tuple[Node, Node]:
        """Floor quotient and remainder; both are 0 where the divisor is."""
        p, q = number.value, divisor.value
        nonzero = self._reify(q != 0, q == 0)
        spans = (number.low, number.high, 0), (divisor.low, divisor.high, 0)
        (least, most), (first, last) = (_or_zero(intervals.ARITHMETIC[op](*spans)) for op in (Op.FDIV, Op.MOD))
        quotient, rest = self._number(least, most), self._number(first, last)
        if isinstance(q, int):
            product = q * quotient
        else:
            product = self._number(min(0, number.low - last), max(0, number.high - first))
            self.model.add_multiplication_equality(product, [q, quotient])
        self.model.add(product + rest == p).only_enforce_if(nonzero)
        positive = self._reify(q > 0, q <= 0)
        for sign, literal in ((1, positive), (-1, self._both(positive.Not(), nonzero))):
            self.model.add(sign * rest >= 0).only_enforce_if(literal)
            self.model.add(sign * rest < sign * q).only_enforce_if(literal)
        self.model.add(quotient == 0).only_enforce_if(nonzero.Not())
        self.model.add(rest == 0).only_enforce_if(nonzero.Not())
        defined = self._both(number.defined, divisor.defined, nonzero)
        return Node(quotient, defined, least, most), Node(rest, defined, first, last)

    def _power(self, base: Node, exponent: Node, defined: Any) -> Node:
        bases, exponents = range(base.low, base.high + 1), range(exponent.low, exponent.high + 1)
        if len(bases) * len(exponents) > TABLE_LIMIT:
            raise ConstrintError(
                f"CP-SAT gets a power as a table, and this one would have {len(bases) * len(exponents):,} rows "
                f"(at most {TABLE_LIMIT:,}); give it smaller domains or use the native engine"
            )
        rows = [(x, e, x**e if e >= 0 else 0) for x, e in itertools.product(bases, exponents)]
        low, high = min(row[2] for row in rows), max(row[2] for row in rows)
        if max(abs(low), abs(high)) > SAFE:
            raise ConstrintError(TOO_LARGE)
        columns = [
            self._number(base.low, base.high),
            self._number(exponent.low, exponent.high),
            self._number(low, high),
        ]
        self.model.add(columns[0] == base.value)
        self.model.add(columns[1] == exponent.value)
        self.model.add_allowed_assignments(columns, rows)
        q = exponent.value
        return Node(columns[2], self._both(defined, self._reify(q >= 0, q < 0)), low, high)


def _or_zero(span: intervals.Interval) -> tuple[int, int]:
    """Bounds of what may also be 0, where it has no value."""
    low, high, undefined = span
    return (0, 0) if undefined == 2 else (min(low, 0), max(high, 0)) if undefined else (low, high)
