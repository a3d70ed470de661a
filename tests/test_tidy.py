"""The project is tidy: style, types, floors, stubs, names, lengths, and documents that say what the code does."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgserve.cli.reference import TABLES

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "imgserve"

BANNED_WORDS = {
    "base": "name what the heirs have in common, or use a Protocol",
    "common": "name what is shared",
    "helper": "name what it does",
    "helpers": "name what they do",
    "manager": "name the duty: pool, keeper, registry",
    "misc": "name what is in it",
    "util": "name what it does",
    "utils": "name what they do",
}
LINES_MAX = 400
LONGER_FILES: dict[str, str] = {  # path: why it reads better whole
    "imgserve/core/options.py": "one table of all parameters",
    "imgserve/node/supervisor.py": "one life, told in order: start, watch, reload, stop",
    "imgserve/wiring.py": "builds every object: one place to look for who gets what",
    "imgserve/web/fast_path.py": "the shared part, one connection and its watch keep one set of facts",
}
FUNCTION_LINES_MAX = 60
LONGER_FUNCTIONS: dict[str, str] = {}  # path:name: why
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
PERSONAL_WORDS = ("remote", "peername", "visitor", "client_address", "x-forwarded-for", "user_agent", "cookie")


def run(*arguments: str) -> None:
    """Run a tool of this interpreter's; its output is the failure's text."""
    result = subprocess.run(
        [sys.executable, *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False
    )
    if result.returncode:
        pytest.fail(f"{' '.join(arguments)}\n{result.stdout}{result.stderr}", pytrace=False)


def sources(*folders: str) -> list[Path]:
    """Python files of these folders of the project."""
    return sorted(path for folder in folders for path in (PROJECT / folder).rglob("*.py"))


def shown(path: Path) -> str:
    return str(path.relative_to(PROJECT))


# ---- tools ---------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "ruff", "check", "--quiet", "."),
        ("-m", "ruff", "format", "--check", "--quiet", "."),
        ("-m", "mypy", "--no-error-summary"),
        ("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"),
    ],
    ids=["style", "format", "types", "floors"],
)
def test_tool(arguments: tuple[str, ...]) -> None:
    """ruff, mypy and import-linter have nothing to say."""
    run(*arguments)


def test_stubs_match_the_compiled_modules(tmp_path: Path) -> None:
    """Each .pyi says exactly what its extension has; but __init__ of a cdef class shows no parameters at run time."""
    allowed = tmp_path / "allowed"
    allowed.write_text(r"imgserve\.fast\._\w+\.\w+\.__init__")
    modules = [f"imgserve.fast.{path.stem}" for path in sorted((PACKAGE / "fast").glob("_*.pyi"))]
    assert modules
    run("-m", "mypy.stubtest", "--allowlist", str(allowed), "--ignore-unused-allowlist", *modules)


def test_each_extension_has_its_twin_and_its_stub() -> None:
    """A .pyx without a Python twin has no specification."""
    for pyx in sorted((PROJECT / "ext").glob("*.pyx")):
        names = {f"_{pyx.stem}.pyi", f"_{pyx.stem}_py.py", f"{pyx.stem}.py"}
        assert names <= {path.name for path in (PACKAGE / "fast").iterdir()}, pyx.name


@pytest.mark.parametrize(("shell", "script"), [("bash", ".ci/run"), ("sh", ".ci/look-first")])
def test_scripts_parse(shell: str, script: str) -> None:
    """A script that is only run elsewhere is at least well-formed."""
    subprocess.run([shell, "-n", PROJECT / script], check=True)


# ---- names and lengths ---------------------------------------------------------------------------


def words_of(name: str) -> list[str]:
    """``PoolManager`` and ``pool_manager`` have the words pool and manager."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]


def names_in(path: Path) -> Iterator[str]:
    """The file's own name, and what it defines."""
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


@pytest.mark.parametrize(
    ("name", "words"),
    [("PoolManager", ["pool", "manager"]), ("_db_utils", ["db", "utils"]), ("HTTPBase", ["http", "base"])],
)
def test_names_are_split_into_words(name: str, words: list[str]) -> None:
    """The next test sees every word of a name."""
    assert words == words_of(name)


def test_no_name_is_empty_of_meaning() -> None:
    """Names say what a thing is or does."""
    found = [
        f"{shown(path)}: {name}: {BANNED_WORDS[word]}"
        for path in sources("imgserve", "benchmarks")
        for name in names_in(path)
        for word in words_of(name)
        if word in BANNED_WORDS
    ]
    assert found == []


def test_files_are_short() -> None:
    """A file that grows past the limit is parted, or gets a reason."""
    paths = [*sources("imgserve", "benchmarks"), *(PROJECT / "ext").glob("*.p[yx]*")]
    lengths = {shown(path): len(path.read_text().splitlines()) for path in paths}
    assert set(LONGER_FILES) == {name for name, lines in lengths.items() if lines > LINES_MAX}


def test_functions_are_short() -> None:
    """Under 60 lines, docstring not counted."""
    found = set()
    for path in sources("imgserve", "benchmarks"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                first = node.body[1] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body[0]
                if node.end_lineno - first.lineno >= FUNCTION_LINES_MAX:
                    found.add(f"{shown(path)}:{node.name}")
    assert set(LONGER_FUNCTIONS) == found


# ---- what must not be in the code ----------------------------------------------------------------


def log_calls(path: Path) -> Iterator[ast.Call]:
    """Calls of a logger's methods."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LOG_METHODS
            and "log" in ast.unparse(node.func.value).lower()
        ):
            yield node


def test_no_log_call_names_personal_data() -> None:
    """No address, no header that holds one, in any argument of any log call."""
    found = [
        f"{shown(path)}:{call.lineno}: {word}"
        for path in sources("imgserve")
        for call in log_calls(path)
        for word in PERSONAL_WORDS
        if word in ast.unparse(call).lower()
    ]
    assert found == []


def test_each_log_call_names_its_event() -> None:
    """One snake_case name, whole in the source, so that it can be searched for; everything else is a field."""
    calls = [(path, call) for path in sources("imgserve") for call in log_calls(path)]
    assert calls
    found = [
        f"{shown(path)}:{call.lineno}: {ast.unparse(call)}"
        for path, call in calls
        if len(call.args) != 1
        or not isinstance(call.args[0], ast.Constant)
        or re.fullmatch(r"[a-z][a-z0-9_]*", str(call.args[0].value)) is None
    ]
    assert found == []


def test_core_reads_no_clock_and_no_environment() -> None:
    """What import-linter cannot see: calls on modules that core may import for their types."""
    pattern = re.compile(
        r"\b(?:datetime|date)\.(?:now|utcnow|today)\(|\btime\.\w+\(|(?<!def )\bopen\(|\bos\.|\bprint\("
    )
    found = [
        f"{shown(path)}:{number}: {line.strip()}"
        for path in [*sources("imgserve/core"), PACKAGE / "interfaces.py"]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_libvips_never_gets_a_path() -> None:
    """By path an SVG loads its neighbours; by descriptor or from memory it cannot."""
    pattern = re.compile(r"new_from_file|new_temp_file|\.write_to_file|\bthumbnail\(|\b\w+(?:load|save)\(")
    found = [
        f"{shown(path)}:{number}: {line.strip()}"
        for path in sources("imgserve/adapters/render")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_tasks_belong_to_groups() -> None:
    """A task outside a group outlives its owner, and its failure is nobody's."""
    found = []
    for path in sources("imgserve"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in {"create_task", "ensure_future", "gather"}:
                owner = ast.unparse(node.value)
                if node.attr != "create_task" or not owner.endswith("group"):
                    found.append(f"{shown(path)}:{node.lineno}: {owner}.{node.attr}")
    assert found == []


def test_parameters_of_urls_are_read_in_one_place() -> None:
    """Two readers of one grammar would differ one day; the values of ``f`` are filters by name."""
    pattern = re.compile(r"\boptions\.lookup\(|import lookup\b")
    readers = {shown(path) for path in sources("imgserve") if pattern.search(path.read_text())}
    assert readers == {"imgserve/core/grammar.py", "imgserve/core/values.py"}


def test_statuses_are_the_webs() -> None:
    """What failed is an error of ``core.errors``; the web says which number that is."""
    pattern = re.compile(r"\bHTTPStatus\b|\bstatus(?:_code)?\s*[=!<>]=?\s*[1-5]\d\d\b")
    found = {
        shown(path)
        for path in sources("imgserve")
        if not path.is_relative_to(PACKAGE / "web") and pattern.search(path.read_text())
    }
    assert found == {"imgserve/adapters/origins/http.py"}


def test_tests_patch_nothing() -> None:
    """Fakes are whole implementations of an interface."""
    pattern = re.compile(r"\b(?:from|import) (?:unittest\.)?mock\b|\bmocker\b")
    assert [shown(path) for path in sources("tests") if pattern.search(path.read_text())] == []


def test_nothing_is_left_for_later() -> None:
    """No mark of unfinished work in any file of ours."""
    marks = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
    suffixes = {".py", ".pyi", ".pyx", ".pxd", ".md", ".toml", ".html", ".css", ".js", ".svg", ""}
    folders = ("imgserve", "tests", "benchmarks", "ext", ".ci")
    paths = [path for folder in folders for path in (PROJECT / folder).rglob("*") if path.is_file()]
    paths += [path for path in PROJECT.iterdir() if path.is_file()]
    found = [
        shown(path)
        for path in paths
        if path.suffix in suffixes
        and "__pycache__" not in path.parts
        and marks.search(path.read_text(errors="replace"))
    ]
    assert found == []


# ---- documents -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(TABLES))
def test_readme_has_the_generated_table(name: str) -> None:
    """Every option and every setting, as the code has them; ``make docs`` writes them."""
    readme = (PROJECT / "README.md").read_text()
    _, opening, rest = readme.partition(f"<!-- {name} -->\n")
    assert opening
    assert TABLES[name]() == rest.partition(f"<!-- /{name} -->")[0]


def test_readme_names_every_metric() -> None:
    """Whoever scrapes finds out what a number means."""
    readme = (PROJECT / "README.md").read_text()
    metrics = set()
    for path in sources("imgserve"):
        if path.is_relative_to(PACKAGE / "adapters/metrics") or path in {PACKAGE / "tallies.py", PACKAGE / "wiring.py"}:
            metrics |= set(re.findall(r'"(imgserve_[a-z0-9_]+)"', path.read_text()))
    assert metrics
    assert {name.removesuffix("_total") for name in re.findall(r"`(imgserve_[a-z0-9_]+)`", readme)} == metrics


def test_what_is_counted_is_published() -> None:
    """A public counter that nothing reads tells nobody: it gets a metric, or goes."""
    counted, read = set(), set()
    for path in sources("imgserve"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute):
                counted.add(node.target.attr)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
    assert {name for name in counted - read if not name.startswith("_")} == set()


def is_there(path: str) -> bool:
    """Whether the project has it, seen from its root or its package."""
    return any(any(top.glob(path.rstrip("/"))) for top in (PROJECT, PACKAGE))


def is_defined(name: str) -> bool:
    """Whether ``services.images.get`` leads to a module of the package, and what comes after it is a name in there."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        file = PACKAGE.joinpath(*parts[:count]).with_suffix(".py")
        if file.is_file():
            twin = file.with_name(f"_{file.stem}_py.py")
            text = file.read_text() + (twin.read_text() if twin.exists() else "")
            return all(re.search(rf"\b{part}\b", text) for part in parts[count:])
    return False


def test_architecture_names_what_is_there() -> None:
    """Every path and every dotted name of a module leads somewhere."""
    text = re.sub(r"```.*?```", "", (PROJECT / "ARCHITECTURE.md").read_text(), flags=re.DOTALL)
    code = " ".join(re.findall(r"`([^`]+)`", text))
    paths = set(re.findall(r"(?<![\w/.*])(?:[\w*]+/)*(?:[\w*]+\.(?:py|pyx|toml)|[\w*]+/)(?![\w/.])", code))
    folders = "|".join(path.name for path in PACKAGE.iterdir() if path.is_dir())
    names = set(re.findall(rf"(?<![\w/.])(?:{folders})(?:\.\w+)+", code))
    assert min(len(paths), len(names)) > 10
    assert [path for path in sorted(paths) if not is_there(path)] == []
    assert [name for name in sorted(names) if not is_defined(name)] == []


def test_readme_names_every_command() -> None:
    """Of the command line and of make."""
    from imgserve.cli.app import group

    readme = (PROJECT / "README.md").read_text()
    missing = [name for name in group.commands if f"imgserve {name}" not in readme]
    assert missing == []
    for target in ("make run", "make test", "make bench"):
        assert target in readme


def test_dependencies_have_reasons() -> None:
    """Each line of a dependency says what it is for."""
    lines = (PROJECT / "pyproject.toml").read_text().splitlines()
    start = lines.index("dependencies = [")
    block = lines[start + 1 : lines.index("]", start)]
    dependencies = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert len(dependencies) == len(block)
    assert [line for line in block if " # " not in line] == []


def test_each_exception_has_a_reason() -> None:
    """Linters are switched off for one rule, with its reason at hand; types are ignored by code."""
    bare = re.compile(r"#\s*noqa(?!: [A-Z]+[0-9]+)|#\s*type: ignore(?!\[)")
    found = [
        f"{shown(path)}:{number}"
        for path in sources("imgserve", "tests", "benchmarks")
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if bare.search(line)
    ]
    assert found == []


def test_the_licence_is_whole() -> None:
    """Apache-2.0, and whose."""
    text = (PROJECT / "LICENSE").read_text()
    for part in ("Apache License", "Version 2.0, January 2004", "END OF TERMS AND CONDITIONS", "The imgserve authors"):
        assert part in text
