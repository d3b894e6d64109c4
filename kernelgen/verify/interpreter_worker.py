"""The interpreter's side of interpreter.py: it imports Triton to interpret it, so it runs in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgen.errors import EmulationError

if TYPE_CHECKING:
    from kernelgen.verify.interpreter import InterpreterJob

    Array = np.ndarray[Any, Any]

INSTRUCTIONS: Mapping[str, Callable[[Array], Array]] = {"tanh.approx.f32": np.tanh}
"""Those of PTX that kernels name (emit/triton.py)."""

MARGIN = 1 << 12
"""Bytes around every array that no kernel may write, and that read as NaN."""


def run(job: InterpreterJob) -> list[Array]:
    """Interpret a kernel: the arrays that it wrote. Raises EmulationError where it wrote beyond one."""
    os.environ["TRITON_INTERPRET"] = "1"
    mend()
    buffers = [Buffer(value) if isinstance(value, np.ndarray) else None for value in job.arguments]
    module = module_of(job.text)
    given = [
        value if isinstance(value, int) else pointer(buffer, kind)
        for value, buffer, kind in zip(job.arguments, buffers, job.types, strict=True)
    ]
    getattr(module, job.entry)[job.grid](*given, **(module.CONSTANTS | dict(job.constants)))
    for place, buffer in enumerate(buffers):
        if buffer is not None and not buffer.whole():
            raise EmulationError(f"it wrote beyond its argument {place}")
    results = []
    for place in job.written:
        buffer = buffers[place]
        assert buffer is not None
        results.append(buffer.array)
    return results


@functools.lru_cache(maxsize=4)
def module_of(text: str) -> ModuleType:
    """A kernel's module; a step may be a launch, and each would load it anew."""
    from kernelgen.build.triton import loaded

    return _kept.enter_context(loaded(text))


_kept = contextlib.ExitStack()
"""The modules' files, until the process ends."""


class Buffer:
    """A copy of an array among bytes that tell whether somebody wrote there."""

    def __init__(self, array: Array) -> None:
        self._bytes = np.full(array.nbytes + 2 * MARGIN + 16, 0xFF, np.uint8)
        self._start = MARGIN + -(self._bytes.ctypes.data + MARGIN) % 16  # aligned as a GPU's arrays are
        self._end = self._start + array.nbytes
        self.array: Array = self._bytes[self._start : self._end].view(array.dtype).reshape(array.shape)
        self.array[...] = array

    @property
    def address(self) -> int:
        """Of the array's first byte."""
        return int(self.array.ctypes.data)

    def whole(self) -> bool:
        """Whether nobody wrote around the array."""
        return bool((self._bytes[: self._start] == 0xFF).all() and (self._bytes[self._end :] == 0xFF).all())


def pointer(buffer: Buffer | None, kind: str) -> Any:
    """A pointer as a kernel takes it, null for no buffer. kind: such as "*bf16"."""
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    element = {"*bf16": tl.bfloat16, "*fp16": tl.float16, "*fp32": tl.float32}[kind]
    address = np.array([buffer.address if buffer is not None else 0], np.uint64)
    return tl.tensor(TensorHandle(address, tl.pointer_type(element)), tl.pointer_type(element))


@functools.cache
def mend() -> None:
    """Have the interpreter compute with bfloat16 as a GPU does: where it would cut bits off it rounds to nearest, and
    it multiplies numbers where it would multiply their bits. It knows the instructions of PTX that kernels name; a
    condition that becomes a tile stays one, and a number of steps is taken for an index by any NumPy. It puts its own
    functions into the language at a launch alone: at every call of a kernel's function too, as it would, takes most of
    the time."""
    import ml_dtypes
    import triton.language as tl
    from triton.runtime import interpreter

    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    cast, dot = builder.cast_impl, builder.create_dot
    bfloat16 = np.dtype(ml_dtypes.bfloat16)

    def rounded(self: Any, source: Any, kind: Any) -> Any:
        if (source.dtype.scalar, kind.scalar) == (tl.float32, tl.bfloat16):
            return handle(source.data.astype(bfloat16).view(np.uint16), kind.scalar)
        return cast(self, source, kind)

    def wide(operand: Any) -> Any:
        data = operand.data
        if operand.dtype.scalar == tl.bfloat16:
            data = data.view(bfloat16)
        return handle(data.astype(np.float32), tl.float32)

    def multiplied(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, wide(a), wide(b), *rest)

    def spread(self: Any, kind: Any, value: Any) -> Any:
        data = np.asarray(value.data).reshape(-1)[0]
        return handle(np.full(kind.shape, data, dtype=value.data.dtype), value.dtype.scalar)

    def instruction(self: Any, text: str, constraints: str, operands: Any, *rest: Any) -> Any:
        (operand,) = operands
        made = handle(INSTRUCTIONS[text.split()[0]](operand.data), operand.dtype.scalar)
        return SimpleNamespace(get_result=lambda place: made)

    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, *rest: Any) -> None:
        patch(tensor, *rest)
        tensor.__index__ = lambda self: int(np.asarray(self.handle.data).reshape(-1)[0])

    put = interpreter._patch_lang

    def put_once(function: Any) -> Any:
        languages = [each for each in function.__globals__.values() if each is tl or each is tl.core]
        if not any(tl.core.is_builtin(language.load) for language in languages):
            return SimpleNamespace(restore=lambda: None)
        return put(function)

    interpreter._patch_lang_tensor, interpreter._patch_lang = patched, put_once
    builder.cast_impl, builder.create_dot, builder.create_splat = rounded, multiplied, spread
    builder.create_inline_asm = instruction
