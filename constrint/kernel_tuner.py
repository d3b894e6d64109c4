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
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from constrint.errors import ConstrintError
from constrint.kernel_tuner_configs import Config, Configs, Configurations, Indices, Spans, Steps, Values
from constrint.points import halton, latin_hypercube
from constrint.text import load_t1

if TYPE_CHECKING:
    from numpy.typing import NDArray


BLOCK_SIZES = ("block_size_x", "block_size_y", "block_size_z")
METHODS = ("strictly-adjacent", "adjacent", "Hamming", "Hamming-adjacent", "closest-param-indices")
_draws: Any = random
"""Has ``choice`` and ``shuffle``."""


class Searchspace(Configurations):
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
        super().__init__(tune_params, restrictions, max_threads, block_size_names, from_cache)
        self.neighbor_method = neighbor_method
        self._neighbours: dict[str, dict[Config, NDArray[np.int64]]] = {method: {} for method in METHODS}
        self._present: list[NDArray[np.int64]] | None = None
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
    Raises ConstrintError where Kernel Tuner is not installed.
    """
    import importlib

    global _draws
    try:
        _draws = importlib.import_module("kernel_tuner.searchspace")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "kernel_tuner":
            raise
        raise ConstrintError("there is no Kernel Tuner to build spaces for; pip install kernel_tuner") from error
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "kernel_tuner" and hasattr(module, "Searchspace"):
            module.Searchspace = Searchspace  # type: ignore[attr-defined]
