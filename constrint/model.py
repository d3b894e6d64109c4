"""Problem: variables, constraints, and the questions one may ask of them."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from constrint import expr as build
from constrint import operators
from constrint.domains import make_domain
from constrint.errors import ConstrintError
from constrint.evaluate import holds
from constrint.expr import Expr, Operand
from constrint.integers import as_index, exact_int, shown
from constrint.limits import deadline_in, seconds_left
from constrint.result import Result
from constrint.statement import Constraint, Solution, Statement
from constrint.values import Codings, make_coding
from constrint.vocabulary import NONE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

    from constrint.encode import Encoder
    from constrint.estimate import Estimate
    from constrint.explain import Conflict
    from constrint.factored import SolutionSet
    from constrint.protocols import EngineCall

Neighbourhood = Literal["hamming", "adjacent"]
Preference = tuple[str | Expr, str]


class Problem(Statement):
    """Variables over finite domains, and the constraints between them.

    name: what messages call it. Whatever it answers is exact: a solution satisfies every constraint in unbounded
    integer arithmetic (``constrint.evaluate`` states the meaning), and "infeasible" is a proof. ``domains`` and
    ``codings``: inside, every value is an integer; ``values`` gives those that were declared.

    Every question takes ``engine``: "native" (the C++ core, or Python where it was not built or 64 bits do not
    suffice), "python", "cp-sat" (OR-tools), or "auto": native, and CP-SAT beside it where ``solve`` and ``best`` have
    no answer after a moment; the first proof wins.
    """

    def __init__(self, name: str = "problem") -> None:
        # Importing constrint stays cheap, and the first question fast: what answers it loads with the first problem.
        from constrint import engine  # noqa: F401
        from constrint.core import load_core

        load_core()
        super().__init__(name)
        self.codings = Codings()
        self.vocabulary = NONE
        """What its texts may name beside the variables."""
        self._encoder: Encoder | None = None

    def __repr__(self) -> str:
        return f"Problem({self.name!r}, variables={len(self._domains)}, constraints={len(self._constraints)})"

    def variable(self, name: str, values: Iterable[Any]) -> Expr:
        """Declare a variable that takes one of ``values``: a range, or any iterable of integers, decimals, text, True,
        False and None. Solutions give them back as they came.

        Raises ConstrintError for a name declared before or a domain that is empty or holds anything else.
        """
        check_name(name)
        if name in self._domains:
            raise ConstrintError(f"the variable {name!r} is already declared in {self.name!r}")
        self._encoder = None
        if isinstance(values, range | str | bytes) or not isinstance(values, Iterable):
            self._domains[name] = make_domain(name, values)
            return build.variable(name)
        listed = list(values)
        plain = set(map(type, listed)) == {int}
        integers = listed if plain else [index for index in map(as_index, listed) if index is not None]
        if len(integers) == len(listed):
            domain = self._domains[name] = make_domain(name, integers)
            given = tuple(dict.fromkeys(integers))
            if isinstance(domain, tuple) and given != domain:
                self.codings.given[name] = given
        else:
            coding = make_coding(name, listed)
            self._domains[name] = coding.domain
            self.codings.of[name] = coding
        return build.variable(name)

    def values(self, name: str) -> Sequence[Any]:
        """The values of a variable, as they came and in the order given."""
        if name not in self._domains:
            raise ConstrintError(f"{self.name!r} has no variable {shown(name)}")
        return self.codings.values(name, self._domains[name])

    def add(self, condition: Expr | bool | Callable[..., Any], label: str | None = None) -> Constraint:
        """Require a condition. label: the words people read in ``explain``; the expression itself by default.

        A Python function is called, of variables by the names of its parameters, or of one mapping of them all: see
        ``constrint.tracing``. Raises ConstrintError for a number instead of a condition, a variable that is not
        declared, or a function of too many combinations of values.
        """
        if callable(condition) and not isinstance(condition, Expr):
            from constrint.tracing import restriction_of

            traced, words = restriction_of(condition, self)
            return self.add(traced, words if label is None else label)
        expr = build.as_expr(condition)
        self._check(expr)
        if not expr.is_condition:
            if isinstance(condition, Expr | int | float):
                raise ConstrintError(
                    f"a constraint must be a condition, but ({expr}) is a number; compare it with something"
                )
            hint = "; parse_restriction(text, problem.domains) makes one of text" if isinstance(condition, str) else ""
            raise ConstrintError(f"a constraint must be a condition, not {shown(condition)}{hint}")
        if label is not None and not isinstance(label, str):
            raise ConstrintError(f"a label is text, not {shown(label)}")
        encoder = self.encoder
        core = encoder.condition(expr)
        words = label if label is not None else str(expr)
        constraint = Constraint(expr, words, None if core is expr else core, encoder.whole(expr))
        self._constraints.append(constraint)
        return constraint

    @property
    def encoder(self) -> Encoder:
        """What states expressions over these variables for the engines."""
        if self._encoder is None:
            from constrint.encode import Encoder

            self._encoder = Encoder(self._domains, self.codings.of)
        return self._encoder

    def table(self, columns: Sequence[Operand], rows: Iterable[Sequence[Any]], label: str | None = None) -> Constraint:
        """Require that the values of ``columns``, taken together, are one of ``rows``."""
        return self.add(operators.table(columns, rows), label)

    def solve(self, prefer: Iterable[Preference] = (), time_limit: float | None = None, engine: str = "auto") -> Result:
        """The first solution in order of preference.

        prefer: (variable, "min" or "max") pairs, most important first; variables not named follow in order of
        declaration, smallest value first. None: any solution will do, which may be found much sooner; which it is
        depends on the engine. time_limit: seconds.
        """
        start = time.perf_counter()
        answer = self._ask(engine).first(self._order(prefer), time_limit)
        seconds = time.perf_counter() - start
        return Result(
            answer.status, self._decoded(answer.solution), None, answer.status != "unknown", None, seconds, self.name
        )

    def best(
        self,
        minimize: Expr | None = None,
        maximize: Expr | None = None,
        prefer: Iterable[Preference] | None = (),
        time_limit: float | None = None,
        engine: str = "auto",
    ) -> Result:
        """The solution with the smallest (or largest) value of an expression, and the first of those by ``prefer``
        (None: any of them).

        Give one of ``minimize`` and ``maximize``: an integer expression, without "/". Where ``time_limit`` (seconds)
        passes first, the best solution so far with ``proven`` false and ``bound`` what is known. An assignment under
        which the objective is undefined is no solution.
        """
        if (minimize is None) == (maximize is None):
            raise ConstrintError("best needs exactly one of minimize and maximize")
        start = time.perf_counter()
        objective = build.as_expr(minimize if minimize is not None else maximize)
        self._check(objective)
        objective = self.encoder.number(objective, "an objective")
        sign = 1 if minimize is not None else -1
        answer = self._ask(engine).best(objective, sign, self._order(prefer), time_limit)
        return Result(
            answer.status,
            self._decoded(answer.solution),
            answer.objective,
            answer.proven,
            answer.bound,
            time.perf_counter() - start,
            self.name,
        )

    def solutions(self, prefer: Iterable[Preference] = (), engine: str = "auto") -> Iterator[Solution]:
        """Every solution once, lazily, in order of preference (see ``solve``)."""
        found = self._ask(engine).solutions(self._order(prefer))
        return map(self.codings.decoded, found) if self.codings.of else found

    def count(self, time_limit: float | None = None, engine: str = "auto") -> int:
        """The number of solutions, without listing them. Raises TimeLimit after ``time_limit`` seconds."""
        from constrint.factored import count

        return count(self, engine, time_limit)

    def estimate(
        self, draws: int = 1000, seed: int | None = None, time_limit: float | None = None, engine: str = "auto"
    ) -> Estimate:
        """About how many solutions there are, with the standard error of that, and bounds that are certain: for
        problems that ``count`` cannot finish. Exact where the solutions factor at once.

        draws: how many random solutions (or ways down the search) it rests on; the error falls with their square
        root. The same seed gives the same estimate. Raises TimeLimit after ``time_limit`` seconds.
        """
        from constrint.estimate import estimate

        return estimate(
            self, self._native(engine), exact_int(draws, "the number of draws"), seed, deadline_in(time_limit)
        )

    def _native(self, engine: str) -> bool:
        from constrint.core import has_core
        from constrint.engine import ENGINES, NATIVE

        if engine not in ENGINES:
            raise ConstrintError(f"unknown engine {shown(engine)}; known: {', '.join(ENGINES)}")
        return engine in NATIVE and has_core()

    def solution_set(self, time_limit: float | None = None, engine: str = "auto") -> SolutionSet:
        """Every solution in factored form: to count, index, sample and iterate without listing them.

        The set is that of the constraints as they are now. Raises TimeLimit after ``time_limit`` seconds, and
        ConstrintError where the solutions do not factor (see ``constrint.factored``).
        """
        from constrint.factored import solution_set

        found = solution_set(self, engine, deadline_in(time_limit))
        found.codings = Codings(dict(self.codings.of), dict(self.codings.given))
        found.declared = dict(self._domains)
        return found

    def sample(
        self,
        n: int,
        seed: int | None = None,
        replace: bool = False,
        time_limit: float | None = None,
        engine: str = "auto",
    ) -> list[Solution]:
        """``n`` solutions drawn uniformly; each at most once unless ``replace``. See ``SolutionSet.sample``.

        To draw repeatedly, keep the ``solution_set()`` and sample that. Where the solutions do not factor, they are
        drawn from those of fewer constraints, or by the search at random, which is only about uniform and comes with
        the warning ApproximateSample (see ``constrint.estimate``).
        """
        from constrint.estimate import draw
        from constrint.factor import DoesNotFactor

        deadline = deadline_in(time_limit)
        try:
            return self.solution_set(time_limit, engine).sample(n, seed, replace)
        except DoesNotFactor:
            n = exact_int(n, "the number of solutions to draw")
            found = draw(self, self._native(engine), n, seed, replace, deadline)
        return [self.codings.decoded(solution) for solution in found] if self.codings.of else found

    def to_numpy(
        self,
        time_limit: float | None = None,
        engine: str = "auto",
        dtype: DTypeLike = "int64",
        file: str | Path | None = None,
    ) -> NDArray[Any]:
        """Every solution as an array of integers [count, variables], a row a solution, a column a variable as declared.

        The rows come in the order of ``solution_set()``. See ``SolutionSet.to_numpy`` for dtype, file and what is
        raised.
        """
        deadline = deadline_in(time_limit)
        return self.solution_set(time_limit, engine).to_numpy(seconds_left(deadline), dtype, file)

    def contains(self, assignment: Mapping[str, Any]) -> bool:
        """Whether an assignment of every variable is a solution. Raises ConstrintError as ``check`` does.

        Values are whole numbers of any kind: 2, ``numpy.int64(2)`` and 2.0 are the same.
        """
        return not self.check(assignment)

    def neighbours(self, assignment: Mapping[str, Any], kind: Neighbourhood = "hamming") -> Iterator[Solution]:
        """The solutions that differ from an assignment in one variable, in order of declaration and value.

        kind: "hamming", the variable takes any other of its values; "adjacent", the next smaller or larger of them.
        The assignment itself need not be a solution. Raises ConstrintError as ``check`` does.
        """
        from constrint.neighbours import neighbours

        found = neighbours(self, self.encoded(assignment), kind)
        return map(self.codings.decoded, found) if self.codings.of else found

    def exclude(self, assignment: Mapping[str, Any], label: str | None = None) -> Constraint:
        """Require that a solution differs from an assignment somewhere.

        The assignment may leave variables out; then whatever agrees with it on those it names is excluded.
        """
        for name in assignment if isinstance(assignment, Mapping) else ():
            if name not in self._domains:
                raise ConstrintError(f"exclude names {shown(name)}, which {self.name!r} does not declare")
        values = self.codings.decoded(self._values(self.encoded(assignment)))
        if not values:
            raise ConstrintError("exclude needs a value for at least one variable")
        same = operators.table([build.variable(name) for name in values], [list(values.values())])
        words = ", ".join(f"{name} = {shown(value)}" for name, value in values.items())
        return self.add(~same, label if label is not None else f"not ({words})")

    def explain(self, time_limit: float | None = None, engine: str = "auto") -> Conflict:
        """A minimal list of constraints that cannot hold together over these domains: without any one of them the
        rest can. Empty where the problem has a solution.

        Definitions of helper quantities (see ``constrint.explain``) are background: those that the conflict rests on
        are its ``definitions``. Raises TimeLimit after ``time_limit`` seconds.
        """
        from constrint.explain import minimal_conflict

        return minimal_conflict(self, time_limit, engine)

    def check(self, assignment: Mapping[str, Any]) -> list[Constraint]:
        """The constraints that an assignment of every variable violates, values outside a domain included.

        Raises ConstrintError for a missing or unknown variable, and for a value that is no whole number.
        """
        values = self.complete(self.encoded(assignment))
        outside = [name for name, domain in self._domains.items() if values[name] not in domain]
        violated = [constraint for constraint in self._constraints if not holds(constraint.stated, values)]
        return [self._domain_constraint(name) for name in outside] + violated

    def subproblem(self, constraints: Iterable[Constraint]) -> Problem:
        """The same variables under other constraints."""
        other = Problem(self.name)
        other._domains = dict(self._domains)
        other.codings = Codings(dict(self.codings.of), dict(self.codings.given))
        other._constraints = list(constraints) if isinstance(constraints, Iterable) else [constraints]
        if not all(isinstance(constraint, Constraint) for constraint in other._constraints):
            raise ConstrintError("a subproblem takes constraints, as add() returns and .constraints lists them")
        return other

    def encoded(self, assignment: Mapping[str, Any]) -> Mapping[str, Any]:
        """An assignment with the integers of its values; a value that its variable has not becomes no integer of it."""
        if not self.codings.of or not isinstance(assignment, Mapping):
            return assignment
        result = dict(assignment)
        for name, coding in self.codings.of.items():
            if name in result:
                code = coding.find(result[name])
                result[name] = coding.domain[-1] + 1 if code is None else code
        return result

    def _decoded(self, solution: Solution | None) -> Solution | None:
        return solution if solution is None or not self.codings.of else self.codings.decoded(solution)

    def _domain_constraint(self, name: str) -> Constraint:
        domain = self._domains[name]
        if name in self.codings.of:
            values = self.codings.of[name].values
            condition = build.variable(name).isin(values)
            return Constraint(condition, f"{name} in {list(values)}", build.variable(name).isin(domain))
        if isinstance(domain, range):
            words = f"{name} in {domain}"
            condition = (build.variable(name) >= domain[0]) & (build.variable(name) <= domain[-1])
            condition = condition & ((build.variable(name) - domain[0]) % domain.step == 0)
            return Constraint(condition, words)
        return Constraint(build.variable(name).isin(domain), f"{name} in {list(domain)}")

    def _check(self, expr: Expr) -> None:
        if expr.depth() > build.MAX_DEPTH:
            raise ConstrintError(
                f"an expression is nested more than {build.MAX_DEPTH} operators deep (a sum nests one a term); "
                "name parts of it with variables of their own"
            )
        for name in expr.variables():
            if name not in self._domains:
                known = ", ".join(self._domains) or "none"
                raise ConstrintError(f"({expr}) uses {name!r}, which {self.name!r} does not declare; declared: {known}")

    def _order(self, prefer: Iterable[Preference] | None) -> dict[str, bool]:
        """Every variable in order of preference, and whether its largest value comes first; of none, nothing."""
        order: dict[str, bool] = {}
        if prefer is None:
            return order
        for which, direction in _pairs(prefer):
            name = which.name if isinstance(which, Expr) else which
            if not isinstance(name, str) or name not in self._domains:
                raise ConstrintError(f"prefer names {shown(which)}, which is no variable of {self.name!r}")
            if direction not in ("min", "max"):
                raise ConstrintError(f"the preference for {name!r} must be 'min' or 'max', not {shown(direction)}")
            if name in order:
                raise ConstrintError(f"prefer names {name!r} twice")
            order[name] = direction == "max"
        return order | {name: False for name in self._domains if name not in order}

    def _ask(self, engine: str) -> EngineCall:
        from constrint.engine import engine_call

        return engine_call(self, engine)


_NAME = re.compile(r"[^\W\d]\w*(?:[-. ]+\w+)*")


def check_name(name: object) -> None:
    """Raise ConstrintError unless a variable may be called so: an identifier, as Python would spell it, which dots,
    dashes and spaces may divide."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConstrintError(
            f"a variable's name must be an identifier, which dots, dashes and spaces may divide, not {shown(name)}"
        )
    normal = unicodedata.normalize("NFKC", name)
    if normal != name:
        # Python reads the one where the other is written.
        raise ConstrintError(f"a variable's name must be spelt as Python normalises it: {normal!r}, not {name!r}")


def _pairs(prefer: Iterable[Preference]) -> list[Preference]:
    """The preferences as a list; raise ConstrintError for what are no pairs."""
    listed = list(prefer) if isinstance(prefer, Iterable) and not isinstance(prefer, str) else [prefer]
    for pair in listed:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ConstrintError(f"prefer lists pairs such as ('tile', 'max'), not {shown(pair)}")
    return [(which, direction) for which, direction in listed]
