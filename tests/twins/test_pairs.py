"""The compiled parts are there, they are what runs, and their stubs tell the truth."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

EXT = Path(__file__).parents[2] / "ext"

Twins = tuple[str, ModuleType, ModuleType]


def test_every_source_has_a_twin_a_stub_and_a_chooser() -> None:
    """A compiled part without its specification can't be added unnoticed."""
    package = EXT.parent / "imgserve" / "fast"
    stems = {path.stem for path in EXT.glob("*.pyx")}
    assert stems == {path.stem.removeprefix("_") for path in package.glob("_*.pyi")}
    assert stems == {path.stem.removeprefix("_").removesuffix("_py") for path in package.glob("_*_py.py")}
    assert stems == {path.stem for path in package.glob("[a-z]*.py")}


def test_the_compiled_module_is_native(twins: Twins) -> None:
    """What is called compiled is a shared object, and the twin is not."""
    _, compiled, twin = twins
    assert compiled.__file__ is not None and compiled.__file__.endswith(".so")
    assert twin.__file__ is not None and twin.__file__.endswith("_py.py")


def test_the_chooser_takes_the_compiled_one_unless_told(twins: Twins) -> None:
    """Without a word the compiled part runs; IMGSERVE_PURE=1 picks the twin; nothing falls back silently."""
    name = twins[0]
    code = (
        f"import imgserve.fast.{name} as chosen; things = [getattr(chosen, n) for n in chosen.__all__]; "
        "print({t.__module__ for t in things if callable(t) and hasattr(t, '__module__')} - {'builtins'})"
    )

    def chosen(pure: str) -> str:
        environment = {key: value for key, value in os.environ.items() if key != "IMGSERVE_PURE"} | {
            "IMGSERVE_PURE": pure
        }
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=EXT.parent
        ).stdout.strip()

    assert "{'imgserve.fast._" + name + "'}" == chosen("0")
    assert "{'imgserve.fast._" + name + "_py'}" == chosen("1")


def test_twins_have_the_same_public_names_and_parameters(twins: Twins) -> None:
    """The twin is the specification: same names, same parameters, in the same order."""
    _, compiled, twin = twins

    def public(module: ModuleType) -> dict[str, object]:
        return {
            name: value
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", module.__name__) == module.__name__
        }

    ours, theirs = public(compiled), public(twin)
    for name, value in theirs.items():
        if inspect.isclass(value):
            methods = [m for m in vars(value) if not m.startswith("_") and inspect.isfunction(getattr(value, m))]
            for method in methods:
                expected = list(inspect.signature(getattr(value, method)).parameters)
                assert expected == list(inspect.signature(getattr(ours[name], method)).parameters), method
        elif inspect.isfunction(value):
            assert list(inspect.signature(value).parameters) == list(inspect.signature(ours[name]).parameters)  # type: ignore[arg-type]
        elif name.isupper():
            assert value == ours[name]


def test_stubs_match_the_compiled_modules(tmp_path: Path) -> None:
    """mypy.stubtest finds nothing in a stub that the module has not, nor the reverse."""
    names = [f"imgserve.fast._{path.stem}" for path in sorted(EXT.glob("*.pyx"))]
    unseen = tmp_path / "unseen"
    # A compiled constructor shows (*args, **kwargs), which no keyword-only signature matches.
    unseen.write_text("imgserve.fast._answers.Answer.__init__\nimgserve.fast._head.Head.__init__\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", *names, "--allowlist", str(unseen)],
        capture_output=True,
        text=True,
        check=False,
        cwd=EXT.parent,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
