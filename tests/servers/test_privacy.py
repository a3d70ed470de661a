"""A subject's rights on a real node: by command and by API, beside running fronts and after they stopped."""

import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers.test_access_log import rows_of, traces_of

SUBJECT, OTHER = "203.0.113.9", "203.0.113.10"
TENANTS = """
[[tenants]]
name = "test"
default = true
allowed_origins = ["127.0.0.1:{port}"]
origin_scheme = "http"
[[tenants.keys]]
name = "officer"
key = "subjects-key"
scopes = ["subjects"]
[[tenants.keys]]
name = "shop"
key = "shop-key"
scopes = ["invalidate", "logs", "export"]
[[tenants]]
name = "second"
hosts = ["second.example"]
allowed_origins = ["127.0.0.1:{port}"]
origin_scheme = "http"
[[tenants.keys]]
name = "officer"
key = "second-key"
scopes = ["subjects"]
[[tenants]]
name = "foreign"
hosts = ["foreign.example"]
allowed_origins = ["127.0.0.1:{port}"]
regions = ["sg"]
[[tenants.keys]]
name = "officer"
key = "foreign-key"
scopes = ["subjects"]
"""

Privacy = Callable[..., "subprocess.CompletedProcess[str]"]


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


@pytest.fixture
def node(start_node: Any, origin: Any) -> Any:
    """Two tenants, each with a key of scope subjects; two fronts."""
    tenants = TENANTS.format(port=origin.port).replace("default = true", 'hosts = ["127.0.0.1"]')
    return start_node(tenants=tenants)


@pytest.fixture
def privacy() -> Privacy:
    """Runs ``imgserve privacy ARGUMENTS`` for a node's configuration."""

    def run(node: Any, *arguments: str, stdin: str = f"{SUBJECT}\n") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "imgserve", "privacy", *arguments, "--config", str(node.folder / "imgserve.toml")],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def about(ip: str = "-", tenant: str = "test") -> tuple[str, ...]:
    return ("--tenant", tenant, "--ip", ip, "--from", today(), "--to", today())


def visit(node: Any, origin: Any, visitor: str, times: int, **headers: str) -> None:
    for _ in range(times):
        node.get(f"/{origin.base}/red.png?w=10", X_Forwarded_For=visitor, **headers)


def post(node: Any, what: str, key: str = "subjects-key", **changes: object) -> Any:
    body = {"address": SUBJECT, "from": today(), "to": today()} | changes
    headers = {"X-Client-Key": key, "X-Forwarded-For": "198.51.100.1"}
    return node.request("POST", f"/-/api/subjects/{what}", headers=headers, body=json.dumps(body).encode())


@contextmanager
def reader(path: Path) -> Iterator[None]:
    """This process, which is not the keeper, has the file open and is reading it."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("BEGIN")
        database.execute("SELECT * FROM requests").fetchone()
        yield
        database.rollback()


def day_file(node: Any) -> Path:
    path: Path = node.folder / f"var/tenants/test/accesslog/{today()}.db"
    return path


def test_an_erasure_covers_what_was_answered_just_before(node: Any, origin: Any, privacy: Privacy) -> None:
    """Rows still in the memory of either front are waited for, again and again; nothing of the subject is left on the
    disk at the time of the receipt, and all rows of the others are there in the end."""
    for _ in range(3):
        visit(node, origin, SUBJECT, 20)
        visit(node, origin, OTHER, 20)
        answer = post(node, "erase")
        receipt = json.loads(answer.body)
        assert (200, "complete", 20) == (answer.status, receipt["status"], receipt["rows"])
    visit(node, origin, SUBJECT, 20)
    done = privacy(node, "erase", *about())
    receipt = json.loads(done.stdout)
    assert (0, "complete", 20) == (done.returncode, receipt["status"], receipt["rows"])
    assert 0 == json.loads(post(node, "erase", dry_run=True).body)["rows"]

    assert 0 == node.stop()
    assert 60 == len([row for row in rows_of(node, "method") if row == ("GET",)])
    assert [] == traces_of(node, SUBJECT)


def test_an_export_has_every_row_of_every_key(node: Any, origin: Any, privacy: Privacy) -> None:
    """Before and after the key was replaced; by command and by API the same lines; the counts say it first."""
    visit(node, origin, SUBJECT, 7)
    rotated = privacy(node, "keys", "rotate", "--tenant", "test", "--now")
    assert 0 == rotated.returncode
    time.sleep(1)  # the promise under test: by then every front has the new key
    visit(node, origin, SUBJECT, 5)
    visit(node, origin, OTHER, 3)
    counted = privacy(node, "export", *about(), "--dry-run")
    lines = privacy(node, "export", *about()).stdout.splitlines()
    answer = post(node, "export", address=f"::ffff:{SUBJECT}")

    assert (0, 12) == (counted.returncode, json.loads(counted.stdout)["rows"])
    assert [{"day": today(), "rows": 12, "rows_without_key": 0, "obstacles": []}] == json.loads(counted.stdout)["days"]
    rows = [json.loads(line) for line in lines]
    assert rows == [json.loads(line) for line in answer.body.splitlines()]
    assert ["application/jsonl", "no-store"] == [answer.headers[name] for name in ("content-type", "cache-control")]
    assert [7, 5] == [
        [row["pseudonym"] for row in rows].count(name) for name in dict.fromkeys(row["pseudonym"] for row in rows)
    ]
    assert 0 == node.stop()
    assert int(rotated.stdout, 16) == rows_of(node, "key_id")[-1][0]


def test_a_reader_in_the_way_means_not_done(node: Any, origin: Any, privacy: Privacy) -> None:
    """202 and exit 1 with a receipt that says so, as long as it is true; then done, and each receipt is genuine."""
    visit(node, origin, SUBJECT, 10)
    visit(node, origin, OTHER, 10)
    assert 10 == json.loads(post(node, "export", dry_run=True).body)["rows"]
    with reader(day_file(node)):
        first, second = post(node, "erase"), privacy(node, "erase", *about())
    third = privacy(node, "erase", *about())

    receipts = [json.loads(text) for text in (first.body, second.stdout, third.stdout)]
    assert (202, 1, 0) == (first.status, second.returncode, third.returncode)
    assert ["incomplete", "incomplete", "complete"] == [receipt["status"] for receipt in receipts]
    assert [10, 0, 0] == [receipt["rows"] for receipt in receipts]
    assert "busy" in second.stderr
    assert [["busy", "bytes left"], []] == [receipts[number]["days"][0]["obstacles"] for number in (0, 2)]
    for text in (first.body.decode(), second.stdout, third.stdout):
        assert 0 == privacy(node, "verify", "-", stdin=text).returncode
    forged = privacy(node, "verify", "-", stdin=second.stdout.replace('"incomplete"', '"complete"'))
    assert (1, "") == (forged.returncode, forged.stdout)


def test_after_the_node_stopped_the_command_does_it_itself(node: Any, origin: Any, privacy: Privacy) -> None:
    """And the node finds its folder free again."""
    visit(node, origin, SUBJECT, 4)
    visit(node, origin, OTHER, 4)
    assert 0 == node.stop()
    lines = privacy(node, "export", *about()).stdout.splitlines()
    erased = privacy(node, "erase", *about())
    nothing = privacy(node, "export", *about())

    assert (4, 0, "complete") == (len(lines), erased.returncode, json.loads(erased.stdout)["status"])
    assert (0, "", "0 rows") == (nothing.returncode, nothing.stdout, nothing.stderr.splitlines()[-1])
    assert 4 == len(rows_of(node))
    assert 0 == privacy(node, "erase", *about(OTHER), stdin="").returncode


def test_only_a_key_with_the_scope_and_only_its_own_tenant(node: Any, origin: Any) -> None:
    """401 for others, whatever they may do else; another tenant's rows are neither shown nor erased."""
    visit(node, origin, SUBJECT, 3)
    visit(node, origin, SUBJECT, 2, Host="second.example")
    for what in ("export", "erase"):
        assert [401, 401] == [post(node, what, key).status for key in ("shop-key", "nonsense")]
    assert 405 == node.get("/-/api/subjects/export").status
    assert 421 == post(node, "export", "foreign-key").status

    assert 2 == len(post(node, "export", "second-key").body.splitlines())
    assert 2 == json.loads(post(node, "erase", "second-key").body)["rows"]
    assert 3 == len(post(node, "export").body.splitlines())


def test_nothing_repeats_the_address(node: Any, origin: Any, privacy: Privacy) -> None:
    """No refusal, no receipt, no log line, no file; a request that is too long is not read."""
    wrong = "203.0.113.256"
    for changes in (
        {"address": wrong},
        {"from": wrong},
        {"address": "203.0.113.77", "to": "2020-01-01"},
        {"more": wrong},
    ):
        refused = post(node, "erase", **changes)
        assert 400 == refused.status
        assert b"203.0.113" not in refused.body
    assert 413 == post(node, "erase", address="1" * 5_000).status
    headers = {"X-Client-Key": "subjects-key"}
    assert (
        400 == node.request("POST", "/-/api/subjects/erase", headers=headers, body=b'{"address": 203.0.113.77').status
    )
    visit(node, origin, "203.0.113.77", 2)
    receipt = post(node, "erase", address="203.0.113.77").body
    visible = privacy(node, "erase", *about("203.0.113.77"))
    silent = privacy(node, "export", *about(), stdin="203.0.113.256\n")

    assert "other users" in visible.stderr
    assert (1, "") == (silent.returncode, silent.stdout)
    assert b"203.0.113" not in receipt
    assert "203.0.113" not in visible.stdout + visible.stderr + silent.stderr
    assert 0 == node.stop()
    assert [] == traces_of(node, "203.0.113.77")
    assert wrong not in node.log


def test_a_killed_keeper_never_leaves_a_false_receipt(node: Any, origin: Any, privacy: Privacy) -> None:
    """Killed again and again while erasures are asked for: each is refused or done, and what is receipted is gone."""
    visit(node, origin, SUBJECT, 20)
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.35):
            for pid in node.children("keeper"):
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        statuses = [post(node, "erase").status for _ in range(8)]
        while 503 not in statuses and len(statuses) < 60:
            statuses.append(post(node, "erase").status)
    finally:
        stop.set()
        killer.join()
    assert set(statuses) <= {200, 202, 503}
    assert 503 in statuses
    done = privacy(node, "erase", *about())
    assert (0, "complete") == (done.returncode, json.loads(done.stdout)["status"])
    assert 0 == json.loads(post(node, "export", dry_run=True).body)["rows"]


def test_an_export_that_is_cut_off_does_not_pass_for_a_whole_one(start_node: Any, origin: Any) -> None:
    """The keeper dies while a large answer is under way: the client sees that the end is missing."""
    tenants = TENANTS.format(port=origin.port).replace("default = true", 'hosts = ["127.0.0.1"]')
    node = start_node(tenants=tenants)
    visit(node, origin, SUBJECT, 1)
    assert 0 == node.stop()
    with closing(sqlite3.connect(day_file(node), isolation_level=None)) as database:
        database.execute("BEGIN")
        for _ in range(17):
            database.execute("INSERT INTO requests SELECT * FROM requests WHERE method = 'GET'")
        database.execute("COMMIT")
    node = start_node(tenants=tenants, folder=node.folder)
    body = json.dumps({"address": SUBJECT, "from": today(), "to": today()}).encode()
    headers = {"X-Client-Key": "subjects-key"}
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
    with closing(connection):
        connection.request("POST", "/-/api/subjects/export", body=body, headers=headers)
        response = connection.getresponse()
        assert (200, b'{"at_s"') == (response.status, response.read(7))
        os.kill(node.children("keeper")[0], signal.SIGKILL)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
    wait = time.monotonic() + 10
    while (answer := post(node, "export", dry_run=True)).status == 503 and time.monotonic() < wait:
        time.sleep(0.1)
    assert 2**17 == json.loads(answer.body)["rows"]


def test_files_stay_their_owners(node: Any, privacy: Privacy) -> None:
    """Who may write everywhere leaves no file that the node can't read: the command refuses, and says what to do."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to somebody else")
    os.chown(node.folder / "keys", 65_534, -1)
    result = privacy(node, "keys", "rotate", "--tenant", "test", "--now")
    os.chown(node.folder / "keys", 0, -1)

    assert (1, "") == (result.returncode, result.stdout)
    assert "privacy.keys_dir" in result.stderr
    assert "as the user that owns" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("keys", "rotate", "--tenant", "test"), 2, "--now"),
        (("keys", "rotate", "--tenant", "none", "--now"), 2, "no tenant none"),
        (("erase", "--tenant", "../test", "--ip", "-", "--from", "2026-11-01", "--to", "2026-11-02"), 2, "no tenant"),
        (("erase", "--tenant", "test", "--ip", "-", "--from", "2026-11-02", "--to", "2026-11-01"), 1, "period"),
        (("erase", "--tenant", "test", "--ip", "-", "--from", "yesterday", "--to", "2026-11-01"), 2, "--from"),
        (("erase", "--tenant", "test", "--from", "2026-11-01", "--to", "2026-11-01"), 2, "--ip"),
        (("verify", "absent.json"), 2, "absent.json"),
    ],
)
def test_wrong_use_is_said(node: Any, privacy: Privacy, arguments: tuple[str, ...], code: int, part: str) -> None:
    """Before anything is touched, on standard error."""
    result = privacy(node, *arguments)

    assert (code, "") == (result.returncode, result.stdout)
    assert part in result.stderr
