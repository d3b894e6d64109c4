"""What is known of each dtype, and what outputs may err by."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kernelgen.errors import ShapeError
from kernelgen.program.arguments import ITEMSIZE
from kernelgen.program.dtypes import dtype_info, element_tolerance, numpy_dtype, tolerance
from kernelgen.program.shape import DTYPES

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", DTYPES)
def test_numbers_of_a_dtype_are_those_of_its_numpy_type(name: str) -> None:
    info, kind = dtype_info(name), numpy_dtype(name)
    assert (info.itemsize, info.itemsize) == (kind.itemsize, ITEMSIZE[name])
    one = np.array([1.0], kind)
    assert float(np.nextafter(one, np.array([2.0], kind))[0]) - 1 == 2 * info.unit_roundoff
    assert np.isfinite(np.array(info.largest).astype(kind))
    beyond = np.nextafter(np.array([info.largest]).astype(kind), np.array([np.inf]).astype(kind))
    assert np.isinf(beyond).all()


def test_int32_is_of_messages_alone() -> None:
    assert numpy_dtype("int32") == np.int32
    with pytest.raises(ShapeError, match="unknown dtype 'int32'"):
        dtype_info("int32")


def test_float32_may_err_by_what_its_arithmetic_does() -> None:
    """Far less than a product of 11 bits would, far more than one rounding."""
    short, long = (tolerance("float32", 1024, "forward", terms) for terms in (64, 4096))
    assert 2**-24 < short < long < 2**-16
    assert tolerance("float32", 1, "backward", 16) < tolerance("float32", 1024, "backward", 16 * 1024) < 2**-14
    assert tolerance("float32", 1024) < tolerance("float16", 1024) / 1000
    assert element_tolerance("float32", 4096) < 2**-14


def test_a_random_walk_of_float32_additions_stays_within() -> None:
    """A sum of n terms, one after the other, is off by sqrt(n / 6) roundings; sqrt(n) are allowed."""
    terms = np.random.default_rng(0).normal(size=(400, 4096)).astype(np.float32)
    made = np.zeros(400, np.float32)
    for column in terms.T:
        made += column
    exact = terms.astype(np.float64).sum(1)
    error = float(np.linalg.norm(made - exact) / np.linalg.norm(exact))
    assert 0.3 * math.sqrt(4096 / 6) * 2**-24 < error < math.sqrt(4096) * 2**-24


def test_of_16_bits_the_length_of_sums_changes_nothing() -> None:
    for dtype in ("bfloat16", "float16"):
        assert tolerance(dtype, 64, "backward", 1 << 14) == tolerance(dtype, 64, "backward")
        assert element_tolerance(dtype, 1 << 14) == element_tolerance(dtype)
