"""Lanes: which of a program's calls may run at the same time, from what each takes and writes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Span = tuple[int, int]
"""The elements of an array from the first number on, up to the second one."""

WHOLE: Span = (0, sys.maxsize)


class Turn(NamedTuple):
    """When a call runs: after those before it in its lane, and after the earlier ones, by their places, of other lanes.
    Lane 0 is the stream that all is queued on, and calls in other lanes run beside it."""

    lane: int = 0
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Use:
    """What a call does with arrays, by their names. takes: which parts it reads. writes: which it writes."""

    takes: Mapping[str, Span] = field(default_factory=dict)
    writes: Mapping[str, Span] = field(default_factory=dict)

    def waits_for(self, earlier: Use) -> bool:
        """Whether one of the two writes what the other one reads or writes."""
        return (
            _meet(self.takes, earlier.writes) or _meet(self.writes, earlier.takes) or _meet(self.writes, earlier.writes)
        )


def _meet(some: Mapping[str, Span], others: Mapping[str, Span]) -> bool:
    return any(
        some[name][0] < others[name][1] and others[name][0] < some[name][1] for name in some.keys() & others.keys()
    )


def in_lanes(uses: Sequence[Use], most: int) -> list[Turn]:
    """A turn for each call, in no more lanes than ``most``: each runs as soon as all have ended that it waits for, but
    where lanes are too few for that."""
    found: list[Turn] = []
    before: list[set[int]] = []  # of each call: all that have ended when it begins
    ends: list[int] = []  # of each lane: its last call
    calls: list[int] = []  # and how many it has
    for place, use in enumerate(uses):
        needed = [earlier for earlier in range(place) if use.waits_for(uses[earlier])]
        following = [lane for lane, end in enumerate(ends) if end in needed]
        if following:
            lane = following[0]
        elif len(ends) < most:
            lane = len(ends)
            ends.append(-1)
            calls.append(0)
        else:
            lane = min(range(most), key=calls.__getitem__)
        waited = {*needed, *([ends[lane]] if ends[lane] >= 0 else [])}
        known = {one for other in waited for one in before[other]}
        found.append(Turn(lane, tuple(one for one in needed if one not in known and found[one].lane != lane)))
        before.append(waited | known)
        ends[lane] = place
        calls[lane] += 1
    return found
