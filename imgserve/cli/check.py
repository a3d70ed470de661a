"""``imgserve check``: says whether the configuration is valid, and what it would serve."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from imgserve.adapters.render import inventory, sandbox
from imgserve.cli import shared
from imgserve.cli.shared import readable_size
from imgserve.core.tenants import Tenant
from imgserve.disk import descriptors
from imgserve.settings import Configuration, load, usable_cores


@click.command("check")
@shared.with_config
def command(config_path: Path) -> None:
    """Check the configuration and say what it would serve.

    A mistake is one line that names the key, its value and the fix, with exit 1. Warnings do not change the exit.
    """
    loaded = load(config_path)
    configuration = loaded.configuration
    layers = sandbox.probe()
    found = inventory.take()
    out = shared.results()
    _show_node(out, configuration)
    _show_tenants(out, configuration)
    _show_formats(out, found, layers)
    out.print(f"\n[bold]Sandbox of the workers[/]\n{escape(layers.describe())}")
    warnings = [*loaded.warnings, *_machine_warnings(configuration)]
    if not layers.are_complete:
        warnings.append("this kernel lacks a layer of the workers' sandbox; see above")
    out.print("\n[bold]Warnings[/]" if warnings else "\nNo warnings.")
    for warning in warnings:
        out.print(f"- {escape(warning)}")
    out.print(f"\n{escape(str(configuration.path))} is valid.")


def _show_node(out: Console, configuration: Configuration) -> None:
    server, cache, render, accesslog = (
        configuration.server,
        configuration.cache,
        configuration.render,
        configuration.accesslog,
    )
    listeners = ", ".join(map(str, server.listen))
    per_core = "" if server.processes and render.workers else f", {usable_cores()} usable cores"
    originals = (
        f"up to {readable_size(render.max_original_bytes)}, {render.max_original_pixels / 1e6:g} megapixels, "
        f"{render.max_side_px} pixels a side"
    )
    rows = [
        ("node", f"{server.node} in region {server.region}"),
        ("delivery", listeners),
        ("admin", str(server.admin_listen)),
        ("processes", f"{configuration.front_count} fronts, {configuration.worker_count} workers{per_core}"),
        (
            "visitors",
            f"named by {server.forwarded_header} from {', '.join(map(str, server.trusted_proxies)) or 'nobody'}",
        ),
        ("data", f"{server.data_dir} ({readable_size(_free_bytes(server.data_dir))} free)"),
        ("day keys", str(accesslog.keys_dir)),
        ("cache", f"{readable_size(cache.size_bytes)} on disk, {readable_size(cache.memory_bytes)} in memory"),
        ("kept for", f"images {cache.max_age_days} days, log rows {accesslog.retention_days} days"),
        ("a worker", f"{readable_size(render.memory_bytes)}, {render.timeout_s:g} s an image"),
        ("originals", originals),
    ]
    if configuration.origins.allow_private:
        rows.append(("private networks", ", ".join(map(str, configuration.origins.allow_private))))
    out.print("[bold]Node[/]")
    table = shared.table("", "")
    for name, value in rows:
        table.add_row(escape(name), escape(value))
    out.print(table)


def _show_tenants(out: Console, configuration: Configuration) -> None:
    table = shared.table("name", "hosts", "origins", "URLs", "keys")
    for tenant in configuration.tenants:
        hosts = [*tenant.hosts, *(["(every other host)"] if tenant.is_default else [])]
        keys = [f"{key.name}: {', '.join(sorted(key.scopes)) or 'no scope'}" for key in tenant.keys]
        cells = (
            tenant.name,
            "\n".join(hosts) or "-",
            "\n".join(_origins(tenant)) or "-",
            "unsigned" if tenant.signing.mode == "off" else f"{tenant.signing.mode}ed",
            "\n".join(keys) or "-",
        )
        table.add_row(*map(escape, cells))
    if len(configuration.tenants):
        out.print("\n[bold]Tenants[/]")
        out.print(table)


def _origins(tenant: Tenant) -> Iterator[str]:
    yield from tenant.allowed_origins
    yield from (f"{name} = {target}" for name, target in tenant.aliases.items())
    if tenant.origin_prefix:
        yield f"prefix {tenant.origin_prefix}"


def _show_formats(out: Console, found: inventory.Inventory, layers: sandbox.Layers) -> None:
    source = f" from {found.package}" if found.package else ""
    out.print(f"\n[bold]Formats[/], by libvips {escape(found.libvips + source)}")
    table = shared.table("format", "in", "out", "decoder")
    for one in found.formats:
        reads = one.reads and (one.name != "SVG" or layers.allows_svg)
        table.add_row(one.name, "yes" if reads else "no", "yes" if one.writes else "no", escape(one.decoder))
    out.print(table)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder if folder.exists() else folder.parent).free


def _machine_warnings(configuration: Configuration) -> Iterator[str]:
    """What is valid in the file, and too much for this machine."""
    if warning := descriptors.warning():
        yield warning
    free_bytes = _free_bytes(configuration.server.data_dir)
    if configuration.cache.size_bytes > free_bytes and not configuration.server.data_dir.exists():
        yield (
            f"cache.size: {readable_size(configuration.cache.size_bytes)} is more than the "
            f"{readable_size(free_bytes)} that are free for {configuration.server.data_dir}"
        )
    wanted = configuration.worker_count * configuration.render.memory_bytes
    present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if wanted > present:
        yield (
            f"render.memory: {configuration.worker_count} workers may take {readable_size(wanted)} together, "
            f"and this machine has {readable_size(present)}"
        )
