"""Remainders: equations that cannot hold, such as 2 x + 2 y = 7, and the steps they leave to their variables.

Bounds alone would never see that, nor would a search over long ranges. A congruence (step, rest) says of a number that
it is ``rest`` plus a multiple of ``step``: step 0 is one number, step 1 says nothing (Granger, 1989). An equation is
read as a sum of coefficients times terms that is 0; a term is a variable, or whatever is not linear.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import gcd, lcm

from constrint.domains import Domain
from constrint.limits import check_time
from constrint.program import Code, Op, reasons

Congruence = tuple[int, int]
Term = tuple[int, int, Congruence]
"""The variable (-1: what is not linear), its coefficient, and what is known of it."""

ANY: Congruence = (1, 0)
ROUNDS = 8
"""Rounds over the equations; each can only lengthen steps that another has lengthened."""
LARGEST_POWER = 64


def tighten(
    codes: Sequence[Code], domains: list[Domain], why: list[int], deadline: float | None = None
) -> tuple[bool, int]:
    """Shorten ``domains`` to what the remainders allow and add the reasons to ``why``, both by variable.

    What an equation gives outright, as in ``3 v = 6 x + 12 y``, keeps its domain: it is decided last, by its equation.
    Returns whether anything changed, and where a contradiction shows, constraints that cannot hold together as a sum of
    1 << number (else 0). Raises TimeLimit at ``deadline``.
    """
    equations = [code for code in codes if code.ops[-1] in (Op.EQ, Op.DIVIDES)]
    known = {v: _of_domain(domains[v]) for v in {v for code in equations for v in code.variables}}
    given = {v for code in equations for v in _given(code, known)}
    causes = {v: why[v] for v in known}
    asked = [-1] * len(equations)
    learnt = dict.fromkeys(known, 0)
    time, changed = 0, False
    for _ in range(ROUNDS):
        for number, code in enumerate(equations):
            if asked[number] >= max(learnt[v] for v in code.variables):
                continue
            check_time(deadline)
            total, terms = _equation(code, known)
            step = gcd(*(a * congruence[0] for _, a, congruence in terms))
            total += sum(a * congruence[1] for _, a, congruence in terms)
            cause = reasons(code, causes)
            if total % step if step else total:
                return changed, cause
            for v, congruence in _consequences(total, terms):
                both = _both(known[v], congruence)
                if both is None:
                    return changed, cause
                if both == known[v]:
                    continue
                time += 1
                known[v], learnt[v], causes[v] = both, time, cause
                if v in given:
                    continue
                domains[v], why[v], changed = _within(domains[v], both), cause, True
                if not domains[v]:
                    return changed, cause
                known[v] = _of_domain(domains[v])
            asked[number] = time
        if all(asked[n] >= max(learnt[v] for v in code.variables) for n, code in enumerate(equations)):
            break
    return changed, 0


def _given(code: Code, known: dict[int, Congruence]) -> Iterator[int]:
    """The variables that an equation gives: those that alone, or known numbers times which, are a side of it."""
    if code.ops[-1] != Op.EQ:
        return
    for side in (code.a[-1], code.b[-1]):
        factors = [side]
        loose = []
        for node in factors:
            op, a, b = code.ops[node], code.a[node], code.b[node]
            if op == Op.MUL:
                factors += [a, b]
            elif op != Op.CONST and not (op == Op.VAR and known[a][0] == 0):
                loose.append(node)
        if len(loose) == 1 and code.ops[loose[0]] == Op.VAR:
            yield code.a[loose[0]]


def _of_domain(domain: Domain) -> Congruence:
    if domain[0] == domain[-1]:
        return 0, domain[0]
    if isinstance(domain, range):
        return domain.step, domain[0] % domain.step
    step = domain[1] - domain[0]
    step = step if step == 1 else gcd(*(value - domain[0] for value in domain))
    return step, domain[0] % step


def _within(domain: Domain, congruence: Congruence) -> Domain:
    """The values of a domain, perhaps none, that are congruent. A range must step by a divisor of its step."""
    step, rest = congruence
    if step == 0:
        return (rest,) if rest in domain else ()
    if isinstance(domain, range):
        return range(domain[0] + (rest - domain[0]) % step, domain[-1] + 1, step)
    return tuple(value for value in domain if value % step == rest)


def _both(x: Congruence, y: Congruence) -> Congruence | None:
    """What holds of a number of which both hold; None where no number is so."""
    (m, r), (n, s) = x, y
    common = gcd(m, n)
    if (s - r) % common if common else s != r:
        return None
    if m == 0 or n == 0:
        return x if m == 0 else y
    return lcm(m, n), (r + m * ((s - r) // common * pow(m // common, -1, n // common) % (n // common))) % lcm(m, n)


def _either(x: Congruence, y: Congruence) -> Congruence:
    """What holds of a number of which one or the other holds."""
    return _reduced(gcd(x[0], y[0], x[1] - y[1]), x[1])


def _reduced(step: int, rest: int) -> Congruence:
    return (step, rest % step) if step else (0, rest)


def _consequences(total: int, terms: Sequence[Term]) -> Iterator[tuple[int, Congruence]]:
    """What an equation says of each of its variables. total: its value where every term is at its rest."""
    steps = [abs(a) * congruence[0] for _, a, congruence in terms]
    # Two terms that take steps of 1 can make up for whatever the others are.
    if steps.count(1) > 1:
        return
    for i, (v, a, congruence) in enumerate(terms):
        others = gcd(*steps[:i], *steps[i + 1 :])
        common = gcd(a, others)
        if v >= 0 and others > common:
            step = others // common
            rest = (a * congruence[1] - total) // common * pow(a // common, -1, step)
            yield v, (step, rest % step)


def _equation(code: Code, known: dict[int, Congruence]) -> tuple[int, list[Term]]:
    """The constant and the terms of a constraint left = right, or divisor | number, read as a sum that is 0."""
    nodes = _forward(code, known)
    total = 0
    coefficients: dict[tuple[int, int], int] = {}
    waiting = [(code.b[-1], 1)]
    if code.ops[-1] == Op.EQ:
        waiting.append((code.a[-1], -1))
    else:
        # A multiple of the divisor makes up for the number.
        coefficients[-1, len(nodes)] = gcd(*nodes[code.a[-1]])
        nodes.append(ANY)
    while waiting:
        node, factor = waiting.pop()
        op, a, b = code.ops[node], code.a[node], code.b[node]
        if nodes[node][0] == 0:
            total += factor * nodes[node][1]
        elif op in (Op.ADD, Op.SUB):
            waiting += [(a, factor), (b, factor if op == Op.ADD else -factor)]
        elif op == Op.MUL and 0 in (nodes[a][0], nodes[b][0]):
            number, other = (a, b) if nodes[a][0] == 0 else (b, a)
            waiting.append((other, factor * nodes[number][1]))
        elif op == Op.MOD:
            # The number less a multiple of the modulus.
            waiting.append((a, factor))
            coefficients[-1, node] = factor * gcd(*nodes[b])
            nodes[node] = ANY
        else:
            key = (a, -1) if op == Op.VAR else (-1, node)
            coefficients[key] = coefficients.get(key, 0) + factor
    return total, [(v, a, known[v] if v >= 0 else nodes[node]) for (v, node), a in coefficients.items() if a]


def _forward(code: Code, known: dict[int, Congruence]) -> list[Congruence]:
    """The congruence of each numeric node; ANY of a condition."""
    nodes: list[Congruence] = []
    for op, a, b in zip(code.ops, code.a, code.b, strict=True):
        if op == Op.CONST:
            nodes.append((0, a))
        elif op == Op.VAR:
            nodes.append(known[a])
        elif op < Op.INDICATOR:
            nodes.append(_combine(op, nodes[a], nodes[b]))
        else:
            nodes.append(ANY)
    return nodes


def _combine(op: int, x: Congruence, y: Congruence) -> Congruence:
    (m, r), (n, s) = x, y
    match op:
        case Op.ADD:
            return _reduced(gcd(m, n), r + s)
        case Op.SUB:
            return _reduced(gcd(m, n), r - s)
        case Op.MUL:
            return _reduced(gcd(m * n, m * s, n * r), r * s)
        case Op.FDIV if n == 0 and s and m % s == 0:
            return _reduced(abs(m // s), r // s)
        case Op.MOD if n == 0 and s:
            return (0, r % s) if m % s == 0 else _reduced(gcd(m, s), r)
        case Op.POW if n == 0 and 0 <= s <= LARGEST_POWER:
            return _reduced(m, r**s) if s else (0, 1)
        case Op.MIN | Op.MAX:
            return _either(x, y)
        case Op.ABS:
            return _either(x, (m, -r))
        case Op.NONZERO:
            return x
    return ANY
