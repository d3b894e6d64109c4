"""The emulator on small hand-written kernels: what it computes, its twin of ptx.cuh, and the way in."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from emulator_kernels import EXCHANGE, exchange, fault, kernel, line, run, words

from kernelgen.build.cache import Cache
from kernelgen.errors import CompileError, EmulationError
from kernelgen.paths import cuda_headers
from kernelgen.program.dtypes import LIBRARY_ERROR
from kernelgen.program.launch import Launch
from kernelgen.program.shape import Shape
from kernelgen.program.source import Source
from kernelgen.schedules.shared.entries import forward_parameters
from kernelgen.verify.emulator import OPTIONAL_FLAGS, Excerpt, emulate
from kernelgen.verify.host_compiler import find_compiler, knows

pytestmark = pytest.mark.emulated

DTYPES = {"bf16": np.dtype(ml_dtypes.bfloat16), "fp16": np.dtype(np.float16)}

# ---- what it computes ----


@pytest.mark.parametrize("seed", range(3))
def test_threads_of_every_block_exchange_through_shared_memory(seed: int) -> None:
    out = words(2 * 3 * 64)
    run(exchange(), {"out": out}, threads=64, shared=256, grid=(3, 2, 1), seed=seed)
    thread = (np.arange(64) + 33) % 64
    expected = thread + 1000 * np.arange(3)[:, None] + 10000 * np.arange(2)[:, None, None]
    assert np.array_equal(out.reshape(2, 3, 64), expected)


@pytest.mark.parametrize("tag", DTYPES)
def test_matrix_instruction_agrees_with_numpy(tag: str) -> None:
    source = kernel(
        f"""
        const int lane = thread_index(), g = lane / 4, j = lane % 4;
        const unsigned fa[4] = {{load_global_32(a + g * 16 + 2 * j), load_global_32(a + (g + 8) * 16 + 2 * j),
                                 load_global_32(a + g * 16 + 2 * j + 8), load_global_32(a + (g + 8) * 16 + 2 * j + 8)}};
        float d[4];
        for (int i = 0; i < 4; ++i)
            d[i] = __uint_as_float(load_global_32(c + (g + i / 2 * 8) * 8 + 2 * j + i % 2));
        mma_m16n8k16<{tag}>(d, fa, load_global_32(b + g * 16 + 2 * j), load_global_32(b + g * 16 + 2 * j + 8), d);
        for (int i = 0; i < 4; ++i)
            store_global_32(out + (g + i / 2 * 8) * 8 + 2 * j + i % 2, __float_as_uint(d[i]));
        """,
        "const unsigned short* a, const unsigned short* b, const float* c, float* out",
    )
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=shape).astype(DTYPES[tag]) for shape in ((16, 16), (8, 16)))
    c = rng.normal(size=(16, 8)).astype(np.float32)
    out = np.zeros((16, 8), np.float32)
    run(source, {"a": a, "b": b, "c": c, "out": out})
    expected = a.astype(float) @ b.astype(float).T + c
    assert np.abs(out - expected).max() <= np.spacing(np.abs(expected).max().astype(np.float32))


def test_the_tf32_instruction_takes_11_bits_and_cuts_its_sums() -> None:
    source = kernel(
        """
        const int lane = thread_index(), g = lane / 4, j = lane % 4;
        const unsigned fa[4] = {load_global_32(a + g * 8 + j), load_global_32(a + (g + 8) * 8 + j),
                                load_global_32(a + g * 8 + j + 4), load_global_32(a + (g + 8) * 8 + j + 4)};
        float d[4];
        for (int i = 0; i < 4; ++i)
            d[i] = __uint_as_float(load_global_32(c + (g + i / 2 * 8) * 8 + 2 * j + i % 2));
        mma_m16n8k8_tf32(d, fa, load_global_32(b + g * 8 + j), load_global_32(b + g * 8 + j + 4), d);
        for (int i = 0; i < 4; ++i)
            store_global_32(out + (g + i / 2 * 8) * 8 + 2 * j + i % 2, __float_as_uint(d[i]));
        """,
        "const float* a, const float* b, const float* c, float* out",
    )
    rng = np.random.default_rng(1)
    a, b, c = (rng.normal(size=shape).astype(np.float32) for shape in ((16, 8), (8, 8), (16, 8)))
    out = np.zeros((16, 8), np.float32)
    run(source, {"a": a, "b": b, "c": c, "out": out})
    cut_a, cut_b = ((x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32).astype(float) for x in (a, b))
    expected = cut_a @ cut_b.T + c
    nearest = expected.astype(np.float32)
    toward_zero = np.where(
        np.abs(nearest.astype(float)) > np.abs(expected), np.nextafter(nearest, np.float32(0)), nearest
    )
    assert np.array_equal(out, toward_zero)
    assert (out != nearest).any()


@pytest.mark.parametrize("matrices", [1, 2, 4])
def test_transposed_matrix_loads(matrices: int) -> None:
    array = "unsigned out_words[1]; ldmatrix_x1_trans(out_words[0], row);"
    if matrices > 1:
        array = f"unsigned out_words[{matrices}]; ldmatrix_x{matrices}_trans(out_words, row);"
    source = kernel(
        f"""
        const unsigned lane = thread_index();
        if (lane < 8 * {matrices}) store_shared_128(shared_memory() + 16 * lane, load_global_128(in + 8 * lane));
        sync_warp();
        const SharedAddress row = shared_memory() + 16 * (lane % (8 * {matrices}));
        {array}
        for (int i = 0; i < {matrices}; ++i) store_global_32(out + i * 32 + lane, out_words[i]);
        """,
        "const unsigned short* in, unsigned* out",
    )
    rows = np.random.default_rng(2).integers(0, 65536, (matrices, 8, 8), np.uint16)
    out = words(matrices * 32)
    run(source, {"in": rows, "out": out}, shared=128 * matrices)
    assert np.array_equal(out.view(np.uint16).reshape(matrices, 8, 8), rows.transpose(0, 2, 1))


def test_a_copy_of_zeros_needs_no_source() -> None:
    source = kernel(
        """
    const SharedAddress mine = shared_memory() + 16 * thread_index();
    const bool real = thread_index() % 2 != 0;
    cp_async_or_zeros<16>(mine, real ? in + 4 * thread_index() : nullptr, real);
    cp_async_commit();
    cp_async_wait<0>();
    store_global_32(out + thread_index(), load_shared_8(mine + 1) + 256 * lowest_bit(6u << thread_index() % 16));
""",
        "const unsigned* in, unsigned* out",
    )
    given, out = np.arange(128, dtype=np.uint32) << 8, words(32)
    run(source, {"in": given, "out": out}, shared=512)
    lanes = np.arange(32)
    np.testing.assert_array_equal(out, np.where(lanes % 2 == 1, 4 * lanes, 0) + 256 * (lanes % 16 + 1))


def test_matrix_transpose() -> None:
    source = kernel(
        "store_global_32(out + thread_index(), movmatrix_trans(load_global_32(in + thread_index())));",
        "const unsigned* in, unsigned* out",
    )
    matrix = np.random.default_rng(3).integers(0, 65536, (8, 8), np.uint16)
    out = words(32)
    run(source, {"in": matrix, "out": out})
    assert np.array_equal(out.view(np.uint16).reshape(8, 8), matrix.T)


@pytest.mark.parametrize("tag", DTYPES)
def test_conversions_round_as_numpy_does(tag: str) -> None:
    source = kernel(
        f"""
        for (int i = thread_index(); i < count; i += 32) {{
            const unsigned pair = pack<{tag}>(load_float(in + i), -load_float(in + i));
            store_global_32(out + i, pair);
            store_global_32(out + count + i, __float_as_uint(unpack_low<{tag}>(pair)));
            store_global_32(out + 2 * count + i, __float_as_uint(unpack_high<{tag}>(pair)));
        }}
        """,
        "const float* in, unsigned* out, int count",
        "static float load_float(const float* at) { return __uint_as_float(load_global_32(at)); }\n",
    )
    exact = np.arange(0x7F81 if tag == "bf16" else 0x7C01, dtype=np.uint16).view(DTYPES[tag]).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        ties = (exact[:-2].astype(float) + np.diff(exact[:-1].astype(float)) / 2).astype(np.float32)
        more = np.random.default_rng(4).integers(0, 0x7F80_0000, 4000).astype(np.uint32).view(np.float32)
        near = [np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(np.inf))]
        values = np.concatenate([exact, ties, *near, more])
        expected = values.astype(DTYPES[tag])
        negative = (-values).astype(DTYPES[tag])
    out = words(3 * values.size)
    run(source, {"in": values, "out": out, "count": values.size})
    pairs, low, high = out.reshape(3, -1)
    assert np.array_equal(pairs & 0xFFFF, expected.view(np.uint16))
    assert np.array_equal(pairs >> 16, negative.view(np.uint16))
    assert np.array_equal(low.view(np.float32), expected.astype(np.float32))
    assert np.array_equal(high.view(np.float32), negative.astype(np.float32))


def test_a_nan_stays_one_and_special_functions_keep_the_documented_bounds() -> None:
    names = ("tanh_approx", "ex2_approx", "lg2_approx", "rcp_approx", "sqrt_approx")
    calls = "".join(
        f"store_global_32(out + {i} * count + t, __float_as_uint({name}(x)));\n" for i, name in enumerate(names)
    )
    source = kernel(
        f"""
        for (int t = thread_index(); t < count; t += 32) {{
            const float x = __uint_as_float(load_global_32(in + t));
            {calls}
            store_global_32(out + 5 * count + t, pack<bf16>(x, 0.0f) << 16);
        }}
        """,
        "const float* in, float* out, int count",
    )
    values = np.array([*np.geomspace(1e-3, 30, 100), np.nan, 1e-40, np.inf], np.float32)
    out = np.zeros((6, values.size), np.float32)
    run(source, {"in": values, "out": out, "count": values.size})
    x, results = values[:100].astype(float), out[:, :100].astype(float)
    assert np.all(np.isnan(out[:, 100]))
    assert np.abs(results[0] / np.tanh(x) - 1).max() < 2**-11
    assert np.abs(results[1] / np.exp2(x) - 1).max() < 2**-22
    assert np.abs(results[2] - np.log2(x)).max() < 2**-20
    assert np.abs(results[3] * x - 1).max() < 2**-23
    assert np.abs(results[4] / np.sqrt(x) - 1).max() < 2**-22
    assert out[1:5, 101].tolist() == [1.0, -np.inf, np.inf, 0.0], "a subnormal counts as zero"
    assert out[:5, 102].tolist() == [1.0, np.inf, np.inf, 0.0, np.inf]


def test_accurate_functions_are_as_exact_as_float32_and_saturate() -> None:
    names = ("tanh", "sigmoid", "exp", "log", "log_sigmoid", "softplus", "reciprocal", "sqrt")
    calls = "".join(
        f"store_global_32(out + {i} * count + t, __float_as_uint(accurate::{name}(x)));\n"
        for i, name in enumerate(names)
    )
    source = kernel(
        f"""
        for (int t = thread_index(); t < count; t += 32) {{
            const float x = __uint_as_float(load_global_32(in + t));
            {calls}
            store_global_32(out + 8 * count + t, __float_as_uint(accurate::power<3>(x) + accurate::power(x, 1.5f)));
        }}
        """,
        "const float* in, float* out, int count",
        '#include "math.cuh"\n',
    )
    positive = np.geomspace(1e-6, 80, 400)
    values = np.array([*positive, *-positive, np.nan, np.inf, -np.inf], np.float32)
    out = np.zeros((9, values.size), np.float32)
    run(source, {"in": values, "out": out, "count": values.size})
    x, made = values[:800].astype(float), dict(zip(names, out[:, :800].astype(float), strict=False))
    exact = {
        "tanh": np.tanh(x),
        "sigmoid": 1 / (1 + np.exp(-x)),
        "exp": np.exp(x),
        "log_sigmoid": -np.logaddexp(0, -x),
        "softplus": np.logaddexp(0, x),
        "reciprocal": 1 / x,
    }
    for name, wanted in exact.items():
        assert np.abs(made[name] / wanted - 1).max() < LIBRARY_ERROR, name
    assert np.abs(made["sqrt"][:400] / np.sqrt(x[:400]) - 1).max() < 2**-23
    assert np.abs(made["log"][:400] - np.log(x[:400])).max() < 2**-20
    assert np.abs(out[8, :400] / (x[:400] ** 3 + x[:400] ** 1.5) - 1).max() < LIBRARY_ERROR
    assert np.isnan(out[:, 800]).all()
    assert out[:8, 801].tolist() == [1, 1, np.inf, np.inf, 0, np.inf, 0, np.inf]
    assert out[:3, 802].tolist() == [-1, 0, 0]
    assert out[4:7, 802].tolist() == [-np.inf, 0, 0]


# ---- seeds ----


def test_a_seed_gives_one_order_and_seeds_differ() -> None:
    source = exchange("sync_block(); // barrier")
    reports = [
        [fault(source, {"out": words(64)}, threads=64, shared=256, seed=seed).split(":", 1)[1] for seed in range(8)]
        for _ in range(2)
    ]
    assert reports[0] == reports[1]
    assert len(set(reports[0])) > 3


# ---- the twin ----


def signatures(text: str, prefix: str) -> list[str]:
    """Functions of a header, overloads apart: return type, name and parameters, without the place of the call."""
    found = re.findall(rf"^{prefix}(?!inline)(\w+(?: \w+)?) ([a-z]\w*)\(([^{{;]*)\)(?= ?[{{;])", text, re.MULTILINE)
    place = re.compile(r",?\s*Site site = Site::current\(\)")
    return sorted(
        {" ".join(f"{kind} {name}({place.sub('', parameters)})".split()) for kind, name, parameters in found}
    )  # a template and its specialisations have one


def test_every_device_function_has_a_twin_with_its_signature() -> None:
    ptx, twins = cuda_headers() / "ptx", cuda_headers() / "emulate" / "ptx"
    files = {path.stem for path in ptx.iterdir()}
    assert {path.stem for path in twins.iterdir()} == files
    for door, pattern in ((ptx, "ptx/{}.cuh"), (twins, "emulate/ptx/{}.hpp")):
        text = door.with_suffix(".cuh" if door is ptx else ".hpp").read_text()
        assert {pattern.format(name) for name in files} <= set(re.findall(r'^#include "(.*)"$', text, re.MULTILINE))
    functions = 0
    for name in files:
        device = signatures((ptx / f"{name}.cuh").read_text(), "TILESMITH_DEVICE ")
        text = (twins / f"{name}.hpp").read_text()
        text = re.sub(r"^namespace emulate \{.*?^\}  // namespace emulate", "", text, flags=re.MULTILINE | re.DOTALL)
        assert signatures(text, "(?:inline )?") == device, name
        functions += len(device)
    assert functions > 90


# ---- the way in ----


def test_the_portable_fibers_do_the_same_and_no_cache_costs_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two things that make the emulator compile its core, in one test for the sake of time."""
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("TILESMITH_CACHE", str(tmp_path / "file"))
    monkeypatch.setenv("CXX", "g++ -DTILESMITH_UCONTEXT")
    body = EXCHANGE.replace("sync_block(); // barrier", "if (thread_index() != skip) sync_block();")
    source = kernel(body, "unsigned* out, unsigned skip")
    out = words(64)
    run(source, {"out": out, "skip": 64}, threads=64, shared=256)
    assert np.array_equal(out, (np.arange(64) + 33) % 64)
    assert line(source, "load") in fault(source, {"out": words(64), "skip": 0}, threads=64, shared=256)


def test_the_cache_saves_compiling_and_damage_is_a_miss(
    session_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores: dict[str, object] = {}
    monkeypatch.setattr("kernelgen.verify.emulator._libraries", {})
    monkeypatch.setattr("kernelgen.verify.emulator._cores", cores)
    run(exchange(), {"out": words(64)}, threads=64, shared=256)
    (key,) = cores
    path = Cache(tmp_path / "emulator").path(key)  # of the emulator itself, which takes longest to compile
    path.parent.mkdir(parents=True)
    shutil.copy(Cache(session_cache / "emulator").path(key), path)
    monkeypatch.setenv("TILESMITH_CACHE", str(tmp_path))
    source = kernel("store_global_32(out + thread_index(), thread_index() + 4321);", "unsigned* out")
    out = words(32)
    run(source, {"out": out})
    entries = [path for path in (tmp_path / "emulator").rglob("*") if path.is_file()]
    assert len(entries) == 2
    monkeypatch.setattr("kernelgen.verify.emulator._libraries", {})
    monkeypatch.setattr("kernelgen.verify.emulator._cores", {})
    monkeypatch.setattr("kernelgen.verify.emulator._compile", None)
    run(source, {"out": out})
    monkeypatch.undo()
    monkeypatch.setenv("TILESMITH_CACHE", str(tmp_path))
    monkeypatch.setattr("kernelgen.verify.emulator._libraries", {})
    newest = max(entries, key=lambda path: path.stat().st_mtime)
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert Cache(tmp_path / "emulator").load(newest.name) is None
    run(source, {"out": out})
    assert out[1] == 4322


def test_a_refused_source_carries_the_log() -> None:
    with pytest.raises(CompileError, match=r"refused k for the emulator: k\.cu:4:") as caught:
        run(kernel("no_such_function();", "unsigned* out"), {"out": words(1)})
    assert "no_such_function" in caught.value.log


def test_without_a_compiler_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EmulationError, match=r"no g\+\+, c\+\+ or clang\+\+ in PATH.*Install g\+\+"):
        run(exchange(), {"out": words(64)})
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(EmulationError, match=r"no-such-compiler.*is not there"):
        run(exchange(), {"out": words(64)})


@pytest.mark.parametrize(
    ("launch", "arguments", "words_of_it"),
    [
        (Launch((0, 1, 1), 32, 0), {"out": words(1)}, "is empty"),
        (Launch((1, 1, 1), 48, 0), {"out": words(1)}, "a block of 48 threads cannot be emulated"),
        (Launch((1, 1, 1), 2048, 0), {"out": words(1)}, "a block of 2048 threads"),
        (Launch((1, 1, 1), 32, -1), {"out": words(1)}, "-1 bytes of shared memory"),
        (Launch((3, 1, 1), 32, 0, cluster=2), {"out": words(1)}, "clusters of 2 blocks do not divide"),
        (Launch((1, 1, 1), 32, 0), {}, "missing: out"),
        (Launch((1, 1, 1), 32, 0), {"out": words(1), "in": None}, "not asked for: in"),
        (Launch((1, 1, 1), 32, 0), {"out": words(4)[::2]}, "must be C-contiguous"),
        (Launch((1, 1, 1), 32, 0), {"out": 2**31}, "does not fit in an int32"),
        (Launch((1, 1, 1), 32, 0), {"out": "text"}, "must be a NumPy array, an int or None, not str"),
    ],
)
def test_launches_and_arguments_that_make_no_sense(launch: Launch, arguments: Any, words_of_it: str) -> None:
    with pytest.raises(EmulationError, match=re.escape(words_of_it)):
        emulate(exchange(), launch, arguments, outputs=("out",))


def test_an_output_may_not_share_memory_with_another_array() -> None:
    both = words(40)
    source = kernel("store_global_32(out, load_global_32(in));", "const unsigned* in, unsigned* out")
    with pytest.raises(EmulationError, match="output 'out' shares memory with 'in'"):
        run(source, {"in": both[8:], "out": both[:9]})


def test_a_temporary_folder_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    source = kernel("store_global_32(out + thread_index(), 99);", "unsigned* out")
    with pytest.raises(EmulationError, match=r"gone.*set TMPDIR"):
        run(source, {"out": words(32)})


def test_blocks_of_a_cluster_and_of_a_cooperative_grid_run_together() -> None:
    """Blocks of one team wait for nothing here; that they are scheduled together must not change the result."""
    for launch in (Launch((2, 2, 1), 64, 256, cluster=2), Launch((2, 2, 1), 64, 256, cooperative=True)):
        out = words(5 * 64)
        emulate(exchange(), launch, {"out": out}, outputs=("out",))
        assert np.array_equal(out[:64], (np.arange(64) + 33) % 64)
        assert np.array_equal(out[4 * 64 :], (np.arange(64) + 33) % 64 + 11000)


def test_the_documented_call_gives_every_argument() -> None:
    text = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()
    (call,) = re.findall(r"^emulate\((.*?)^\)", text, flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r'"(\w+)":', call) == [parameter.name for parameter in forward_parameters(Shape(1, 1, 1, 1))]


# ---- parts of launches and of arrays ----

FAR = kernel(
    """
    const long long at = (static_cast<long long>(block_y()) * rows + thread_index() / 8) * 8 + thread_index() % 8;
    store_global_32(out + at, load_global_32(in + at)); // store
    """,
    "const unsigned* in, unsigned* out, int rows",
)


def run_far(source: Source, plane: int = 1, blocks: tuple[int, ...] = (2**30 - 1,)) -> np.ndarray[Any, Any]:
    """The last block of 2^30, of 4 rows of 8: the last of an array of 2^35 elements."""
    given, out = np.arange(32 * plane, dtype=np.uint32).reshape(plane, 4, 8), words(32 * plane).reshape(plane, 4, 8)
    rows = 2**32
    arguments = {
        "in": Excerpt(given, 1, rows - 4, rows),
        "out": Excerpt(out, 1, rows - 4, rows),
        "rows": 4,
    }
    emulate(source, Launch((1, 2**30, 1), 32, 0), arguments, outputs=("out",), blocks=blocks)
    return out


def test_one_block_of_a_huge_launch_runs_on_its_part_of_huge_arrays() -> None:
    assert np.array_equal(run_far(FAR).ravel(), np.arange(32))
    again = run_far(replace(FAR, text=FAR.text.replace("in + at", "in + at + (1ll << 35)")), 2)
    assert np.array_equal(again[0].ravel(), np.arange(32, 64))
    assert (again[1].view(np.uint32) == 2**32 - 1).all()  # nobody wrote it


def test_an_index_that_wraps_leaves_the_part_that_exists() -> None:
    wrong = replace(FAR, text=FAR.text.replace("out + at", "out + static_cast<unsigned>(at)"))
    with pytest.raises(
        EmulationError, match=r"part of 'out' that is not these blocks': 4 bytes at offset 171798"
    ) as caught:
        run_far(wrong)
    assert line(FAR, "store") in str(caught.value)
    with pytest.raises(EmulationError, match="part of 'in' that is not these blocks'"):
        run_far(FAR, blocks=(2**30 - 2,))


def test_blocks_and_excerpts_that_make_no_sense_are_told() -> None:
    for blocks in ((2**30,), (-1,)):
        with pytest.raises(EmulationError, match="the blocks to run must be of the 1,073,741,824 of the grid"):
            run_far(FAR, blocks=blocks)
    arguments = {"in": words(32), "out": Excerpt(words(32), 0, 8, 32), "rows": 4}
    with pytest.raises(EmulationError, match="argument 'out' cannot be elements 8 to 40 of 32"):
        emulate(FAR, Launch((1, 1, 1), 32, 0), arguments, outputs=("out",))


def test_a_variable_that_nobody_initialised_shows() -> None:
    source = kernel(
        "float sum[2]; for (int i = 0; i < 2; ++i) sum[i] += 1; "
        "store_global_32(out + thread_index(), __float_as_uint(sum[1]));",
        "unsigned* out",
    )
    out = words(32)
    run(source, {"out": out})
    branch = kernel(
        "float one; if (n > 3) one = 2; store_global_32(out + thread_index(), __float_as_uint(one));",
        "unsigned* out, int n",
    )
    set_by_a_branch = words(32)
    run(branch, {"out": set_by_a_branch, "n": 1})
    if knows(find_compiler(), OPTIONAL_FLAGS[0]):
        for found in (out, set_by_a_branch):
            assert not (np.abs(found.view(np.float32)) < 1e30).any()  # NaN, or larger than anything sound
    assert not knows(find_compiler(), "-fno-such-option-exists")
