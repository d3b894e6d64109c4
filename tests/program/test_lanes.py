"""Which calls may run at the same time, and that others never do."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from kernelgen.program.lanes import WHOLE, Turn, Use, in_lanes

pytestmark = pytest.mark.unit


def use(takes: str, writes: str) -> Use:
    return Use(dict.fromkeys(takes, WHOLE), dict.fromkeys(writes, WHOLE))


def part(begin: int, end: int) -> Use:
    return Use({"x": WHOLE}, {"y": (begin, end)})


def test_what_waits_for_nothing_runs_beside_the_first() -> None:
    """A recurrence; a copy; sums; three products of both, each of a part of the result; what takes the whole."""
    uses = [use("a", "x"), use("h", "c"), use("x", "b"), *(part(8 * at, 8 * at + 8) for at in range(3)), use("yb", "z")]
    assert in_lanes(uses, 4) == [
        Turn(0),
        Turn(1),
        Turn(0),
        Turn(2, (0,)),
        Turn(3, (0,)),
        Turn(1, (0,)),
        Turn(0, (3, 4, 5)),
    ]
    assert {turn.lane for turn in in_lanes(uses, 1)} == {0}


def test_parts_that_meet_follow_each_other() -> None:
    assert in_lanes([part(0, 8), part(8, 16), part(7, 9)], 3) == [Turn(0), Turn(1), Turn(0, (1,))]
    assert in_lanes([use("a", "b"), use("b", "c"), use("d", "a")], 3) == [Turn(0), Turn(0), Turn(1, (0,))]


@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_every_order_that_lanes_allow_keeps_what_waits(most: int) -> None:
    random = Random(most)
    for _ in range(50):
        uses = [
            use("".join(random.sample("abcdef", 2)), "".join(random.sample("abcdef", random.randint(0, 1))))
            for _ in range(random.randint(1, 9))
        ]
        turns = in_lanes(uses, most)
        assert max(turn.lane for turn in turns) < most
        before: list[set[int]] = []
        for place, (lane, after) in enumerate(turns):
            assert all(earlier < place and turns[earlier].lane != lane for earlier in after)
            waited = {*after, *(earlier for earlier in range(place) if turns[earlier].lane == lane)}
            before.append(waited | {one for other in waited for one in before[other]})
        for place, one in enumerate(uses):
            for earlier in range(place):
                assert earlier in before[place] or not one.waits_for(uses[earlier])


def test_lanes_are_few() -> None:
    turns = in_lanes([part(8 * at, 8 * at + 8) for at in range(9)], 4)
    assert sorted(turn.lane for turn in turns) == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert all(first.lane != second.lane for first, second in pairwise(turns))
