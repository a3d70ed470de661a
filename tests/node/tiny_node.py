"""A node with tiny mains: started by the tests as a process of its own, with the configuration's path.

Fronts answer one line per connection. What the children did is told in lines of ``told.log`` in the data folder.
A file ``fail-ROLE`` there makes new children of that role fail; ``stuck`` makes fronts deaf to draining.
"""

import asyncio
import ctypes
import fcntl
import os
import resource
import signal
import socket
import sys
import termios
import time
from functools import partial
from pathlib import Path

import orjson
import uvloop

from imgserve.aio.mailbox import Sender
from imgserve.core.errors import Misconfigured
from imgserve.core.tenants import Tenants
from imgserve.node import keeper, supervisor
from imgserve.node.board import Role
from imgserve.node.boot import Boot, FrontBoot, KeeperBoot, Mains, Parts, WorkerBoot
from imgserve.node.control import Control, Drain, Reload, say_ready
from imgserve.settings import load

PR_GET_DUMPABLE = 3
NOBODY = 65_534


def tell(boot: Boot, what: str, **fields: object) -> None:
    """Add a line to ``told.log``, whole."""
    line = orjson.dumps({"child": boot.name, "pid": os.getpid(), "what": what, **fields}) + b"\n"
    fd = os.open(boot.slot_map.parent / "told.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line)
    finally:
        os.close(fd)


def tell_birth(boot: Boot) -> None:
    """Tell what this process has, before it opens anything."""
    folder = boot.slot_map.parent
    if (folder / f"fail-{boot.role}").exists():
        raise Misconfigured("tiny.fail", str(boot.role), "remove the file")
    with os.scandir("/proc/self/fd") as entries:
        fds = {int(entry.name): os.readlink(entry.path) for entry in entries if "/fd" not in os.readlink(entry.path)}
    named = {sock.fileno() for sock in boot.sockets()} | {0, 1, 2}
    tell(
        boot,
        "born",
        fds={str(fd): target for fd, target in fds.items() if fd not in named},
        has_all=named <= set(fds),
        core_limit=resource.getrlimit(resource.RLIMIT_CORE)[0],
        dumpable=ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0),
        umask=oct(os.umask(0o077)),
        nice=os.nice(0),
        uid=os.getuid(),
        oom=int(Path("/proc/self/oom_score_adj").read_text()),
        comm=Path("/proc/self/comm").read_text().strip(),
        ignored=[number.name for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
                 if signal.getsignal(number) is signal.SIG_IGN],
        blocked=len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    )  # fmt: skip


def wait_for_file(path: Path) -> None:
    """Return when the file is there."""
    while not path.exists():
        time.sleep(0.01)


class Front:
    """Answers lines, drains and reloads as a real front does."""

    def __init__(self, boot: FrontBoot) -> None:
        self._boot = boot
        self._names = sorted(tenant.name for tenant in boot.configuration.tenants)
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._mailbox = Sender(boot.mailbox)

    async def serve(self) -> None:
        """Live until drained."""
        servers = [
            await (asyncio.start_unix_server if sock.family == socket.AF_UNIX else asyncio.start_server)(
                self._answer, sock=sock
            )
            for sock in (*self._boot.delivery, self._boot.admin)
        ]
        control = Control(self._boot)
        control.ready()
        async for message in control.messages():
            match message:
                case Reload(generation=generation, tenants=tenants):
                    self._names = sorted(tenant.name for tenant in tenants)
                    control.acknowledge(generation)
                case Drain():
                    if (self._boot.slot_map.parent / "stuck").exists():
                        continue
                    break
        for server in servers:
            server.close()
        await self._idle.wait()
        self._mailbox.try_send(b"L", b"last of " + self._boot.name.encode())

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._busy += 1
        self._idle.clear()
        try:
            writer.write(await self._reply((await reader.readline()).decode().strip()) + b"\n")
            await writer.drain()
        finally:
            writer.close()
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    async def _reply(self, asked: str) -> bytes:
        board = self._boot.board
        verb, _, argument = asked.partition(" ")
        match verb:
            case "pid":
                return str(os.getpid()).encode()
            case "tenants":
                return orjson.dumps([self._boot.board.generation, *self._names])
            case "board":
                return orjson.dumps(
                    {
                        "ready": board.is_ready,
                        "draining": board.is_draining,
                        "workers": board.ready(Role.WORKER),
                        "restarts": dict(board.restarts()),
                    }
                )
            case "log":
                return str(self._mailbox.try_send(b"L", argument.encode())).encode()
            case "job":
                self._boot.jobs.send(argument.encode())
                return b"sent"
            case "wait":  # until a file appears: a request under way
                tell(self._boot, "waiting")
                await asyncio.to_thread(wait_for_file, Path(argument))
                return b"done"
        return b"?"


def front_main(boot: FrontBoot) -> None:
    """Be a front."""
    tell_birth(boot)

    async def live() -> None:
        await Front(boot).serve()

    uvloop.run(live())
    tell(boot, "ended")


class Keeper:
    """Tells every packet."""

    def __init__(self, boot: KeeperBoot) -> None:
        self._boot = boot
        self.handlers = {b"L": self._take}
        self.jobs = ()

    async def _take(self, payload: bytes) -> None:
        tell(self._boot, "packet", payload=payload.decode())

    def reload(self, tenants: Tenants) -> None:
        """Tell the tenants."""
        tell(self._boot, "reload", tenants=sorted(tenant.name for tenant in tenants))

    async def close(self) -> None:
        """Tell the end."""
        tell(self._boot, "ended")


async def build_keeper(boot: KeeperBoot) -> Keeper:
    """Make the keeper's parts."""
    return Keeper(boot)


def keeper_main(boot: KeeperBoot) -> None:
    """Be a keeper."""
    tell_birth(boot)
    keeper.main(boot, build_keeper)


def worker_main(boot: WorkerBoot) -> None:
    """Take jobs: ``exit`` and ``crash`` do that."""
    tell_birth(boot)
    say_ready(boot)
    while job := boot.jobs.recv(100):
        tell(boot, "job", job=job.decode())
        if job == b"exit":
            return
        if job == b"crash":
            os._exit(9)
    tell(boot, "ended")


def main() -> int:
    """Be the node."""
    path = Path(sys.argv[1])
    loaded = load(path)
    data_dir = loaded.configuration.server.data_dir
    parts = Parts(
        mains=Mains(front=front_main, keeper=keeper_main, worker=worker_main),
        load=load,
        prepare=(data_dir / "prepared").touch,
        make_jobs=partial(socket.socketpair, socket.AF_UNIX, socket.SOCK_SEQPACKET),
        slot_map=data_dir / "slots.map",
    )
    if "--terminal" in sys.argv:  # for the test to hang up
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if "--unprivileged" in sys.argv and os.getuid() == 0:  # here, as others may not be able to read the installation
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    return supervisor.serve(path, loaded, parts)


if __name__ == "__main__":
    sys.exit(main())
