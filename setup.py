"""Compiles ext/NAME.pyx to imgserve.fast._NAME. All else about the package is in pyproject.toml."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

# IMGSERVE_ANNOTATE=1 writes build/ext/*.html, IMGSERVE_TRACE=1 lets coverage and profilers see lines,
# IMGSERVE_SANITIZE=1 builds for a Python that runs with libasan preloaded.
annotate, trace, sanitize = (os.environ.get(f"IMGSERVE_{name}") == "1" for name in ("ANNOTATE", "TRACE", "SANITIZE"))
flags = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-O1"] if sanitize else ["-g0"]
macros: list[tuple[str, str | None]] = [("CYTHON_TRACE", "1")] if trace else []
sources = [str(path) for pattern in ("*.pyx", "*.pxd") for path in sorted(Path("ext").glob(pattern))]
modules = [
    # Without depends the sdist would lack the Cython sources, and say nothing.
    Extension(f"imgserve.fast._{Path(source).stem}", [source], depends=sources, define_macros=macros,
              extra_compile_args=flags, extra_link_args=flags)
    for source in sources if source.endswith(".pyx")
]  # fmt: skip
setup(
    ext_modules=cythonize(
        modules, build_dir="build", include_path=["ext"], annotate=annotate, force=annotate or trace or sanitize,
        compiler_directives={"language_level": 3, "linetrace": trace, "auto_pickle": False, "autotestdict": False},
    )
)  # fmt: skip
