"""Build tilesmith: the Python packages, the device headers and profiles as data, and the solver's C++ core.

Without a C++ compiler the core is left out and constrint runs its pure-Python twin. pip hides what a build
that succeeds prints, but for the wheel's name: that says so then, as do `tilesmith --version`, `doctor` and `solve`.
"""

import runpy
import sys
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import find_packages, setup

ROOT = Path(__file__).parent
CORE = ROOT / "constrint" / "_core"
SOURCES, HEADERS = (sorted(str(path.relative_to(ROOT)) for path in CORE.glob(f"*.{kind}")) for kind in ("cpp", "hpp"))
DIGEST = runpy.run_path(str(ROOT / "constrint" / "core.py"))["sources_digest"](CORE)  # core.py imports nothing of ours


class OptionalBuild(build_ext):
    """Build the core if it can be built; say so if it cannot."""

    def build_extension(self, ext):  # type: ignore[no-untyped-def]
        """Build one extension; a failure is a warning (pip -v shows it), since a pure-Python twin exists."""
        try:
            super().build_extension(ext)
        except Exception as error:
            self.warn(f"{ext.name} was not built ({error}); constrint will use its pure-Python engine")
            # A name that pip shows: "Created wheel for tilesmith: filename=tilesmith-0.1.0-0.without_cpp_core-..."
            self.distribution.get_command_obj("bdist_wheel").build_number = "0.without_cpp_core"


core = Pybind11Extension(
    "constrint._core_native",
    SOURCES,
    depends=HEADERS,
    cxx_std=17,
    define_macros=[("CONSTRINT_SOURCES", f'"{DIGEST}"')],
    extra_link_args=["-s"] if sys.platform.startswith("linux") else [],  # stripped; pybind11 compiles with -g0
    optional=True,  # an editable install does not miss it either
)

# cuda/ and profiles/ lie at the root of the repository and ship inside the package kernelgen.
DATA = {"kernelgen.cuda": "cuda", "kernelgen.profiles": "profiles"}
for folder in sorted((ROOT / "cuda").rglob("*/")):
    relative = folder.relative_to(ROOT / "cuda")
    DATA["kernelgen.cuda." + ".".join(relative.parts)] = f"cuda/{relative}"

ParallelCompile("TILESMITH_BUILD_JOBS", default=2).install()
setup(
    packages=[*find_packages(include=["constrint*", "kernelgen*"]), *DATA],
    package_dir=DATA,
    package_data={"": ["py.typed", "model.yaml"], **{name: ["*.cuh", "*.hpp", "*.yaml"] for name in DATA}},
    include_package_data=False,
    ext_modules=[core],
    cmdclass={"build_ext": OptionalBuild},
)
