"""Names that Python would not read as one, in the text of a restriction: with dots, dashes and spaces in them."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from constrint.errors import ParseError

_STRING = r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\""


@dataclass
class Substituted:
    """A text in which each such name is an identifier.

    names: what each identifier stands for. shifts: of each line, where (in the new text, from 0) and by how much what
    follows has moved to the right.
    """

    text: str
    names: dict[str, str] = field(default_factory=dict)
    shifts: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def original(self, line: int, offset: int) -> int:
        """The offset in the original line of an offset in the new one, both from 0."""
        moved = 0
        for start, by in self.shifts.get(line, ()):
            if start < offset:
                moved = by
        return max(0, offset - moved)


def substitute(text: str, variables: Collection[str], name: str = "") -> Substituted:
    """Write an identifier for each variable that is no identifier, longest first, outside of quotes.

    Raises ParseError where a name may also be arithmetic on others: `a-b`, where `a` and `b` are variables too.
    """
    odd = sorted((v for v in variables if not v.isidentifier()), key=len, reverse=True)
    if not odd:
        return Substituted(text)
    known = set(variables)
    made = {v: f"_odd{number}_" for number, v in enumerate(odd)}
    while any(identifier in text for identifier in made.values()):
        made = {v: f"_{identifier}" for v, identifier in made.items()}
    pattern = re.compile(f"{_STRING}|(?<![\\w.])(?:{'|'.join(map(re.escape, odd))})(?![\\w])")
    result = Substituted("", {identifier: v for v, identifier in made.items()})
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        written, last, moved = "", 0, 0
        for match in pattern.finditer(line):
            found = match.group()
            if found not in made:
                continue
            if " " not in found and all(part in known for part in re.split(r"[-.]+", found)):
                reason = f"{found!r} may be the variable of that name or arithmetic on others; write p[{found!r}]"
                raise ParseError(reason, line, number, match.start() + 1, name)
            written += line[last : match.start()] + made[found]
            last = match.end()
            moved += len(made[found]) - len(found)
            result.shifts.setdefault(number, []).append((len(written) - 1, moved))
        lines.append(written + line[last:])
    result.text = "\n".join(lines)
    return result
