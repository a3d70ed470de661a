"""The sockets that a node listens on. They are bound once and held until the node stops.

Each front slot has its own SO_REUSEPORT socket per TCP address. As the supervisor holds them too, what waits in the
queue of a front that died is answered by its replacement, and nobody is reset.
"""

import contextlib
import errno
import os
import select
import socket
import stat
from pathlib import Path
from typing import Final

from imgserve.core.errors import Misconfigured
from imgserve.settings.records import Listen, Server

_BACKLOG: Final = 4096  # the kernel cuts it to net.core.somaxconn
_DELIVERY: Final = "server.listen"
_ADMIN: Final = "server.admin_listen"

# The delivery listener is as public as one on a TCP port of this machine: its folder decides who reaches it.
_DELIVERY_MODE: Final = 0o666
_ADMIN_MODE: Final = 0o660

_FIXES: Final = {
    errno.EADDRINUSE: "the address is in use: stop the other server or choose another",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EACCES: "not permitted: choose a port above 1023, or give the process CAP_NET_BIND_SERVICE",
    errno.EAFNOSUPPORT: "this machine has no such kind of address",
}


class Listeners:
    """All listening sockets of a node, non-blocking. Raises Misconfigured when one cannot be bound."""

    def __init__(self, server: Server, fronts: int) -> None:
        self._delivery: list[tuple[socket.socket, ...]] = []  # per address: one for each slot, or one for all
        self._paths: dict[Path, tuple[int, int]] = {}  # device and inode of each unix socket that is ours
        self._fronts = fronts
        try:
            for listen in server.listen:
                self._delivery.append(self._bind_delivery(listen))
            # One queue for all fronts: any front that lives answers, and few ask.
            if server.admin_listen.family == socket.AF_UNIX:
                self.admin = self._bind_unix(server.admin_listen, _ADMIN, _ADMIN_MODE)
            else:
                self.admin = _bind_tcp(server.admin_listen, _ADMIN, server.admin_listen.port)
                self.admin.listen(_BACKLOG)
        except BaseException:
            self.close_delivery()
            self.remove_paths()
            raise
        self.urls: Final = tuple(_url(sockets[0]) for sockets in self._delivery)
        self.admin_url: Final = _url(self.admin)

    def delivery(self, slot: int) -> tuple[socket.socket, ...]:
        """The sockets of one front slot, in the order of ``server.listen``."""
        return tuple(sockets[slot % len(sockets)] for sockets in self._delivery)

    def hold_off(self) -> None:
        """Let no more than one connection wait in each queue; the kernel ignores further callers, who ask again."""
        for sockets in self._delivery:
            for sock in sockets:
                sock.listen(0)

    def are_empty(self) -> bool:
        """Whether no connection waits to be accepted. Closing a listener resets those that do."""
        waiting = select.poll()
        for sockets in self._delivery:
            for sock in sockets:
                waiting.register(sock, select.POLLIN)
        return not waiting.poll(0)

    def close_delivery(self) -> None:
        """Give up this process's copies; once the fronts close theirs, connections are refused."""
        for sockets in self._delivery:
            for sock in sockets:
                sock.close()

    def remove_paths(self) -> None:
        """Remove the files of unix sockets, where they are still ours."""
        for path, identity in self._paths.items():
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                if (status.st_dev, status.st_ino) == identity:
                    path.unlink()
        self._paths.clear()

    def _bind_delivery(self, listen: Listen) -> tuple[socket.socket, ...]:
        if listen.family == socket.AF_UNIX:
            return (self._bind_unix(listen, _DELIVERY, _DELIVERY_MODE),)
        # With SO_REUSEPORT a second server of the same user would silently get a share of the connections.
        # So the address is tried without it first. Port 0: that also decides which.
        with _bind_tcp(listen, _DELIVERY, listen.port) as probe:
            probe.listen(1)
            port: int = probe.getsockname()[1]
        sockets = tuple(_bind_tcp(listen, _DELIVERY, port, is_shared=True) for _ in range(self._fronts))
        for sock in sockets:
            sock.listen(_BACKLOG)
        return sockets

    def _bind_unix(self, listen: Listen, key: str, mode: int) -> socket.socket:
        path = Path(listen.path)
        _remove_stale(path, key)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(path))
            status = path.lstat()
            self._paths[path] = (status.st_dev, status.st_ino)
            path.chmod(mode)  # before it listens: nobody can have connected
            sock.listen(_BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            raise _refused(error, listen, key) from error
        return sock


def _bind_tcp(listen: Listen, key: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """A bound socket that does not listen yet."""
    try:
        sock = socket.socket(listen.family, socket.SOCK_STREAM)
    except OSError as error:
        raise _refused(error, listen, key) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if listen.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # an address means what it says
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
        sock.setblocking(False)
        sock.bind((listen.host, port))
    except OSError as error:
        sock.close()
        raise _refused(error, listen, key) from error
    return sock


def _remove_stale(path: Path, key: str) -> None:
    """Remove a socket file that nobody listens on; anything else stays and is refused."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Misconfigured(key, f"unix:{path}", "there is a file that is no socket: choose another path")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(str(path))
    if code != errno.ECONNREFUSED:  # 0: answered; EAGAIN: its queue is full; EACCES: somebody else's
        raise Misconfigured(key, f"unix:{path}", _FIXES[errno.EADDRINUSE])
    path.unlink(missing_ok=True)


def _refused(error: OSError, listen: Listen, key: str) -> Misconfigured:
    code = error.errno if error.errno is not None else 0
    return Misconfigured(key, str(listen), _FIXES.get(code, os.strerror(code)))


def _url(sock: socket.socket) -> str:
    """Where the socket is reached: ``http://127.0.0.1:8080``, ``http://[::1]:8080``, ``unix:/run/imgserve.sock``."""
    name = sock.getsockname()
    match sock.family:
        case socket.AF_UNIX:
            return f"unix:{name}"
        case socket.AF_INET6:
            return f"http://[{name[0]}]:{name[1]}"
        case _:
            return f"http://{name[0]}:{name[1]}"
