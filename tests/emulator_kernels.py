"""Small hand-written kernels and how the emulator's tests run them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernelgen.errors import EmulationError
from kernelgen.program.launch import Launch
from kernelgen.program.source import Source
from kernelgen.verify.emulator import emulate

HEAD = '#include "ptx.cuh"\nusing namespace tilesmith;\n'


def kernel(body: str, parameters: str, before: str = "") -> Source:
    """A kernel whose parameters are declared as text; its file is called k.cu."""
    names = tuple(re.findall(r"(\w+)\s*(?:,|$)", parameters))
    text = f'{HEAD}{before}extern "C" __global__ void __launch_bounds__(1024) k({parameters}) {{\n{body}\n}}\n'
    return Source(text, "k", "sm_80", names)


def line(source: Source, mark: str) -> str:
    """Where the comment ``// mark`` stands, as reports write it."""
    (number,) = [i for i, text in enumerate(source.text.splitlines(), 1) if text.endswith(f"// {mark}")]
    return f"k.cu:{number}"


def run(
    source: Source,
    arguments: Mapping[str, NDArray[Any] | int | None],
    *,
    threads: int = 32,
    shared: int = 0,
    grid: tuple[int, int, int] = (1, 1, 1),
    cluster: int = 1,
    cooperative: bool = False,
    seed: int = 0,
) -> None:
    emulate(source, Launch(grid, threads, shared, cluster, cooperative), arguments, outputs=("out",), seed=seed)


def fault(source: Source, arguments: Mapping[str, NDArray[Any] | int | None], **launch: Any) -> str:
    with pytest.raises(EmulationError) as caught:
        run(source, arguments, **launch)
    return str(caught.value)


def words(count: int) -> NDArray[np.uint32]:
    return np.zeros(count, np.uint32)


EXCHANGE = """
    const SharedAddress mine = shared_memory() + 4 * thread_index();
    const unsigned other = (thread_index() + 33) % 64;
    store_shared_32(mine, thread_index() + 1000 * block_x() + 10000 * block_y()); // store
    sync_block(); // barrier
    const SharedAddress theirs = shared_memory() + 4 * other;
    const unsigned low = load_shared_16(theirs); // load
    store_global_32(out + (block_y() * 3 + block_x()) * 64 + thread_index(), low | load_shared_16(theirs + 2) << 16);
"""


def exchange(old: str = "", new: str = "") -> Source:
    assert old in EXCHANGE
    return kernel(EXCHANGE.replace(old, new, 1) if old else EXCHANGE, "unsigned* out")
