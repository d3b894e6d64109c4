"""Build tilesmith: the Python packages, headers and profiles as data, the solver's C++ core and the launcher.

Without a C++ compiler both are left out: constrint runs its pure-Python twin, and kernels are launched through
cuda-core. pip hides what a build that succeeds prints, but for the wheel's name: that says so then, as do
`tilesmith --version`, `doctor` and `solve`.
"""

import runpy
import sys
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import find_packages, setup

ROOT = Path(__file__).parent
sources_digest = runpy.run_path(str(ROOT / "constrint" / "core.py"))["sources_digest"]  # it imports nothing of ours


class OptionalBuild(build_ext):
    """Build what can be built; say so of what cannot."""

    def build_extension(self, ext):  # type: ignore[no-untyped-def]
        """Build one extension; a failure is a warning (pip -v shows it), since a pure-Python twin exists."""
        try:
            super().build_extension(ext)
        except Exception as error:
            self.warn(f"{ext.name} was not built ({error}); Python will do the same, slower")
            # A name that pip shows: "Created wheel for tilesmith: filename=tilesmith-0.1.0-0.without_cpp_core-..."
            self.distribution.get_command_obj("bdist_wheel").build_number = "0.without_cpp_core"


def native(name: str, folder: str, macro: str) -> Pybind11Extension:
    """The extension of a folder's sources, of which it knows the digest by a macro."""
    sources, headers = (
        sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).glob(f"*.{kind}")) for kind in ("cpp", "hpp")
    )
    return Pybind11Extension(
        name,
        sources,
        depends=headers,
        cxx_std=17,
        define_macros=[(macro, f'"{sources_digest(ROOT / folder)}"')],
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
    ext_modules=[
        native("constrint._core_native", "constrint/_core", "CONSTRINT_SOURCES"),
        native("kernelgen.device._launcher_native", "kernelgen/device/_launcher", "LAUNCHER_SOURCES"),
    ],
    cmdclass={"build_ext": OptionalBuild},
)
