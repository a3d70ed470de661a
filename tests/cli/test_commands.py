"""Every command: what it prints where, and how it exits."""

import json
import os
import resource
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_help_names_every_command(run: Run) -> None:
    """``imgserve --help`` and ``-h`` of each command exit 0 and say something on each."""
    result = run("--help")
    assert result.returncode == 0
    for name in ("serve", "check", "demo", "config", "invalidate", "url", "cache", "privacy", "reference"):
        assert f"\n  {name} " in result.stdout
        shown = run(name, "-h")
        assert (0, "") == (shown.returncode, shown.stderr)


def test_wrong_use_exits_with_2(run: Run) -> None:
    """An unknown command or option is wrong use, said on standard error."""
    for arguments in (("nonsense",), ("check", "--nonsense"), ("url", "explain")):
        result = run(*arguments)
        assert (2, "") == (result.returncode, result.stdout)
        assert "Usage:" in result.stderr


# ---- check ---------------------------------------------------------------------------------------


def test_check_says_what_would_be_served(run: Run, configured: Path) -> None:
    """Listeners, tenants, origins, cache, formats with their decoders, sandbox; results on standard output."""
    result = run("check")
    assert (0, "") == (result.returncode, result.stderr)
    for part in (
        "127.0.0.1:8080",
        "127.0.0.1:8081",
        "shop.example",
        "images.example.com",
        "_photos_ = file://",
        "all: invalidate",
        "10 GB on disk",
        "libvips 8.",
        "mozjpeg",
        "librsvg",
        "seccomp",
        "No warnings.",
        f"{configured} is valid.",
    ):
        assert part in result.stdout
    assert "shop-key" not in result.stdout


def test_check_refuses_with_one_line(run: Run, configured: Path) -> None:
    """A mistake exits 1, with one line that names key, value and fix, and nothing on standard output."""
    configured.write_text(configured.read_text().replace("allowed_origins", "alowed_origins"))
    result = run("check")
    assert (1, "") == (result.returncode, result.stdout)
    expected = "Error: tenants.shop.alowed_origins = (not shown): unknown key; did you mean allowed_origins?\n"
    assert expected == result.stderr


def test_check_warns_of_too_few_descriptors(run: Run, configured: Path) -> None:
    """A hard limit that makes the node busy with few clients is named, with the fix."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = run("check", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512)))
    enough = run("check", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (512, min(1024, hard))))

    assert [(0, True), (0, False)] == [
        (result.returncode, "only 512 files" in result.stdout) for result in (few, enough)
    ]
    assert (soft, hard) == resource.getrlimit(resource.RLIMIT_NOFILE)


def test_check_warns_and_still_exits_with_0(run: Run, configured: Path) -> None:
    """What is doubtful is listed."""
    environ = {"IMGSERVE_SERVER__ADMIN_LISTEN": "0.0.0.0:8081", "IMGSERVE_RENDER__MEMORY": "900TB"}
    result = run("check", environ=environ)
    assert result.returncode == 0
    assert "- server.admin_listen: 0.0.0.0:8081 shows the metrics" in result.stdout
    assert "- render.memory:" in result.stdout


def test_the_configuration_is_found_by_option_variable_or_name(run: Run, configured: Path, tmp_path: Path) -> None:
    """--config wins over $IMGSERVE_CONFIG, which wins over imgserve.toml."""
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(configured.read_text())
    bad.write_text("nonsense = 1")
    assert str(good) in run("check", environ={"IMGSERVE_CONFIG": str(good)}).stdout
    assert str(good) in run("check", "--config", "good.toml", environ={"IMGSERVE_CONFIG": str(bad)}).stdout
    assert run("check", environ={"IMGSERVE_CONFIG": str(bad)}).returncode == 1
    configured.unlink()
    missing = run("check")
    assert missing.returncode == 1
    assert "imgserve config init" in missing.stderr


def test_serve_refuses_a_broken_configuration(run: Run, configured: Path) -> None:
    """Before any process or folder is made."""
    configured.write_text("[server]\nprocesses = 'many'")
    result = run("serve")
    assert (1, "Error: server.processes = 'many': use a whole number\n") == (result.returncode, result.stderr)
    assert {"imgserve.toml", "photos"} == set(os.listdir(configured.parent))


# ---- config --------------------------------------------------------------------------------------


def test_config_init_writes_a_valid_file_once(run: Run, tmp_path: Path) -> None:
    """Readable by its owner only, never overwritten, and accepted by check."""
    result = run("config", "init")
    path = tmp_path / "imgserve.toml"
    assert (0, "imgserve.toml\n") == (result.returncode, result.stdout)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_text()
    assert run("check").returncode == 0
    again = run("config", "init")
    assert (1, content) == (again.returncode, path.read_text())
    assert "there already" in again.stderr


def test_config_hash_key(run: Run) -> None:
    """The key comes from standard input; a short one is refused, because its hash could be turned back."""
    key = "k" * 40
    result = run("config", "hash-key", stdin=key + "\n")
    assert (0, f"sha256:{sha256(key.encode()).hexdigest()}\n") == (result.returncode, result.stdout)
    short = run("config", "hash-key", stdin="demo-key\n")
    assert (1, "") == (short.returncode, short.stdout)


# ---- url, cache, reference -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://shop.example/v7/_photos_/a.jpg?p=thumb", ("w=200&h=200", "own alias", "avif or else webp")),
        ("/images.example.com/a.jpg?w=300&force_format=png", ("https://images.example.com/a.jpg", "w=300", "png")),
        ("/elsewhere.example/a.jpg", ("https://elsewhere.example/a.jpg", "no: its host is not in allowed_origins")),
    ],
)
@pytest.mark.usefixtures("configured")
def test_url_explain(run: Run, url: str, expected: tuple[str, ...]) -> None:
    """Original, permission, plan and formats."""
    result = run("url", "explain", url)
    assert (0, "") == (result.returncode, result.stderr)
    assert [part for part in expected if part not in result.stdout] == []


def test_url_explain_names_the_files_once_there_is_a_hash_key(run: Run, configured: Path) -> None:
    """Equal plans have one name; without the node's key there is none."""
    assert "not known before the first start" in run("url", "explain", "/_photos_/a.jpg?w=300").stdout
    (configured.parent / "keys").mkdir()
    (configured.parent / "keys/hash.key").write_bytes(bytes(16))
    names = [
        run("url", "explain", f"/_photos_/a.jpg?{query}").stdout.splitlines()[-1] for query in ("w=300", "width=300")
    ]
    assert names[0] == names[1]
    assert names[0].split()[-1].startswith("v-")


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("/_photos_/a.jpg?w=wide",), 1, "w=wide"),
        (("https://other.example/a.jpg",), 2, "belongs to no tenant"),
        (("/a.jpg", "--tenant", "none"), 2, "no tenant none"),
    ],
)
@pytest.mark.usefixtures("configured")
def test_url_explain_refuses(run: Run, arguments: tuple[str, ...], code: int, part: str) -> None:
    """As the server would."""
    result = run("url", "explain", *arguments)
    assert (code, "") == (result.returncode, result.stdout)
    assert part in result.stderr


def test_cache_stats_counts_by_tenant(run: Run, configured: Path) -> None:
    """An empty cache has no row; a damaged file is counted as such."""
    assert run("cache", "stats").returncode == 0
    folder = configured.parent / "var/tenants/shop/images/ab/abcdefghabcdefgh"
    folder.mkdir(parents=True)
    (folder / "o-main").write_bytes(b"no trailer")
    (folder / "stranger").write_bytes(b"not ours")
    result = run("cache", "stats")
    assert result.returncode == 0
    assert ["shop", "1", "0", "(0", "B)", "0", "(0", "B)", "0", "B", "-", "1"] == result.stdout.splitlines()[1].split()


def test_reference_updates_only_between_its_markers(run: Run, tmp_path: Path) -> None:
    """Both tables; the rest of the file stays, and a second run changes nothing."""
    readme = tmp_path / "README.md"
    readme.write_text(
        "above\n<!-- options -->\nzzz\n<!-- /options -->\nmiddle\n<!-- settings -->\n<!-- /settings -->\nbelow\n"
    )
    assert run("reference", "--update", "README.md").returncode == 0
    text = readme.read_text()
    assert "zzz" not in text
    for part in ("above\n", "middle\n", "below\n", "force_format", "`cache.size`"):
        assert part in text
    assert run("reference", "--update", "README.md").returncode == 0
    assert text == readme.read_text()
    assert run("reference", "settings").stdout in text


# ---- invalidate ----------------------------------------------------------------------------------


class _Api(BaseHTTPRequestHandler):
    """Answers as POST /invalidate does, and remembers what it was sent."""

    seen: ClassVar[list[tuple[str, str, object]]] = []
    wbufsize = -1  # headers and body in one piece

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["X-Client-Key"]
        self.seen.append((self.path, key, body))
        status, answer = (201, {"invalidation": {"uuid": "u-1"}}) if key == "good" else (401, {"detail": "no such key"})
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(server: HTTPServer) -> Iterator[list[tuple[str, str, object]]]:
    """A running server, and what it has seen."""
    _Api.seen.clear()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield _Api.seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (("--original", "/a.jpg", "--original", "/b.jpg"), {"scope": "original", "urls": ["/a.jpg", "/b.jpg"]}),
        (("--url", "/a.jpg?w=1"), {"scope": "urls", "urls": ["/a.jpg?w=1"]}),
        (("--all",), {"scope": "all"}),
    ],
)
def test_invalidate_posts_to_the_first_listener(
    run: Run, configured: Path, arguments: tuple[str, ...], body: object
) -> None:
    """The key comes from the environment or from standard input; the receipt's number is the result."""
    server = HTTPServer(("127.0.0.1", 0), _Api)
    environ = {"IMGSERVE_SERVER__LISTEN": f"127.0.0.1:{server.server_port}"}
    with served(server) as seen:
        by_variable = run("invalidate", *arguments, environ={**environ, "IMGSERVE_KEY": "good"})
        by_input = run("invalidate", *arguments, stdin="good\n", environ=environ)
    assert (0, "u-1\n") == (by_variable.returncode, by_variable.stdout) == (by_input.returncode, by_input.stdout)
    assert [("/invalidate", "good", body)] * 2 == seen
    assert configured.exists()


def test_invalidate_reaches_a_unix_socket(run: Run, configured: Path) -> None:
    """A node behind a proxy may listen on nothing else."""

    class UnixServer(HTTPServer):
        address_family = socket.AF_UNIX

        def server_bind(self) -> None:
            self.socket.bind(self.server_address)

        def get_request(self) -> tuple[socket.socket, str]:
            connection, _ = self.socket.accept()
            return connection, "unix"

    path = configured.parent / "s"
    with served(UnixServer(str(path), _Api)) as seen:  # type: ignore[arg-type]
        result = run("invalidate", "--all", environ={"IMGSERVE_SERVER__LISTEN": f"unix:{path}", "IMGSERVE_KEY": "good"})
    assert (0, 1) == (result.returncode, len(seen))


def test_invalidate_says_why_it_failed(run: Run, configured: Path) -> None:
    """A refused key and an absent node are failures; two kinds at once are wrong use. No key is ever shown."""
    server = HTTPServer(("127.0.0.1", 0), _Api)
    url = f"http://127.0.0.1:{server.server_port}"
    with served(server):
        refused = run("invalidate", "--all", "--server", url, stdin="wrong-key\n")
    assert (1, "") == (refused.returncode, refused.stdout)
    assert "status 401: no such key" in refused.stderr
    assert "wrong-key" not in refused.stderr
    absent = run("invalidate", "--all", "--server", url, stdin="good\n")
    assert absent.returncode == 1
    assert "does not answer" in absent.stderr
    for arguments in (("--all", "--url", "/a"), (), ("--all", "--server", "ftp://a")):
        assert run("invalidate", *arguments, stdin="good\n").returncode == 2
    assert run("invalidate", "--all", "--server", url, stdin="").returncode == 2
    assert configured.exists()
