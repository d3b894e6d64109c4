"""A product of matrices as cuBLASLt makes it: which calls, what has to be copied around them, and what they take.

What it computes is MatrixProduct's. Where steps lie time-major, they are a batch of products, or are copied into the
other order first; where the library does not add a bias itself, it adds to copies of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict

from constrint.documents import load_yaml
from kernelgen.errors import TilesmithError
from kernelgen.hardware.profile import Profile
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.product import Factor, Gemm, ProductCall, gemms
from kernelgen.program.shape import SIXTEEN_BITS
from kernelgen.schedules.shared.matrix_product import TURNED_A, TURNED_B, TURNED_OUT, MatrixProduct
from kernelgen.schedules.shared.moved_rows import MovedRows

LEAST_DEPTH = 512
"""Of a part of K, where blocks share one."""

TILES = ((128, 128, "large"), (64, 128, "oblong"), (128, 64, "oblong"), (64, 64, "small"))
"""Rows and columns of a block's part of a product, and whose rate that has; the library has more, but none that would
be much faster."""

SUB_PARTITIONS, MMA_FLOPS = 4, 2 * 16 * 8 * 16
"""Of a multiprocessor; of an m16n8k16."""

BITS = {"a": TURNED_A, "b": TURNED_B, "out": TURNED_OUT}


class Rates(BaseModel):
    """The fields of library_product in model.yaml, which says what they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    launch_us: float
    fill_us: float
    memory: float
    l2_bytes_per_clock: float
    l2_kept: float
    matrix: float
    large: float = 1.0
    oblong: float
    small: float
    sums: float
    tf32: float
    flops_per_clock: Mapping[str, float]


@lru_cache(maxsize=1)
def load_rates() -> Rates:
    """What the model goes by. Raises TilesmithError for a file that is missing, or not as it should be."""
    place = resources.files(__package__) / "model.yaml"
    try:
        return Rates.model_validate(load_yaml(place.read_text(encoding="utf-8"))["library_product"])
    except (OSError, ValueError, KeyError, RecursionError, yaml.YAMLError) as error:
        raise TilesmithError(f"{place} cannot be read as the model of a library's products: {error}") from error


def launch_clocks(profile: Profile) -> float:
    """Clocks that a launch after another takes in which the GPU does nothing."""
    return load_rates().launch_us * profile.clock_mhz


def memory_bytes_per_clock(profile: Profile) -> float:
    """Of device memory at its full rate."""
    return profile.memory_bandwidth / (1e6 * profile.clock_mhz)


def traffic_clocks(size: float, profile: Profile) -> float:
    """Clocks that a product's arrays of so many bytes take on their way: from L2 where they stay there."""
    rates = load_rates()
    if size <= rates.l2_kept * (profile.l2_bytes or 0):
        return size / rates.l2_bytes_per_clock
    return size / (rates.memory * memory_bytes_per_clock(profile))


def flops_per_clock(dtype: str, profile: Profile) -> float:
    """Of a multiprocessor in a large product."""
    rates = load_rates()
    if dtype in rates.flops_per_clock:
        return rates.flops_per_clock[dtype]
    of_tensor_cores = rates.matrix * SUB_PARTITIONS * MMA_FLOPS / profile.latency("mma_interval")
    return of_tensor_cores * (1.0 if dtype in SIXTEEN_BITS else rates.tf32)


def work_clocks(rows: int, columns: int, depth: int, copies: int, dtype: str, profile: Profile) -> float:
    """Clocks of the multiplications of ``copies`` products, in the tiles that take the least. Blocks share the steps of
    one product alone, not of several at once (docs/lab/parameter_gradients.md, 4)."""
    shares = depth // LEAST_DEPTH if copies == 1 else 1

    rates = load_rates()

    def of_tile(tile_rows: int, tile_columns: int, form: str) -> float:
        tiles = copies * -(-rows // tile_rows) * -(-columns // tile_columns)
        parts = max(1, min(profile.multiprocessors // tiles, shares))  # of K, where blocks are few
        rounds = -(-tiles * parts // profile.multiprocessors) / parts
        rate: float = flops_per_clock(dtype, profile) * getattr(rates, form)
        return rounds * 2.0 * tile_rows * tile_columns * depth / rate

    return min(of_tile(*tile) for tile in TILES)


def sum_clocks(size: float, profile: Profile) -> float:
    """Clocks of the kernel of db, which reads so many bytes."""
    return size / (load_rates().sums * memory_bytes_per_clock(profile))


@dataclass(frozen=True)
class Copied:
    """A copy of rows beside a product: moved, from the array ``source`` to the array ``to``."""

    moved: MovedRows
    source: str
    to: str


@dataclass(frozen=True)
class LibraryProduct:
    """A product of matrices, ready to be planned by the library: copies, its calls, copies.

    call: what is multiplied, of arrays a, b and out or of those between. gemms: as what. bias: "bias" where the library
    adds it. between: the bytes of arrays that nobody else sees, by name.
    """

    call: ProductCall
    gemms: tuple[Gemm, ...]
    bias: str
    before: tuple[Copied, ...] = ()
    after: tuple[Copied, ...] = ()
    between: tuple[tuple[str, int], ...] = ()

    def seconds(self, product: MatrixProduct, profile: Profile) -> float:
        """What it takes, by the model, which has been compared with the library at a dozen sizes
        (docs/lab/matrix_product.md)."""
        launch, dtype = launch_clocks(profile), product.dtype
        each = launch + load_rates().fill_us * profile.clock_mhz
        work = sum(work_clocks(one.m, one.n, one.k, one.batch, dtype, profile) for one in self.gemms)
        clocks = len(self.gemms) * each + max(work, traffic_clocks(_bytes(product), profile))
        for copy in (*self.before, *self.after):
            clocks += launch + traffic_clocks(2 * copy.moved.nbytes, profile)
        return clocks / (profile.clock_mhz * 1e6)


def predicted_seconds(product: MatrixProduct, profile: Profile) -> float:
    """What the library takes for a product by the model, with its launch."""
    return library_product(product, profile).seconds(product, profile)


def library_product(
    product: MatrixProduct, profile: Profile, *, batch: int = 1, seq: int = 1, turned: int = 0, bias: bool = False
) -> LibraryProduct:
    """How the library makes a product. batch, seq, turned: as the kernel's arguments (matrix_product.kernel). bias:
    whether there is one.

    Time-major steps are a batch of products where that is expected to take less than a copy, and no sum over products.
    """
    arrays, steps = _arrays(product), "k" if product.a_transposed else "m"
    turned = sum(bit for name, bit in BITS.items() if turned & bit and steps in arrays[name].axes)
    turned = 0 if batch == 1 or seq == 1 else turned
    straight = _made(product, arrays, turned, steps, batch, seq, bias, copied=True)
    if not turned:
        return straight
    try:
        strided = _made(product, arrays, turned, steps, batch, seq, bias, copied=False)
    except TilesmithError:
        return straight
    if len(strided.gemms) > 1 or strided.seconds(product, profile) > straight.seconds(product, profile):
        return straight
    return strided


def _arrays(product: MatrixProduct) -> dict[str, Factor]:
    """a, b and out, with a letter for each axis: m, n and k."""
    info = dtype_info(product.dtype)
    out = info.sums if product.floats else info.stored
    return {
        "a": Factor("a", "km" if product.a_transposed else "mk", info.stored),
        "b": Factor("b", "kn" if product.b_transposed else "nk", info.stored),
        "out": Factor("out", "mn", out),
    }


def _made(
    product: MatrixProduct,
    arrays: Mapping[str, Factor],
    turned: int,
    steps: str,
    batch: int,
    seq: int,
    bias: bool,
    *,
    copied: bool,
) -> LibraryProduct:
    """The same with every array in its own order, or with copies of those that are turned in the other one."""
    sizes = {"m": product.rows, "n": product.columns, "k": product.depth}
    widths = {name: sizes[one.axes.replace(steps, "")] for name, one in arrays.items() if steps in one.axes}
    copies: dict[str, Copied] = {}
    used = dict(arrays)
    for name, bit in BITS.items():
        if not copied and turned:  # both axes of the steps in each array that has them
            order = "tb" if turned & bit else "bt"
            used[name] = replace(arrays[name], axes=arrays[name].axes.replace(steps, order))
        elif turned & bit:
            used[name], bytes_ = replace(arrays[name], name=f"{name}_rows"), _itemsize(arrays[name]) * widths[name]
            into, out_of = ("bt", "tb") if name != "out" else ("tb", "bt")
            moved = MovedRows({"b": batch, "t": seq}, out_of, into, bytes_)
            ends = (name, used[name].name)
            copies[name] = Copied(moved, *(reversed(ends) if name == "out" else ends))
    rules = {**{axis: str(size) for axis, size in sizes.items()}, "b": str(batch), "t": str(seq)}
    call = ProductCall(used["a"], used["b"], used["out"], rules, product.dtype)
    made = gemms(call, {axis: int(rule) for axis, rule in rules.items()})
    before = [copy for name, copy in copies.items() if name != "out"]
    added = bias and _adds_bias(product, made)
    if bias and not added:
        row = MovedRows({"m": product.rows}, "", "m", product.columns * _itemsize(arrays["out"]))
        before.append(Copied(row, "bias", used["out"].name))
        made = tuple(replace(gemm, adds=True) for gemm in made)
    after = [copies["out"]] if "out" in copies else []
    between = tuple((used[name].name, copy.moved.nbytes) for name, copy in copies.items())
    return LibraryProduct(call, made, "bias" if added else "", tuple(before), tuple(after), between)


def _adds_bias(product: MatrixProduct, made: Sequence[Gemm]) -> bool:
    """Whether the library adds a bias of the result's dtype to every row: not in float64, not to a result of another
    dtype than the factors', and only along what lies side by side in the result."""
    return product.dtype != "float64" and not product.floats and all(one.swapped and not one.adds for one in made)


def _itemsize(factor: Factor) -> int:
    return dtype_info(factor.dtype).itemsize


def _bytes(product: MatrixProduct) -> int:
    """Of all three arrays."""
    read = (product.rows + product.columns) * product.depth * dtype_info(product.dtype).itemsize
    return read + product.rows * product.columns * product.out_itemsize
