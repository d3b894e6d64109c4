"""The links of a chain of kernels while they are laid out, and the arrays that lie between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kernelgen.schedules.shared.moved_rows import MovedRows
from kernelgen.torch.engine import Chain, Engine, Layout, Link, Ready


@dataclass
class Links:
    """A chain that is being laid out. given: the arrays that it is called with. inside: those that lie in one of these,
    or in one between links, as of engine.Layout, if those are there. device: an index."""

    engine: Engine
    device: int
    given: tuple[str, ...]
    inside: Mapping[str, tuple[str, int]]
    links: list[Link] = field(default_factory=list)
    between: dict[str, int] = field(default_factory=dict)

    def array(self, name: str, size: int) -> str:
        """The name of an array that has room for so many bytes: it is made between the links unless it is known."""
        if name not in self.given and name not in self.inside:
            self.between[name] = max(size, self.between.get(name, 0))
        return name

    def run(self, ready: Ready, arrays: Mapping[str, str], numbers: Mapping[str, int] | None = None) -> None:
        """A link: see engine.Link."""
        self.links.append(Link(ready, arrays, numbers or {}))

    def moved(self, moved: MovedRows, sources: Sequence[str], to: str) -> str:
        """The array that has the rows in order: ``to``, or the first source where the copy would be the same."""
        if not moved.changes:
            return sources[0]
        arrays = dict(zip(("from", "second"), sources, strict=False)) | {"to": self.array(to, moved.nbytes)}
        self.run(self.engine.moved_rows(moved, self.device), arrays)
        return to

    def before(self, moved: MovedRows, name: str, to: str) -> str:
        """Where rows are to be written that ``moved`` brings to ``to``: there itself where it would be the same."""
        return self.array(name if moved.changes else to, moved.nbytes)

    def chain(self) -> Chain:
        """What runs all of it."""
        known = {*self.given, *self.between}
        inside = {name: place for name, place in self.inside.items() if place[0] in known}
        return self.engine.chain(self.links, Layout(self.given, inside, self.between), self.device)
