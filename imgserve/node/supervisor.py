"""The supervisor: binds the sockets, starts the children, replaces them, reloads and drains.

One thread, and no byte from outside is read: what it waits for are signals, the ends of its children (a pidfd each)
and their few messages. So nothing that a visitor sends can reach it.

The order of stopping keeps the access log whole: fronts finish and flush, then workers run out of jobs, then the
keeper empties its mailbox.
"""

import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TextIO

from imgserve.aio import mailbox
from imgserve.core.errors import ImgserveError
from imgserve.disk import descriptors
from imgserve.node import children, control, logs, ownership
from imgserve.node.board import Board, Role, State
from imgserve.node.boot import BootFields, FrontBoot, KeeperBoot, Parts, WorkerBoot
from imgserve.node.children import Child
from imgserve.node.listeners import Listeners
from imgserve.node.reactor import Reactor
from imgserve.node.restarts import Restarts
from imgserve.settings import Configuration, Loaded, changed_outside_tenants

log = logging.getLogger(__name__)

_START_TIMEOUT_S: Final = 30.0
_ACKNOWLEDGE_TIMEOUT_S: Final = 5.0
_ABSENCE_S: Final = 5.0  # a role that is empty for longer makes the node not ready
_FORK_RETRY_S: Final = 1.0
_FOLDER_LOOK_S: Final = 5.0

# Stopping takes at most 20 s after server.drain_delay_s. A request may take 15 s.
_QUEUES_STOP_S: Final = 1.0  # for connections that nobody has accepted
_QUEUES_LOOK_S: Final = 0.005
_FRONTS_STOP_S: Final = 15.0
_WORKERS_STOP_S: Final = 1.0
_STOP_S: Final = 19.5
_STOP_MARGIN_S: Final = 0.5  # between a child's deadline and its SIGKILL
_HASTY_STOP_S: Final = 1.0  # what is left to each role after a second signal

_STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})


def run(config_path: Path, loaded: Loaded) -> int:
    """Be a node until told to stop. Exit status: 0 after a stop, 1 when the node could not start or lost its folder."""
    from imgserve.node import parts  # here, so that a node of other parts does without the whole server

    return serve(config_path, loaded, parts.real(loaded.configuration))


def serve(config_path: Path, loaded: Loaded, parts: Parts) -> int:
    """Be a node of these parts."""
    logs.configure("supervisor")
    os.umask(0o077)
    children.forbid_core_dumps()
    children.name_process("supervisor")
    _raise_descriptor_limit()
    _forget_standard_input()
    try:
        with contextlib.ExitStack() as stack:
            data_dir = loaded.configuration.server.data_dir
            owner = ownership.own(data_dir)
            stack.callback(ownership.disown, owner, data_dir)
            parts.prepare()
            supervisor = Supervisor(config_path, loaded.configuration, parts, owner.fileno())
            stack.callback(supervisor.close)
            return supervisor.run()
    except ImgserveError as error:
        _say(sys.stderr, f"imgserve: {error}")
        return 1


class Supervisor:
    """A node's life. Raises Misconfigured when an address cannot be bound."""

    def __init__(self, config_path: Path, configuration: Configuration, parts: Parts, owner_fd: int) -> None:
        self._config_path = config_path
        self._configuration = configuration
        self._parts = parts
        self._owner_fd = owner_fd
        self._counts = {Role.KEEPER: 1, Role.WORKER: configuration.worker_count, Role.FRONT: configuration.front_count}
        self._board = Board(fronts=self._counts[Role.FRONT], workers=self._counts[Role.WORKER])
        self._board.started_at_s = int(time.time())
        self._board.generation = 1
        self._listeners = Listeners(configuration.server, self._counts[Role.FRONT])
        self._jobs_sending, self._jobs_receiving = parts.make_jobs()
        # Both ends stay open here, so that no packet is lost while there is no keeper.
        self._mailbox_sending, self._mailbox_receiving = mailbox.make_pair()
        self._children: dict[tuple[Role, int], Child] = {}
        self._restarts = Restarts()
        self._ending: set[Role] = set()  # roles whose children are not replaced any more
        self._has_started = False
        self._stop_requests = 0
        self._is_homeless = False  # the data folder was removed or replaced
        self._acknowledged = 1  # the newest generation that all know
        self._has_terminal = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _terminal_is_there()
        self._reactor = Reactor()
        self._reactor.watch_signals({*_STOP_SIGNALS, signal.SIGHUP}, self._on_signal)

    def run(self) -> int:
        """Start, serve until a signal, stop. Exit status."""
        if not self._start():
            return 0 if self._stop_requests else 1
        self._look_at_folder()
        self._reactor.run(lambda: self._stop_requests > 0 or self._is_homeless)
        self._stop()
        return int(self._is_homeless)

    def close(self) -> None:
        """Leave nothing behind: no child, no file of a unix socket."""
        self._ending = set(Role)
        for child in self._children.values():
            child.kill()
        self._reactor.run(lambda: not self._children)
        self._listeners.remove_paths()

    # ---- starting and stopping -------------------------------------------------------------------

    def _start(self) -> bool:
        """Start all children; False when they don't become ready, or when a signal came first."""
        started_s = time.monotonic()
        for role, count in self._counts.items():
            for number in range(count):
                self._spawn(role, number)
        self._reactor.run(
            lambda: self._is_complete() or self._restarts.is_hopeless or self._stop_requests > 0,
            started_s + _START_TIMEOUT_S,
        )
        if self._stop_requests:
            return False
        if not self._is_complete():
            _say(sys.stderr, f"imgserve: did not start: {', '.join(self._unready())}; the log above may say why")
            return False
        self._has_started = True
        self._board.is_able = True
        log.info("ready", extra={"start_ms": round((time.monotonic() - started_s) * 1000)})
        _say(sys.stdout, self._ready_line())
        return True

    def _is_complete(self) -> bool:
        """All fronts, the keeper and one worker are enough to serve; the other workers come along."""
        ready = {role: sum(child.is_ready for child in self._of(role)) for role in Role}
        return ready[Role.FRONT] == self._counts[Role.FRONT] and ready[Role.KEEPER] > 0 and ready[Role.WORKER] > 0

    def _unready(self) -> list[str]:
        """Names of the slots without a ready child."""
        slots = [(role, number) for role, count in self._counts.items() for number in range(count)]
        ready = {slot for slot, child in self._children.items() if child.is_ready}
        return [f"{role}{number}" for role, number in slots if (role, number) not in ready]

    def _look_at_folder(self) -> None:
        """End the node when its folder was removed or replaced: what it writes lies in files that nobody finds, and
        another node may live in the new folder."""
        if ownership.is_owned_by(self._owner_fd, self._configuration.server.data_dir):
            self._reactor.later(_FOLDER_LOOK_S, self._look_at_folder)
            return
        log.critical("data_dir_replaced", extra={"reason": "the data folder was removed or replaced: the node stops"})
        self._board.is_able = False
        self._is_homeless = True

    def _ready_line(self) -> str:
        fronts, workers = self._counts[Role.FRONT], self._counts[Role.WORKER]
        return (
            f"imgserve ready on {', '.join(self._listeners.urls)} (admin {self._listeners.admin_url}), "
            f"{fronts} front{'s' * (fronts != 1)}, {workers} worker{'s' * (workers != 1)}, pid {os.getpid()}"
        )

    def _stop(self) -> None:
        """Drain in the order that loses nothing. A second signal cuts all times short."""
        self._board.is_draining = True
        delay_s = self._configuration.server.drain_delay_s
        log.info("draining", extra={"delay_s": delay_s})
        self._reactor.run(self._is_hasty, time.monotonic() + delay_s)
        started_s = time.monotonic()
        self._empty_queues()
        # From here on the fronts' copies are the last ones: when they close theirs, connections are refused.
        self._listeners.close_delivery()
        self._end(Role.FRONT, started_s + _FRONTS_STOP_S)
        # The fronts are gone: with this copy the last sender is, and the workers find the end of the queue.
        self._jobs_sending.close()
        self._end(Role.WORKER, time.monotonic() + _WORKERS_STOP_S)
        self._end(Role.KEEPER, started_s + _STOP_S)
        log.info("stopped", extra={"stop_ms": round((time.monotonic() - started_s) * 1000)})

    def _empty_queues(self) -> None:
        """Have the fronts take every connection that waits, so that closing the listeners resets none."""
        self._listeners.hold_off()
        give_up_s = time.monotonic() + _QUEUES_STOP_S
        while not self._listeners.are_empty() and time.monotonic() < give_up_s:
            if self._reactor.run(self._is_hasty, time.monotonic() + _QUEUES_LOOK_S):
                return

    def _end(self, role: Role, kill_s: float) -> None:
        """Have all children of a role end; who has not by then is killed."""
        self._ending.add(role)
        while self._of(role) and time.monotonic() < kill_s:
            requests = self._stop_requests
            if self._is_hasty():
                kill_s = min(kill_s, time.monotonic() + _HASTY_STOP_S)
            for child in self._of(role):
                control.stop(child.control, kill_s - _STOP_MARGIN_S)
            self._reactor.run(partial(self._is_gone_or_hastened, role, requests), kill_s)
        for child in self._of(role):
            log.warning("child_killed", extra={"child": child.name, "reason": "did not stop in time"})
            child.kill()
        self._reactor.run(lambda: not self._of(role))

    def _is_hasty(self) -> bool:
        """Whether a second signal came."""
        return self._stop_requests > 1

    def _is_gone_or_hastened(self, role: Role, requests: int) -> bool:
        return not self._of(role) or self._stop_requests > requests

    def _on_signal(self, number: int) -> None:
        is_hangup = number == signal.SIGHUP and self._has_terminal and not _terminal_is_there()
        if number in _STOP_SIGNALS or is_hangup:
            self._stop_requests += 1
        elif self._has_started and not self._stop_requests:
            self._reload()

    # ---- children --------------------------------------------------------------------------------

    def _of(self, role: Role) -> list[Child]:
        return [child for child in self._children.values() if child.role is role]

    def _spawn(self, role: Role, number: int) -> None:
        """Start the child of a slot, now or, when the machine has no room, a little later."""
        if role in self._ending:
            return
        slot = self._board.slot(role, number)
        slot.state = State.STARTING
        with contextlib.ExitStack() as undo:
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                undo.callback(ours.close)
                undo.callback(theirs.close)
                ours.setblocking(False)
                theirs.setblocking(False)
                pid, pidfd = self._fork(role, number, theirs)
            except OSError:
                log.exception("fork_failed", extra={"child": f"{role}{number}"})
                slot.state = State.GONE
                self._reactor.later(_FORK_RETRY_S, partial(self._spawn, role, number))
                return
            undo.pop_all()
        theirs.close()
        slot.pid = pid
        generation = self._board.generation
        child = Child(role=role, number=number, pid=pid, pidfd=pidfd, control=ours, generation=generation)
        self._children[role, number] = child
        self._reactor.watch(pidfd, partial(self._on_end, child))
        self._reactor.watch(ours.fileno(), partial(self._on_messages, child))

    def _fork(self, role: Role, number: int, theirs: socket.socket) -> tuple[int, int]:
        """Fork with the boot of the role; pid and pidfd."""
        base = BootFields(
            role=role,
            number=number,
            configuration=self._configuration,
            generation=self._board.generation,
            board=self._board,
            control=theirs,
            slot_map=self._parts.slot_map,
        )
        match role:
            case Role.FRONT:
                front = FrontBoot(
                    **base,
                    delivery=self._listeners.delivery(number),
                    admin=self._listeners.admin,
                    jobs=self._jobs_sending,
                    mailbox=self._mailbox_sending,
                )
                return children.spawn(front, self._parts.mains.front, also_keep=(self._owner_fd,))
            case Role.KEEPER:
                keeper = KeeperBoot(**base, mailbox=self._mailbox_receiving)
                return children.spawn(keeper, self._parts.mains.keeper, also_keep=(self._owner_fd,))
            case Role.WORKER:
                return children.spawn(WorkerBoot(**base, jobs=self._jobs_receiving), self._parts.mains.worker)

    def _on_messages(self, child: Child) -> None:
        """Take what a child has said."""
        with contextlib.suppress(BlockingIOError):
            while True:
                match control.received(child.control):
                    case control.Ready():
                        child.is_ready = True
                        start_ms = round((time.monotonic() - child.born_s) * 1000)
                        log.info("child_ready", extra={"child": child.name, "pid": child.pid, "start_ms": start_ms})
                        self._look_for_recovery()
                    case control.Acknowledged(generation):
                        child.generation = max(child.generation, generation)
                        self._look_for_acknowledgement()
                    case None:
                        self._reactor.unwatch(child.control.fileno())
                        return

    def _on_end(self, child: Child) -> None:
        """Bury a child, and have it replaced unless its role is ending."""
        self._on_messages(child)  # its last ones
        self._reactor.unwatch(child.pidfd)
        self._reactor.unwatch(child.control.fileno())
        status = child.reap()
        del self._children[child.role, child.number]
        slot = self._board.slot(child.role, child.number)
        slot.state, slot.pid = State.GONE, 0
        if child.role in self._ending:
            return
        self._replace(child, status)
        self._reactor.later(_ABSENCE_S, partial(self._look_for_absence, child.role))
        self._look_for_acknowledgement()

    def _replace(self, child: Child, status: int) -> None:
        """Start a successor: at once, or after a pause where that would only burn the processor."""
        lived_s = time.monotonic() - child.born_s
        delay_s = self._restarts.delay_s(child.name, lived_s=lived_s, was_ready=child.is_ready)
        fields = {"child": child.name, "pid": child.pid, "lived_s": round(lived_s, 3), "restart_in_s": delay_s}
        if status == 0 and child.is_ready and child.role is Role.WORKER:
            log.info("child_recycled", extra=fields)
        else:
            self._board.count_restart(child.role)
            log.error("child_died", extra={**fields, "status": _readable(status)})
        if delay_s:
            self._reactor.later(delay_s, partial(self._spawn, child.role, child.number))
        else:
            self._spawn(child.role, child.number)

    def _is_empty(self, role: Role) -> bool:
        return not any(child.is_ready for child in self._of(role))

    def _look_for_absence(self, role: Role) -> None:
        """The node is not able to serve when nobody of a role has come back for long."""
        if self._board.is_able and self._is_empty(role):
            self._board.is_able = False
            log.error("role_missing", extra={"role": role})

    def _look_for_recovery(self) -> None:
        """The node is able again when no role is empty."""
        if self._has_started and not self._board.is_able and not any(self._is_empty(role) for role in Role):
            self._board.is_able = True
            log.info("role_back")

    # ---- reload ----------------------------------------------------------------------------------

    def _reload(self) -> None:
        """Take up the file's tenants, or keep the old ones when the file has a mistake."""
        try:
            loaded = self._parts.load(self._config_path)
        except (ImgserveError, OSError) as error:
            log.warning("reload_refused", extra={"reason": str(error)})
            return
        for warning in loaded.warnings:
            log.warning("configuration_warning", extra={"reason": warning})
        keys = changed_outside_tenants(self._configuration, loaded.configuration)
        if keys:
            log.warning("restart_needed", extra={"keys": keys})
        # Who is replaced from now on is born with these tenants, and with the node's other keys as they were.
        self._configuration = replace(self._configuration, tenants=loaded.configuration.tenants)
        self._board.generation += 1
        with contextlib.closing(control.Snapshot(self._board.generation, self._configuration.tenants)) as snapshot:
            for child in self._hearers():
                if not snapshot.send(child.control):
                    log.error("child_deaf", extra={"child": child.name})
        fields = {"generation": self._board.generation, "tenants": len(self._configuration.tenants)}
        log.info("reloading", extra=fields)
        self._reactor.later(_ACKNOWLEDGE_TIMEOUT_S, partial(self._name_the_late, self._board.generation))

    def _hearers(self) -> list[Child]:
        """Children that know tenants. Workers don't, and their sandbox needs no more ways in."""
        return [child for child in self._children.values() if child.role is not Role.WORKER]

    def _look_for_acknowledgement(self) -> None:
        """Say once when nobody serves by older tenants any more."""
        generation = self._board.generation
        if self._acknowledged < generation and all(child.generation >= generation for child in self._hearers()):
            self._acknowledged = generation
            log.info("reloaded", extra={"generation": generation})

    def _name_the_late(self, generation: int) -> None:
        """Say who has not taken up the newest tenants in time."""
        late = [child.name for child in self._hearers() if child.generation < generation]
        if late and generation == self._board.generation:
            log.error("reload_unacknowledged", extra={"generation": generation, "children": late})


def _terminal_is_there() -> bool:
    """Whether this process has a controlling terminal. Once that was closed, SIGHUP means the end, not a reload."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _raise_descriptor_limit() -> None:
    """Connections, open images and descriptors under way to workers all count against it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if warning := descriptors.warning():
        log.warning("few_descriptors", extra={"reason": warning})


def _forget_standard_input() -> None:
    """Let no process of the node read the terminal."""
    fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    if fd != 0:
        os.dup2(fd, 0)
        os.close(fd)


def _say(stream: TextIO, line: str) -> None:
    """One line for a person; nobody need be reading."""
    with contextlib.suppress(OSError):
        stream.write(line + "\n")
        stream.flush()


def _readable(status: int) -> str:
    """``exit 1`` or ``SIGKILL``."""
    if status >= 0:
        return f"exit {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:  # a real-time signal
        return f"signal {-status}"
