"""Finite domains of integers: a sorted tuple of values, or a range where listing it would be too long."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from functools import lru_cache

from constrint.errors import ConstrintError
from constrint.integers import exact_int, shown

LIST_LIMIT = 4096
"""Ranges of at most this many values are kept as lists, whose single values propagation can remove."""

MOST_DIVISORS = 200_000
"""More divisors are not listed; no number of 64 bits has as many."""

Domain = tuple[int, ...] | range


def make_domain(name: str, values: object) -> Domain:
    """The domain of the variable ``name`` from a range or an iterable of integers; sorted, without repeats.

    Raises ConstrintError for an empty domain, or a value that is no integer.
    """
    if type(values) is list and set(map(type, values)) == {int}:
        return tuple(sorted(set(values)))
    if isinstance(values, range):
        domain: Domain = values if values.step > 0 else values[::-1]
    elif isinstance(values, Iterable) and not isinstance(values, str | bytes):
        what = f"a value of {name!r}"
        domain = tuple(sorted({value if type(value) is int else exact_int(value, what) for value in values}))
    else:
        raise ConstrintError(f"the values of {name!r} must be a range or a list, not {shown(values)}")
    if not domain:
        raise ConstrintError(f"the variable {name!r} has no values to choose from")
    return listed(domain)


def size(domain: Domain) -> int:
    """Number of values (len() itself refuses more than 2**63)."""
    return (domain[-1] - domain[0]) // domain.step + 1 if isinstance(domain, range) else len(domain)


def place_of(domain: Domain, value: int) -> int:
    """The position of a value in a domain, -1 where it is none of its values."""
    if isinstance(domain, range):
        return domain.index(value) if value in domain else -1
    place = bisect_left(domain, value)
    return place if place < len(domain) and domain[place] == value else -1


def listed(domain: Domain) -> Domain:
    """The domain as a list of values if it is short enough, else as it is."""
    return tuple(domain) if isinstance(domain, range) and size(domain) <= LIST_LIMIT else domain


@lru_cache(maxsize=4096)
def divisors(number: int) -> tuple[int, ...] | None:
    """The positive divisors of a positive number, ascending; None where it is too large to factor quickly, or they are
    too many to list."""
    result = [1]
    rest, prime = number, 2
    while prime * prime <= rest:
        if prime > 1_000_000:
            return None
        powers = [1]
        while rest % prime == 0:
            rest //= prime
            powers.append(powers[-1] * prime)
        if len(powers) > 1:
            if len(result) * len(powers) > MOST_DIVISORS:
                return None
            result = [divisor * factor for divisor in result for factor in powers]
        prime += 1 if prime == 2 else 2
    if rest > 1:
        result += [divisor * rest for divisor in result]
    return tuple(sorted(result))
