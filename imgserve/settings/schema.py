"""The shape of the configuration file: every key, its default and one line about it.

The sample file, the README's table and the names of the environment variables come from here.
"""

from typing import Annotated, Literal, final

import msgspec
from msgspec import Meta


@final
class Secret:
    """A text that is never shown. It is the value itself, ``file:PATH`` or ``env:NAME``."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "Secret(…)"


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; an unknown key in it is an error."""


class ServerTable(_Table, frozen=True):
    """Where the node listens, what it is called and where its data lies."""

    listen: Annotated[
        tuple[str, ...],
        Meta(description='delivery listeners: "127.0.0.1:8080", "[::]:8080" or "unix:/run/imgserve.sock"'),
    ] = ("127.0.0.1:8080",)
    admin_listen: Annotated[str, Meta(description="listener of the metrics; keep it off the Internet")] = (
        "127.0.0.1:8081"
    )
    processes: Annotated[
        int, Meta(description="fronts; 0 = one per usable core (affinity and cgroup quota counted)")
    ] = 0
    data_dir: Annotated[str, Meta(description="folder of cached images and logs; created when its parent exists")] = (
        "var"
    )
    node: Annotated[str, Meta(description="name of this node")] = "node-1"
    region: Annotated[str, Meta(description="region of this node; tenants may insist on regions")] = "fr"
    trusted_proxies: Annotated[
        tuple[str, ...], Meta(description="addresses and networks whose forwarded_header is believed")
    ] = ("127.0.0.1",)
    forwarded_header: Annotated[
        Literal["x-forwarded-for", "forwarded", "cf-connecting-ip", "none"],
        Meta(
            description="the one header that names the visitor: x-forwarded-for, forwarded, cf-connecting-ip or none; "
            "read from the right, to the first hop not in trusted_proxies"
        ),
    ] = "x-forwarded-for"
    drain_delay_s: Annotated[
        float, Meta(description="seconds between being asked to stop and closing the listeners")
    ] = 0.0


class CacheTable(_Table, frozen=True):
    """How much is kept, and for how long."""

    size: Annotated[str, Meta(description="disk for cached images; the least recently used goes first")] = "10GB"
    memory: Annotated[str, Meta(description="memory for hot answers, of the whole node")] = "256MB"
    max_age_days: Annotated[int, Meta(description="older is removed, however often it is used")] = 30


class RenderTable(_Table, frozen=True):
    """Limits of the workers."""

    workers: Annotated[int, Meta(description="workers of the whole node; 0 = one per usable core")] = 0
    timeout_s: Annotated[float, Meta(description="seconds a worker may take for one image; then it is killed")] = 10.0
    memory: Annotated[str, Meta(description="memory of one worker")] = "2GB"
    max_original_bytes: Annotated[str, Meta(description="largest original that is fetched")] = "30MB"
    max_original_pixels: Annotated[int, Meta(description="largest original that is decoded, in pixels")] = 50_000_000
    max_side_px: Annotated[int, Meta(description="longest side of an original, in pixels")] = 16_384


class OriginsTable(_Table, frozen=True):
    """Where originals may be fetched from."""

    allow_private: Annotated[
        tuple[str, ...],
        Meta(description='networks that an origin may lie in although not public, such as "127.0.0.0/8"'),
    ] = ()


class PrivacyTable(_Table, frozen=True):
    """What is kept about visitors, and for how long."""

    retention_days: Annotated[int, Meta(description="days that a row of the access log and its key are kept")] = 30
    keys_dir: Annotated[
        str, Meta(description="folder of the day keys; not inside data_dir: the two want different backups")
    ] = "keys"
    country_db: Annotated[str, Meta(description="MaxMind-format file for visitors' countries; empty = none")] = ""


class OperatorTable(_Table, frozen=True):
    """Who runs the server; shown on the privacy page."""

    name: Annotated[str, Meta(description="who runs this server")] = ""
    contact: Annotated[str, Meta(description="where to ask about data protection")] = ""


class SigningTable(_Table, frozen=True):
    """How a tenant's URLs must be signed."""

    mode: Annotated[Literal["off", "sign", "seal"], Meta(description="off, sign or seal")] = "off"
    salts: Annotated[tuple[Secret, ...], Meta(description="secrets, the newest first; any of them verifies")] = ()
    min_length: Annotated[int, Meta(description="shortest signature that is accepted")] = 18


class KeyTable(_Table, frozen=True):
    """An API key of a tenant."""

    name: Annotated[str, Meta(description="what the key is called in logs")] = ""
    key: Annotated[
        Secret | None,
        Meta(description="the key; written here in clear only while listening on loopback, else use hash"),
    ] = None
    hash: Annotated[str, Meta(description='"sha256:" and the 64 hex digits of the key\'s SHA-256')] = ""
    scopes: Annotated[
        tuple[str, ...],
        Meta(description="what it may do: invalidate, invalidate:all, analytics, logs, subjects, export"),
    ] = ()


class TenantTable(_Table, frozen=True):
    """A customer of the node."""

    name: Annotated[str, Meta(description="a-z, 0-9 and -, at most 63 characters; names the tenant's folder")] = ""
    hosts: Annotated[tuple[str, ...], Meta(description="Host headers of this tenant, without port")] = ()
    default: Annotated[
        bool, Meta(description="serve unknown hosts as this tenant; only where it is the single one")
    ] = False
    allowed_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="host (ports 80 and 443), host:port or host:*; a host allows its subdomains; "
            '"*" = any public host; empty = aliases only'
        ),
    ] = ()
    open_proxy: Annotated[bool, Meta(description='allow "*" without signatures')] = False
    origin_prefix: Annotated[str, Meta(description="put before every original that is no URL and no alias")] = ""
    origin_scheme: Annotated[
        Literal["http", "https"], Meta(description="scheme of originals that are written without one")
    ] = "https"
    regions: Annotated[
        tuple[str, ...], Meta(description="regions that may serve this tenant; empty = this node's only")
    ] = ()
    signing: Annotated[SigningTable, Meta(description="how URLs must be signed")] = SigningTable()
    aliases: Annotated[
        dict[str, str], Meta(description="_name_ = folder (file:///…) or prefix (https://…); allowed by itself")
    ] = {}
    presets: Annotated[dict[str, str], Meta(description="name = options, used as p=name")] = {}
    keys: Annotated[tuple[KeyTable, ...], Meta(description="API keys")] = ()


class SubProcessorTable(_Table, frozen=True):
    """Someone who processes data for the operator; shown on the privacy page."""

    name: Annotated[str, Meta(description="who")] = ""
    purpose: Annotated[str, Meta(description="what for")] = ""
    location: Annotated[str, Meta(description="where")] = ""


class File(_Table, frozen=True):
    """The whole file."""

    server: ServerTable = ServerTable()
    cache: CacheTable = CacheTable()
    render: RenderTable = RenderTable()
    origins: OriginsTable = OriginsTable()
    privacy: PrivacyTable = PrivacyTable()
    operator: OperatorTable = OperatorTable()
    tenants: tuple[TenantTable, ...] = ()
    sub_processors: tuple[SubProcessorTable, ...] = ()


PLAIN_TABLES: dict[str, type[_Table]] = {
    "server": ServerTable,
    "cache": CacheTable,
    "render": RenderTable,
    "origins": OriginsTable,
    "privacy": PrivacyTable,
    "operator": OperatorTable,
}
"""Tables whose keys may also come from the environment as ``IMGSERVE_SECTION__KEY``."""


def description(table: type[msgspec.Struct], key: str) -> str:
    """The line about a key, as the sample file and the README's table show it."""
    field = next(field for field in msgspec.inspect.type_info(table).fields if field.name == key)  # type: ignore[attr-defined]
    kind = field.type
    if isinstance(kind, msgspec.inspect.Metadata) and kind.extra_json_schema:
        return str(kind.extra_json_schema["description"])
    return ""
