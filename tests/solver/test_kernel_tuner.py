"""A stand-in for Kernel Tuner's search space, and parameters of pyATF; neither package is needed."""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from constrint import ConstrintError, kernel_tuner_configs, ranked
from constrint.foreign import problem_of_pyatf
from constrint.kernel_tuner import METHODS, Searchspace, use
from constrint.kernel_tuner_configs import Config

pytestmark = pytest.mark.unit

PARAMETERS: dict[str, list[Any]] = {
    "block_size_x": [16, 32, 64, 128, 256],
    "block_size_y": [1, 2, 4, 8],
    "scale": [1.0, 0.5, 2.5],
    "layout": ["row", "col"],
    "padded": [True, False],
    "fixed": [3],
}
RESTRICTIONS: list[Any] = [
    "block_size_x * scale >= 32",
    lambda p: p["layout"] == "row" or not p["padded"],
    (lambda x, y: x * y != 256, ["block_size_x", "block_size_y"]),
]


def space(**options: Any) -> Searchspace:
    return Searchspace(PARAMETERS, list(RESTRICTIONS), 512, **options)


def valid(config: Config) -> bool:
    x, y, scale, layout, padded, _ = config
    return bool(x * scale >= 32 and (layout == "row" or not padded) and x * y != 256 and x * y <= 512)


EXPECTED = [config for config in itertools.product(*PARAMETERS.values()) if valid(config)]


def test_configurations_and_indices() -> None:
    ours = space()
    assert ours.size == len(EXPECTED) == len(ours.list)
    assert set(ours.list) == set(EXPECTED)
    assert ours.sorted_list() == EXPECTED
    assert ours.sorted_list(sort_last_param_first=True) == sorted(
        EXPECTED, key=lambda config: ours.get_param_indices(config)[::-1]
    )
    assert [ours.get_param_config_index(config) for config in ours.list] == list(range(ours.size))
    assert list(ours.get_list_dict()) == ours.list
    assert not ours.is_param_config_valid((16, 1, 1.0, "row", True, 3))
    for config, positions in zip(ours.list, ours.get_list_param_indices_numpy(), strict=True):
        assert ours.get_param_indices(config) == tuple(positions)
        assert ours.get_param_config_from_param_indices(positions) == config
    for config, row in zip(ours.list, ours.get_list_numpy_numeric(), strict=True):
        assert ours.get_param_config_from_numeric(row) == config
    assert ours.get_list_numpy()["layout"].tolist() == [config[3] for config in ours.list]
    with pytest.raises(ValueError, match="not among the values"):
        ours.get_param_indices((17, 1, 1.0, "row", True, 3))
    assert list(ours.get_true_tunable_params()) == list(PARAMETERS)[:5]
    assert ours._modified_restrictions[-1] == "block_size_x * block_size_y <= 512"


def names_more_than_once(x: int, y: int, z: int, s: str) -> bool:
    return x + x + y != z


LAMBDAS: list[Any] = [
    lambda p: p["x"] > 2,
    lambda p: 1 <= p["z"] + p["x"] <= 4,
    lambda p: p["z"] == 0 or p["s"] == "a",
]
FOUR: dict[str, list[Any]] = {"x": [1, 2, 3, 4], "y": [4, 8, 2], "z": [0, 1, 2], "s": ["a", "b"]}
ORDERS: dict[str, tuple[list[Any], str]] = {
    "no restriction: the fewest values first": ([], "s y z x"),
    "more constraints first": (["x * z >= 2 or y == 2", "x != z"], "z x y s"),
    "a chain is several": (["2 <= x < 4", "x + y != 9 or z == 1", "1 <= z + x <= 5 < y"], "x z y s"),
    "joined by words it is one": (["1 <= z and z + x <= 5 < y"], "y z x s"),
    "what names one parameter takes values from it": (["x > 2", "y <= 2"], "y x s z"),
    "spaces of one value keep their place": (["x == 3", "s == 'b'"], "x s y z"),
    "a product with a limit": (["x * y <= 3", "z + x != 9"], "x y z s"),
    "a limit that only zeros break": (["z * x >= 3", "z * x >= 1"], "z x s y"),
    "a sum with a limit": (["y + x <= 4"], "y x s z"),
    "a sum with a number's text": (["2 ** 2 >= y + x"], "y x s z"),
    "a sum that is a number": (["x + z == 6"], "x z s y"),
    "a sum below a parameter": (["x + z <= y", "x + y != 3"], "y x z s"),
    "a parameter above a sum": (["x >= y + z"], "y z x s"),
    "a difference": (["4 - x >= y"], "y x s z"),
    "a quotient": (["4 / x >= y"], "y x s z"),
    "a lambda is its text": (LAMBDAS, "z x s y"),
    "a function names all": ([names_more_than_once, "x + z < 6"], "z x s y"),
}


@pytest.mark.parametrize("words", ORDERS)
def test_the_list_is_in_kernel_tuners_order(words: str) -> None:
    restrictions, order = ORDERS[words]
    ours = Searchspace(FOUR, restrictions, 1024)
    assert [ours.param_names[place] for place in ours.order] == order.split()
    places = [[ours.get_param_indices(config)[i] for i in ours.order] for config in ours.list]
    assert places == sorted(places, reverse=True)
    assert ours.dicts() == [dict(zip(FOUR, config, strict=True)) for config in ours.list]


def neighbours_by_hand(config: Config, method: str) -> set[Config]:
    """What each kind of neighbour is, over all configurations."""
    place = {name: {value: i for i, value in enumerate(values)} for name, values in PARAMETERS.items()}

    def at(other: Config) -> list[int]:
        return [place[name][value] for name, value in zip(PARAMETERS, other, strict=True)]

    here = at(config)
    others = [other for other in EXPECTED if other != config]
    steps = {other: [b - a for a, b in zip(here, at(other), strict=True)] for other in others}
    one = {other: step for other, step in steps.items() if sum(s != 0 for s in step) == 1}
    if method == "Hamming":
        return set(one)
    if method == "strictly-adjacent":
        return {other for other, step in steps.items() if max(map(abs, step)) <= 1}
    if method == "closest-param-indices":
        nearest = min(sum(map(abs, step)) for step in steps.values())
        return {other for other, step in steps.items() if sum(map(abs, step)) == nearest}
    columns = list(zip(*(one if method == "Hamming-adjacent" else steps).values(), strict=True))
    above = [min((s for s in column if s > 0), default=0) for column in columns]
    below = [max((s for s in column if s < 0), default=0) for column in columns]
    chosen = one if method == "Hamming-adjacent" else steps
    return {
        other
        for other, step in chosen.items()
        if all(low <= s <= high for low, s, high in zip(below, step, above, strict=True))
    }


@pytest.mark.parametrize("method", METHODS)
def test_neighbours_of_every_kind(method: str) -> None:
    ours, built = space(), space(build_neighbors_index=True, neighbor_method=method)
    outside = (16, 1, 1.0, "row", True, 3)
    for config in [*EXPECTED[::7], outside]:
        expected = neighbours_by_hand(config, method)
        found = ours.get_neighbors_no_cache(config, method)
        assert set(found) == expected, config
        assert len(found) == len(expected)
        assert not ours.are_neighbors_indices_cached(config, method)
        assert ours.get_neighbors(config, method) == found
        assert ours.are_neighbors_indices_cached(config, method)
        assert ours.get_random_neighbor(config, method) in found
        assert built.get_neighbors(config) == found
        assert built.are_neighbors_indices_cached(config)
        values = ours.get_param_neighbors(config, 0, method, randomize=True)
        assert set(values) == {other[0] for other in expected} - {config[0]}


def test_adjacent_goes_to_the_nearest_value_that_is_valid() -> None:
    ours = Searchspace({"x": [1, 2, 3, 4, 5], "y": [0, 1]}, "x != 2 and x != 3", 1024)
    assert set(ours.get_neighbors((1, 0), "adjacent")) == {(1, 1), (4, 0), (4, 1)}
    assert set(ours.get_neighbors((1, 0), "Hamming-adjacent")) == {(1, 1), (4, 0)}
    assert set(ours.get_neighbors((1, 0), "strictly-adjacent")) == {(1, 1)}


def test_samples() -> None:
    ours = space()
    draws: list[Callable[[int], Any]] = [
        ours.get_random_sample_indices,
        ours.get_LHS_sample_indices,
        ours.get_distributed_random_sample_indices,
    ]
    for draw in draws:
        for count in (0, 1, 10, ours.size):
            found = [int(index) for index in draw(count)]
            assert len(set(found)) == len(found) == count
            assert all(0 <= index < ours.size for index in found)
    assert set(ours.get_LHS_sample(5)) <= set(ours.list)
    np.random.seed(7)
    first = ours.get_random_sample(8)
    np.random.seed(7)
    assert ours.get_random_sample(8) == first
    with pytest.raises(ValueError, match="greater than the searchspace size"):
        ours.get_random_sample_indices(ours.size + 1)
    with pytest.warns(UserWarning, match="Too many samples"):
        assert len(ours.get_random_sample(ours.size + 1)) == ours.size


def test_a_sample_is_of_the_list_and_needs_none() -> None:
    listed, unlisted = space(), space()
    np.random.seed(11)
    drawn = np.random.choice(listed.size, size=9, replace=False)
    for ours in (listed, unlisted):
        np.random.seed(11)
        assert ours.get_random_sample(9) == [listed.list[index] for index in drawn]
    assert "list" not in unlisted.__dict__
    assert unlisted.get_param_configs_at_indices([]) == []


@pytest.mark.parametrize("core", [True, False])
def test_configurations_are_found_by_their_places(core: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a list, by the core and by its Python twin."""
    monkeypatch.setattr(kernel_tuner_configs, "FIND", 0)
    if not core:
        monkeypatch.setattr(ranked, "load_core", lambda: None)
    layers = Searchspace(
        {f"device{number}": list(range(12)) for number in range(4)},
        ["device3 + device0 + device2 + device1 == 12", "device2 != device0", "device1 * device3 <= 9"],
        1024,
    )
    for found, listed in ((space(), space()), (layers, Searchspace(layers.tune_params, layers.restrictions, 1024))):
        places = [*range(found.size), -1, 5, 5, -found.size]
        assert found.get_param_configs_at_indices(places) == [listed.list[place] for place in places]
        assert not {"list", "_positions"} & found.__dict__.keys()
        with pytest.raises(IndexError):
            found.get_param_configs_at_indices([0, found.size])


def test_places_count_from_the_end_where_they_are_negative() -> None:
    listed = space().list
    found = space()
    assert found.get_param_configs_at_indices([-1, 0, -len(listed)]) == [listed[-1], listed[0], listed[0]]
    for place in (len(listed), -len(listed) - 1):
        with pytest.raises(IndexError):
            found.get_param_configs_at_indices([place])
    with pytest.raises(ValueError, match="fewer than 0"):
        found.get_random_sample_indices(-1)


def test_the_order_of_a_lambda_is_that_of_its_text(tmp_path: Path) -> None:
    values = {"a": [1, 2, 3], "b": [1, 2], "c": [1, 2, 3, 4], "d": [1, 2]}
    texts = ["a * c <= 6", "c > 1 or b == 2", "b + c + d <= 7 and d < c", "d * c <= 6"]
    written = """lambdas = [
        lambda p: p["a"]*p["c"] <= 6, lambda p: p[ "c" ] > 1 or p['b'] == 2,
        lambda q: (q["b"] + q["c"]
                   + q["d"] <= 7 and q["d"] < q["c"]),
        lambda p: (p["d"] * p['c']) <= 6]"""
    (tmp_path / "restrictions.py").write_text(written)
    scope: dict[str, Any] = {}
    exec(compile(written, str(tmp_path / "restrictions.py"), "exec"), scope)
    read, called = Searchspace(values, texts, 8), Searchspace(values, scope["lambdas"], 8)
    assert (called.order, called.list) == (read.order, read.list)


def test_many_configurations_are_listed_once() -> None:
    ours = space()
    ours.get_param_configs_at_indices([3])
    assert "_positions" not in ours.__dict__
    for _ in range(ours.size):
        ours.get_param_configs_at_indices([4])
    assert "_positions" in ours.__dict__


def test_places_need_every_variable_and_a_solution() -> None:
    solutions = space().solutions
    with pytest.raises(IndexError):
        solutions.positions_at([solutions.count], solutions.names)
    with pytest.raises(ConstrintError, match="names each variable once"):
        solutions.positions_at([0], solutions.names[1:])


def test_values_in_the_order_given() -> None:
    down = Searchspace({"x": range(9, 1, -1), "y": [4, 2, 4]}, "x * y >= 32", 1024)
    assert down.list == [(8, 4), (9, 4)]
    assert [down.get_param_indices(config) for config in down.list] == [(1, 0), (0, 0)]
    assert down.get_list_param_indices_numpy().tolist() == [[1, 0], [0, 0]]
    wide = Searchspace({"x": range(7, 2_000_000), "y": [1, 2]}, "x * y >= 3_999_996", 1024)
    assert wide.list == [(1_999_999, 2), (1_999_998, 2)]
    assert [tuple(row) for row in wide.get_list_param_indices_numpy()] == [(1_999_992, 1), (1_999_991, 1)]


def test_use_draws_with_what_kernel_tuner_draws_with(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = types.ModuleType("kernel_tuner"), types.ModuleType("kernel_tuner.searchspace")
    vars(module).update(Searchspace=object, choice=lambda values: values[0], shuffle=lambda values: None)
    monkeypatch.setitem(sys.modules, "kernel_tuner", package)
    monkeypatch.setitem(sys.modules, "kernel_tuner.searchspace", module)
    monkeypatch.setattr("constrint.kernel_tuner._draws", None)
    use()
    assert vars(module)["Searchspace"] is Searchspace
    ours = space()
    config = ours.list[3]
    neighbours = ours.get_neighbors(config, "Hamming")
    assert ours.get_random_neighbor(config, "Hamming") == neighbours[0]
    assert ours.order_param_configs(neighbours, range(6))[0] == neighbours[0]


def test_order_of_configurations() -> None:
    ours = space()
    configs = ours.get_neighbors((64, 2, 1.0, "row", True, 3), "adjacent")
    order = [1, 0, 2, 3, 4, 5]
    for randomize in (True, False):
        ordered = ours.order_param_configs(configs, order, randomize)
        assert sorted(map(repr, ordered)) == sorted(map(repr, configs))
        base = ordered[0]
        first = [next(place for place, i in enumerate(order) if other[i] != base[i]) for other in ordered[1:]]
        assert first == sorted(first)
    for wrong, words in (([1, 2], "must be equal"), ([0, 1, 2, 3, 4, 4], "index 5 is missing")):
        with pytest.raises(ValueError, match=words):
            ours.order_param_configs(configs, wrong)


def test_other_ways_to_a_space() -> None:
    ours = space()
    cache = {"cache": {str(i): dict(zip(PARAMETERS, c, strict=True)) for i, c in enumerate(ours.list)}}
    again = Searchspace(None, None, None, from_cache={"tune_params": PARAMETERS, **cache})
    assert again.list == ours.list
    config = ours.list[3]
    assert set(again.get_neighbors(config, "adjacent")) == set(ours.get_neighbors(config, "adjacent"))
    later = space(defer_construction=True)
    assert "solutions" not in later.__dict__
    assert later.size == ours.size
    document = {
        "ConfigurationSpace": {
            "TuningParameters": [{"Name": "x", "Type": "int", "Values": "[2**i for i in range(6)]"}],
            "Conditions": [{"Expression": "x > 2", "Parameters": ["x"]}],
        }
    }
    assert Searchspace.from_t1(document).list == [(32,), (16,), (8,), (4,)]
    with pytest.raises(ValueError, match="Neighbor method is magic"):
        space(neighbor_method="magic")
    with pytest.raises(ConstrintError, match="tune_params and max_threads"):
        Searchspace(None, [], None)


def of_kind(name: str, **held: Any) -> Any:
    """What python-constraint's constraints look like."""
    made = type(name, (), {"preProcess": None})()
    vars(made).update(held)
    return made


def test_constraints_of_python_constraint() -> None:
    values = {"a": [1, 2, 3, 4], "b": [1, 2, 3, 4], "c": [1, 2, 3, 4]}

    def count(*restrictions: Any) -> int:
        return Searchspace(values, list(restrictions), 1024).size

    def expected(meaning: Callable[[int, int, int], bool]) -> int:
        return sum(meaning(*row) for row in itertools.product(*values.values()))

    assert count(of_kind("ExactSumConstraint", _exactsum=6)) == expected(lambda a, b, c: a + b + c == 6)
    weighted = of_kind("MaxSumConstraint", _maxsum=9, _multipliers=[1, 2, 3])
    assert count(weighted) == expected(lambda a, b, c: a + 2 * b + 3 * c <= 9)
    assert count((of_kind("MaxProdConstraint", _maxprod=4), ["a", "c"])) == expected(lambda a, b, c: a * c <= 4)
    assert count(of_kind("AllDifferentConstraint")) == expected(lambda a, b, c: len({a, b, c}) == 3)
    assert count(of_kind("InSetConstraint", _set={1, 4})) == 8
    assert count((of_kind("NotInSetConstraint", _set={1, 4}), ["b"])) == 32
    assert count(of_kind("FunctionConstraint", _func=lambda a, b, c: a < b < c)) == expected(lambda a, b, c: a < b < c)
    with pytest.raises(ConstrintError, match="StrangeConstraint is not known"):
        count(of_kind("StrangeConstraint"))


def test_parameters_of_pyatf() -> None:
    def parameter(name: str, values: Any, constraint: Any = None) -> Any:
        return types.SimpleNamespace(name=name, values=values, constraint=constraint)

    problem = problem_of_pyatf(
        [
            parameter("wpt", range(1, 65), lambda wpt: 64 % wpt == 0),
            parameter("ls", range(1, 65), lambda ls, wpt: (64 // wpt) % ls == 0),
            parameter("order", ("rows", "columns")),
        ]
    )
    expected = [(w, s) for w in range(1, 65) for s in range(1, 65) if 64 % w == 0 and (64 // w) % s == 0]
    assert problem.count() == 2 * len(expected)
    with pytest.raises(ConstrintError, match="has a name and values"):
        problem_of_pyatf([3])
