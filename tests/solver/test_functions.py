"""Python functions as restrictions: what they come to, and which are believed without being called."""

from __future__ import annotations

import linecache
import math
import random
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from constrint import ConstrintError, Problem, load_space, print_space
from constrint.bytecode import is_arithmetic, lambda_text
from constrint.tracing import Restriction

pytestmark = pytest.mark.unit


def space_of(*restrictions: object) -> Problem:
    values = {"x": [1, 2, 4, 8, 16, 32], "y": list(range(1, 13)), "kind": ["a", "b"]}
    return load_space({"tune_params": values, "restrictions": list(restrictions)})


def _named(x: int, y: int) -> bool:
    if x > 8:
        return y == 1
    return x * y <= 16 and (y % 2 == 0 or x == 1)


FUNCTIONS: list[tuple[Callable[..., Any], Callable[[Mapping[str, Any]], Any], bool]] = [
    (lambda x, y: x * y <= 32, lambda p: p["x"] * p["y"] <= 32, True),
    (_named, lambda p: _named(p["x"], p["y"]), True),
    (lambda p: p["x"] % p["y"] == 0 and p["kind"] == "a", lambda p: p["x"] % p["y"] == 0 and p["kind"] == "a", True),
    (
        lambda x, y: min(x, y) >= 2 and max([x, y]) < 9,
        lambda p: min(p["x"], p["y"]) >= 2 and max(p["x"], p["y"]) < 9,
        True,
    ),
    (lambda x: math.ceil(x / 3) % 2 == 1, lambda p: math.ceil(p["x"] / 3) % 2 == 1, True),
    (lambda x, y: sum(x > i for i in range(3)) == y, lambda p: sum(p["x"] > i for i in range(3)) == p["y"], True),
    (lambda x, kind: kind != "a" or 2 < x < 16, lambda p: p["kind"] != "a" or 2 < p["x"] < 16, True),
    (lambda x: x, lambda p: p["x"], True),
    (lambda x, y: math.log2(x) >= y, lambda p: math.log2(p["x"]) >= p["y"], False),
    (lambda kind: kind in {"b"}, lambda p: p["kind"] == "b", False),
    (lambda kind, x: {"a": 4, "b": 8}[kind] == x, lambda p: {"a": 4, "b": 8}[p["kind"]] == p["x"], False),
    (lambda kind, x: kind is not None and x > 2, lambda p: p["x"] > 2, False),
    (lambda x, y: len(range(x, y)) > 3, lambda p: p["y"] - p["x"] > 3, False),
    (lambda p: f"{p['x']}"[0] == "1", lambda p: str(p["x"])[0] == "1", False),
    (lambda x, y: x / (y - 3) > 1, lambda p: p["y"] != 3 and p["x"] / (p["y"] - 3) > 1, True),
    (
        lambda x, y: (x % (y - 3) == 0) | (x > 8),
        lambda p: p["y"] != 3 and (p["x"] > 8 or p["x"] % (p["y"] - 3) == 0),
        True,
    ),
    (lambda x, y: [x // (y - 3), x > 8][1], lambda p: p["y"] != 3 and p["x"] > 8, True),
    (lambda x, y: int((x - 9) / y) == -1, lambda p: int((p["x"] - 9) / p["y"]) == -1, True),
    (lambda p: float(p["x"]) / 3 > p["y"] + int("1"), lambda p: p["x"] / 3 > p["y"] + 1, True),
    (lambda x, y: int(x > 3) + (y > 2) == 1, lambda p: (p["x"] > 3) != (p["y"] > 2), True),
    (lambda kind, x: kind < "b" or x > 8, lambda p: p["kind"] == "a" or p["x"] > 8, True),
    (lambda kind, x: min(kind, "b") == "a" and min([x], key=abs) > 8, lambda p: p["kind"] == "a" and p["x"] > 8, True),
    (lambda p: p.get("".join("yx")[1:], 0) in {1, 8}, lambda p: p["x"] in {1, 8}, False),
    (lambda p: "".join("yx")[1:] in p and sum(map(len, p)) == 6 and {p["x"]} == {4}, lambda p: p["x"] == 4, False),
]


@pytest.mark.parametrize("number", range(len(FUNCTIONS)))
def test_python_functions_as_restrictions(number: int) -> None:
    function, meaning, traced = FUNCTIONS[number]
    problem = space_of(function)
    expected = [s for s in space_of().solutions() if meaning(s)]
    assert list(problem.solutions()) == expected
    condition = problem.constraints[0].condition
    assert (condition.op not in ("table", "rows", "not")) is traced
    assert list(load_space(print_space(problem)).solutions()) == expected


LIMIT, RATIO = 7, 0.5


def _loop(p: Mapping[str, Any]) -> Any:
    """A sum."""
    total = 0
    for factor in (1, 2, 3):
        total += factor * p["x"]
    return total % p["y"] == 0 and p["y"] not in (1, 2)


def _catches(x: int, y: int) -> bool:
    try:
        return x % y == 0
    except ZeroDivisionError:
        return True


def _inside(x: int, y: int) -> bool:
    return _loop({"x": x, "y": y}) > 0


@pytest.mark.parametrize(
    ("function", "proven"),
    [
        (lambda x, y: 2 <= x * y <= LIMIT and not (x % y or abs(x - y) > min(x, 3)), True),
        (lambda p: p["x"] == 2 or max([p["x"], 4]) // p["y"] in (1, 3), True),
        (lambda x, y, most=4: (x > y) & (x + y <= most) | (x == y), True),
        (_loop, True),
        (lambda x, y: int(x // y) == 2 + int(True), True),
        (lambda x, y: int(x / y) == 2, False),
        (lambda *values: sum(values[:1]) > 2, False),
        (_catches, False),
        (_inside, False),
        (lambda x, y: x / y == 2, False),
        (lambda x, y: x * RATIO > y, False),
        (lambda x, y: ~(x > y), False),
        (lambda x, y: x**y > 9, False),
        (lambda x: x.bit_length() > 2, False),
        (lambda p: p.get("x") == 2, False),
        (lambda p: p["x"] == 2 and p["kind"] == "a", False),
        (lambda x: math.gcd(x, 4) == 4, False),
        (lambda x: x is LIMIT, False),
        (lambda x: any(x == i for i in (1, 2)), False),
    ],
)
def test_only_arithmetic_of_whole_numbers_is_believed_without_calls(
    function: Callable[..., Any], proven: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[object] = []
    known = Restriction._of
    monkeypatch.setattr(Restriction, "_of", lambda *given: rows.append(given) or known(*given))
    space_of(function)
    assert bool(rows) is not proven


@pytest.mark.parametrize("operator", ["+", "-", "*", "//", "%", "&", "|", "/", "**", "<<", ">>", "^", "@"])
def test_operators_are_told_apart_in_code(operator: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def in_place(x, y):\n    x {operator}= y\n    return x == 4", scope)
    for function in (eval(f"lambda x, y: x {operator} y == 4"), scope["in_place"]):
        assert is_arithmetic(function, ["x", "y"]) is (operator in ("+", "-", "*", "//", "%", "&", "|"))


LAYOUTS = """functions = [lambda x: x != ")" and x != 'a, "b"', lambda y: (y, [1, 2])[0],
    (
        lambda x, y: x
        # of both
        in (y, 2)
    ), lambda p: p["\u00e4,\u00f6"] == {"k": (1, 2)}[ "k"
    ]]
"""


def test_the_text_of_a_lambda_however_it_is_laid_out(tmp_path: Path) -> None:
    file = tmp_path / "layouts.py"
    file.write_text(LAYOUTS, encoding="utf-8")
    scope: dict[str, Any] = {}
    exec(compile(LAYOUTS, str(file), "exec"), scope)
    assert [lambda_text(function) for function in scope["functions"]] == [
        """lambda x: x != ")" and x != 'a, "b"'""",
        "lambda y: (y, [1, 2])[0]",
        "lambda x, y: x # of both in (y, 2)",
        'lambda p: p["\u00e4,\u00f6"] == {"k": (1, 2)}[ "k" ]',
    ]
    file.unlink()
    linecache.clearcache()
    assert lambda_text(scope["functions"][0]) is None


def test_arithmetic_of_values_that_are_not_whole_is_compared() -> None:
    problem = Problem("halves")
    problem.variable("x", [0.1, 0.2, 0.3, 1])
    problem.add(lambda x: x * 3 == 0.3 or x + x + x == 3)
    assert [solution["x"] for solution in problem.solutions()] == [
        x for x in (0.1, 0.2, 0.3, 1) if x * 3 == 0.3 or x == 1
    ]


def test_what_a_function_says_is_stated_as_one_would_write_it() -> None:
    for function, words in (
        (lambda x, y: x > 3 and y > 2, "x > 3 and y > 2"),
        (lambda x, y: x > 3 or y > 2, "x > 3 or y > 2"),
        (lambda x, y: min([x, y]) >= max(2, x - y), "min(x, y) >= max(2, x - y)"),
        (lambda x, y: not x % y, "not x % y != 0"),
    ):
        assert str(space_of(function).constraints[0].condition) == words
    # Divided by 0, Python does not come to x > 8.
    assert space_of(lambda x, y: x % (y - 1) == 1 or x > 8).count() == 2 * sum(
        y > 1 and (x % (y - 1) == 1 or x > 8) for x in (1, 2, 4, 8, 16, 32) for y in range(1, 13)
    )


@pytest.mark.parametrize("seed", range(24))
def test_random_arithmetic_means_what_python_means(seed: int) -> None:
    rng = random.Random(seed)
    values = {name: rng.sample(range(-4, 9), 6) for name in "abc"}

    def number(depth: int) -> str:
        if not depth:
            return rng.choice(["a", "b", "c", str(rng.randrange(1, 5))])
        left, right = number(depth - 1), number(depth - 1)
        many = f"{rng.choice(['min', 'max'])}({left}, {right})"
        return rng.choice([f"({left} {rng.choice(['+', '-', '*', '//', '%'])} {right})", f"({left} and {right})", many])

    def condition(depth: int) -> str:
        if not depth:
            return f"{number(1)} {rng.choice(['<', '<=', '==', '!='])} {number(1)}"
        joint = rng.choice(["({} and {})", "({} or {})", "(({}) | ({}))", "(({}) & ({}))", "(not {} or {})"])
        return joint.format(condition(depth - 1), condition(depth - 1))

    function = eval(f"lambda a, b, c: {condition(2)}")

    def holds(*row: int) -> bool:
        try:
            return bool(function(*row))
        except ZeroDivisionError:
            return False

    problem = load_space({"tune_params": values, "restrictions": [function]})
    assert is_arithmetic(function, values)
    assert problem.count() == sum(holds(*row) for row in product(*values.values()))


def test_functions_of_any_parameters() -> None:
    def with_names(*values: Any) -> bool:
        return values[0] == values[1]

    assert space_of(with_names).count() == 2 * 4
    assert space_of((lambda a, b: a == b, ["x", "y"])).count() == 2 * 4
    assert space_of(lambda x, y, most=4: x * y <= most).count() == 2 * (4 + 2 + 1)
    assert space_of(_named).constraints[0].label == "_named()"
    (labelled,) = [space_of(lambda x: x > 2).constraints[0].label]
    assert labelled == f"lamb{'da'} x: x > 2"
    two = [
        lambda x, y: (x, y)[0] > 2 and [y, "("][0] > (
            x + 1),
        lambda y: y
        > 3,
    ]  # fmt: skip
    assert [each.label for each in space_of(*two).constraints] == [
        'lambda x, y: (x, y)[0] > 2 and [y, "("][0] > ( x + 1)',
        "lambda y: y > 3",
    ]
    with pytest.raises(ConstrintError, match="parameter 'z'"):
        space_of(lambda x, z: x == z)
    with pytest.raises(ConstrintError, match=r"failed at .*'x': 1.*ValueError: no"):
        space_of(_fails)
    with pytest.raises(
        ConstrintError, match=r"TypeError.*its parameter is no variable, but a mapping of them all: x, y"
    ):
        space_of(lambda q: q > 1)


def _fails(x: int) -> bool:
    if {x} == {1}:
        raise ValueError("no")
    return True


def test_functions_of_too_many_combinations_are_refused() -> None:
    problem = Problem("wide")
    for name in "abc":
        problem.variable(name, range(200))
    with pytest.raises(ConstrintError, match=r"8,000,000 combinations.*at most 1,000,000"):
        problem.add(lambda a, b, c: math.gcd(a, b, c) == 1)
    problem.add(lambda a, b, c: a + b == c)  # traced: however many there are
    with pytest.raises(ConstrintError, match=r"8,000,000\s+combinations"):
        problem.add(_call_of_three(problem))
    assert problem.count() == sum(1 for a in range(200) for b in range(200) if a + b < 200)


def _call_of_three(problem: Problem) -> Any:
    from constrint import parse_restriction

    return parse_restriction("math.gcd(a, b) == math.log2(c + 1)", problem.domains)
