"""The life of a node: real processes, killed, reloaded and stopped."""

import os
import pty
import re
import resource
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.node.harness import DEFAULTS, NOBODY, TinyNode, answer_of, freeze, is_alive, wait_for

Start = Callable[..., TinyNode]


# ---- starting ------------------------------------------------------------------------------------


NICE = os.nice(0)  # of whoever runs the tests


def test_the_ready_line_says_where(start_node: Start) -> None:
    """One line on standard output when all are ready, with addresses that answer."""
    node = start_node(fronts=2, workers=1)

    assert re.fullmatch(
        rf"imgserve ready on http://127\.0\.0\.1:{node.port} \(admin http://127\.0\.0\.1:\d+\), "
        rf"2 fronts, 1 worker, pid {node.process.pid}\n",
        node.line,
    )
    board = node.board()
    assert (True, False, 1) == (board["ready"], board["draining"], board["workers"])
    assert (node.data_dir / "prepared").exists()
    assert f"{node.process.pid}\n" == (node.data_dir / "supervisor.pid").read_text()


def test_children_have_what_is_theirs_and_nothing_else(start_node: Start) -> None:
    """Every child, a replacement too, has its own descriptors only, writes no core, and ignores group signals."""
    node = start_node(fronts=2, workers=2)
    for name in ("front0", "keeper0", "worker1"):
        node.kill(name)

    born = node.told("born")

    assert 8 == len(born)
    owner = str(node.data_dir / "FORMAT")
    for child in born:
        is_worker = child["child"].startswith("worker")
        assert ([] if is_worker else [owner]) == list(child["fds"].values()), child
        assert ((NICE + 5, 500) if is_worker else (NICE, 0)) == (child["nice"], child["oom"])
        assert ["SIGINT", "SIGTERM", "SIGHUP"] == child["ignored"]
        expected = (True, 0, 0, "0o77", f"img:{child['child']}", 0)
        assert expected == tuple(
            child[key] for key in ("has_all", "core_limit", "dumpable", "umask", "comm", "blocked")
        )


def test_an_ordinary_user_is_enough() -> None:
    """Without any privilege children are named, niced, first in line for lack of memory, and cannot be traced."""
    with tempfile.TemporaryDirectory() as folder:
        if os.getuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        node = TinyNode(Path(folder), DEFAULTS)
        node.configure()
        node.start(args=("--unprivileged",))
        try:
            assert node.line, (node.folder / "stderr.log").read_text()
            assert node.kill("front0") < 1.0
            assert 0 == node.stop()
            born = node.told("born")
        finally:
            node.clean_up()

    assert 0 not in {child["uid"] for child in born}
    for child in born:
        expected = (NICE + 5, 500) if child["child"].startswith("worker") else (NICE, 0)
        assert (*expected, 0, f"img:{child['child']}") == tuple(
            child[key] for key in ("nice", "oom", "dumpable", "comm")
        )


def test_nobody_need_read_the_ready_line(make_node: Start) -> None:
    """A standard output that was closed neither ends the node nor keeps it from replacing children."""
    node = make_node()
    reading, writing = os.pipe()
    os.close(reading)
    node.start(stdout=writing)
    os.close(writing)
    wait_for(lambda: node.logged("ready"), "the node to be ready")

    assert node.kill("worker0") < 1.0
    assert 0 == node.stop()


@pytest.mark.parametrize("role", ["front", "keeper", "worker"])
def test_a_role_that_cannot_start_ends_the_node(make_node: Start, role: str) -> None:
    """Who fails at birth again and again is named, and the node exits 1 instead of pretending."""
    node = make_node(workers=1, fronts=1)
    node.data_dir.mkdir()
    (node.data_dir / f"fail-{role}").touch()
    node.start()

    assert ("", 1) == (node.line, node.process.wait(10))
    assert f"imgserve: did not start: {role}0;" in (node.folder / "stderr.log").read_text()
    assert f"tiny.fail = '{role}': remove the file" == node.logged("child_failed")[0]["reason"]
    assert [] == node.pids()


def test_an_address_in_use_is_one_sentence(make_node: Start) -> None:
    """A port that another server has, even one with SO_REUSEPORT, ends the start with the key's name."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        node = make_node(listen=f'"{listen}"')
        node.start()

        assert ("", 1) == (node.line, node.process.wait(10))

    expected = f"imgserve: server.listen = '{listen}': the address is in use: stop the other server or choose another\n"
    assert expected == (node.folder / "stderr.log").read_text()


def test_a_second_node_on_the_same_folder_is_refused(start_node: Start) -> None:
    """A data folder has one owner while that one lives."""
    first = start_node()
    second = TinyNode(first.folder, first.options)
    second.start()

    assert ("", 1) == (second.line, second.process.wait(10))
    assert second.process.stdout is not None
    second.process.stdout.close()
    assert "another node uses this folder" in (first.folder / "stderr.log").read_text()
    assert 0 == first.stop()


def test_an_unknown_format_is_refused_at_once(make_node: Start) -> None:
    """Also where a supervisor was killed: no orphan is waited for, nor blamed."""
    node = make_node()
    node.data_dir.mkdir()
    (node.data_dir / "FORMAT").write_text("99\n")
    (node.data_dir / "supervisor.pid").write_text("4194305\n")  # over any process id
    started_s = time.monotonic()
    node.start()

    assert ("", 1) == (node.line, node.process.wait(10))
    assert time.monotonic() - started_s < 5
    assert "a newer imgserve wrote it (format 99" in (node.folder / "stderr.log").read_text()
    assert [] == node.logged("waiting_for_orphans")


def test_a_clean_stop_leaves_no_process_id(start_node: Start) -> None:
    """The number may soon be another process's, or nobody's: both would mislead the next start."""
    node = start_node()

    assert 0 == node.stop()
    assert not (node.data_dir / "supervisor.pid").exists()


@pytest.mark.parametrize("is_begun_anew", [False, True], ids=["removed", "replaced"])
def test_a_node_whose_folder_is_taken_away_stops(start_node: Start, *, is_begun_anew: bool) -> None:
    """It says so, is not ready any more, exits 1, and touches nothing in the folder of its successor."""
    node = start_node(fronts=1, workers=1, drain_delay_s=1)
    node.data_dir.rename(node.folder / "elsewhere")
    if is_begun_anew:
        node.data_dir.mkdir()
        for name in ("FORMAT", "supervisor.pid"):
            (node.data_dir / name).write_text("1\n")
    wait_for(lambda: node.logged("data_dir_replaced"), "the loss to be noticed")

    assert not node.board()["ready"]
    assert 1 == node.process.wait(20)
    assert is_begun_anew == (node.data_dir / "supervisor.pid").exists()


# ---- replacing -----------------------------------------------------------------------------------


def test_a_killed_child_is_replaced_within_a_second(start_node: Start) -> None:
    """Kill -9 of each role, several times: the replacement is ready in less than a second, and counted."""
    node = start_node(fronts=2, workers=2)
    for name in ("front0", "front1", "worker0", "worker1", "keeper0", "keeper0"):
        assert node.kill(name) < 1.0

    assert {"front": 2, "worker": 2, "keeper": 2} == node.board()["restarts"]
    assert all(died["status"] == "SIGKILL" for died in node.logged("child_died"))
    assert node.board()["ready"]


def test_connections_of_a_dead_front_are_served_by_its_replacement(start_node: Start) -> None:
    """What waits in the queue of a front that is killed is answered; nobody is reset."""
    node = start_node(fronts=1)
    front = node.child("front0")
    freeze(front)
    with ExitStack() as stack:
        waiting = [stack.enter_context(node.asking("pid")) for _ in range(40)]
        os.kill(front, signal.SIGKILL)
        answers = [answer_of(sock) for sock in waiting]

    replacement = wait_for(lambda: (pid := node.child("front0")) != front and pid, "the replacement to be known")

    assert [str(replacement)] * 40 == answers


def test_packets_wait_for_the_next_keeper(start_node: Start) -> None:
    """What fronts hand over while there is no keeper is handled by its replacement."""
    node = start_node(fronts=1)
    keeper = node.child("keeper0")
    freeze(keeper)
    for number in range(20):
        assert "True" == node.ask(f"log {number}")
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: len(node.told("packet")) == 20, "20 packets")

    assert [str(number) for number in range(20)] == [line["payload"] for line in node.told("packet")]


def test_a_recycled_worker_is_no_crash(start_node: Start) -> None:
    """A worker that ends by itself is replaced without being counted; one that crashes is counted."""
    node = start_node(workers=1)
    first = node.child("worker0")
    node.ask("job exit")
    second = wait_for(lambda: (pid := node.child("worker0")) != first and pid, "a recycled worker")

    assert 0 == node.board()["restarts"]["worker"]

    node.ask("job crash")
    wait_for(lambda: node.child("worker0") != second, "a new worker")

    assert 1 == node.board()["restarts"]["worker"]
    assert ["exit 9"] == [died["status"] for died in node.logged("child_died")]


def test_a_crash_loop_is_slowed_down(start_node: Start) -> None:
    """Children that die before they are ready come back after growing pauses; meanwhile the node is not ready."""
    node = start_node(workers=1, fronts=1)
    failing = node.data_dir / "fail-worker"
    failing.touch()
    os.kill(node.child("worker0"), signal.SIGKILL)
    wait_for(lambda: len(node.logged("child_died")) >= 7, "seven deaths", 15)
    pauses = [died["restart_in_s"] for died in node.logged("child_died")]

    assert [0, 0, 0.1, 0.2, 0.4, 0.8, 1.6] == pauses[:7]

    wait_for(lambda: node.logged("role_missing", role="worker"), "the worker's absence to be noticed")

    assert not node.board()["ready"]

    failing.unlink()
    wait_for(lambda: node.board()["ready"], "the node to be ready again")


def test_a_child_that_cannot_be_forked_comes_later(start_node: Start) -> None:
    """Without room for a descriptor the supervisor lives on, says so, and tries again."""
    node = start_node(workers=1)
    supervisor, worker = node.process.pid, node.child("worker0")
    limits = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (3, limits[1]))
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: node.logged("fork_failed", child="worker0"), "the fork to fail")
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, limits)
    wait_for(lambda: node.child("worker0") != worker, "a new worker")

    assert 0 == node.stop()


# ---- reloading -----------------------------------------------------------------------------------


def test_a_reload_swaps_tenants_and_drops_no_request(start_node: Start) -> None:
    """SIGHUP: fronts and keeper take the new tenants, requests under way go on, replacements are born with them."""
    node = start_node(fronts=2)
    released = node.folder / "released"
    with node.asking(f"wait {released}") as under_way:
        wait_for(lambda: node.told("waiting"), "a request under way")
        fronts = {node.child("front0"), node.child("front1")}
        node.configure(tenant="two")
        node.process.send_signal(signal.SIGHUP)
        wait_for(lambda: node.logged("reloaded", generation=2), "all to have reloaded")

        assert {'[2,"two"]'} == {node.ask("tenants") for _ in range(20)}
        assert ["two"] == node.told("reload")[-1]["tenants"]

        released.touch()

        assert "done" == answer_of(under_way)

    assert fronts == {node.child("front0"), node.child("front1")}
    assert [] == node.logged("restart_needed")

    node.kill("front0")
    node.kill("front1")

    assert {'[2,"two"]'} == {node.ask("tenants") for _ in range(20)}


def test_a_large_snapshot_is_no_problem(start_node: Start) -> None:
    """Tenants that take megabytes, far more than a socket's buffer, reach all fronts."""
    node = start_node(fronts=2)
    text = (node.folder / "imgserve.toml").read_text()
    host = ".".join(["x" * 60] * 3)
    for number in range(3000):
        text += f'[[tenants]]\nname = "t{number}"\nhosts = ["{host}.t{number}.example"]\n'
        text += 'allowed_origins = ["images.example.com"]\n'
    (node.folder / "imgserve.toml").write_text(text)
    node.process.send_signal(signal.SIGHUP)
    wait_for(lambda: node.logged("reloaded", generation=2), "all to have reloaded", 20)

    assert node.ask("tenants").startswith('[2,"one","t0"')


def test_a_broken_file_is_refused(start_node: Start) -> None:
    """A mistake in the file changes nothing, is logged once, and the next good file is taken."""
    node = start_node()
    path = node.folder / "imgserve.toml"
    path.write_text(path.read_text() + "\nnonsense = 1\n")
    node.process.send_signal(signal.SIGHUP)
    wait_for(lambda: node.logged("reload_refused"), "the file to be refused")

    assert "nonsense" in node.logged("reload_refused")[0]["reason"]
    assert '[1,"one"]' == node.ask("tenants")

    path.unlink()
    node.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(node.logged("reload_refused")) == 2, "the missing file to be refused")
    node.configure(tenant="three")
    node.process.send_signal(signal.SIGHUP)
    wait_for(lambda: node.logged("reloaded", generation=2), "all to have reloaded")

    assert '[2,"three"]' == node.ask("tenants")


def test_changed_server_keys_need_a_restart(start_node: Start) -> None:
    """A reload names the keys that it does not take up; the tenants it does."""
    node = start_node()
    node.configure(tenant="two", node="another")
    node.process.send_signal(signal.SIGHUP)
    wait_for(lambda: node.logged("reloaded", generation=2), "all to have reloaded")

    assert [["server.node"]] == [line["keys"] for line in node.logged("restart_needed")]
    assert '[2,"two"]' == node.ask("tenants")


# ---- stopping ------------------------------------------------------------------------------------


def test_sigterm_finishes_what_is_under_way_in_order(start_node: Start) -> None:
    """SIGTERM: requests end, then fronts, workers, keeper; the keeper has their last packets; exit 0."""
    node = start_node(fronts=2, workers=2)
    released = node.folder / "released"
    with node.asking(f"wait {released}") as under_way:
        wait_for(lambda: node.told("waiting"), "a request under way")
        node.process.send_signal(signal.SIGTERM)
        wait_for(lambda: node.logged("draining"), "draining")
        released.touch()

        assert "done" == answer_of(under_way)

    assert 0 == node.process.wait(5)
    ends = [line["child"] for line in node.told("ended")]
    assert {"front0", "front1"} == set(ends[:2])
    assert {"worker0", "worker1"} == set(ends[2:4])
    assert ["keeper0"] == ends[4:]
    assert ["last of front0", "last of front1"] == sorted(line["payload"] for line in node.told("packet"))
    assert [] == node.pids()


def test_new_connections_are_refused_while_requests_end(start_node: Start) -> None:
    """Once fronts have closed their listeners nobody else holds them open: callers go elsewhere."""
    node = start_node(fronts=1)
    released = node.folder / "released"
    with node.asking(f"wait {released}") as under_way:
        wait_for(lambda: node.told("waiting"), "a request under way")
        node.process.send_signal(signal.SIGTERM)
        wait_for(lambda: _is_refused(node.port), "connections to be refused")
        released.touch()

        assert "done" == answer_of(under_way)

    assert 0 == node.process.wait(5)


def test_what_waits_to_be_accepted_is_answered_too(start_node: Start) -> None:
    """Connections that no front has accepted when the node is asked to stop are not reset."""
    node = start_node(fronts=1)
    front = node.child("front0")
    freeze(front)
    with ExitStack() as stack:
        waiting = [stack.enter_context(node.asking("pid")) for _ in range(20)]
        node.process.send_signal(signal.SIGTERM)
        wait_for(lambda: node.logged("draining"), "draining")
        os.kill(front, signal.SIGCONT)

        assert [str(front)] * 20 == [answer_of(sock) for sock in waiting]

    assert 0 == node.process.wait(5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_drains_too(start_node: Start, number: signal.Signals) -> None:
    """Ctrl-C and systemd signal every process of the node: only the supervisor listens."""
    node = start_node(fronts=2)
    released = node.folder / "released"
    with node.asking(f"wait {released}") as under_way:
        wait_for(lambda: node.told("waiting"), "a request under way")
        os.killpg(node.process.pid, number)
        wait_for(lambda: node.logged("draining"), "draining")
        released.touch()

        assert "done" == answer_of(under_way)

    assert 0 == node.process.wait(5)
    assert 5 == len(node.told("ended"))


def test_readiness_is_false_during_the_drain_delay(start_node: Start) -> None:
    """Requests are still taken then, and a dead front is still replaced; a second signal ends the delay."""
    node = start_node(fronts=1, drain_delay_s=60)
    node.process.send_signal(signal.SIGTERM)
    wait_for(lambda: node.board()["draining"], "draining")

    assert not node.board()["ready"]
    assert node.kill("front0") < 1.0

    node.process.send_signal(signal.SIGTERM)

    assert 0 == node.process.wait(5)


def test_a_second_signal_kills_who_hangs(start_node: Start) -> None:
    """A front that does not drain is killed soon after the second Ctrl-C; the rest ends in order, exit 0."""
    node = start_node(fronts=1, workers=1)
    (node.data_dir / "stuck").touch()
    front = node.child("front0")
    node.process.send_signal(signal.SIGINT)
    wait_for(lambda: node.logged("draining"), "draining")

    assert is_alive(front)

    node.process.send_signal(signal.SIGINT)

    assert 0 == node.process.wait(5)
    assert ["front0"] == [line["child"] for line in node.logged("child_killed")]
    assert ["worker0", "keeper0"] == [line["child"] for line in node.told("ended")]


def test_children_of_a_killed_supervisor_finish_and_go(start_node: Start) -> None:
    """Kill -9 of the supervisor: requests under way are answered, then all children end; a new node waits for them."""
    node = start_node(fronts=2, workers=2)
    released = node.folder / "released"
    with node.asking(f"wait {released}") as under_way:
        wait_for(lambda: node.told("waiting"), "a request under way")
        orphans = node.pids()
        node.process.kill()
        node.process.wait()
        successor = TinyNode(node.folder, node.options)
        starting = threading.Thread(target=successor.start)
        starting.start()
        try:
            wait_for(lambda: node.logged("waiting_for_orphans"), "the successor to find the folder owned")
            released.touch()

            assert "done" == answer_of(under_way)
        finally:
            starting.join()
    try:
        assert successor.line, (node.folder / "stderr.log").read_text()
        assert ["front0", "front1"] == sorted(line["child"] for line in node.told("ended") if "front" in line["child"])
        assert ["keeper0"] == [line["child"] for line in node.told("ended") if "keeper" in line["child"]]
        assert ["last of front0", "last of front1"] == sorted(line["payload"] for line in node.told("packet"))
        wait_for(lambda: not any(is_alive(pid) for pid in orphans), "the workers to end")
        assert 0 == successor.stop()
    finally:
        successor.clean_up()


def test_closing_the_terminal_stops_the_node(make_node: Start) -> None:
    """SIGHUP because the terminal was closed is no reload: nobody could stop the node with Ctrl-C any more."""
    node = make_node()
    master, slave = pty.openpty()
    node.start(stdin=slave, args=("--terminal",))
    os.close(slave)

    assert node.line

    os.close(master)

    assert 0 == node.process.wait(10)
    assert [] == node.logged("reloading")


def test_a_unix_socket_is_open_to_all_and_removed(start_node: Start, tmp_path: Path) -> None:
    """A unix delivery socket has mode 0666, answers, and its file goes with the node."""
    path = tmp_path / "imgserve.sock"
    node = start_node(listen=f'"127.0.0.1:0", "unix:{path}"')

    assert f"unix:{path}" in node.line
    assert 0o666 == path.stat().st_mode & 0o777
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(b"tenants\n")
        assert '[1,"one"]' == answer_of(sock)

    assert 0 == node.stop()
    assert not path.exists()


def _is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_log_lines_are_json(start_node: Start) -> None:
    """Every line on standard error of a healthy node is one JSON object that names event and process."""
    node = start_node()
    node.stop()
    lines: list[dict[str, Any]] = [orjson.loads(text) for text in (node.folder / "stderr.log").read_text().splitlines()]

    assert lines
    assert all({"time", "level", "process", "event"} <= line.keys() for line in lines)
