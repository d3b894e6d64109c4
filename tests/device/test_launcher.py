"""The launcher in C++, on a driver that writes down what it is asked for."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kernelgen.device import native

pytestmark = pytest.mark.unit

DRIVER = r"""
#include <stdio.h>
#include <string.h>
struct Attribute { int id; char pad[4]; union { char bytes[64]; unsigned words[3]; } value; };
struct Config { unsigned grid[3], block[3], shared; void *stream; struct Attribute *attributes; unsigned count; };
static void *context = 0;
int cuCtxGetCurrent(void **found) { *found = context; return 0; }
int cuCtxSetCurrent(void *wanted) { printf("set %lx\n", (long)wanted); context = wanted; return 0; }
int cuCtxPushCurrent_v2(void *wanted) { printf("push %lx\n", (long)wanted); return 0; }
int cuCtxPopCurrent_v2(void **found) { printf("pop\n"); *found = 0; return 0; }
int cuMemsetD8Async(unsigned long address, unsigned char byte, unsigned long size, void *stream) {
  printf("fill %lx %x %lu on %lx\n", address, byte, size, (long)stream);
  return 0;
}
static long streams = 0xd0, events = 0xe0;
int cuStreamCreate(void **made, unsigned flags) { *made = (void *)++streams; printf("stream %u\n", flags); return 0; }
int cuEventCreate(void **made, unsigned flags) { *made = (void *)++events; return flags == 2 ? 0 : 1; }
int cuStreamDestroy_v2(void *stream) { printf("destroy %lx\n", (long)stream); fflush(stdout); return 0; }
int cuEventDestroy_v2(void *event) { return 0; }
int cuEventRecord(void *event, void *stream) { printf("record %lx on %lx\n", (long)event, (long)stream); return 0; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
  printf("wait %lx on %lx\n", (long)event, (long)stream);
  return 0;
}
int cuLaunchKernelEx(const struct Config *c, void *function, void **arguments, void **extra) {
  printf("launch %lx grid %u %u %u block %u %u %u shared %u on %lx:", (long)function, c->grid[0], c->grid[1],
         c->grid[2], c->block[0], c->block[1], c->block[2], c->shared, (long)c->stream);
  for (unsigned i = 0; i < c->count; ++i)
    printf(" attribute %d %u %u %u", c->attributes[i].id, c->attributes[i].value.words[0],
           c->attributes[i].value.words[1], c->attributes[i].value.words[2]);
  printf(" arguments %lx %d %lx %d\n", *(long *)arguments[0], *(int *)arguments[1], *(long *)arguments[2],
         *(int *)arguments[3]);
  fflush(stdout);
  return (long)function == 0xbad ? 719 : 0;
}
int multiply(long handle, long operation, float *alpha, long a, long a_is, long b, long b_is, float *beta, long c,
             long c_is, long d, long d_is, long *algorithm, long workspace, unsigned long bytes, long stream) {
  printf("multiply %lx %lx by %g %lx (%lx) %lx (%lx) to %g %lx (%lx) at %lx (%lx), %lx in %lx of %lu on %lx\n", handle,
         operation, *alpha, a, a_is, b, b_is, *beta, c, c_is, d, d_is, *algorithm, workspace, bytes, stream);
  fflush(stdout);
  return handle == 0xbad ? 13 : 0;
}
int set(long operation, int attribute, long *value, unsigned long size) {
  printf("set %d of %lx to %lx of %lu\n", attribute, operation, *value, size);
  fflush(stdout);
  return *value == 0xbad ? 7 : 0;
}
"""

PROGRAM = """
import sys
from kernelgen.device import native
native.DRIVER = sys.argv[1]
from kernelgen.program.launch import Launch
import types
from kernelgen.device import gpu
class Array:
    def __init__(self, address): self.address = address
    def data_ptr(self): return self.address
def kernel(handle, entry): return types.SimpleNamespace(handle=handle, entry=entry)
def stream(device): return 16 * device + 5
steps = [
    (kernel(0xa1, "first"), Launch((6, 2, 1), 128, 1000, cluster=3), ("wx", "seq", "mail", 5)),
    (kernel(0xa2, "second"), Launch((4, 1, 1), 256, 0, cooperative=True), ("half", "seq", "wx", -1)),
]
memory = native.Memory({"other": 0, "mail": 0x100}, lambda: Array(0x3000), {"half": ("last", 0x40)})
run = native.queue(1, 0xc0, ("wx", "last"), steps, {"seq": 9}, stream=stream, memory=memory, poisoned={"mail": 64})
run((Array(0x1000), None))
run([Array(0x1000), 0x2000])
def single(handle, names=("wx",), arguments=("wx", 1, "wx", 2)):
    steps = [(kernel(handle, "third"), Launch((1, 1, 1), 32, 0), arguments)]
    return native.queue(0, 0xc1, names, steps, {}, stream=stream)
other = single(0xa3)
other((7,))
for wrong, arrays in ((run, (1,)), (run, (1, "two")), (other, (-1,))):
    try: wrong(arrays)
    except Exception as error: print(type(error).__name__)
turns = [native.Turn(), native.Turn(1, (0,)), native.Turn(1, (1,)), native.Turn(0, (2,))]
steps = [(kernel(0xb0 + at, "one"), Launch((1, 1, 1), 32, 0), ("wx", at, "wx", 0)) for at in range(4)]
lanes = native.queue(0, 0xc0, ("wx",), steps, {}, stream=stream, turns=turns)
lanes((9,))
lanes((8,))
del lanes
try: single(1, arguments=("wx", "unknown", "wx", 1))
except KeyError as error: print("unknown", error)
import ctypes
from kernelgen.device import cublaslt
fake = ctypes.CDLL(sys.argv[1])
fake.cublasLtMatmul, fake.cublasLtMatmulDescSetAttribute = fake.multiply, fake.set
cublaslt.required = lambda: fake
def product(handle, adds, bias=""):
    result, places = cublaslt._Result(workspace=99), (2, 4, 8, 0, 0)
    result.algorithm[0] = 0xa190
    numbers = (ctypes.c_float * 2)(1, 0)
    names = ("h", "r", "sums")
    return cublaslt.PlannedProduct("the product", names, handle, 0x0b, (1, 2, 3), places, result, numbers, adds, bias)
def queue_of(handle, adds):
    steps = [(product(handle, adds), None, ("h", "r", "sums", "scratch"))]
    steps += [(kernel(0xa5, "after"), Launch((1, 1, 1), 32, 0), ("sums", 1, "h", 2))]
    memory = native.Memory({"scratch": 0x10}, lambda: Array(0x3000))
    return native.queue(0, 0xc1, ("h", "r", "sums"), steps, {}, stream=stream, memory=memory)
queue_of(0x4a, False)((0x100, 0x200, 0x300))
product(0x4a, True).start(types.SimpleNamespace(handle=7), None, 0x100, 0x200, 0x300, 0x3010)
def with_bias(address):
    steps = [(product(0x4b, False, "bias"), None, ("h", "r", "sums", 0, "bias"))]
    native.queue(0, 0xc1, ("h", "r", "sums", "bias"), steps, {}, stream=stream)((0x100, 0x200, 0x300, address))
with_bias(0x400)
product(0x4b, False, "bias").start(types.SimpleNamespace(handle=7), None, 0x100, 0x200, 0x300, 0, 0x400)
try: with_bias(0xbad)
except gpu.LaunchError as error: print(error)
try: product(0x4b, False, "bias").start(types.SimpleNamespace(handle=7), None, 0x100, 0x200, 0x300, 0, 0xbad)
except gpu.LaunchError as error: print(error)
try: queue_of(0xbad, False)((0x100, 0x200, 0x300))
except gpu.LaunchError as error: print(error)
def refused(result, what): raise gpu.LaunchError(f"{what}: {result[0]}")
gpu.require_driver, gpu.checked = lambda: types.SimpleNamespace(CUresult=int), refused
try: single(0xbad)((1,))
except gpu.LaunchError as error: print(error)
"""

WANTED = """\
set c0
fill 3100 ff 64 on 15
launch a1 grid 6 2 1 block 128 1 1 shared 1000 on 15: attribute 4 3 1 1 arguments 1000 9 3100 5
launch a2 grid 4 1 1 block 256 1 1 shared 0 on 15: attribute 2 1 0 0 arguments 0 9 1000 -1
fill 3100 ff 64 on 15
launch a1 grid 6 2 1 block 128 1 1 shared 1000 on 15: attribute 4 3 1 1 arguments 1000 9 3100 5
launch a2 grid 4 1 1 block 256 1 1 shared 0 on 15: attribute 2 1 0 0 arguments 2040 9 1000 -1
push c1
launch a3 grid 1 1 1 block 32 1 1 shared 0 on 5: arguments 7 1 7 2
pop
ValueError
AttributeError
OverflowError
stream 1
record e5 on 5
wait e5 on d1
launch b0 grid 1 1 1 block 32 1 1 shared 0 on 5: arguments 9 0 9 0
record e1 on 5
wait e1 on d1
launch b1 grid 1 1 1 block 32 1 1 shared 0 on d1: arguments 9 1 9 0
launch b2 grid 1 1 1 block 32 1 1 shared 0 on d1: arguments 9 2 9 0
record e3 on d1
wait e3 on 5
launch b3 grid 1 1 1 block 32 1 1 shared 0 on 5: arguments 9 3 9 0
record e6 on d1
wait e6 on 5
record e5 on 5
wait e5 on d1
launch b0 grid 1 1 1 block 32 1 1 shared 0 on 5: arguments 8 0 8 0
record e1 on 5
wait e1 on d1
launch b1 grid 1 1 1 block 32 1 1 shared 0 on d1: arguments 8 1 8 0
launch b2 grid 1 1 1 block 32 1 1 shared 0 on d1: arguments 8 2 8 0
record e3 on d1
wait e3 on 5
launch b3 grid 1 1 1 block 32 1 1 shared 0 on 5: arguments 8 3 8 0
record e6 on d1
wait e6 on 5
destroy d1
unknown 'unknown'
push c1
multiply 4a b by 1 102 (1) 204 (2) to 0 308 (3) at 308 (3), a190 in 3010 of 99 on 5
launch a5 grid 1 1 1 block 32 1 1 shared 0 on 5: arguments 300 1 100 2
pop
multiply 4a b by 1 102 (1) 204 (2) to 1 308 (3) at 308 (3), a190 in 3010 of 99 on 7
push c1
set 8 of b to 400 of 8
multiply 4b b by 1 102 (1) 204 (2) to 0 308 (3) at 308 (3), a190 in 0 of 99 on 5
pop
set 8 of b to 400 of 8
multiply 4b b by 1 102 (1) 204 (2) to 0 308 (3) at 308 (3), a190 in 0 of 99 on 7
push c1
set 8 of b to bad of 8
pop
the launch of the product failed: cuBLASLt says 7
set 8 of b to bad of 8
the product cannot be made: cuBLASLt says 7
push c1
multiply bad b by 1 102 (1) 204 (2) to 0 308 (3) at 308 (3), a190 in 3010 of 99 on 5
pop
the launch of the product failed: cuBLASLt says 13
push c1
launch bad grid 1 1 1 block 32 1 1 shared 0 on 5: arguments 1 1 1 2
pop
the launch of third: 719
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler for the driver")
def test_calls_are_laid_out_once_and_queued_in_the_gpus_context(tmp_path: Path) -> None:
    library = tmp_path / "libdriver.so"
    (tmp_path / "driver.c").write_text(DRIVER)
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", library, tmp_path / "driver.c"], check=True)
    found = subprocess.run(
        [sys.executable, "-u", "-c", PROGRAM, library], capture_output=True, text=True, timeout=120, check=False
    )
    assert found.stdout == WANTED, found.stderr


def test_it_is_built_and_without_a_driver_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec("kernelgen.device._launcher_native")
    assert found is not None, "it is missing: run `python setup.py build_ext --inplace` and see why"
    native.launcher.cache_clear()
    monkeypatch.setattr(native, "DRIVER", str(tmp_path / "none.so"))
    assert native.launcher() is None
    native.launcher.cache_clear()


def test_one_that_was_built_from_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    native.launcher.cache_clear()
    monkeypatch.setattr(native, "SOURCES", tmp_path)
    with pytest.warns(RuntimeWarning, match="built from other sources"):
        assert native.launcher() is None
    native.launcher.cache_clear()
