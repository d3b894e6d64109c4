"""Words beside the variables: definitions, numbers, and functions that are the least of several numbers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from constrint import ConstrintError, Expr, ParseError, load_space, parse_restriction, print_space
from constrint.nearest import nearest
from constrint.vocabulary import Function, Vocabulary

pytestmark = pytest.mark.unit


def fits(width: Expr, height: Expr) -> Mapping[str, Expr]:
    return {"wide, 12": 12 // width, "high, 20": 20 // height}


WORDS = Vocabulary("shelf", {"depth": 7}, {"fits": Function(("width", "height"), fits)})


def labels(*restrictions: str) -> list[str]:
    space = {"tune_params": {"x": [1, 2, 3, 4], "y": [1, 2, 3, 4]}, "restrictions": list(restrictions)}
    problem = load_space(space, vocabulary=WORDS)
    held = sum(
        all(
            eval(text, {"fits": lambda w, h: min(12 // w, 20 // h), "depth": 7, "x": x, "y": y})
            for text in restrictions
        )
        for x in range(1, 5)
        for y in range(1, 5)
    )
    assert problem.count() == held
    assert load_space(print_space(problem)).count() == held
    return [constraint.label for constraint in problem.constraints]


def test_a_call_that_must_be_large_is_a_constraint_for_each_part() -> None:
    assert labels("fits(x, y) >= 5") == ["fits(x, y) >= 5 [shelf: wide, 12]", "fits(x, y) >= 5 [shelf: high, 20]"]
    assert labels("x < fits(x, y) and x > 1") == [
        "x < fits(x, y) and x > 1",
        "x < fits(x, y) and x > 1 [shelf: wide, 12]",
        "x < fits(x, y) and x > 1 [shelf: high, 20]",
    ]
    # Neither does a conjunction of them hold apart, nor a bound from above.
    assert labels("fits(x, y) <= 5", "fits(x, y) >= 5 or x == 1", "fits(y, x) + depth > 9") == [
        "fits(x, y) <= 5",
        "fits(x, y) >= 5 or x == 1",
        "fits(y, x) + depth > 9 [shelf: depth = 7]",
    ]
    assert len(labels("4 <= fits(x, y) <= 5")) == 3


def test_definitions_stand_for_their_expressions() -> None:
    space = {
        "tune_params": {"x": [1, 2, 3], "y": [1.5, 2.5], "mode": ["a", "b"]},
        "definitions": {"area": "x * y", "large": "area > 4 or mode == 'b'", "box": "area * depth"},
        "restrictions": ["large", "box <= 31.5"],
    }
    problem = load_space(space, vocabulary=WORDS)
    held = [(x, y, m) for x in (1, 2, 3) for y in (1.5, 2.5) for m in "ab" if x * y > 4 or m == "b"]
    assert [tuple(solution.values()) for solution in problem.solutions()] == [
        row for row in held if row[0] * row[1] <= 4.5
    ]
    assert [constraint.label for constraint in problem.constraints] == ["large", "box <= 31.5"]
    for wrong, words in [
        ({"x": "y"}, "is a parameter and a definition"),
        ({"area": "x *"}, "definition of area"),
        ({"box": "later", "later": "x"}, "unknown name 'later'"),
        ({"for": "x"}, "keyword"),
    ]:
        with pytest.raises(ConstrintError, match=words):
            load_space({**space, "definitions": wrong, "restrictions": []})


def test_what_is_wrong_with_a_word_is_said() -> None:
    with pytest.raises(ParseError, match="fits takes 2: width, height"):
        parse_restriction("fits(x) > 1", ["x"], vocabulary=WORDS)
    with pytest.raises(ParseError, match=r"unknown name 'dept'.*numbers of shelf: depth"):
        parse_restriction("x < dept", ["x"], vocabulary=WORDS)
    with pytest.raises(ParseError, match="functions of math, fits is more"):
        parse_restriction("fit(x, x) > 1", ["x"], vocabulary=WORDS)


def test_how_near_a_conflict_comes_to_its_limits() -> None:
    space = {
        "tune_params": {"x": [1, 2, 3, 4], "y": [1, 2, 3, 4], "z": [1, 2]},
        "restrictions": ["30 < x * y", "x <= 3", "y < x", "z / x > 5"],
    }
    problem = load_space(space)
    chosen = problem.subproblem(problem.constraints[:3])
    conflict = chosen.explain()
    assert [str(member) for member in conflict] == ["30 < x * y"]
    assert nearest(chosen, conflict) == [(16, False)]
    product = problem.add(parse_restriction("x * y == 12", problem.domains), "twelve")
    last = problem.subproblem([*problem.constraints[1:3], product])
    found = last.explain()
    assert [str(member) for member in found] == ["x <= 3", "y < x", "twelve"]
    assert nearest(last, found) == [(4, True), None, None]
    fraction = problem.subproblem(problem.constraints[3:4])
    assert nearest(fraction, fraction.explain()) == [None]
