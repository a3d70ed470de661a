"""The sample file and the README's table of settings, both made from the schema."""

from typing import Final

import msgspec

from imgserve.settings.schema import (
    PLAIN_TABLES,
    KeyTable,
    SigningTable,
    SubProcessorTable,
    TenantTable,
    description,
)

_HEAD: Final = """\
# Configuration of imgserve. Every key is shown with its default; remove the # to change one.
# A key in a plain table can also come from the environment: cache.size is IMGSERVE_CACHE__SIZE.
# Relative paths count from this file. Sizes have their unit in the text: MB = 10^6, MiB = 2^20.
# A secret may be the value itself, "file:PATH" or "env:NAME". Check changes with: imgserve check
"""
_TENANT: Final = """\
# ---- one [[tenants]] table for each customer ----

[[tenants]]
name = "demo"
hosts = ["demo.localhost"]
default = true               # {default}
# allowed_origins = []       # {allowed_origins}
# open_proxy = false         # {open_proxy}
# origin_prefix = ""         # {origin_prefix}
# origin_scheme = "https"    # {origin_scheme}
# regions = []               # {regions}
# signing = {{ mode = "off", salts = ["env:DEMO_SALT"], min_length = 18 }}

# {aliases}
# [tenants.aliases]
# _photos_ = "file:///srv/photos"

# {presets}
# [tenants.presets]
# thumb = "w=200&h=200&func=crop"

# {keys}; {hash}
# [[tenants.keys]]
# name = "shop"
# hash = "sha256:…"          # printed by: imgserve config hash-key
# scopes = ["invalidate"]    # {scopes}

# [[sub_processors]]         # {sub_processors}
# name = "Example Cloud"
# purpose = "object storage"
# location = "France"
"""


def sample() -> str:
    """A commented configuration file with every key; valid as it is."""
    parts = [_HEAD]
    for section, table in PLAIN_TABLES.items():
        lines = [f"[{section}]"]
        for key, default in _defaults(table):
            lines += [f"# {description(table, key)}", f"# {key} = {toml(default)}"]
        parts.append("\n".join(lines) + "\n")
    texts = {key: description(TenantTable, key) for key in TenantTable.__struct_fields__}
    texts |= {"hash": description(KeyTable, "hash"), "scopes": description(KeyTable, "scopes")}
    texts["sub_processors"] = "who processes data for you; shown on the privacy page"
    parts.append(_TENANT.format(**texts))
    return "\n".join(parts)


def settings_table() -> str:
    """Every key with its default and meaning, as a Markdown table."""
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    tables: dict[str, type[msgspec.Struct]] = {
        **PLAIN_TABLES,
        "tenants": TenantTable,
        "tenants.signing": SigningTable,
        "tenants.keys": KeyTable,
        "sub_processors": SubProcessorTable,
    }
    for section, table in tables.items():
        for key, default in _defaults(table):
            if f"{section}.{key}" not in tables:
                meaning = description(table, key).replace("|", "\\|")
                lines.append(f"| `{section}.{key}` | `{toml(default)}` | {meaning} |")
    return "\n".join(lines) + "\n"


def _defaults(table: type[msgspec.Struct]) -> list[tuple[str, object]]:
    plain = table()
    return [(key, getattr(plain, key)) for key in table.__struct_fields__]


def toml(value: object) -> str:
    """A value as TOML writes it; only of the kinds that the schema has as defaults."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value:_}" if value >= 10_000 else str(value)
        case float():
            return str(int(value)) if value.is_integer() else str(value)
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case tuple():
            return f"[{', '.join(toml(one) for one in value)}]"
        case dict():
            return "{}"
        case None:
            return '""'
        case _:
            raise TypeError(f"no default is a {type(value).__name__}")
