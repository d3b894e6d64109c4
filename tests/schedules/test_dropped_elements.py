"""The kernel of dropout, in the emulator, and what the compiler makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from kernelgen.build.compile import compile_source
from kernelgen.errors import LaunchError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.dtypes import numpy_dtype
from kernelgen.schedules.shared.dropped_elements import DroppedElements, kernel
from kernelgen.schedules.shared.moved_rows import MovedRows
from kernelgen.schedules.shared.moved_rows import kernel as moving
from kernelgen.verify.emulator import emulate


@pytest.mark.emulated
@pytest.mark.parametrize(("dtype", "share"), [("bfloat16", 0.3), ("float64", 0.1), ("float64", 1)])
def test_what_stays_is_scaled_once(dtype: str, share: float) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(600).astype(numpy_dtype(dtype))
    values[7] = np.inf
    mask = (rng.random(600) >= share).astype(np.uint8)
    mask[7] = 0
    source, launch, numbers = kernel(DroppedElements(600, dtype, share), load_profile("h200"))
    found = np.empty_like(values)
    emulate(source, launch, {"from": values, "mask": mask, "to": found, **numbers}, outputs=source.writes)
    scale = np.float64(0 if share == 1 else 1 / (1 - share))
    kept = np.where(mask == 1, values, 0).astype(np.float64) * (scale if dtype == "float64" else np.float32(scale))
    assert np.array_equal(found, kept.astype(values.dtype))


@pytest.mark.unit
def test_kernels_of_a_chain_compile_for_every_dtype() -> None:
    profile = load_profile("h200")
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        assert compile_source(kernel(DroppedElements(600, dtype, 0.1), profile)[0]).cubin
    for row_bytes in (16, 8, 4, 2):
        moved = MovedRows({"b": 3, "t": 5, "k": 2}, "btk", "tbk", row_bytes, reverses=True)
        assert compile_source(moving(moved, profile)[0]).cubin


@pytest.mark.unit
def test_more_elements_than_are_counted_are_refused() -> None:
    with pytest.raises(LaunchError, match=r"2,147,483,648 elements .* smaller batch"):
        kernel(DroppedElements(2**31, "float16", 0.5), load_profile("h200"))
