"""GPU arrays of any library, as the runtime sees them: where they lie, and how to make more of the same kind.

PyTorch and CuPy are known by name but never imported: an array of theirs proves that they are already loaded.
Everything else is read through DLPack or __cuda_array_interface__ with cuda-core.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Protocol

from kernelgen.errors import LaunchError
from kernelgen.program.dtypes import numpy_dtype

_DLPACK_CPU = 1
_DLPACK_DEFAULT_STREAM = 1
"""Numbers of the DLPack protocol: the device type of the CPU, and CUDA's default stream."""


@dataclass(frozen=True)
class Description:
    """An array in words and numbers. device: index of its GPU, None where it is not on a GPU."""

    shape: tuple[int, ...]
    dtype: str
    device: int | None
    contiguous: bool

    def __str__(self) -> str:
        place = "on the CPU" if self.device is None else f"on GPU {self.device}"
        return f"{self.dtype} {list(self.shape)} {place}" + ("" if self.contiguous else ", not C-contiguous")


class Library(Protocol):
    """An array library, for arrays of one dtype."""

    name: str

    def of(self, dtype: str) -> Library:
        """The same library, for arrays of another dtype."""
        ...

    def describe(self, array: Any) -> Description:
        """Say what an array is."""
        ...

    def fits(self, array: Any, shape: tuple[int, ...], device: int) -> bool:
        """Whether the array has this shape, the library's dtype, lies on this GPU and is C-contiguous."""
        ...

    def pointer(self, array: Any) -> int:
        """The address of the first element."""
        ...

    def empty(self, shape: tuple[int, ...], device: int) -> Any:
        """A new C-contiguous array on a GPU; its contents are undefined."""
        ...

    def stream(self, device: int) -> int:
        """The handle of the library's current stream on a GPU."""
        ...


class TorchLibrary:
    """PyTorch tensors of one dtype."""

    name = "PyTorch"

    def __init__(self, torch: Any, dtype: str) -> None:
        self._torch = torch
        self._dtype = getattr(torch, dtype)
        self._tensor = torch.Tensor
        self._devices: dict[int, Any] = {}

    def of(self, dtype: str) -> TorchLibrary:
        """PyTorch, for tensors of another dtype."""
        return TorchLibrary(self._torch, dtype)

    def describe(self, array: Any) -> Description:
        """Say what a tensor is."""
        device = (array.device.index or 0) if array.is_cuda else None
        return Description(tuple(array.shape), str(array.dtype).removeprefix("torch."), device, array.is_contiguous())

    def fits(self, array: Any, shape: tuple[int, ...], device: int) -> bool:
        """Whether a tensor can go to the kernel as it is."""
        return (
            isinstance(array, self._tensor)
            and array.shape == shape
            and array.dtype is self._dtype
            and array.is_contiguous()
            and array.get_device() == device
        )

    def pointer(self, array: Any) -> int:
        """The address of the first element."""
        return int(array.data_ptr())

    def empty(self, shape: tuple[int, ...], device: int) -> Any:
        """A new tensor."""
        place = self._devices.get(device)
        if place is None:
            place = self._devices[device] = self._torch.device("cuda", device)
        return self._torch.empty(shape, dtype=self._dtype, device=place)

    def stream(self, device: int) -> int:
        """The handle of PyTorch's current stream."""
        return int(self._torch.cuda.current_stream(device).cuda_stream)


class CupyLibrary:
    """CuPy arrays of one dtype."""

    name = "CuPy"

    def __init__(self, cupy: Any, dtype: Any) -> None:
        self._cupy = cupy
        self._dtype = dtype
        self._array = cupy.ndarray

    def of(self, dtype: str) -> CupyLibrary:
        """CuPy, for arrays of another dtype."""
        return CupyLibrary(self._cupy, numpy_dtype(dtype))

    def describe(self, array: Any) -> Description:
        """Say what an array is."""
        return Description(tuple(array.shape), str(array.dtype), int(array.device.id), bool(array.flags.c_contiguous))

    def fits(self, array: Any, shape: tuple[int, ...], device: int) -> bool:
        """Whether an array can go to the kernel as it is."""
        return (
            isinstance(array, self._array)
            and array.shape == shape
            and array.dtype == self._dtype
            and array.flags.c_contiguous
            and array.data.device_id == device
        )

    def pointer(self, array: Any) -> int:
        """The address of the first element."""
        return int(array.data.ptr)

    def empty(self, shape: tuple[int, ...], device: int) -> Any:
        """A new array."""
        with self._cupy.cuda.Device(device):
            return self._cupy.empty(shape, dtype=self._dtype)

    def stream(self, device: int) -> int:
        """The handle of CuPy's current stream."""
        return int(self._cupy.cuda.get_current_stream(device).ptr)


class ForeignLibrary:
    """Arrays of any other library, through DLPack or __cuda_array_interface__; they cannot be made here."""

    name = "a library known only through DLPack"

    def __init__(self, dtype: Any) -> None:
        self._dtype = dtype

    def of(self, dtype: str) -> ForeignLibrary:
        """The same, for arrays of another dtype."""
        return ForeignLibrary(numpy_dtype(dtype))

    def describe(self, array: Any) -> Description:
        """Say what an array is."""
        view = _view(array)
        return Description(
            tuple(view.shape), str(view.dtype), view.device_id if view.is_device_accessible else None, _contiguous(view)
        )

    def fits(self, array: Any, shape: tuple[int, ...], device: int) -> bool:
        """Whether an array can go to the kernel as it is."""
        view = _view(array)
        return (
            tuple(view.shape) == shape
            and view.dtype == self._dtype
            and view.is_device_accessible
            and view.device_id == device
            and _contiguous(view)
        )

    def pointer(self, array: Any) -> int:
        """The address of the first element."""
        return int(_view(array).ptr)

    def empty(self, shape: tuple[int, ...], device: int) -> Any:
        """Refuse: say what to pass instead."""
        raise LaunchError(
            f"an output of shape {list(shape)} cannot be allocated in {self.name}; pass out=, the outputs in order"
        )

    def stream(self, device: int) -> int:
        """The default stream, which waits for all others that were not made to run apart from it."""
        return 0


def library_of(array: Any, dtype: str) -> Library:
    """The library of ``array``, for arrays of ``dtype`` ("bfloat16", "float16").

    A CuPy or DLPack array of uint16 stands for the same bits: not every library knows bfloat16. Raises LaunchError
    for what is no array on a GPU.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return TorchLibrary(torch, dtype)
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return CupyLibrary(cupy, _numpy_dtype(array.dtype, dtype))
    return ForeignLibrary(_numpy_dtype(_view(array).dtype, dtype))


def _numpy_dtype(own: Any, dtype: str) -> Any:
    """uint16 where the array is of uint16, else the NumPy dtype of ``dtype``."""
    import numpy as np

    return own if own == np.dtype("uint16") else numpy_dtype(dtype)


def _view(array: Any) -> Any:
    """Look at a foreign array. Raises LaunchError for what is none."""
    if not hasattr(array, "__dlpack__") and not hasattr(array, "__cuda_array_interface__"):
        raise LaunchError(
            f"a kernel takes arrays on the GPU (CuPy, PyTorch, or anything that speaks DLPack), "
            f"not {type(array).__name__}"
        )
    from cuda.core.utils import StridedMemoryView

    device = getattr(array, "__dlpack_device__", None)
    on_cpu = device is not None and int(device()[0]) == _DLPACK_CPU
    try:
        # The producer's work is made to come before the default stream, where the kernel will run.
        return StridedMemoryView.from_any_interface(array, stream_ptr=-1 if on_cpu else _DLPACK_DEFAULT_STREAM)
    except Exception as error:
        raise LaunchError(f"cannot read a {type(array).__name__} through DLPack: {error}") from error


def _contiguous(view: Any) -> bool:
    """Whether a view's elements lie in C order without gaps."""
    if view.strides is None:
        return True
    expected = 1
    for size, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
