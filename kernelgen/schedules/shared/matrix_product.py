"""A matrix product of tilesmith's own, for passes that are queued whole: of short sequences, where a library's is no
faster.

It is the template of cuda/matrix_product.cuh; product_tiles.py chooses the tile. Sizes are arguments of the kernel, so
that one binary serves many products.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from importlib import resources

import yaml

from constrint.documents import load_yaml
from kernelgen.emit.kernel import ELEMENT, Parameter, Template, cell_free_source
from kernelgen.errors import InfeasibleError, LaunchError, ShapeError, TilesmithError
from kernelgen.hardware.profile import Profile
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.launch import MOST_BLOCKS_X, Launch
from kernelgen.program.source import Source
from kernelgen.schedules.shared.limits import CHUNK, lacks_instructions
from kernelgen.schedules.shared.product_tiles import BLOCKS, ProductClocks, ProductTiling, ProductWork, tilings

ENTRY = "tilesmith_matrix_product"

TURNED_A, TURNED_B, TURNED_OUT = 1, 2, 4
"""Bits of the argument ``turned``: the steps of that array lie time-major, step t of sequence b in row t * batch + b,
not b * seq + t. Of a and out steps are the rows, of a transposed matrix its depth: of one that is as wide as there are
steps, batch * seq."""

MOST = 2**31 - 2**16
"""Rows, columns or depth: kernels count them, and a tile beyond the last, in int32."""


@dataclass(frozen=True)
class MatrixProduct:
    """out[m, n] = sum over k of a(m, k) b(n, k), plus bias[n]; sums of float64 are float64, others float32.

    a lies as [rows, depth], or as [depth, rows] where a_transposed; b as [columns, depth] or [depth, columns]; out as
    [rows, columns], all C-contiguous. dtype: a name of program/shape.DTYPES. floats: whether out and bias are float32
    whatever that is. alignment: bytes that the addresses of a, b and out are multiples of, a power of two.

    Raises ShapeError for a size below 1 or above MOST, an unknown dtype, or an alignment that no address of such
    elements has.
    """

    rows: int
    columns: int
    depth: int
    dtype: str
    a_transposed: bool = False
    b_transposed: bool = False
    floats: bool = False
    alignment: int = CHUNK

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "depth"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
                raise ShapeError(f"the {name} of a product must be an integer from 1 to {MOST:,}, not {value!r}")
        least = max(dtype_info(self.dtype).itemsize, self.out_itemsize)
        if self.alignment < least or self.alignment & (self.alignment - 1):
            raise ShapeError(
                f"arrays of {self.dtype} lie at multiples of a power of two of at least {least} bytes, "
                f"not of {self.alignment!r}"
            )

    @property
    def out_itemsize(self) -> int:
        """Bytes of an element of out."""
        return 4 if self.floats else dtype_info(self.dtype).itemsize

    @property
    def work(self) -> ProductWork:
        """The same as the choice of a tile goes by."""
        info = dtype_info(self.dtype)
        widths = (
            self._width(self.rows if self.a_transposed else self.depth, info.itemsize),
            self._width(self.columns if self.b_transposed else self.depth, info.itemsize),
            self._width(self.columns, self.out_itemsize),
        )
        return ProductWork(
            self.rows,
            self.columns,
            self.depth,
            info.itemsize,
            self.out_itemsize,
            info.products,
            widths,
            self.a_transposed,
            self.b_transposed,
            self.floats,
        )

    def _width(self, length: int, itemsize: int) -> int:
        """The widest vector, in elements, that divides every row of ``length`` of them."""
        most = min(CHUNK, self.alignment) // itemsize
        return next(width for width in (8, 4, 2, 1) if width <= most and length % width == 0)

    def __str__(self) -> str:
        return f"a product of {self.rows} x {self.columns} x {self.depth} in {self.dtype}"


@lru_cache(maxsize=1)
def load_clocks() -> ProductClocks:
    """The cost model's coefficients. Raises TilesmithError for a file that is missing, or not as it should be."""
    place = resources.files(__package__) / "model.yaml"
    try:
        return ProductClocks(**load_yaml(place.read_text(encoding="utf-8"))["matrix_product"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError) as error:
        raise TilesmithError(f"{place} cannot be read as the model of a matrix product: {error}") from error


def ranked(product: MatrixProduct, profile: Profile) -> list[ProductTiling]:
    """Every tile that fits, fastest first by the cost model. Raises InfeasibleError for a GPU that has not the
    instructions."""
    if lacks := lacks_instructions("matrix product", product.dtype, profile):
        raise InfeasibleError(lacks)
    return tilings(product.work, profile, load_clocks())


def predicted_seconds(product: MatrixProduct, profile: Profile) -> float:
    """What the kernel takes by the cost model (docs/lab/matrix_product.md).
    Raises InfeasibleError as ranked."""
    clocks = load_clocks().predict(product.work, ranked(product, profile)[0], profile)
    return clocks / (profile.clock_mhz * 1e6)


def kernel(product: MatrixProduct, profile: Profile, tiling: ProductTiling | None = None) -> tuple[Source, Launch]:
    """The kernel and its launch. The source's arguments are (a, b, bias, out, rows, columns, depth, batch, seq,
    turned): pointers, of which bias may be null, and int32; batch and seq are looked at only where a bit of
    ``turned`` is set. Its text knows no sizes, only which vectors they allow.

    tiling: one of ``ranked`` to take; else the first. Raises InfeasibleError as ranked, LaunchError for more blocks
    than a grid has.
    """
    chosen = ranked(product, profile)[0] if tiling is None else tiling
    itemsize, blocks = dtype_info(product.dtype).itemsize, product.work.blocks(chosen)
    if blocks > MOST_BLOCKS_X:
        raise LaunchError(f"{product} would be {blocks:,} blocks, and a grid has at most {MOST_BLOCKS_X:,}; cut it")
    shared_memory = chosen.shared_memory(itemsize)
    template = Template(
        header="matrix_product",
        name="MatrixProduct",
        arguments="MatrixProductArguments",
        entry=ENTRY,
        title="Matrix product",
        parameters=(
            Parameter(f"const {ELEMENT}*", "a"),
            Parameter(f"const {ELEMENT}*", "b"),
            Parameter("const void*", "bias"),
            Parameter("void*", "out"),
            *(Parameter("int", name) for name in ("rows", "columns", "depth", "batch", "seq", "turned")),
        ),
        tiling_struct="MatrixProductTiling",
        tiling={
            field.name: int(getattr(chosen, field.name)) for field in fields(ProductTiling) if field.name != "parts"
        },
        asserted={"rows": chosen.rows, "threads": chosen.threads, "shared_bytes": shared_memory},
        together=max(1, min(BLOCKS, product.work.fit(chosen, profile))),
    )
    launch = Launch((blocks, 1, 1), chosen.threads, shared_memory, chosen.parts)
    return cell_free_source(product.dtype, profile.arch, template), launch
