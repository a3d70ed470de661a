"""Plain tables: defaults, sizes, listeners, networks, folders, the environment; and how each mistake is worded."""

import socket
from collections.abc import Callable
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path

import pytest

from imgserve.adapters.accesslog.settings import Settings as AccessLogSettings
from imgserve.adapters.cache.settings import Settings as CacheSettings
from imgserve.adapters.origins.settings import Settings as OriginsSettings
from imgserve.adapters.render.settings import Settings as RenderSettings
from imgserve.settings import Listen, Loaded, changed_outside_tenants, usable_cores
from imgserve.settings.schema import PLAIN_TABLES

Load = Callable[..., Loaded]
Refusal = Callable[..., str]

TENANT = '[[tenants]]\nname = "a"\nhosts = ["a.example"]\n'


def test_an_empty_file_is_valid_and_says_the_promised_defaults(load_toml: Load, tmp_path: Path) -> None:
    """Every default is the promised one, and the adapters' own defaults are the same."""
    loaded = load_toml()
    configuration = loaded.configuration
    server = configuration.server
    assert (Listen(family=socket.AF_INET, host="127.0.0.1", port=8080),) == server.listen
    assert Listen(family=socket.AF_INET, host="127.0.0.1", port=8081) == server.admin_listen
    assert ("node-1", "fr", 0, 0) == (server.node, server.region, server.processes, server.drain_delay_s)
    assert (ip_network("127.0.0.1/32"),) == server.trusted_proxies
    assert "x-forwarded-for" == server.forwarded_header
    assert tmp_path / "var" == server.data_dir
    assert CacheSettings(data_dir=tmp_path / "var") == configuration.cache
    assert RenderSettings() == configuration.render
    assert OriginsSettings() == configuration.origins
    assert AccessLogSettings(data_dir=tmp_path / "var", keys_dir=tmp_path / "keys") == configuration.accesslog
    assert len(configuration.tenants) == 0
    assert any("tenants" in warning for warning in loaded.warnings)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("20000000B", 20_000_000),
        ("64MB", 64_000_000),
        ("64MiB", 64 * 2**20),
        ("1.5GB", 1_500_000_000),
        ("2 GiB", 2 * 2**30),
        ("30000kB", 30_000_000),
        ("30000KB", 30_000_000),
        ("30000KiB", 30_000 * 2**10),
        ("2TB", 2 * 10**12),
        ("1TiB", 2**40),
    ],
)
def test_sizes(load_toml: Load, text: str, size_bytes: int) -> None:
    """MB is 10^6 and MiB is 2^20."""
    assert size_bytes == load_toml(f'[cache]\nsize = "{text}"').configuration.cache.size_bytes


def test_zero_needs_no_unit(load_toml: Load) -> None:
    """The memory cache is switched off by 0."""
    assert load_toml('[cache]\nmemory = "0"').configuration.cache.memory_bytes == 0


def test_one_limit_of_originals_reaches_fetching_and_rendering(load_toml: Load) -> None:
    """What may not be fetched need not be decoded."""
    configuration = load_toml('[render]\nmax_original_bytes = "5MB"').configuration
    assert 5_000_000 == configuration.render.max_original_bytes == configuration.origins.max_original_bytes


@pytest.mark.parametrize(
    ("listen", "shown", "family", "is_loopback"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", socket.AF_INET, True),
        ("127.1.2.3:80", "127.1.2.3:80", socket.AF_INET, True),
        ("localhost:80", "127.0.0.1:80", socket.AF_INET, True),
        ("0.0.0.0:8080", "0.0.0.0:8080", socket.AF_INET, False),
        ("[::]:8080", "[::]:8080", socket.AF_INET6, False),
        ("[::1]:8080", "[::1]:8080", socket.AF_INET6, True),
        ("127.0.0.1:0", "127.0.0.1:0", socket.AF_INET, True),
    ],
)
def test_listeners(load_toml: Load, listen: str, shown: str, family: int, *, is_loopback: bool) -> None:
    """IPv4, IPv6 in brackets, and localhost."""
    (listener,) = load_toml(f'[server]\nlisten = ["{listen}"]').configuration.server.listen
    assert (shown, family, is_loopback) == (str(listener), listener.family, listener.is_loopback)


def test_a_unix_listener_counts_from_the_file(load_toml: Load, tmp_path: Path) -> None:
    """A relative socket lies beside the configuration file, wherever the command runs."""
    (listener,) = load_toml('[server]\nlisten = ["unix:run.sock"]').configuration.server.listen
    assert (socket.AF_UNIX, str(tmp_path / "run.sock"), True) == (listener.family, listener.path, listener.is_loopback)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[servr]\nnode = 'a'", ("servr = (not shown)", "did you mean server?")),
        ("[server]\nlistn = ['a']", ("server.listn = ['a']", "did you mean listen?")),
        ("[server]\nworkers = 2", ("server.workers = 2", "it belongs into render")),
        ("[server]\nzzzzzz = 1", ("server.zzzzzz = 1", "known here: listen, admin_listen,")),
        ("colour = 1", ("colour = 1", "known here: server, cache,")),
        ("[server]\nprocesses = 'two'", ("server.processes = 'two'", "use a whole number")),
        ("[server]\nprocesses = true", ("server.processes = True", "use a whole number")),
        ("[server]\nlisten = '127.0.0.1:80'", ("server.listen = '127.0.0.1:80'", "use a list in [ ]")),
        ("[server]\nlisten = [80]", ("server.listen[0] = 80", "use a text in quotes")),
        ("[server]\nlisten = []", ("server.listen = []", "at least one")),
        ("[server]\nlisten = ['8080']", ("server.listen = '8080'", "ADDRESS:PORT")),
        ("[server]\nlisten = ['127.0.0.1:70000']", ("server.listen", "up to 65535")),
        ("[server]\nlisten = ['example.com:80']", ("server.listen = 'example.com:80'", "IP address")),
        ("[server]\nlisten = ['::1:80']", ("server.listen = '::1:80'", "write [::1]:80")),
        ("[server]\nlisten = ['[127.0.0.1]:80']", ("server.listen", "write 127.0.0.1:80")),
        ("[server]\nlisten = ['127.0.0.1:80', 'localhost:80']", ("server.listen", "once")),
        ("[server]\nlisten = ['unix:']", ("server.listen = 'unix:'", "path after unix:")),
        ("[server]\nlisten = ['unix:none/a.sock']", ("server.listen", "create the folder")),
        (f"[server]\nlisten = ['unix:{'a' * 110}']", ("server.listen", "shorter path")),
        ("[server]\nadmin_listen = '127.0.0.1:8080'", ("server.admin_listen = '127.0.0.1:8080'", "another port")),
        ("[server]\nprocesses = -1", ("server.processes = -1", "0 (one per core) to 256")),
        ("[server]\ndrain_delay_s = 1000", ("server.drain_delay_s = 1000", "0 to 300 seconds")),
        ("[server]\nnode = 'a b'", ("server.node = 'a b'", "letters, digits")),
        ("[server]\nregion = ''", ("server.region = ''", "letters, digits")),
        ("[server]\ntrusted_proxies = ['10.0.0.1/8']", ("server.trusted_proxies = '10.0.0.1/8'", "write 10.0.0.0/8")),
        ("[server]\ntrusted_proxies = ['proxy']", ("server.trusted_proxies = 'proxy'", "address or a network")),
        ("[server]\nforwarded_header = 'via'", ("server.forwarded_header = 'via'", "x-forwarded-for, forwarded,")),
        ("[server]\ndata_dir = 'no/where'", ("server.data_dir = 'no/where'", "create the folder")),
        ("[server]\ndata_dir = 'imgserve.toml'", ("server.data_dir = 'imgserve.toml'", "no folder")),
        ("[server]\ndata_dir = ''", ("server.data_dir", "name a folder")),
        ("[cache]\nsize = '10'", ("cache.size = '10'", "KiB, MiB")),
        ("[cache]\nsize = '10 gb'", ("cache.size = '10 gb'", "as in 10GB")),
        ("[cache]\nsize = 10", ("cache.size = 10", "use a text in quotes")),
        ("[cache]\nsize = '1MB'", ("cache.size = '1MB'", "at least 10MB")),
        ("[cache]\nmax_age_days = 0", ("cache.max_age_days = 0", "1 to 3650")),
        ("[render]\nworkers = 1000", ("render.workers = 1000", "0 (one per core) to 256")),
        ("[render]\nmemory = '1MB'", ("render.memory = '1MB'", "256MB")),
        ("[render]\ntimeout_s = 0", ("render.timeout_s = 0", "0.1 to 120")),
        ("[origins]\nallow_private = ['all']", ("origins.allow_private = 'all'", "address or a network")),
        ("[privacy]\nretention_days = 0", ("privacy.retention_days = 0", "1 to 3650")),
        ("[privacy]\nkeys_dir = 'var/keys'", ("privacy.keys_dir = 'var/keys'", "apart")),
        ("[privacy]\nkeys_dir = 'var'", ("privacy.keys_dir = 'var'", "apart")),
        ("[privacy]\nkeys_dir = '.'", ("privacy.keys_dir = '.'", "apart")),
        ("[privacy]\ncountry_db = 'none.mmdb'", ("privacy.country_db = 'none.mmdb'", "there is no file")),
        ("[tenants]\nname = 'a'", ("tenants = (not shown)", "write it as [[tenants]]")),
        ("server = 1", ("server = 1", "use a table")),
        ("[server\n", ("--config", "not valid TOML", "line 1")),
    ],
)
def test_a_mistake_names_key_value_and_fix(refusal: Refusal, text: str, expected: tuple[str, ...]) -> None:
    """One line for each kind of mistake."""
    line = refusal(text)
    assert [part for part in expected if part not in line] == [], line


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """There is a command that writes one."""
    from imgserve.core.errors import Misconfigured
    from imgserve.settings import load

    with pytest.raises(Misconfigured, match="imgserve config init"):
        load(tmp_path / "none.toml", {})


# ---- environment ---------------------------------------------------------------------------------


def test_the_environment_wins_over_the_file(load_toml: Load) -> None:
    """Each type of value can be given, lists with commas."""
    environ = {
        "IMGSERVE_SERVER__LISTEN": "127.0.0.1:9000, [::1]:9000",
        "IMGSERVE_SERVER__PROCESSES": "3",
        "IMGSERVE_SERVER__DRAIN_DELAY_S": "1.5",
        "IMGSERVE_SERVER__TRUSTED_PROXIES": "",
        "IMGSERVE_CACHE__SIZE": "20MB",
        "IMGSERVE_RENDER__MAX_ORIGINAL_PIXELS": "1_000_000",
        "IMGSERVE_CONFIG": "is no key",
        "IMGSERVE_PURE": "1",
        "OTHER__KEY": "1",
    }
    configuration = load_toml("[server]\nprocesses = 1\nnode = 'file'", environ).configuration
    assert ["127.0.0.1:9000", "[::1]:9000"] == [str(listener) for listener in configuration.server.listen]
    assert (3, 1.5, (), "file") == (
        configuration.server.processes,
        configuration.server.drain_delay_s,
        configuration.server.trusted_proxies,
        configuration.server.node,
    )
    assert (20_000_000, 1_000_000) == (configuration.cache.size_bytes, configuration.render.max_original_pixels)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("IMGSERVE_SERVER__PROCESES", "1", ("IMGSERVE_SERVER__PROCESES = '1'", "known: IMGSERVE_SERVER__PROCESSES")),
        ("IMGSERVE_SERVER__PROCESSES", "two", ("IMGSERVE_SERVER__PROCESSES = 'two'", "whole number")),
        ("IMGSERVE_CACHE__SIZE", "1MB", ("cache.size (from IMGSERVE_CACHE__SIZE) = '1MB'", "at least 10MB")),
        ("IMGSERVE_SERVER__FORWARDED_HEADER", "via", ("(from IMGSERVE_SERVER__FORWARDED_HEADER) = 'via'", "use x-")),
        ("IMGSERVE_TENANTS__NAME", "secret", ("IMGSERVE_TENANTS__NAME = (not shown)", "plain tables")),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    refusal: Refusal, variable: str, value: str, expected: tuple[str, ...]
) -> None:
    """Who set it there must find it there."""
    line = refusal("", {variable: value})
    assert [part for part in expected if part not in line] == [], line


@pytest.mark.parametrize(
    ("variable", "fix"),
    [
        ("IMGSERVE_SERVER_PROCESSES", "did you mean IMGSERVE_SERVER__PROCESSES?"),
        ("IMGSERVE_CONFG", "did you mean IMGSERVE_CONFIG?"),
        ("IMGSERVE_WHATEVER", "keys are written IMGSERVE_SECTION__KEY"),
    ],
)
def test_a_variable_that_nobody_understands_is_warned_of(load_toml: Load, variable: str, fix: str) -> None:
    """It has our prefix, so somebody meant something; its value may be a secret and is not shown."""
    assert (f"{variable}: is not understood; {fix}",) == load_toml(TENANT, {variable: "3"}).warnings
    assert () == load_toml(TENANT, {"IMGSERVE_CONFIG": "x", "IMGSERVE_PURE": "1", "IMGSERVE_KEY": "k"}).warnings


def test_a_byte_order_mark_is_no_mistake(load_toml: Load) -> None:
    """Editors of Windows write one."""
    assert "other" == load_toml("\ufeff[server]\nnode = 'other'").configuration.server.node


def test_every_plain_key_has_a_variable(load_toml: Load) -> None:
    """Each key's default, written into its variable, is understood."""
    environ = {}
    for section, table in PLAIN_TABLES.items():
        plain = table()
        for key in table.__struct_fields__:
            value = getattr(plain, key)
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            environ[f"IMGSERVE_{section}__{key}".upper()] = text
    assert load_toml("", environ).configuration.effective == load_toml("").configuration.effective


# ---- what a reload leaves alone ------------------------------------------------------------------


def test_a_reload_names_what_needs_a_restart(load_toml: Load) -> None:
    """Changed tenants are taken up; everything else is named by its key."""
    old = load_toml(TENANT).configuration
    same = load_toml(TENANT.replace("a.example", "b.example")).configuration
    assert changed_outside_tenants(old, same) == ()
    new = load_toml('[server]\nnode = "other"\n[cache]\nsize = "20MB"\n' + TENANT).configuration
    assert changed_outside_tenants(old, new) == ("server.node", "cache.size")
    more = load_toml(TENANT + '[[sub_processors]]\nname = "x"').configuration
    assert changed_outside_tenants(old, more) == ("sub_processors",)


def test_counts_of_processes_follow_the_cores(load_toml: Load) -> None:
    """0 means one per usable core."""
    configuration = load_toml("[server]\nprocesses = 3").configuration
    assert (3, usable_cores()) == (configuration.front_count, configuration.worker_count)


def test_the_record_is_frozen(load_toml: Load) -> None:
    """Nobody edits a snapshot that others hold."""
    configuration = load_toml().configuration
    for field in fields(configuration):
        with pytest.raises(AttributeError):
            setattr(configuration, field.name, None)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[server]\nadmin_listen = '0.0.0.0:8081'", "server.admin_listen"),
        ("[server]\ntrusted_proxies = ['0.0.0.0/0']", "server.trusted_proxies"),
        ("[origins]\nallow_private = ['169.254.0.0/16']", "origins.allow_private"),
        ("[server]\nlisten = ['0.0.0.0:80']\nforwarded_header = 'cf-connecting-ip'", "server.forwarded_header"),
    ],
)
def test_what_deserves_a_second_look_is_warned_of(load_toml: Load, text: str, part: str) -> None:
    """Valid, and said aloud."""
    assert any(part in warning for warning in load_toml(text + "\n" + TENANT).warnings)


def test_a_plain_configuration_has_no_warning(load_toml: Load) -> None:
    """A warning that always shows is read by nobody."""
    assert load_toml(TENANT).warnings == ()
