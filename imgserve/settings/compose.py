"""Everything together: read, check what only shows in combination, compose one frozen record."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Final

from imgserve.adapters.accesslog.settings import Settings as AccessLogSettings
from imgserve.adapters.cache.settings import Settings as CacheSettings
from imgserve.adapters.origins.settings import Settings as OriginsSettings
from imgserve.adapters.render.settings import Settings as RenderSettings
from imgserve.core.errors import Misconfigured
from imgserve.settings import tenants as tenant_rules
from imgserve.settings import values
from imgserve.settings.reading import Read, read
from imgserve.settings.records import Configuration, Operator, Privacy, Server, SubProcessor
from imgserve.settings.schema import File, ServerTable

_METADATA_SERVICES: Final = (ip_network("169.254.169.254/32"), ip_network("fd00:ec2::254/128"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A valid configuration, and what is allowed in it but deserves a second look."""

    configuration: Configuration
    warnings: tuple[str, ...]


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Read and check the file and its ``IMGSERVE_SECTION__KEY`` variables. Raises Misconfigured: one line
    that names key, value and fix. Creates nothing."""
    path = path.absolute()
    source = read(path, environ)
    try:
        return _compose(path, source, environ)
    except Misconfigured as error:
        raise _as_written(error, source) from None


def _as_written(error: Misconfigured, source: Read) -> Misconfigured:
    """The same error with the value as the operator wrote it, and with the variable it came from."""
    value = source.written().get(error.key)
    variable = source.variables.get(error.key)
    if value is None or (isinstance(value, tuple) and variable is None):  # of a list, the error names the very entry
        return error
    return Misconfigured(f"{error.key} (from {variable})" if variable else error.key, value, error.fix)


def _compose(path: Path, source: Read, environ: Mapping[str, str]) -> Loaded:
    file = source.file
    folder = path.parent
    _keep_keys_apart(file.privacy.keys_dir, file.server.data_dir, folder)
    server = _server(file.server, folder)
    around = tenant_rules.Surroundings(server=server, folder=folder, environ=environ)
    max_original_bytes = values.size_bytes("render.max_original_bytes", file.render.max_original_bytes)
    configuration = Configuration(
        path=path,
        server=server,
        cache=CacheSettings(
            data_dir=server.data_dir,
            size_bytes=values.size_bytes("cache.size", file.cache.size),
            memory_bytes=values.size_bytes("cache.memory", file.cache.memory),
            max_age_days=file.cache.max_age_days,
        ),
        render=RenderSettings(
            workers=file.render.workers,
            timeout_s=file.render.timeout_s,
            memory_bytes=values.size_bytes("render.memory", file.render.memory),
            max_original_bytes=max_original_bytes,
            max_original_pixels=file.render.max_original_pixels,
            max_side_px=file.render.max_side_px,
        ),
        origins=OriginsSettings(
            allow_private=values.networks("origins.allow_private", file.origins.allow_private),
            max_original_bytes=max_original_bytes,
        ),
        accesslog=AccessLogSettings(
            data_dir=server.data_dir,
            keys_dir=_future_folder("privacy.keys_dir", file.privacy.keys_dir, folder),
            retention_days=file.privacy.retention_days,
        ),
        privacy=Privacy(country_db=_country_db(file.privacy.country_db, folder)),
        operator=Operator(name=file.operator.name, contact=file.operator.contact),
        sub_processors=tuple(
            SubProcessor(name=one.name, purpose=one.purpose, location=one.location) for one in file.sub_processors
        ),
        tenants=tenant_rules.compose(file.tenants, around),
        effective=MappingProxyType(source.written()),
    )
    _keep_aliases_apart(configuration, file)
    return Loaded(
        configuration=configuration, warnings=(*source.warnings, *_network_warnings(configuration), *around.warnings)
    )


def _server(table: ServerTable, folder: Path) -> Server:
    if not table.listen:
        raise Misconfigured("server.listen", [], "name at least one listener, such as 127.0.0.1:8080")
    listeners = [values.listen("server.listen", text, folder) for text in table.listen]
    admin = values.listen("server.admin_listen", table.admin_listen, folder)
    fixed = [listener for listener in listeners if listener.path or listener.port]
    if len(set(fixed)) < len(fixed):
        raise Misconfigured("server.listen", list(table.listen), "name each listener once")
    if admin in fixed:
        raise Misconfigured("server.admin_listen", table.admin_listen, "use another port than server.listen")
    if not 0 <= table.processes <= 256:
        raise Misconfigured("server.processes", table.processes, "use 0 (one per core) to 256")
    if not 0 <= table.drain_delay_s <= 300:
        raise Misconfigured("server.drain_delay_s", table.drain_delay_s, "use 0 to 300 seconds")
    return Server(
        listen=tuple(listeners),
        admin_listen=admin,
        processes=table.processes,
        data_dir=_future_folder("server.data_dir", table.data_dir, folder),
        node=values.name("server.node", table.node),
        region=values.name("server.region", table.region),
        trusted_proxies=values.networks("server.trusted_proxies", table.trusted_proxies),
        forwarded_header=table.forwarded_header,
        drain_delay_s=table.drain_delay_s,
    )


def _future_folder(key: str, text: str, folder: Path) -> Path:
    """A folder that is there or can be created; relative to the configuration file."""
    if not text or "\0" in text:
        raise Misconfigured(key, text, "name a folder")
    path = folder / text
    if path.exists() and not path.is_dir():
        raise Misconfigured(key, text, f"{path} is no folder; name another")
    if not path.parent.is_dir():
        raise Misconfigured(key, text, f"create the folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK | os.X_OK):
        raise Misconfigured(key, text, f"make {path if path.exists() else path.parent} writable for this user")
    return path


def _country_db(text: str, folder: Path) -> Path | None:
    if not text:
        return None
    path = folder / text
    if not path.is_file():
        raise Misconfigured("privacy.country_db", text, f"there is no file {path}; empty means none")
    return path


# ---- folders that must not meet ------------------------------------------------------------------


def _keep_keys_apart(keys_text: str, data_text: str, folder: Path) -> None:
    """Day keys lie apart from the data they unlock."""
    if not keys_text or not data_text:
        return  # said in the next step
    keys_dir, data_dir = (folder / keys_text).resolve(), (folder / data_text).resolve()
    if _lies_in(keys_dir, data_dir) or _lies_in(data_dir, keys_dir):
        fix = f"keep it and server.data_dir ({data_text}) apart: the two want different backups"
        raise Misconfigured("privacy.keys_dir", keys_text, fix)


def _keep_aliases_apart(configuration: Configuration, file: File) -> None:
    """No alias shows the data, the day keys, the configuration or a secret."""
    data_dir = configuration.server.data_dir.resolve()
    keys_dir = configuration.accesslog.keys_dir.resolve()
    folder = configuration.path.parent
    private_files = [("the configuration file", configuration.path.resolve())]
    private_files += [("the file of a secret", path.resolve()) for path in _secret_files(file, folder)]
    if configuration.privacy.country_db is not None:
        private_files.append(("privacy.country_db", configuration.privacy.country_db.resolve()))
    for key, target, root in _alias_roots(configuration):
        for name, private in (("server.data_dir", data_dir), ("privacy.keys_dir", keys_dir)):
            if _lies_in(root, private) or _lies_in(private, root):
                raise Misconfigured(key, target, f"overlaps {name} ({private}); use a folder that has only images")
        for name, private in private_files:
            if _lies_in(private, root):
                raise Misconfigured(key, target, f"{name} ({private}) lies in it; use a folder that has only images")


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a resolved path is in the folder: by name, or by device and inode, as where the folder itself is mounted
    under another name. A mount of something that lies in it, or below the path, is not seen."""
    return any(step == folder or _is_same_file(step, folder) for step in (path, *path.parents))


def _is_same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:  # what is not there yet counts by name
        return False


def _alias_roots(configuration: Configuration) -> Iterator[tuple[str, str, Path]]:
    for tenant in configuration.tenants:
        for name, target in tenant.aliases.items():
            if target.startswith("file://"):
                key = f"tenants.{tenant.name}.aliases.{name}"
                yield key, target, tenant_rules.alias_root(key, target).resolve()


def _secret_files(file: File, folder: Path) -> Iterator[Path]:
    for tenant in file.tenants:
        secrets = [*tenant.signing.salts, *(key.key for key in tenant.keys if key.key is not None)]
        yield from (path for secret in secrets if (path := values.secret_file(secret, folder)) is not None)


# ---- what deserves a second look -----------------------------------------------------------------


def _network_warnings(configuration: Configuration) -> Iterator[str]:
    server = configuration.server
    if not server.admin_listen.is_loopback:
        yield f"server.admin_listen: {server.admin_listen} shows the metrics to everyone who can reach it"
    if any(network.prefixlen == 0 for network in server.trusted_proxies):
        yield "server.trusted_proxies: trusts every address, so a visitor can claim to be another"
    if not server.is_loopback_only and server.forwarded_header == "cf-connecting-ip":
        yield "server.forwarded_header: cf-connecting-ip counts from trusted_proxies only; list Cloudflare's networks"
    for network in configuration.origins.allow_private:
        if any(network.version == one.version and one.subnet_of(network) for one in _METADATA_SERVICES):  # type: ignore[arg-type]
            yield f"origins.allow_private: {network} holds a cloud's metadata service, which gives out credentials"
