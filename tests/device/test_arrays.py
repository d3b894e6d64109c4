"""Arrays of any library, as the runtime sees them, and streams."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from kernelgen.device.arrays import Description, ForeignLibrary, library_of
from kernelgen.device.runtime import raw_stream
from kernelgen.errors import LaunchError

pytestmark = pytest.mark.unit


def test_a_cpu_array_and_a_list_are_refused_in_words() -> None:
    with pytest.raises(LaunchError, match=r"arrays on the GPU.*not list"):
        library_of([1, 2], "float16")
    library = library_of(np.zeros((2, 3), np.float16), "float16")
    assert isinstance(library, ForeignLibrary)
    assert str(library.describe(np.zeros((2, 3), np.float16))) == "float16 [2, 3] on the CPU"
    assert not library.fits(np.zeros((2, 3), np.float16), (2, 3), 0)
    with pytest.raises(LaunchError, match="pass out="):
        library.empty((2, 3), 0)


def test_strides_decide_what_is_contiguous() -> None:
    library = library_of(np.zeros(1, np.float16), "float16")
    array = np.zeros((4, 1, 6), np.float16)
    assert library.describe(array).contiguous
    assert library.describe(array[2:3]).contiguous
    assert not library.describe(array[:, :, ::2]).contiguous
    assert not library.describe(array.transpose(2, 1, 0)).contiguous


def test_torch_and_cupy_are_used_only_where_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tensor:
        shape, is_cuda = (2, 3), True
        dtype = "torch.bfloat16"
        device = types.SimpleNamespace(index=1)

        def is_contiguous(self) -> bool:
            return True

        def get_device(self) -> int:
            return 1

        def data_ptr(self) -> int:
            return 4096

    current = types.SimpleNamespace(current_stream=lambda device: types.SimpleNamespace(cuda_stream=10 + device))
    torch = types.SimpleNamespace(Tensor=Tensor, bfloat16="torch.bfloat16", cuda=current)
    monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
    library = library_of(Tensor(), "bfloat16")
    assert library.name == "PyTorch"
    assert library.describe(Tensor()) == Description((2, 3), "bfloat16", 1, True)
    assert library.fits(Tensor(), (2, 3), 1)
    assert not library.fits(Tensor(), (2, 3), 0)
    assert not library.fits(np.zeros((2, 3)), (2, 3), 1)
    assert (library.pointer(Tensor()), library.stream(1)) == (4096, 11)


def test_a_stream_may_come_from_any_library() -> None:
    assert raw_stream(5) == 5
    assert raw_stream(types.SimpleNamespace(cuda_stream=6)) == 6
    assert raw_stream(types.SimpleNamespace(ptr=7)) == 7
    assert raw_stream(types.SimpleNamespace(__cuda_stream__=lambda: (0, 8))) == 8
    with pytest.raises(LaunchError, match="not str"):
        raw_stream("stream")
