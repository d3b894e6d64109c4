"""Random small problems with every operator, and their brute force."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from constrint import (
    Expr,
    Problem,
    all_different,
    cdiv,
    count,
    cumulative,
    divides,
    element,
    implies,
    isin,
    maximum,
    minimum,
    table,
    total,
)
from constrint.evaluate import evaluate, holds


def random_problem(seed: int, largest: int = 1500, rationals: bool = True, ranges: bool = False) -> Problem:
    """A problem of 2 to 6 variables and 1 to 5 constraints whose domains multiply to at most ``largest``.

    ranges: instead, 2 or 3 variables over ranges, some of them stepped, one of them of 65 to 150 values.
    """
    rng = random.Random(seed)
    problem = Problem(f"random {seed}")
    if ranges:
        lengths = [rng.randint(65, 150), *(rng.randint(1, 9) for _ in range(rng.randint(1, 2)))]
        rng.shuffle(lengths)
        steps = [rng.choice([1, 1, 3]) for _ in lengths]
        starts = [rng.randint(-60, 5) for _ in lengths]
        made = [
            problem.variable(f"x{i}", range(start, start + step * length, step))
            for i, (start, step, length) in enumerate(zip(starts, steps, lengths, strict=True))
        ]
        for _ in range(rng.randint(1, 4)):
            problem.add(_condition(rng, made, 2, rationals))
        return problem
    volume = 1
    variables: list[Expr] = []
    for i in range(rng.randint(2, 6)):
        count = rng.randint(1, max(1, min(12, largest // volume)))
        kind = rng.random()
        if kind < 0.4:
            start = rng.randint(-3, 4)
            values: object = range(start, start + count)
        elif kind < 0.6:
            values = [2**k for k in range(min(count, 7))]
        else:
            values = rng.sample(range(-6, 25), count)
        variables.append(problem.variable(f"x{i}", values))  # type: ignore[arg-type]
        volume *= len(problem.domains[f"x{i}"])
    for _ in range(rng.randint(1, 5)):
        problem.add(_condition(rng, variables, 2, rationals))
    return problem


def random_groups_problem(seed: int) -> Problem:
    """A problem of 3 to 6 variables under constraints over many of them at once, and others between."""
    rng = random.Random(seed)
    problem = Problem(f"random groups {seed}")
    values = [rng.sample(range(-2, 8), rng.randint(1, 5)) for _ in range(rng.randint(3, 6))]
    made = [problem.variable(f"x{i}", each) for i, each in enumerate(values) if i < 5 or rng.random() < 0.5]
    for _ in range(rng.randint(1, 3)):
        some = rng.sample(made, rng.randint(2, len(made)))
        shifted = [x + rng.randint(-1, 1) for x in some]
        condition = rng.choice(
            [
                all_different(rng.choice([some, some, shifted])),
                cumulative(*_tasks(rng, some), rng.choice([1, 2, 3, some[0]])),
                count(shifted, rng.choice([rng.randint(-2, 7), made[0]])) >= rng.randint(1, len(some)),
                total(x * rng.randint(-3, 5) for x in some) == rng.randint(0, 12),
                total(x * rng.randint(-3, 5) for x in some) <= rng.randint(0, 12),
                element(made[0], shifted) >= rng.choice(made),
            ]
        )
        problem.add(~condition if rng.random() < 0.1 else condition)
    if rng.random() < 0.5:
        problem.add(_condition(rng, made, 1, True))
    return problem


def _tasks(rng: random.Random, starts: list[Expr]) -> tuple[list[Expr], list[Any], list[Any]]:
    """Starts, durations and demands; now and then one of these is a variable."""
    durations: list[Any] = [rng.randint(0, 4) for _ in starts]
    demands: list[Any] = [rng.randint(0, 3) for _ in starts]
    if rng.random() < 0.2:
        durations[0] = rng.choice(starts)
    if rng.random() < 0.2:
        demands[0] = abs(rng.choice(starts))
    return starts, durations, demands


def random_number(rng: random.Random, variables: list[Expr], depth: int, rationals: bool) -> Expr | int:
    """A random numeric expression."""
    if depth == 0 or rng.random() < 0.25:
        return rng.choice(variables) if rng.random() < 0.75 else rng.randint(-4, 12)
    a = random_number(rng, variables, depth - 1, rationals)
    b = random_number(rng, variables, depth - 1, rationals)
    op = rng.choice(["+", "+", "-", "*", "*", "//", "cdiv", "%", "min", "max", "abs", "**", "neg", "/", "bool"])
    # Plain integers would compute at once, and fail on zero; only expressions are wanted here.
    x = a if isinstance(a, Expr) else rng.choice(variables)
    match op:
        case "+":
            return x + b
        case "-":
            return x - b
        case "*":
            return x * b
        case "//":
            return x // b
        case "cdiv":
            return cdiv(x, b)
        case "%":
            return x % b
        case "min":
            return minimum(x, b)
        case "max":
            return maximum(x, b, 2)
        case "abs":
            return abs(x)
        case "neg":
            return -x
        case "**":
            if rng.random() < 0.8:
                return x ** rng.randint(0, 3)
            # A negative exponent gives a fraction.
            return x ** maximum(minimum(rng.choice(variables), 3), -2 if rationals else 0)
        case "bool":
            return _condition(rng, variables, 0, rationals) + b
    return x / b if rationals else x


def _condition(rng: random.Random, variables: list[Expr], depth: int, rationals: bool) -> Expr:
    roll = rng.random()
    if depth and roll < 0.3:
        p = _condition(rng, variables, depth - 1, rationals)
        q = _condition(rng, variables, depth - 1, rationals)
        return rng.choice([p & q, p | q, p | q, ~p, implies(p, q)])
    if roll < 0.4:
        return isin(rng.choice(variables), rng.sample(range(-3, 17), 5))
    if roll < 0.47:
        columns = rng.sample(variables, 2)
        return table(columns, [(rng.randint(-2, 8), rng.randint(-2, 8)) for _ in range(12)])
    a = random_number(rng, variables, 2, rationals)
    b = random_number(rng, variables, 1, rationals)
    x = a if isinstance(a, Expr) else rng.choice(variables)
    if roll < 0.57:
        return divides(b, x)
    if roll < 0.63:
        return x % b == 0
    return rng.choice([x == b, x != b, x < b, x <= b, x > b, x >= b, x <= b, x >= b])


def solutions_of(problem: Problem) -> list[dict[str, int]]:
    """Every solution, in the order of declaration."""
    return list(_each_solution(problem))


def has_solution(problem: Problem) -> bool:
    """Whether there is any; looks no further than the first."""
    return any(True for _ in _each_solution(problem))


def _each_solution(problem: Problem) -> Iterator[dict[str, int]]:
    names = list(problem.domains)
    # Each condition is evaluated once for the values of its own variables.
    conditions = []
    for constraint in problem.constraints:
        used = set(constraint.condition.variables())
        known: dict[tuple[int, ...], bool] = {}
        conditions.append((constraint.condition, [place for place, name in enumerate(names) if name in used], known))
    for values in itertools.product(*(_ascending(problem, name) for name in names)):
        assignment = dict(zip(names, values, strict=True))
        for condition, places, known in conditions:
            own = tuple([values[place] for place in places])
            held = known.get(own)
            if held is None:
                held = known[own] = holds(condition, assignment)
            if not held:
                break
        else:
            yield assignment


def _ascending(problem: Problem, name: str) -> Iterable[Any]:
    """The values of a variable in the order of the integers that stand for them."""
    coding = problem.codings.of.get(name)
    return problem.domains[name] if coding is None else [coding.value[code] for code in coding.domain]


def objective_values(objective: Expr, solutions: list[dict[str, int]]) -> list[tuple[int, dict[str, int]]]:
    """The objective of each solution where it is defined (and an integer)."""
    result = []
    for solution in solutions:
        value = evaluate(objective, solution)
        if value is not None:
            assert not isinstance(value, Fraction)
            result.append((int(value), solution))
    return result
