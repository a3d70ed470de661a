"""The sockets that a node listens on."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imgserve.core.errors import Misconfigured
from imgserve.node.listeners import Listeners
from imgserve.settings import Listen, Server

ADMIN = Listen(family=socket.AF_INET, host="127.0.0.1", port=0)

Listening = Callable[..., Listeners]


def _tcp(port: int = 0, host: str = "127.0.0.1") -> Listen:
    return Listen(family=socket.AF_INET6 if ":" in host else socket.AF_INET, host=host, port=port)


def _unix(path: Path) -> Listen:
    return Listen(family=socket.AF_UNIX, path=str(path))


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    """Bind listeners; all are closed afterwards."""
    made: list[Listeners] = []

    def make(*listen: Listen, fronts: int = 2, admin: Listen = ADMIN) -> Listeners:
        server = Server(
            listen=listen,
            admin_listen=admin,
            processes=fronts,
            data_dir=tmp_path,
            node="node-1",
            region="fr",
            trusted_proxies=(),
            forwarded_header="none",
            drain_delay_s=0,
        )
        made.append(Listeners(server, fronts))
        return made[-1]

    yield make
    for listeners in made:
        listeners.close_delivery()
        listeners.admin.close()
        listeners.remove_paths()


def test_each_slot_has_its_own_socket_on_one_port(listening: Listening) -> None:
    """Port 0 is decided once; all slots listen there with SO_REUSEPORT, non-blocking; the admin listener is one."""
    listeners = listening(_tcp(), fronts=3)
    sockets = [listeners.delivery(slot)[0] for slot in range(3)]
    port = sockets[0].getsockname()[1]

    assert port > 0
    assert 3 == len(set(sockets))
    assert {("127.0.0.1", port)} == {sock.getsockname() for sock in sockets}
    assert {(1, 1, False)} == {
        (
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT),
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
            sock.getblocking(),
        )
        for sock in sockets
    }
    assert (f"http://127.0.0.1:{port}",) == listeners.urls
    assert f"http://127.0.0.1:{listeners.admin.getsockname()[1]}" == listeners.admin_url


def test_ipv6_is_only_that(listening: Listening) -> None:
    """An IPv6 wildcard does not take IPv4's port too."""
    try:
        listeners = listening(_tcp(host="::1"), fronts=1)
    except Misconfigured:
        pytest.skip("this machine has no IPv6")
    (sock,) = listeners.delivery(0)

    assert 1 == sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    assert (f"http://[::1]:{sock.getsockname()[1]}",) == listeners.urls


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_port_in_use_is_refused(listening: Listening, *, is_shared: bool) -> None:
    """Another server's port is refused, also when it would share it."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, is_shared)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        expected = f"server.listen = '127.0.0.1:{port}': the address is in use: stop the other server or choose another"

        with pytest.raises(Misconfigured) as refused:
            listening(_tcp(port))
        assert expected == str(refused.value)
        with pytest.raises(Misconfigured, match=r"server\.admin_listen.*in use"):
            listening(_tcp(), admin=_tcp(port))


def test_a_foreign_address_is_refused(listening: Listening) -> None:
    """An address that this machine does not have is named as such."""
    with pytest.raises(Misconfigured, match="this machine has no such address"):
        listening(_tcp(host="192.0.2.1"))


def test_what_was_bound_is_given_back(listening: Listening) -> None:
    """When one address fails, those before it are free again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    with pytest.raises(Misconfigured):
        listening(_tcp(free), _tcp(host="192.0.2.1"))

    listening(_tcp(free))


def test_a_unix_socket_is_shared_and_removed(listening: Listening, tmp_path: Path) -> None:
    """All slots share one unix socket; delivery is open to all, the admin's to the group; the files go at the end."""
    delivery, admin = tmp_path / "delivery.sock", tmp_path / "admin.sock"
    listeners = listening(_unix(delivery), admin=_unix(admin))

    assert listeners.delivery(0) == listeners.delivery(1)
    assert (0o666, 0o660) == (delivery.stat().st_mode & 0o777, admin.stat().st_mode & 0o777)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(delivery))

    listeners.remove_paths()

    assert [] == list(tmp_path.iterdir())


def test_a_stale_unix_socket_is_replaced(listening: Listening, tmp_path: Path) -> None:
    """The file of a server that died is replaced."""
    path = tmp_path / "imgserve.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    inode = path.stat().st_ino
    keep = os.open(path, os.O_PATH)  # so that the inode number is not used again
    listening(_unix(path))

    assert inode != path.stat().st_ino

    os.close(keep)


def test_what_is_not_stale_stays(listening: Listening, tmp_path: Path) -> None:
    """A socket that answers, one whose queue is full, and a file that is no socket are refused and left alone."""
    path, file = tmp_path / "imgserve.sock", tmp_path / "letter.txt"
    file.write_text("dear")
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as caller:
        other.bind(str(path))
        other.listen(0)
        for _ in range(2):
            with pytest.raises(Misconfigured, match="the address is in use"):
                listening(_unix(path))
            caller.setblocking(False)
            assert caller.connect_ex(str(path)) in (0, errno.EISCONN, errno.EAGAIN)
        with pytest.raises(Misconfigured, match="no socket"):
            listening(_unix(file))

        assert path.is_socket()
        assert "dear" == file.read_text()


def test_a_successors_file_is_not_removed(listening: Listening, tmp_path: Path) -> None:
    """The path is removed at the end only while it is still this node's socket."""
    path = tmp_path / "imgserve.sock"
    listeners = listening(_unix(path))
    path.rename(tmp_path / "aside")
    path.write_text("somebody else's")
    listeners.remove_paths()

    assert path.exists()
