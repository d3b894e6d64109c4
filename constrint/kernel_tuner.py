"""A stand-in for Kernel Tuner's search space, built by constrint.

    from constrint.kernel_tuner import Searchspace        # in place of kernel_tuner.searchspace's
    constrint.kernel_tuner.use()                          # or: Kernel Tuner builds its spaces with this one from now on

Kernel Tuner itself is not needed. A configuration is a tuple of values in the order of ``tune_params``; its index is
its place in ``list``, which is in the order of Kernel Tuner's default solver. What Kernel Tuner offers beyond its own
strategies' needs (PyTorch tensors, Ax) is not here.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, reduce
from operator import mul
from typing import TYPE_CHECKING, Any

import numpy as np

from constrint.core import has_core
from constrint.errors import ConstrintError
from constrint.expr import variable
from constrint.foreign import add_foreign
from constrint.integers import shown
from constrint.kernel_tuner_order import block_limit, listing_order
from constrint.listing import OBJECTS, arranged, as_dicts, as_tuples
from constrint.model import Problem
from constrint.points import halton, latin_hypercube
from constrint.text import load_t1

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from constrint.factored import SolutionSet

BLOCK_SIZES = ("block_size_x", "block_size_y", "block_size_z")
METHODS = ("strictly-adjacent", "adjacent", "Hamming", "Hamming-adjacent", "closest-param-indices")
FIND, FIND_IN_PYTHON = 4, 100
"""A row is found by its place in about the time in which so many are listed: with the core, and without it."""
Config = tuple[Any, ...]
_draws: Any = random
"""Has ``choice`` and ``shuffle``."""
# ``list`` is an attribute of the class below, by Kernel Tuner's name.
Configs = list[Config]
Indices = list[int]
Values = list[Any]
Names = list[str]
Dicts = list[dict[str, Any]]
Places = list[dict[Any, int]]
Steps = list[tuple[int, int, int]]
Spans = list[tuple[int, int]]


class Searchspace:
    """The configurations of some parameters that satisfy every restriction.

    tune_params: the values of each parameter. restrictions: text, functions, constraints of python-constraint, tuples
    of one of these and the parameters that it names; one alone or a list. max_threads: the most that the parameters of
    ``block_size_names`` may multiply to. neighbor_method: what ``get_neighbors`` goes by where it is not told.
    build_neighbors_index: find the neighbours of every configuration at once. from_cache: a cache of Kernel Tuner's
    ("tune_params", "cache"), whose configurations are taken as they are. Kernel Tuner's choices of a framework and a
    solver are taken and mean nothing here.

    size: how many there are. Raises ConstrintError for what cannot be read, ValueError where Kernel Tuner does.
    """

    def __init__(
        self,
        tune_params: Mapping[str, Sequence[Any]] | None,
        restrictions: Any,
        max_threads: int | None,
        block_size_names: Sequence[str] = BLOCK_SIZES,
        defer_construction: bool = False,
        build_neighbors_index: bool = False,
        neighbor_method: str | None = None,
        from_cache: Mapping[str, Any] | None = None,
        framework: str = "constrint",
        solver_method: str = "constrint",
        path_to_ATF_cache: object = None,
    ) -> None:
        if neighbor_method not in METHODS and (neighbor_method is not None or build_neighbors_index):
            raise ValueError(f"Neighbor method is {neighbor_method}, must be one of {list(METHODS)}")
        if from_cache is not None:
            tune_params = from_cache["tune_params"]
        if tune_params is None or (max_threads is None and from_cache is None):
            raise ConstrintError("a search space needs tune_params and max_threads, or from_cache")
        self.tune_params, self.max_threads, self.block_size_names = tune_params, max_threads, block_size_names
        self.original_tune_params = dict(tune_params)
        listed = list(restrictions) if isinstance(restrictions, list | tuple) and not _single(restrictions) else None
        self.restrictions = listed if listed is not None else [] if restrictions is None else [restrictions]
        self.original_restrictions = list(self.restrictions)
        self._modified_restrictions = list(self.restrictions)
        self.param_names = list(tune_params)
        self.num_params = len(self.param_names)
        self.params_values = tuple(tuple(dict.fromkeys(values)) for values in tune_params.values())
        self.neighbor_method = neighbor_method
        self._cache = from_cache
        self._neighbours: dict[str, dict[Config, NDArray[np.int64]]] = {method: {} for method in METHODS}
        self._present: list[NDArray[np.int64]] | None = None
        self._found = 0
        if not defer_construction:
            _ = self.size
        if build_neighbors_index and neighbor_method is not None:
            for config in self.list:
                self.get_neighbors_indices(config, neighbor_method)

    @classmethod
    def from_t1(cls, document: Mapping[str, Any], max_threads: int = 1024, **options: Any) -> Searchspace:
        """The space of a T1 document; its conditions are the restrictions."""
        problem = load_t1(document)
        conditions = (document["ConfigurationSpace"].get("Conditions") or []) if problem.domains else []
        texts = [each["Expression"] if isinstance(each, Mapping) else each for each in conditions]
        values = {name: list(problem.values(name)) for name in problem.domains}
        return cls(values, texts, max_threads, **options)

    @cached_property
    def tune_param_is_numeric(self) -> dict[str, bool]:
        """Whether all values of a parameter are numbers."""
        return {
            name: all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
            for name, values in self.tune_params.items()
        }

    @cached_property
    def tune_param_is_numeric_mask(self) -> NDArray[np.bool_]:
        return np.array(list(self.tune_param_is_numeric.values()), dtype=bool)

    @property
    def _block_sizes(self) -> Names:
        return [name for name in self.block_size_names if name in self.tune_params]

    @cached_property
    def problem(self) -> Problem:
        """The parameters and restrictions as constrint has them."""
        problem = Problem("search space")
        for name, values in zip(self.param_names, self.params_values, strict=True):
            problem.variable(str(name), values)
        for number, restriction in enumerate(self.restrictions, 1):
            add_foreign(problem, restriction, f"restriction {number}")
        if self._block_sizes:
            limit = f"{' * '.join(self._block_sizes)} <= {self.max_threads}"
            if limit not in self._modified_restrictions:
                self._modified_restrictions.append(limit)
            problem.add(reduce(mul, map(variable, self._block_sizes)) <= self.max_threads, limit)
        return problem

    @cached_property
    def solutions(self) -> SolutionSet:
        """The configurations in factored form, numbered otherwise than here: see ``constrint.SolutionSet``."""
        return self.problem.solution_set()

    @cached_property
    def size(self) -> int:
        return len(self.list) if self._cache is not None else len(self.solutions)

    @cached_property
    def list(self) -> Configs:
        """Every configuration. What only asks for the size, samples or neighbours does not need it."""
        if self._cache is not None:
            configs = dict(self._cache["cache"]).values()
            return [tuple(config[name] for name in self.param_names) for config in configs]
        return as_tuples(self._positions, self.params_values)

    def dicts(self) -> Dicts:
        """Every configuration by the names of its parameters, in the order of ``list``."""
        return as_dicts(self._positions, self.param_names, self.params_values)

    @cached_property
    def order(self) -> Indices:
        """The places of the parameters, the most significant first, of which each counts down through its values."""
        sizes = self._block_sizes
        limit = block_limit(sizes, self.max_threads) if sizes and self.max_threads is not None else None
        values = dict(zip(self.param_names, self.params_values, strict=True))
        return listing_order(values, self.restrictions, limit)

    @cached_property
    def _places(self) -> Places:
        return [{value: place for place, value in enumerate(values)} for values in self.params_values]

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        return np.arange(self.size)

    @cached_property
    def _index(self) -> dict[Config, int]:
        return dict(zip(self.list, range(self.size), strict=True))

    def get_list_dict(self) -> dict[Config, int]:
        """The index of each configuration."""
        return self._index

    @cached_property
    def _positions(self) -> NDArray[Any]:
        """The positions of the values of each configuration, a contiguous column a parameter."""
        if self._cache is not None:
            rows = [self.get_param_indices(config) for config in self.list]
            return np.asfortranarray(np.array(rows, dtype=np.int64).reshape(self.size, self.num_params))
        return arranged(self.solutions.positions(), [len(values) for values in self.params_values], self.order)

    def get_list_param_indices_numpy(self) -> NDArray[Any]:
        """The positions of the values of each configuration among those of its parameters [size, parameters]."""
        return self._positions

    def get_list_param_indices_numpy_min(self) -> int:
        return int(np.iinfo(self._positions.dtype).min)

    def get_list_param_indices_numpy_max(self) -> int:
        return int(np.iinfo(self._positions.dtype).max)

    def get_param_indices_lower_bounds(self) -> NDArray[Any]:
        """The first position of each parameter that some configuration has."""
        lowest: NDArray[Any] = self._positions.min(axis=0)
        return lowest

    def get_param_indices_upper_bounds(self) -> NDArray[Any]:
        """The last position of each parameter that some configuration has."""
        highest: NDArray[Any] = self._positions.max(axis=0)
        return highest

    def get_list_numpy(self) -> NDArray[Any]:
        """The configurations as a structured array, a field a parameter."""
        kinds = [
            (name, np.array(values).dtype) for name, values in zip(self.param_names, self.params_values, strict=True)
        ]
        return np.array(self.list, dtype=np.dtype(kinds))

    def get_list_numpy_numeric(self) -> NDArray[Any]:
        """The values of parameters that are numbers, the positions of others [size, parameters]."""
        columns = [
            np.array(values)[self._positions[:, i]] if numeric else self._positions[:, i]
            for i, (values, numeric) in enumerate(
                zip(self.params_values, self.tune_param_is_numeric.values(), strict=True)
            )
        ]
        return np.array(columns).transpose()

    def sorted_list(self, sort_last_param_first: bool = False) -> Configs:
        """The configurations in the order in which the values were given, the first (or last) parameter's first."""
        columns = [self._positions[:, i] for i in range(self.num_params)]
        order = np.lexsort(columns if sort_last_param_first else columns[::-1])
        return self.get_param_configs_at_indices(order)

    def is_param_config_valid(self, param_config: Config) -> bool:
        return self.get_param_config_index(param_config) is not None

    def get_param_config_index(self, param_config: Config) -> int | None:
        """The index of a configuration; None where it is none of the space."""
        return self._index.get(param_config)

    def get_param_indices(self, param_config: Config) -> tuple[int, ...]:
        """The positions of a configuration's values. Raises ValueError for a value that its parameter has not."""
        try:
            return tuple([places[value] for places, value in zip(self._places, param_config, strict=True)])
        except KeyError as error:
            raise ValueError(f"{shown(error.args[0])} is not among the values of its parameter") from None

    def get_param_config_from_param_indices(self, param_indices: Iterable[int]) -> Config:
        return tuple([values[place] for values, place in zip(self.params_values, param_indices, strict=True)])

    def get_param_config_from_numeric(self, param_config: Iterable[Any]) -> Config:
        """A row of ``get_list_numpy_numeric`` as a configuration."""
        if isinstance(param_config, np.ndarray):
            param_config = param_config.tolist()
        numeric = self.tune_param_is_numeric.values()
        rows = zip(param_config, numeric, self.params_values, strict=True)
        return tuple([value if number else values[int(value)] for value, number, values in rows])

    def get_param_configs_at_indices(self, indices: Iterable[int]) -> Configs:
        if "list" in self.__dict__ or self._cache is not None:
            everything = self.list
            return [everything[index] for index in indices]
        places = np.fromiter(indices, dtype=np.int64)
        return as_tuples(self._rows_at(places), self.params_values)

    def _rows_at(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of ``_positions`` at these places. All are listed once that is less work than to find so many."""
        self._found += len(places)
        if "_positions" not in self.__dict__ and len(places) and self._few():
            by = [self.solutions.names[column] for column in self.order]
            return self.solutions.positions_at([x + self.size if x < 0 else x for x in places.tolist()], by)
        return np.asfortranarray(self._positions[places])

    def _few(self) -> bool:
        """Whether the rows asked for so far are fewer than are worth listing all for."""
        sizes = [len(values) for values in self.params_values]
        work = self._found * (FIND if has_core() else FIND_IN_PYTHON) + sum(sizes)
        return work < self.size and max(sizes) <= OBJECTS

    def get_true_tunable_params(self) -> dict[str, Sequence[Any]]:
        """The parameters of which the configurations have more than one value."""
        if not self.size:
            return {}
        first = self._positions[0]
        varies = [bool((self._positions[:, i] != first[i]).any()) for i in range(self.num_params)]
        return {name: self.tune_params[name] for name, more in zip(self.param_names, varies, strict=True) if more}

    def get_random_sample_indices(self, num_samples: int) -> NDArray[np.int64]:
        """Indices drawn without repeats, by numpy.random: after its seed, those that Kernel Tuner draws."""
        if num_samples > self.size:
            raise ValueError(
                f"The number of samples requested ({num_samples}) is greater than the searchspace size ({self.size})"
            )
        if num_samples < 0:
            raise ValueError(f"a sample has no fewer than 0 configurations, not {num_samples}")
        return np.random.permutation(self.size)[:num_samples]  # all that ``choice`` does

    def get_random_sample(self, num_samples: int) -> Configs:
        """Configurations drawn without repeats; all of them, with a warning, where more are asked for."""
        return self.get_param_configs_at_indices(self.get_random_sample_indices(self._at_most(num_samples)))

    def get_distributed_random_sample_indices(self, num_samples: int, sampling_factor: int = 10) -> Indices:
        """Indices of configurations all over the space: those nearest to the points of a Halton sequence."""
        count = max(1, sampling_factor) * self._at_most(num_samples)
        return self._spread(halton(count, self.num_params), num_samples)

    def get_distributed_random_sample(self, num_samples: int, sampling_factor: int = 10) -> Configs:
        return self.get_param_configs_at_indices(
            self.get_distributed_random_sample_indices(num_samples, sampling_factor)
        )

    def get_LHS_sample_indices(self, num_samples: int) -> Indices:
        """Indices of configurations nearest to the points of a Latin hypercube."""
        return self._spread(latin_hypercube(self._at_most(num_samples), self.num_params), num_samples)

    def get_LHS_sample(self, num_samples: int) -> Configs:
        return self.get_param_configs_at_indices(self.get_LHS_sample_indices(num_samples))

    def _at_most(self, num_samples: int) -> int:
        if num_samples > self.size:
            warnings.warn(
                f"Too many samples requested ({num_samples}), reducing the number of samples to the searchspace size "
                f"({self.size})",
                stacklevel=3,
            )
        return min(num_samples, self.size)

    def _spread(self, points: NDArray[np.float64], num_samples: int) -> Indices:
        """Indices of the configurations nearest to points of the unit cube, each once, then random ones."""
        count = min(num_samples, self.size)
        if count == self.size:
            return list(range(count))
        low, high = self.get_param_indices_lower_bounds(), self.get_param_indices_upper_bounds()
        found: dict[int, None] = {}
        for point in points:
            if len(found) == count:
                break
            target = np.floor(low + point * (high.astype(np.int64) - low + 1)).astype(np.int64)
            found[self._nearest(np.minimum(target, high))] = None
        while len(found) < count:
            for index in self.get_random_sample_indices(count - len(found)):
                found[int(index)] = None
        return list(found)

    def _differences(self, positions: Sequence[int]) -> NDArray[np.int32]:
        """The sum of the differences in position of each configuration from some positions."""
        total = np.zeros(self.size, dtype=np.int32)
        for i, position in enumerate(positions):
            total += np.abs(self._positions[:, i].astype(np.int32) - np.int32(position))
        return total

    def _nearest(self, positions: Sequence[int]) -> int:
        exact = self.get_param_config_index(self.get_param_config_from_param_indices([int(p) for p in positions]))
        return int(self._differences(positions).argmin()) if exact is None else exact

    def get_neighbors_indices_no_cache(
        self, param_config: Config, neighbor_method: str | None = None, build_full_cache: bool = False
    ) -> NDArray[np.int64]:
        """Indices of the neighbours of a configuration, which need not be one of the space.

        "Hamming": one parameter has another value. "Hamming-adjacent": one parameter has, of the values that such
        neighbours have, the nearest above or below. "strictly-adjacent": every parameter is at most one position away.
        "adjacent": every parameter is at most as far away as the nearest values that any configuration has.
        "closest-param-indices": those at the least sum of differences in position.
        """
        method = self._method(neighbor_method)
        here = self.get_param_indices(param_config)
        own = self.get_param_config_index(param_config)
        if method == "Hamming":
            return np.array(sorted(index for _, _, index in self._hamming(param_config, here)), dtype=np.int64)
        if method == "Hamming-adjacent":
            return self._hamming_adjacent(param_config, here)
        if method == "closest-param-indices":
            sums = self._differences(here)
            if own is not None:
                sums[own] = np.iinfo(np.int32).max
            return np.nonzero(sums == sums.min())[0] if self.size > (own is not None) else np.array([], dtype=np.int64)
        spans = [(p - 1, p + 1) for p in here] if method == "strictly-adjacent" else self._adjacent_spans(here)
        found = np.arange(self.size)
        for i, (low, high) in enumerate(spans):
            column = self._positions[:, i] if len(found) == self.size else self._positions[found, i]
            found = found[(column >= low) & (column <= high)]
        return found if own is None else found[found != own]

    def _hamming(self, config: Config, here: Sequence[int]) -> Steps:
        """The neighbours in one parameter: the parameter, the position of its value, the index."""
        found = []
        for i, values in enumerate(self.params_values):
            before, after = config[:i], config[i + 1 :]
            for position, value in enumerate(values):
                if position != here[i]:
                    index = self._index.get((*before, value, *after))
                    if index is not None:
                        found.append((i, position, index))
        return found

    def _hamming_adjacent(self, config: Config, here: Sequence[int]) -> NDArray[np.int64]:
        nearest: dict[tuple[int, bool], tuple[int, int]] = {}
        for i, position, index in self._hamming(config, here):
            side = i, position > here[i]
            distance = abs(position - here[i])
            if side not in nearest or distance < nearest[side][0]:
                nearest[side] = distance, index
        return np.array(sorted(index for _, index in nearest.values()), dtype=np.int64)

    def _adjacent_spans(self, here: Sequence[int]) -> Spans:
        """Of each parameter, the nearest positions on both sides that some configuration has."""
        if self._present is None:
            self._present = [np.unique(self._positions[:, i]).astype(np.int64) for i in range(self.num_params)]
        spans = []
        for position, present in zip(here, self._present, strict=True):
            below = int(np.searchsorted(present, position, "left")) - 1
            above = int(np.searchsorted(present, position, "right"))
            low = present[below] if below >= 0 else position
            spans.append((int(low), int(present[above] if above < len(present) else position)))
        return spans

    def _method(self, neighbor_method: str | None) -> str:
        method = neighbor_method if neighbor_method is not None else self.neighbor_method
        if method is None:
            raise ValueError("Neither the neighbor_method argument nor self.neighbor_method was set")
        if method not in METHODS:
            raise ValueError(f"The neighbor method {method} is not in {list(METHODS)}")
        return method

    def get_neighbors_indices(
        self, param_config: Config, neighbor_method: str | None = None, build_full_cache: bool = False
    ) -> NDArray[np.int64]:
        """As ``get_neighbors_indices_no_cache``, remembered."""
        known = self._neighbours[self._method(neighbor_method)]
        if param_config not in known:
            known[param_config] = self.get_neighbors_indices_no_cache(param_config, neighbor_method)
        return known[param_config]

    def are_neighbors_indices_cached(self, param_config: Config, neighbor_method: str | None = None) -> bool:
        return param_config in self._neighbours[self._method(neighbor_method)]

    def get_neighbors_no_cache(self, param_config: Config, neighbor_method: str | None = None) -> Configs:
        return self.get_param_configs_at_indices(self.get_neighbors_indices_no_cache(param_config, neighbor_method))

    def get_neighbors(
        self, param_config: Config, neighbor_method: str | None = None, build_full_cache: bool = False
    ) -> Configs:
        return self.get_param_configs_at_indices(self.get_neighbors_indices(param_config, neighbor_method))

    def get_random_neighbor(
        self, param_config: Config, neighbor_method: str | None = None, use_partial_cache: bool = True
    ) -> Config | None:
        """A neighbour drawn at random; None where there is none."""
        found = self.get_neighbors_indices(param_config, neighbor_method)
        return self.list[_draws.choice(found)] if len(found) else None

    def get_param_neighbors(self, param_config: Config, index: int, neighbor_method: str, randomize: bool) -> Values:
        """The values that neighbours have of one parameter, other than its own."""
        neighbours = self.get_neighbors(param_config, neighbor_method)
        found = list(dict.fromkeys(each[index] for each in neighbours if each[index] != param_config[index]))
        if randomize:
            _draws.shuffle(found)
        return found

    def order_param_configs(
        self, param_configs: Sequence[Config], order: Sequence[int], randomize_in_params: bool = True
    ) -> Configs:
        """Configurations in groups: one drawn at random, those that differ from it in the first parameter of ``order``,
        of the rest those that differ in the second, and so on. randomize_in_params: shuffle each group."""
        if len(order) != self.num_params:
            raise ValueError(
                f"The length of the order ({len(order)}) must be equal to the number of parameters ({self.num_params})"
            )
        for i in range(self.num_params):
            if i not in order:
                raise ValueError(f"order needs to be a list of the parameter indices, but index {i} is missing")
        base = _draws.choice(list(param_configs))
        ordered, left = [base], [config for config in param_configs if config != base]
        for i in order:
            group = [config for config in left if config[i] != base[i]]
            left = [config for config in left if config[i] == base[i]]
            if randomize_in_params:
                _draws.shuffle(group)
            ordered += group
        return ordered


def use() -> None:
    """Have Kernel Tuner build its search spaces with this one, wherever it is imported by then.

    What ``kernel_tuner.searchspace`` draws with, Python's ``random`` unless somebody put another there, draws here too.
    """
    import importlib

    global _draws
    _draws = importlib.import_module("kernel_tuner.searchspace")
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "kernel_tuner" and hasattr(module, "Searchspace"):
            module.Searchspace = Searchspace  # type: ignore[attr-defined]


def _single(restrictions: Sequence[Any]) -> bool:
    """Whether a tuple is one restriction with the names of its parameters."""
    return (
        isinstance(restrictions, tuple)
        and len(restrictions) == 2
        and isinstance(restrictions[1], list | tuple)
        and not isinstance(restrictions[0], tuple)
    )
