"""From the TOML file and the environment to the typed tables; every mistake becomes one line."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from imgserve.core.errors import Misconfigured
from imgserve.settings.schema import (
    PLAIN_TABLES,
    File,
    KeyTable,
    Secret,
    SigningTable,
    SubProcessorTable,
    TenantTable,
)

_PREFIX: Final = "IMGSERVE_"
_NO_KEYS: Final = tuple(f"{_PREFIX}{name}" for name in ("CONFIG", "KEY", "PURE", "ANNOTATE", "TRACE", "SANITIZE"))
"""Read elsewhere: by the command line, when modules are imported, and when they are built."""

_FILE_BYTES_MAX: Final = 16_000_000
_WRONG_TYPE: Final = re.compile(r"Expected `(?P<wanted>[^`]*)`, got `(?P<got>[^`]*)`")
_AT: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_STEP: Final = re.compile(r"[^.\[\]]+|\[(?:\d+|\.\.\.)\]")
_KINDS: Final = {
    "str": "a text in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list in [ ]",
    "object": "a table",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """The typed file. ``variables`` says which keys came from which environment variable, ``warnings`` which of them
    are understood by nobody."""

    file: File
    variables: Mapping[str, str]
    warnings: tuple[str, ...]

    def written(self) -> dict[str, object]:
        """Every plain key with the value as written, by its dotted name."""
        return {
            f"{section}.{key}": getattr(getattr(self.file, section), key)
            for section, table in PLAIN_TABLES.items()
            for key in table.__struct_fields__
        }


def read(path: Path, environ: Mapping[str, str]) -> Read:
    """The file with the environment laid over it. Raises Misconfigured."""
    document = _parse(path)
    _refuse_unknown_keys(document)
    variables = _lay_over(document, environ)
    try:
        file = msgspec.convert(document, File, dec_hook=_secret)
    except msgspec.ValidationError as error:
        raise _one_line(str(error), document, variables) from None
    return Read(file=file, variables=variables, warnings=tuple(_warnings(environ)))


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        fix = "there is no such file; name one with --config, or write one with: imgserve config init"
        raise Misconfigured("--config", str(path), fix) from None
    except OSError as error:
        raise Misconfigured("--config", str(path), f"the file cannot be read: {error.strerror}") from None
    if len(content) > _FILE_BYTES_MAX:
        raise Misconfigured("--config", str(path), "the file is over 16MB; is it the right one?")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))  # some editors begin a file with a byte order mark
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured("--config", str(path), f"not valid TOML; look there: {error}") from None
    except UnicodeDecodeError:
        raise Misconfigured("--config", str(path), "not UTF-8 text; save it as UTF-8") from None


# ---- unknown keys --------------------------------------------------------------------------------

_INNER: Final[Mapping[str, type[msgspec.Struct]]] = {
    **PLAIN_TABLES,
    "tenants": TenantTable,
    "tenants.signing": SigningTable,
    "tenants.keys": KeyTable,
    "sub_processors": SubProcessorTable,
}
_LISTS: Final = frozenset({"tenants", "tenants.keys", "sub_processors"})
_SECRETS: Final = frozenset({"tenants.keys.key", "tenants.signing.salts"})
_WITH_SECRETS: Final = frozenset({"tenants.keys", "tenants.signing"})


def _refuse_unknown_keys(document: dict[str, Any]) -> None:
    for shown, generic, table, value in _tables(document):
        known = table.__struct_fields__
        for key in value:
            if key not in known:
                raise _unknown(shown, generic, key, value[key], known)


def _tables(document: dict[str, Any]) -> Iterator[tuple[str, str, type[msgspec.Struct], dict[str, Any]]]:
    """Every table that is there: its name as shown, its name without numbers, its shape, its content."""
    pending: list[tuple[str, str, type[msgspec.Struct], Any]] = [("", "", File, document)]
    while pending:
        shown, generic, table, value = pending.pop(0)
        if not isinstance(value, dict):
            continue
        yield shown, generic, table, value
        for key, inner in value.items():
            name = f"{generic}.{key}".lstrip(".")
            if name in _INNER:
                items = enumerate(inner) if isinstance(inner, list) else [(None, inner)]
                pending += [(_shown(shown, key, number, item), name, _INNER[name], item) for number, item in items]


def _shown(parent: str, key: str, number: int | None, item: object) -> str:
    """``tenants.demo.keys.shop``: an entry of a list goes by its name, or else by its number."""
    path = f"{parent}.{key}".lstrip(".")
    if number is None:
        return path
    name = item.get("name") if isinstance(item, dict) else None
    return f"{path}.{name}" if isinstance(name, str) and name.isprintable() and name else f"{path}[{number}]"


def _unknown(shown: str, generic: str, key: str, value: object, known: tuple[str, ...]) -> Misconfigured:
    near = get_close_matches(key, known, 1)
    elsewhere = [name for name, table in _INNER.items() if key in table.__struct_fields__]
    if near:
        fix = f"unknown key; did you mean {near[0]}?"
    elif elsewhere:
        fix = f"unknown key here; it belongs into {elsewhere[0]}"
    else:
        fix = f"unknown key; known here: {', '.join(known)}"
    name = f"{shown}.{key}".lstrip(".")
    # A misspelt key of a tenant may hold a secret.
    is_secret = generic in {"tenants", *_WITH_SECRETS} and not isinstance(value, int | float)
    return Misconfigured(name, _presentable(value, is_secret=is_secret), fix)


# ---- environment ---------------------------------------------------------------------------------


def _lay_over(document: dict[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Put ``IMGSERVE_SECTION__KEY`` variables into the document; returns which key came from which."""
    variables = {}
    for variable in sorted(environ):
        if not variable.startswith(_PREFIX) or "__" not in variable:
            continue
        section, _, key = variable.removeprefix(_PREFIX).lower().partition("__")
        table = PLAIN_TABLES.get(section)
        if table is None:
            fix = f"only keys of plain tables come from the environment: {', '.join(PLAIN_TABLES)}"
            raise Misconfigured(variable, _presentable(environ[variable], is_secret=True), fix)
        if key not in table.__struct_fields__:
            near = get_close_matches(key, table.__struct_fields__, 1) or table.__struct_fields__
            fix = f"unknown key; known: {', '.join(f'{_PREFIX}{section}__{one}'.upper() for one in near)}"
            raise Misconfigured(variable, environ[variable], fix)
        inner = document.setdefault(section, {})
        if isinstance(inner, dict):
            inner[key] = _typed(variable, environ[variable], get_type_hints(table)[key])
            variables[f"{section}.{key}"] = variable
    return variables


def _warnings(environ: Mapping[str, str]) -> Iterator[str]:
    """Variables that look like ours, and are not: one underscore is easily lost."""
    known = [f"{_PREFIX}{section}__{key}".upper() for section in PLAIN_TABLES for key in _keys_of(section)]
    for variable in sorted(environ):
        if variable.startswith(_PREFIX) and "__" not in variable and variable not in _NO_KEYS:
            near = get_close_matches(variable, [*known, *_NO_KEYS], 1, 0.8)
            fix = f"did you mean {near[0]}?" if near else f"keys are written {_PREFIX}SECTION__KEY"
            yield f"{variable}: is not understood; {fix}"


def _keys_of(section: str) -> tuple[str, ...]:
    return PLAIN_TABLES[section].__struct_fields__


def _typed(variable: str, text: str, kind: object) -> object:
    """The text as the key's type: lists are separated by commas."""
    text = text.strip()
    try:
        if kind is int:
            return int(text)
        if kind is float:
            return float(text)
    except ValueError:
        raise Misconfigured(variable, text, f"use {_KINDS['int' if kind is int else 'float']}") from None
    if kind == tuple[str, ...]:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


# ---- wrong types ---------------------------------------------------------------------------------


def _secret(kind: type, value: object) -> object:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise ValueError("Expected `str`, got `another type`")  # worded as msgspec does


def _one_line(message: str, document: dict[str, Any], variables: Mapping[str, str]) -> Misconfigured:
    """A validation error of msgspec as key, value and fix."""
    at = _AT.search(message)
    shown, generic, value = _look_up(document, at["path"] if at else "")
    wrong = _WRONG_TYPE.search(message)
    if generic in _LISTS and wrong is not None and wrong["wanted"] == "array":
        fix = f"write it as [[{generic}]]"
    elif wrong is not None:
        fix = f"use {_KINDS.get(wrong['wanted'], wrong['wanted'])}"
    else:
        fix = _choices(generic) or message.removesuffix(at[0] if at else "")
    if shown in variables:
        shown = f"{shown} (from {variables[shown]})"
    return Misconfigured(shown, _presentable(value, is_secret=generic in _SECRETS | _WITH_SECRETS), fix)


def _look_up(document: dict[str, Any], path: str) -> tuple[str, str, object]:
    """The value at msgspec's path, with its name as shown and its name without numbers."""
    shown, generic, value = "", "", document
    current: Any = value
    key = ""
    for step in _STEP.findall(path):
        if step == "[...]":  # some value of a table with free keys: the first that is no text
            key = next((one for one, text in current.items() if not isinstance(text, str)), "")
            current = current.get(key)
            shown = f"{shown}.{key}"
        elif step.startswith("["):
            number = int(step[1:-1])
            current = current[number]
            parent, _, last = shown.rpartition(".")
            shown = _shown(parent, last, number, current)
        else:
            current = current.get(step)
            shown = f"{shown}.{step}".lstrip(".")
            generic = f"{generic}.{step}".lstrip(".")
    return shown, generic, current


def _choices(generic: str) -> str:
    """What a key with a closed list of values accepts."""
    section, _, key = generic.rpartition(".")
    table = _INNER.get(section)
    hint = get_type_hints(table).get(key) if table is not None else None
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    return f"use {', '.join(choices[:-1])} or {choices[-1]}" if choices else ""


def _presentable(value: object, *, is_secret: bool = False) -> object:
    """The value for an error's line: short, never a secret, and of a table only that it is one."""
    if (
        is_secret
        or isinstance(value, dict)
        or (isinstance(value, list) and any(isinstance(one, dict) for one in value))
    ):
        return _Hidden()
    return value if len(repr(value)) <= 100 else _Shortened(value)


class _Hidden:
    def __repr__(self) -> str:
        return "(not shown)"


class _Shortened:
    def __init__(self, value: object) -> None:
        self._text = repr(value)[:90]

    def __repr__(self) -> str:
        return f"{self._text}…"
