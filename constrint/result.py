"""What is answered: by an engine, and to whoever asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from constrint.errors import Infeasible
from constrint.statement import Solution

Status = Literal["feasible", "infeasible", "unknown"]


@dataclass(frozen=True)
class Answer:
    """What an engine found; the fields are those of ``Result``."""

    status: Status
    solution: Solution | None = None
    objective: int | None = None
    proven: bool = False
    bound: int | None = None


@dataclass(frozen=True)
class Result:
    """The answer to ``solve`` or ``best``.

    status: "feasible" with a solution, "infeasible" (a proof), "unknown" where the time limit passed first.
    solution: the value of every variable. objective: its value, of ``best``. proven: nothing better exists (of
    ``solve``: nothing earlier in the preference order), or there is no solution at all. bound: no solution has an
    objective beyond it; equals ``objective`` where proven. seconds: wall-clock time.
    """

    status: Status
    solution: Solution | None = None
    objective: int | None = None
    proven: bool = False
    bound: int | None = None
    seconds: float = 0.0
    problem: str = field(default="", repr=False)

    def require(self) -> Solution:
        """The solution; raise Infeasible where there is none or none was found."""
        if self.solution is None:
            reason = "has no solution" if self.status == "infeasible" else "was not solved within the time limit"
            raise Infeasible(f"the problem {self.problem!r} {reason}; explain() names the constraints that clash")
        return self.solution
