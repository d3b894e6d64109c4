"""Random small problems over values of every kind, with every operator that restrictions may use."""

from __future__ import annotations

import math
import random
from typing import Any

from constrint import Expr, Problem, choose, element, isin, table
from constrint.expr import as_expr

KINDS: list[list[Any]] = [
    [1, 2, 4, 8],
    [3, 1, 2, 0],
    [-3, -1, 0, 2, 5],
    [0.5, 1, 1.5],
    [2.25, -0.75, 0.1],
    [True, False],
    ["row", "col"],
    ["a", "bb", ""],
    [None, 1, 2],
    ["auto", 0, 4.5, None],
    [True, "x", None],
]


def random_values_problem(seed: int, constraints: int = 3) -> Problem:
    """A problem of 2 to 4 variables."""
    rng = random.Random(seed)
    problem = Problem(f"random values {seed}")
    variables = []
    for name in ("x", "block size", "b.c", "d-e")[: rng.randint(2, 4)]:
        values = rng.choice(KINDS) if rng.random() < 0.8 else list(range(rng.randint(1, 6)))
        variables.append(problem.variable(name, rng.sample(values, rng.randint(1, len(values)))))
    numbers = [v for v in variables if problem.codings.of.get(v.name) is None or _numeric(problem, v)]
    for _ in range(rng.randint(1, constraints)):
        problem.add(_condition(rng, problem, variables, numbers, 2))
    return problem


def _numeric(problem: Problem, variable: Expr) -> bool:
    """Whether some value is a number, so that arithmetic is not refused."""
    return problem.codings.of[variable.name].top is not None


def _whole(problem: Problem, variable: Expr) -> bool:
    return all(value is None or isinstance(value, int | str) for value in problem.values(variable.name))


def random_number(rng: random.Random, problem: Problem, numbers: list[Expr], depth: int, whole: bool = False) -> Expr:
    """A random number of the variables ``numbers``; whole: surely no fraction."""
    if depth == 0 or not numbers or rng.random() < 0.2:
        usable = [v for v in numbers if not whole or _whole(problem, v)]
        if usable and rng.random() < 0.8:
            return rng.choice(usable)
        return as_expr(rng.randint(-3, 9) if whole or rng.random() < 0.8 else rng.choice([0.5, 1.25, -2.5]))

    def operand(must_be_whole: bool = whole) -> Expr:
        return random_number(rng, problem, numbers, depth - 1, must_be_whole)

    op = rng.choice(
        [*"+-*&|^<>%", "//", "/", "if", "floor", "ceil", "round", "round2", "int", "element", "log2", "gcd"]
    )
    match op:
        case "+":
            return operand() + operand()
        case "-":
            return operand() - operand()
        case "*":
            return operand() * operand()
        case "&":
            return operand(True) & operand(True)
        case "|":
            return operand(True) | operand(True)
        case "^":
            return operand(True) ^ operand(True)
        case "<":
            return operand(True) << random_number(rng, problem, numbers, 0, True)
        case ">":
            return operand(True) >> random_number(rng, problem, numbers, 0, True)
        case "%":
            return operand() % operand()
        case "//":
            return operand() // operand()
        case "/":
            return operand() // 2 if whole else operand() / operand()
        case "if":
            return choose(_comparison(rng, problem, numbers, depth - 1), operand(), operand())
        case "floor":
            return math.floor(operand(False))  # type: ignore[return-value]
        case "ceil":
            return math.ceil(operand(False))  # type: ignore[return-value]
        case "round":
            return round(operand(False))
        case "round2":
            return round(operand(), -1 if whole else rng.choice([1, -1]))
        case "int":
            return math.trunc(operand(False))  # type: ignore[return-value]
        case "element":
            return element(operand(True), [operand() for _ in range(rng.randint(1, 3))])
        case "log2":
            return Expr("floor", (Expr("call", (operand(),), name="log2"),))
    return Expr("call", (operand(True), operand(True)), name="gcd")


def _comparison(rng: random.Random, problem: Problem, numbers: list[Expr], depth: int) -> Expr:
    a = random_number(rng, problem, numbers, depth)
    b = random_number(rng, problem, numbers, depth)
    return rng.choice([a == b, a != b, a < b, a <= b, a > b, a >= b])


def _condition(rng: random.Random, problem: Problem, variables: list[Expr], numbers: list[Expr], depth: int) -> Expr:
    roll = rng.random()
    if depth and roll < 0.3:
        p = _condition(rng, problem, variables, numbers, depth - 1)
        q = _condition(rng, problem, variables, numbers, depth - 1)
        return rng.choice([p & q, p | q, ~p, p ^ q])
    x, y = rng.choice(variables), rng.choice(variables)
    values = list(problem.values(x.name))
    if roll < 0.4:
        return isin(x, rng.sample([*values, "row", None, 2, 0.5], 3))
    if roll < 0.47:
        others = list(problem.values(y.name))
        return table([x, y], [(rng.choice(values), rng.choice(others)) for _ in range(4)])
    if roll < 0.6:
        other = rng.choice([y, as_expr(rng.choice([*values, "bb", None, 1.5]))])
        return rng.choice([x == other, x != other, x < other, x >= other])
    if roll < 0.66:
        chosen = choose(_comparison(rng, problem, numbers, 1), x, y)
        return rng.choice([chosen == rng.choice(values), Expr("truth", (chosen,)), chosen != x])
    if roll < 0.7:
        number = random_number(rng, problem, numbers, 1)
        return rng.choice(
            [element(random_number(rng, problem, numbers, 0, True), [x, y, "row"]) == y, x == number, x <= number]
        )
    return _comparison(rng, problem, numbers, 2)
