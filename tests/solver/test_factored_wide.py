"""Products of more than 64 bits in the core's diagrams: they saturate, and every count stays exact."""

from __future__ import annotations

import random
from itertools import product as every
from math import prod
from typing import Any

import pytest

from constrint import Problem, divides, has_core
from constrint.native_diagram import NativeDiagram

pytestmark = [pytest.mark.unit, pytest.mark.skipif(not has_core(), reason="the C++ core is not built")]


def test_products_that_saturate_are_counted_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    native: list[int] = []
    real = NativeDiagram.decode

    def spy(self: NativeDiagram, *arguments: Any) -> list[tuple[int, ...]]:
        native.append(self.total)
        return real(self, *arguments)

    monkeypatch.setattr(NativeDiagram, "decode", spy)
    wide = 0
    for seed in range(120):
        rng = random.Random(seed)
        p = Problem(f"products {seed}")
        values = [1, 2, 3, 12, 2**13, 2**20 - 1, 2**25, *([0] if seed % 2 else [])]
        x = [p.variable(f"x{i}", rng.sample(values, 4)) for i in range(5)]
        product, bound = prod(x[1:], start=x[0]), rng.choice([0, 5, 2**20, 2**40 + 1, 2**45, 2**60, 3 * 2**50])
        p.add(
            rng.choice(
                [
                    product <= bound,
                    product >= bound,
                    product == bound,
                    product != bound,
                    product > 5 * bound,
                    divides(product, bound),
                    ~divides(product, bound),
                ]
            )
        )
        wide += prod(domain[-1] for domain in p.domains.values()) > 2**62
        choices = [dict(zip(p.domains, chosen, strict=True)) for chosen in every(*p.domains.values())]
        expected = [choice for choice in choices if p.contains(choice)]
        found = p.solution_set()
        assert found.count == len(expected), (seed, str(p.constraints[0]))
        assert sorted(map(str, found)) == sorted(map(str, expected)), seed
        assert p.count(engine="python") == len(expected), seed
    assert wide > 60
    assert len(native) > 60


def test_a_product_of_twenty_parameters_is_counted_by_few_nodes() -> None:
    p = Problem("blocks")
    x = [p.variable(f"x{i}", [1, 2, 3, 4, 5, 6, 8, 10, 12]) for i in range(20)]
    p.add(prod(x[1:], start=x[0]) <= 10**9)
    found = p.solution_set(time_limit=60)
    assert found.count > 10**16
    assert found.nodes < 10_000
    assert all(p.contains(solution) for solution in found.sample(50, seed=1))
