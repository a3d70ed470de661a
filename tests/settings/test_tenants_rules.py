"""Tenants: each rule refuses what it is there for, no secret is shown, and a snapshot survives the way to fronts."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from imgserve.core.tenants import Key, Scope, Signing
from imgserve.settings import Loaded, decode_tenants, encode_tenants
from imgserve.settings.sample import sample, settings_table
from imgserve.settings.schema import PLAIN_TABLES, KeyTable, SigningTable, SubProcessorTable, TenantTable

Load = Callable[..., Loaded]
Refusal = Callable[..., str]

SECRET = "correct horse battery staple"
DIGEST = sha256(SECRET.encode()).hexdigest()
OPEN = "[server]\nlisten = ['0.0.0.0:8080']\n"


def tenant(body: str = "", *, name: str = "a") -> str:
    """A tenant's table; more of its keys and sub-tables follow."""
    return f'[[tenants]]\nname = "{name}"\nhosts = ["{name}.example"]\n{body}\n'


def key(body: str, *, name: str = "k") -> str:
    return f'[[tenants.keys]]\nname = "{name}"\n{body}\n'


def test_the_promised_tenant(load_toml: Load, tmp_path: Path) -> None:
    """The example of the contract becomes the record that the floors below use."""
    (tmp_path / "photos").mkdir()
    text = f"""
[[tenants]]
name = "demo"
hosts = ["Demo.localhost."]
default = true
allowed_origins = ["images.example.com", "cdn.example.com:8443", "a.example:*", "[2001:db8::1]:8080"]
origin_prefix = "https://images.example.com/shop/"
origin_scheme = "http"
regions = ["fr", "de"]
signing = {{ mode = "sign", salts = ["{SECRET}", "env:OLD_SALT"], min_length = 20 }}
[tenants.aliases]
_photos_ = "file://{tmp_path}/photos"
_web_ = "https://images.example.com/a"
[tenants.presets]
thumb = "w=200&h=200&func=crop"
[[tenants.keys]]
name = "shop"
key = "demo-key"
scopes = ["invalidate", "logs"]
"""
    loaded = load_toml(text, {"OLD_SALT": "old"})
    (found,) = loaded.configuration.tenants
    assert ("demo", ("demo.localhost",), True) == (found.name, found.hosts, found.is_default)
    assert ("images.example.com", "cdn.example.com:8443", "a.example:*", "[2001:db8::1]:8080") == found.allowed_origins
    assert (frozenset({"fr", "de"}), "http") == (found.regions, found.origin_scheme)
    assert Signing(mode="sign", salts=(SECRET, "old"), min_length=20) == found.signing
    assert {"_photos_", "_web_"} == set(found.aliases)
    assert "w=200&h=200&func=crop" == found.presets["thumb"]
    digest = sha256(b"demo-key").digest()
    scopes = frozenset({Scope.INVALIDATE, Scope.LOGS})
    assert (Key(name="shop", digest=digest, scopes=scopes),) == found.keys
    assert found is loaded.configuration.tenants.for_host("DEMO.localhost:8080")
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[tenants]]\nname = "A"', ("tenants[0].name = 'A'", "a-z, 0-9 and -")),
        ('[[tenants]]\nname = "../a"', ("tenants[0].name = '../a'", "a-z, 0-9 and -")),
        ("[[tenants]]\nhosts = ['a']", ("tenants[0].name = ''", "a-z, 0-9 and -")),
        (f'[[tenants]]\nname = "{"a" * 64}"', ("tenants[0].name", "1 to 63")),
        (tenant() + tenant(), ("tenants.name = 'a'", "twice")),
        (
            tenant() + tenant(name="b").replace("b.example", "A.EXAMPLE."),
            ("tenants.hosts = 'a.example'", "belongs to one tenant"),
        ),
        (tenant("default = true") + tenant(name="b"), ("tenants.a.default = True", "several tenants")),
        (tenant().replace("a.example", "a.example:80"), ("tenants.a.hosts = 'a.example:80'", "without scheme, port")),
        (tenant().replace("a.example", "http://a.example"), ("tenants.a.hosts", "without scheme, port")),
        (tenant().replace("a.example", "*.example"), ("tenants.a.hosts = '*.example'", "pattern")),
        (tenant().replace("a.example", "é.example"), ("tenants.a.hosts = 'é.example'", "xn--")),
        (tenant("default_ = true"), ("tenants.a.default_ = True", "did you mean default?")),
        (tenant("origin_scheme = 'ftp'"), ("tenants.a.origin_scheme = 'ftp'", "use http or https")),
        (tenant("regions = ['F R']"), ("tenants.a.regions = 'F R'", "a-z, 0-9 and -")),
        (tenant("allowed_origins = ['*.a.example']"), ("allowed_origins = '*.a.example'", "write a.example")),
        (tenant("allowed_origins = ['https://a.example/']"), ("allowed_origins", "without scheme, path")),
        (tenant("allowed_origins = ['a.example:99999']"), ("allowed_origins = 'a.example:99999'", "1 to 65535")),
        (tenant("allowed_origins = ['127.1']"), ("allowed_origins = '127.1'", "usual form")),
        (tenant("allowed_origins = ['*']"), ("tenants.a.allowed_origins = '*'", "open_proxy = true")),
        (tenant("origin_prefix = 'file:///srv'"), ("tenants.a.origin_prefix = 'file:///srv'", "https://host/path")),
        (tenant("origin_prefix = 'https://u:p@a.example/'"), ("tenants.a.origin_prefix = 'https://…@a.example/'",)),
        (tenant("[tenants.aliases]\nphotos = 'https://a.example'"), ("tenants.a.aliases.photos", "underscore at both")),
        (tenant("[tenants.aliases]\n_p_ = 'srv/photos'"), ("tenants.a.aliases._p_ = 'srv/photos'", "file:///folder")),
        (tenant("[tenants.aliases]\n_p_ = 'file://srv'"), ("tenants.a.aliases._p_ = 'file://srv'", "three slashes")),
        (
            tenant("[tenants.aliases]\n_p_ = 'file:///no/where'"),
            ("tenants.a.aliases._p_", "create the folder /no/where"),
        ),
        (tenant("[tenants.aliases]\n_p_ = 's3://bucket'"), ("tenants.a.aliases._p_ = 's3://bucket'", "this version")),
        (tenant("[tenants.aliases]\n_p_ = 7"), ("tenants.a.aliases._p_ = 7", "text in quotes")),
        (tenant("[tenants.aliases]\n_p_ = 'http://u:p@h/'"), ("tenants.a.aliases._p_ = 'http://…@h/'", "password")),
        (tenant("[tenants.presets]\nthumb = 'w=wide'"), ("tenants.a.presets.thumb = 'w=wide'", "number of pixels")),
        (
            tenant("[tenants.presets]\nt = 'h=1&wdth=100'"),
            ("tenants.a.presets.t = 'h=1&wdth=100'", "no option wdth; did you mean width?"),
        ),
        (tenant("[tenants.presets]\nt = 'zzzzzz=1'"), ("tenants.a.presets.t = 'zzzzzz=1'", "no option zzzzzz; README")),
        (tenant("signing = { mode = 'yes' }"), ("tenants.a.signing.mode = 'yes'", "use off, sign or seal")),
        (tenant("signing = { mode = 'sign' }"), ("tenants.a.signing.salts = []", "at least one salt")),
        (tenant("signing = { mode = 'seal', salts = [] }"), ("tenants.a.signing.salts = []", "at least one salt")),
        (
            tenant("signing = { mode = 'sign', salts = ['s'], min_length = 5 }"),
            ("tenants.a.signing.min_length = 5", "18 or more"),
        ),
        (tenant(key("key = 'x'\nhash = 'sha256:00'")), ("tenants.a.keys.k", "either key or hash")),
        (tenant(key("scopes = []")), ("tenants.a.keys.k", "either key or hash")),
        (tenant(key("hash = 'sha256:00'")), ("tenants.a.keys.k.hash = 'sha256:00'", "64 hex digits")),
        (tenant(key("hash = 'md5:00'")), ("tenants.a.keys.k.hash = 'md5:00'", "sha256:")),
        (tenant(key("key = 'x'", name="")), ("tenants.a.keys[0].name = ''", "give the key a name")),
        (tenant(key("key = 'x'") + key("key = 'y'")), ("tenants.a.keys.name = 'k'", "twice")),
        (tenant(key("key = 'x'") + key("key = 'x'", name="l")), ("tenants.a.keys.l", "its own text")),
        (tenant(key("key = 'x'")) + tenant(key("key = 'x'"), name="b"), ("tenants.b.keys.k", "its own text")),
        (tenant(key("key = 'x'\nscopes = ['invalid']")), ("tenants.a.keys.k.scopes = 'invalid'", "mean invalidate?")),
        (tenant(key("key = 'x'\nscopes = ['admin']")), ("tenants.a.keys.k.scopes = 'admin'", "invalidate:all")),
        (tenant(key("key = 'file:none'")), ("tenants.a.keys.k.key = 'file:none'", "cannot be read")),
        (tenant(key("key = 'env:NONE'")), ("tenants.a.keys.k.key = 'env:NONE'", "variable NONE")),
        (tenant(key("key = ''")), ("tenants.a.keys.k.key = ''", "is empty")),
    ],
)
def test_a_rule_refuses_with_key_value_and_fix(refusal: Refusal, text: str, expected: tuple[str, ...]) -> None:
    """One case for each rule."""
    line = refusal(text)
    assert [part for part in expected if part not in line] == [], line


# ---- clear keys, open proxies --------------------------------------------------------------------


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:80"])
def test_a_clear_key_is_refused_off_loopback(refusal: Refusal, listen: str) -> None:
    """The line does not repeat the key, and names the way to a hash."""
    line = refusal(f"[server]\nlisten = ['127.0.0.1:1', '{listen}']\n" + tenant(key(f"key = '{SECRET}'")))
    assert "tenants.a.keys.k.key = '(in clear)'" in line
    assert "imgserve config hash-key" in line
    assert SECRET not in line


def test_a_hash_or_a_key_kept_elsewhere_is_fine_off_loopback(load_toml: Load, tmp_path: Path) -> None:
    """All three ways give the same digest."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    for body in (f"hash = 'sha256:{DIGEST.upper()}'", "key = 'file:secret'", "key = 'env:SHOP'"):
        loaded = load_toml(OPEN + tenant(key(body)), {"SHOP": SECRET})
        found = loaded.configuration.tenants.for_key(SECRET)
        assert found is not None
        assert "k" == found[1].name


def test_an_open_proxy_is_warned_of_when_asked_for(load_toml: Load) -> None:
    """With open_proxy = true, or with signatures, "*" is allowed; only the first deserves a warning."""
    opened = load_toml(tenant('allowed_origins = ["*"]\nopen_proxy = true'))
    assert ["tenants.a.open_proxy"] == [warning.partition(":")[0] for warning in opened.warnings]
    signed = load_toml(tenant(f'allowed_origins = ["*"]\nsigning = {{ mode = "sign", salts = ["{SECRET}"] }}'))
    assert signed.warnings == ()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (tenant("signing = { mode = 'sign', salts = ['s'], min_length = 17 }"), "tenants.a.signing.min_length"),
        ("[[tenants]]\nname = 'a'", "tenants.a.hosts"),
        (tenant("regions = ['de']"), "tenants.a.regions"),
    ],
)
def test_a_doubtful_tenant_is_warned_of(load_toml: Load, text: str, part: str) -> None:
    """Valid, and said aloud."""
    assert [part] == [warning.partition(":")[0] for warning in load_toml(text).warnings]


# ---- folders -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("var", "overlaps server.data_dir"),
        ("var/tenants", "overlaps server.data_dir"),
        ("keys", "overlaps privacy.keys_dir"),
        ("keys/a", "overlaps privacy.keys_dir"),
        ("link-to-var", "overlaps server.data_dir"),
        ("photos/link-to-keys", "overlaps privacy.keys_dir"),
        ("", "overlaps server.data_dir"),
        ("conf", "the configuration file"),
        ("secrets", "the file of a secret"),
    ],
)
def test_an_alias_that_shows_what_is_private_is_refused(tmp_path: Path, root: str, expected: str) -> None:
    """In either direction, and by symbolic links: data, day keys, the configuration, files of secrets."""
    from imgserve.core.errors import Misconfigured
    from imgserve.settings import load

    for folder in ("conf", "var/tenants", "keys/a", "secrets", "photos"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link-to-var").symlink_to("var")
    (tmp_path / "photos/link-to-keys").symlink_to(tmp_path / "keys")
    (tmp_path / "secrets/one").write_text("first secret")
    (tmp_path / "secrets/two").write_text("second secret")
    (tmp_path / "photos/three").symlink_to(tmp_path / "conf/three")
    (tmp_path / "conf/three").write_text("third secret")
    text = "[server]\ndata_dir = '../var'\n[privacy]\nkeys_dir = '../keys'\n"
    body = f"[tenants.aliases]\n_p_ = 'file://{tmp_path}/{root}'\n"
    body += key("key = 'file:../secrets/one'", name="one") + key("key = 'file:three'", name="three")
    (tmp_path / "conf/imgserve.toml").write_text(text + tenant(body))
    with pytest.raises(Misconfigured, match=expected) as caught:
        load(tmp_path / "conf/imgserve.toml", {})
    assert "tenants.a.aliases._p_" == caught.value.key


def test_a_folder_that_is_made_later_counts_by_name(refusal: Refusal, tmp_path: Path) -> None:
    """The data folder needs not be there to be kept apart."""
    (tmp_path / "photos").mkdir()
    text = "[server]\ndata_dir = 'photos/var'\n" + tenant(f"[tenants.aliases]\n_p_ = 'file://{tmp_path}/photos'")
    assert "overlaps server.data_dir" in refusal(text)


@pytest.mark.parametrize("private", ["var", "keys"])
def test_a_bind_mount_hides_nothing(tmp_path: Path, private: str) -> None:
    """A private folder under a second name is the same folder: by device and inode."""
    for folder in (tmp_path / "var", tmp_path / "keys", tmp_path / "photos/inner"):
        folder.mkdir(parents=True)
    (tmp_path / "imgserve.toml").write_text(tenant(f"[tenants.aliases]\n_p_ = 'file://{tmp_path}/photos/inner'"))
    mount = 'mount --bind "$0" "$1"'
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "-m", "sh", "-c", mount, tmp_path / private, tmp_path / "photos"],
            check=False,
            capture_output=True,
        ).returncode
    ):
        pytest.skip("this user or kernel cannot make a bind mount")
    (tmp_path / private / "inner").mkdir()
    check = (
        "import sys; from pathlib import Path; from imgserve.core.errors import Misconfigured;"
        " from imgserve.settings import load\n"
        "try: load(Path(sys.argv[1]), {})\n"
        "except Misconfigured as error: print(error)"
    )
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec "$2" -c "$3" "$4"', tmp_path / private, tmp_path / "photos",
         sys.executable, check, tmp_path / "imgserve.toml"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "tenants.a.aliases._p_" in result.stdout
    assert "overlaps" in result.stdout


def test_a_folder_beside_is_fine(load_toml: Load, tmp_path: Path) -> None:
    """A sub-folder of the configuration's own folder may be shown; a link in it is not followed out of it."""
    (tmp_path / "photos and more").mkdir()
    (tmp_path / "keys").mkdir()
    (tmp_path / "photos and more/link-to-keys").symlink_to(tmp_path / "keys")
    load_toml(tenant(f"[tenants.aliases]\n_p_ = 'file://{tmp_path}/photos%20and%20more'"))


# ---- secrets and snapshots -----------------------------------------------------------------------


def test_no_secret_is_shown(load_toml: Load, refusal: Refusal) -> None:
    """Neither the record's repr nor any error holds a salt or a key."""
    body = f"signing = {{ mode = 'sign', salts = ['{SECRET}'] }}\n{key(f'key = {SECRET!r}')}"
    loaded = load_toml(tenant(body))
    assert SECRET not in repr(loaded)
    assert SECRET not in repr(list(loaded.configuration.tenants))
    assert DIGEST not in repr(list(loaded.configuration.tenants))
    for broken in (
        tenant(key(f"keey = '{SECRET}'")),
        tenant(key(f"key = ['{SECRET}']")),
        tenant(f"signing = {{ salt = '{SECRET}' }}"),
        tenant(f"signing = {{ salts = '{SECRET}' }}"),
        tenant(f"signing = '{SECRET}'"),
        tenant(f"signing = {{ mode = 'x', salts = ['{SECRET}'] }}"),
        tenant(f"keys = {{ key = '{SECRET}' }}"),
        tenant(f"salt = '{SECRET}'"),
    ):
        assert SECRET not in refusal(broken)


def test_a_snapshot_survives_the_way_to_a_front(load_toml: Load, tmp_path: Path) -> None:
    """Encoded and decoded, the tenants are equal and still frozen."""
    (tmp_path / "photos").mkdir()
    body = f"signing = {{ mode = 'seal', salts = ['{SECRET}'] }}\nregions = ['fr']\n"
    body += f"[tenants.aliases]\n_p_ = 'file://{tmp_path}/photos'\n[tenants.presets]\nt = 'w=1'\n"
    tenants = load_toml(tenant(body + key("key = 'x'\nscopes = ['export']")) + tenant(name="b")).configuration.tenants
    decoded = decode_tenants(encode_tenants(tenants))
    assert list(tenants) == list(decoded)
    first = next(iter(decoded))
    with pytest.raises(TypeError):
        first.aliases["_p_"] = "file:///etc"  # type: ignore[index]
    found = decoded.for_key("x")
    assert found is not None
    with pytest.raises(msgspec.DecodeError):
        decode_tenants(b"\xc1")


# ---- what is generated ---------------------------------------------------------------------------


def test_the_sample_is_valid_and_changes_nothing(load_toml: Load) -> None:
    """As it is written it has one tenant and every default."""
    loaded = load_toml(sample())
    assert loaded.warnings == ()
    assert load_toml("").configuration.effective == loaded.configuration.effective


def test_the_sample_with_every_default_uncommented_is_valid(load_toml: Load) -> None:
    """Removing the # of a plain key changes nothing: what it shows is the default."""
    plain = sample().partition("# ---- one [[tenants]]")[0]
    lines = [
        line.removeprefix("# ") if line.startswith("# ") and " = " in line else line for line in plain.splitlines()
    ]
    uncommented = [line for line in lines if not line.startswith("# ")]
    settings = [line for line in uncommented if " = " in line and line.split(" = ")[0].isidentifier()]
    text = "\n".join(line for line in uncommented if line in settings or line.startswith("["))
    assert len(settings) == sum(len(table.__struct_fields__) for table in PLAIN_TABLES.values())
    assert load_toml("").configuration.effective == load_toml(text).configuration.effective


def test_the_table_of_settings_has_every_key() -> None:
    """The README's table is whole, and each key is explained."""
    table = settings_table()
    shapes: dict[str, type[msgspec.Struct]] = {
        **PLAIN_TABLES,
        "tenants": TenantTable,
        "tenants.signing": SigningTable,
        "tenants.keys": KeyTable,
        "sub_processors": SubProcessorTable,
    }
    for section, shape in shapes.items():
        for name in shape.__struct_fields__:
            if f"{section}.{name}" not in ("tenants.signing", "tenants.keys"):
                (line,) = [row for row in table.splitlines() if row.startswith(f"| `{section}.{name}` ")]
                assert line.split(" | ")[2].strip(" |")
