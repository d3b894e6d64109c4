"""The configurations of a stand-in for Kernel Tuner's search space: their order, their numbers and their forms."""

from __future__ import annotations

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

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from constrint.factored import SolutionSet

FIND, FIND_IN_PYTHON = 4, 100
"""A row is found by its place in about the time in which so many are listed: with the core, and without it."""
Config = tuple[Any, ...]
# ``list`` is an attribute of the class below, by Kernel Tuner's name.
Configs = list[Config]
Indices = list[int]
Values = list[Any]
Names = list[str]
Dicts = list[dict[str, Any]]
Places = list[dict[Any, int]]
Steps = list[tuple[int, int, int]]
Spans = list[tuple[int, int]]


class Configurations:
    """The configurations of some parameters that satisfy every restriction: see ``constrint.kernel_tuner.Searchspace``
    for the arguments and what is raised."""

    def __init__(
        self,
        tune_params: Mapping[str, Sequence[Any]] | None,
        restrictions: Any,
        max_threads: int | None,
        block_size_names: Sequence[str],
        from_cache: Mapping[str, Any] | None,
    ) -> None:
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
        self._cache = from_cache
        self._found = 0

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


def _single(restrictions: Sequence[Any]) -> bool:
    """Whether a tuple is one restriction with the names of its parameters."""
    return (
        isinstance(restrictions, tuple)
        and len(restrictions) == 2
        and isinstance(restrictions[1], list | tuple)
        and not isinstance(restrictions[0], tuple)
    )
