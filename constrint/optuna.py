"""A sampler for Optuna over a set of solutions: every trial is one. Needs optuna: pip install "tilesmith[optuna]".

sampler = SolutionSampler(problem.solution_set(), seed=1)
study = optuna.create_study(sampler=sampler)
study.optimize(lambda trial: measure(sampler.suggest(trial)), n_trials=100)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

try:
    import optuna
except ModuleNotFoundError as error:
    if error.name != "optuna":
        raise
    raise ModuleNotFoundError(
        'constrint.optuna needs Optuna, which is not installed; pip install "tilesmith[optuna]" brings it',
        name="optuna",
    ) from error

from constrint.factored import SolutionSet
from constrint.proposals import Proposals
from constrint.statement import Solution


class SolutionSampler(optuna.samplers.BaseSampler):  # type: ignore[misc]
    """Proposes solutions (``constrint.proposals``): each once, then any drawn uniformly.

    A trial gets the solution's values where it suggests a variable by its name, from all of its values
    (``trial.suggest_categorical(name, sampler.values(name))``, or ``sampler.suggest`` for all of them). Other
    parameters are drawn at random. In a study of several objectives solutions are drawn uniformly.
    """

    def __init__(self, solutions: SolutionSet, seed: int | None = None) -> None:
        self.solutions, self.seed = solutions, seed
        self._proposals: Proposals | None = None
        self._others = optuna.samplers.RandomSampler(seed)

    def values(self, name: str) -> list[Any]:
        """What ``suggest_categorical`` takes for a variable."""
        return list(self.solutions.values(name))

    def suggest(self, trial: optuna.Trial) -> Solution:
        """The solution of a trial."""
        return {name: trial.suggest_categorical(name, self.values(name)) for name in self.solutions.names}

    def infer_relative_search_space(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
        return {name: optuna.distributions.CategoricalDistribution(self.values(name)) for name in self.solutions.names}

    def sample_relative(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        proposals = self._of(study)
        solution = proposals.ask()
        if solution is None:
            solution = self.solutions.sample(1, seed=trial.number)[0]
        return dict(solution)

    def sample_independent(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        return self._others.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        state: optuna.trial.TrialState,
        values: Sequence[float] | None,
    ) -> None:
        solution = {name: trial.params[name] for name in self.solutions.names if name in trial.params}
        if len(study.directions) == 1 and solution in self.solutions:
            complete = state == optuna.trial.TrialState.COMPLETE and values
            self._of(study).tell(solution, values[0] if complete and values else None)

    def reseed_rng(self) -> None:
        """Of a worker of its own, in a study of many."""
        self._proposals, self.seed = None, None
        self._others.reseed_rng()

    def _of(self, study: optuna.Study) -> Proposals:
        if self._proposals is None:
            single = len(study.directions) == 1
            maximize = single and study.direction == optuna.study.StudyDirection.MAXIMIZE
            self._proposals = Proposals(self.solutions, self.seed, maximize)
            for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
                self.after_trial(study, trial, trial.state, trial.values)
        return self._proposals
