"""The sandbox of a worker, put up while it is single-threaded and before libvips does any work.

The order matters: everything is imported, then rlimits, then Landlock, then seccomp; the first libvips call
comes last, because its threads inherit what stands. Each layer that the kernel lacks is reported, not hidden.
"""

import ctypes
import os
import resource
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from imgserve.adapters.render import syscalls

_PROBE_MEMORY_BYTES: Final = 1 << 40  # the limit is to be set, and not to be felt by whatever process asks
MEMORY_SLACK_BYTES: Final = 384 * 1024 * 1024  # a worker's address space is its memory and 130 to 370 MB
_OUTPUT_MAX_BYTES: Final = 512 * 1024 * 1024  # 8192 x 8192 RGBA as PNG without any gain, and room
_DESCRIPTORS_MAX: Final = 64

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Which layers hold in a process. ``landlock_abi`` 0: the kernel has none, and ``seccomp`` denies open."""

    rlimits: bool = False
    no_new_privileges: bool = False
    landlock_abi: int = 0
    seccomp: bool = False
    denies_open: bool = False

    @property
    def allows_svg(self) -> bool:
        """SVG reads fonts while it renders; only Landlock can open those and nothing else."""
        return self.landlock_abi > 0

    @property
    def are_complete(self) -> bool:
        """Whether every layer that this program knows holds."""
        return self.rlimits and self.no_new_privileges and self.landlock_abi >= 6 and self.seccomp

    def describe(self) -> str:
        """One line for the operator: what holds, and what is missing."""
        landlock = {
            0: "no Landlock (SVG is refused)",
            1: "Landlock files",
            2: "Landlock files",
            3: "Landlock files",
            4: "Landlock files and TCP",
            5: "Landlock files and TCP",
        }.get(self.landlock_abi, "Landlock files, TCP, abstract sockets and signals")
        return ", ".join(
            (
                "rlimits" if self.rlimits else "no rlimits",
                "no new privileges" if self.no_new_privileges else "new privileges possible",
                landlock + (f" (ABI {self.landlock_abi})" if self.landlock_abi else ""),
                ("seccomp" + (" that denies open" if self.denies_open else "")) if self.seccomp else "no seccomp",
            )
        )


def fonts_folder() -> Path:
    """The package's own fonts, with their fontconfig file: all that a worker may read."""
    return Path(__file__).resolve().parents[2] / "fonts"


def enter(memory_bytes: int, readable: Iterable[Path]) -> Layers:
    """Put up every layer in this process, for good. Call while single-threaded, after the last import."""
    _limit_resources(memory_bytes)
    no_new_privileges = _prctl(_PR_SET_NO_NEW_PRIVS, 1) and _prctl(_PR_SET_DUMPABLE, 0)
    abi = _restrict_files(readable) if no_new_privileges else 0
    denies_open = abi == 0
    seccomp = no_new_privileges and _filter_calls(denies_open=denies_open)
    return Layers(
        rlimits=True,
        no_new_privileges=no_new_privileges,
        landlock_abi=abi,
        seccomp=seccomp,
        denies_open=seccomp and denies_open,
    )


def probe() -> Layers:
    """Which layers this machine gives, found out in a child process that ends at once."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # Few descriptors may be open under the limits, and whoever asks may have many.
            os.closerange(3, writing)
            os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX"))
            os.write(writing, msgspec.msgpack.encode(enter(_PROBE_MEMORY_BYTES, (fonts_folder(),))))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        packet = answer.read(4096)
    os.waitpid(child, 0)
    return msgspec.msgpack.decode(packet, type=Layers) if packet else Layers()


def _limit_resources(memory_bytes: int) -> None:
    limits = (
        (resource.RLIMIT_AS, memory_bytes + MEMORY_SLACK_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _DESCRIPTORS_MAX),
        (resource.RLIMIT_FSIZE, _OUTPUT_MAX_BYTES),
    )
    for kind, value in limits:
        hard = resource.getrlimit(kind)[1]
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bounded, bounded))


def _prctl(option: int, value: int) -> bool:
    return bool(
        _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) == 0
    )


# ---- Landlock (Documentation/userspace-api/landlock.rst) -----------------------------------------

_CREATE_RULESET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # ABI to the number of rights it knows, from bit 0
_NET_BIND_AND_CONNECT_TCP: Final = 0b11
_SCOPE_ABSTRACT_SOCKET_AND_SIGNAL: Final = 0b11


def _restrict_files(readable: Iterable[Path]) -> int:
    """Handle every right that the kernel knows, allow reading below ``readable``. The ABI, or 0 without one."""
    abi: int = _libc.syscall(syscalls.LANDLOCK_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    if abi < 1:
        return 0
    handled = (1 << _FILE_RIGHTS[min(abi, 5)]) - 1
    attributes = struct.pack(
        "=QQQ",
        handled,
        _NET_BIND_AND_CONNECT_TCP if abi >= 4 else 0,
        _SCOPE_ABSTRACT_SOCKET_AND_SIGNAL if abi >= 6 else 0,
    )
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset: int = _libc.syscall(syscalls.LANDLOCK_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        return 0
    try:
        for path in readable:
            _allow_reading(ruleset, path)
        return abi if _libc.syscall(syscalls.LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0 else 0
    finally:
        os.close(ruleset)


def _allow_reading(ruleset: int, path: Path) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = _READ_FILE | (_READ_DIR if path.is_dir() else 0)
        rule = struct.pack("=Qi", rights, descriptor)
        if _libc.syscall(syscalls.LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), "Landlock refuses a rule", str(path))
    finally:
        os.close(descriptor)


# ---- seccomp (Documentation/userspace-api/seccomp_filter.rst) ------------------------------------

_SET_MODE_FILTER: Final = 1
_FLAG_TSYNC: Final = 1
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_IF_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_IF_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_EPERM: Final = 0x00050001
_ENOSYS: Final = 0x00050026
_AT_NUMBER: Final = 0
_AT_ARCHITECTURE: Final = 4
_X32_BIT: Final = 0x40000000
_CLONE_THREAD: Final = 0x00010000
_TIOCSTI: Final = 0x5412  # types into the terminal that started the server
_TIOCLINUX: Final = 0x541C


def _at_argument(index: int) -> int:
    """Where a filter finds the low half of an argument; both architectures are little-endian."""
    return 16 + 8 * index


class _Program:
    """A classic BPF program. A jump's two numbers are how many instructions it skips if true, if false."""

    def __init__(self) -> None:
        self._code = bytearray()

    def add(self, code: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        self._code += struct.pack("=HBBI", code, if_true, if_false, value)

    def load(self, offset: int) -> None:
        self.add(_LOAD, offset)

    def give(self, value: int) -> None:
        self.add(_RETURN, value)

    def code(self) -> bytes:
        return bytes(self._code)


def _program(machine: syscalls.Architecture, *, denies_open: bool) -> bytes:
    program = _Program()
    program.load(_AT_ARCHITECTURE)
    program.add(_IF_EQUAL, machine.audit, 1, 0)
    program.give(_KILL)
    program.load(_AT_NUMBER)
    program.add(_IF_AT_LEAST, _X32_BIT, 0, 1)
    program.give(_EPERM)
    for number in syscalls.denied(machine, with_open=denies_open):
        program.add(_IF_EQUAL, number, 0, 1)
        program.give(_EPERM)
    program.add(_IF_EQUAL, syscalls.conditional(machine, "clone3"), 0, 1)
    program.give(_ENOSYS)  # its flags lie in memory, where a filter can't look; the C library falls back to clone
    # clone: threads only.
    program.add(_IF_EQUAL, syscalls.conditional(machine, "clone"), 0, 4)
    program.load(_at_argument(0))
    program.add(_IF_ANY_BIT, _CLONE_THREAD, 1, 0)
    program.give(_EPERM)
    program.give(_ALLOW)
    # tgkill: this process only; abort() signals itself. prlimit64: 0 means this process.
    for name, own in (("tgkill", os.getpid()), ("prlimit64", 0)):
        program.add(_IF_EQUAL, syscalls.conditional(machine, name), 0, 4)
        program.load(_at_argument(0))
        program.add(_IF_EQUAL, own, 1, 0)
        program.give(_EPERM)
        program.give(_ALLOW)
    program.add(_IF_EQUAL, syscalls.conditional(machine, "ioctl"), 0, 4)
    program.load(_at_argument(1))
    program.add(_IF_EQUAL, _TIOCSTI, 1, 0)
    program.add(_IF_EQUAL, _TIOCLINUX, 0, 1)
    program.give(_EPERM)
    program.give(_ALLOW)
    return program.code()


def _filter_calls(*, denies_open: bool) -> bool:
    """Install the filter on every thread of the process; False where the kernel or the machine has none."""
    machine = syscalls.architecture()
    if machine is None:
        return False
    code = ctypes.create_string_buffer(_program(machine, denies_open=denies_open))
    length = (len(code) - 1) // 8  # without the NUL that ctypes adds
    descriptor = struct.pack("@HP", length, ctypes.addressof(code))
    return bool(_libc.syscall(machine.seccomp, _SET_MODE_FILTER, _FLAG_TSYNC, descriptor) == 0)
