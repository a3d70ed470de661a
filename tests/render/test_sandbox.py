"""What code inside a real worker cannot do, whatever it tries; and that the layers are reported truly."""

import asyncio
import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imgserve.adapters.render import sandbox, syscalls
from imgserve.adapters.render.settings import Settings
from imgserve.core.plan import Plan
from tests.render.fleet import ROOT, Fleet

EPERM, EACCES = "PermissionError 1", "PermissionError 13"
SETTINGS = Settings(memory_bytes=256_000_000)

NEEDS_LANDLOCK = pytest.mark.skipif(sandbox.probe().landlock_abi == 0, reason="this kernel has no Landlock")


@pytest.fixture(scope="module")
def escape() -> Iterator[Callable[[str], str]]:
    """Runs code inside a worker of the real pipeline's sandbox; what it said, or the OSError it met."""
    with Fleet(render="escape", settings=SETTINGS) as fleet:

        def attempt(code: str) -> str:
            async def go() -> str:
                original, target = os.memfd_create("code"), os.memfd_create("said")
                try:
                    os.write(original, code.encode())
                    await fleet.pool().render(Plan(), ("x",), original, target)
                    return os.pread(target, 10_000, 0).decode()
                finally:
                    os.close(original)
                    os.close(target)

            return asyncio.run(go())

        yield attempt


ATTEMPTS = {
    "connect": "import socket; socket.socket().connect(('127.0.0.1', 1))",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "unix": "import socket; socket.socket(socket.AF_UNIX)",
    "socketpair": "import socket; socket.socketpair()",
    "exec": "import os; os.execv('/bin/true', ['true'])",
    "fork": "import os; os.fork()",
    "kill": "import os; os.kill(os.getppid(), 0)",
    "kill by pidfd": "import os; os.pidfd_open(os.getppid())",
    "limits of others": "import os, resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
    "priority of others": "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "chmod": "import os; os.chmod('/etc/passwd', 0o644)",
    "chown": "import os; os.chown('/etc/passwd', 0, 0)",
    "xattr": "import os; os.setxattr('/etc/passwd', 'user.x', b'')",
    "touch": "import os; os.utime('/etc/passwd')",
    "unlink": "import os; os.unlink('/nothing/there')",
    "rename": "import os; os.rename('/nothing/a', '/nothing/b')",
    "mkdir": "import os; os.mkdir('/tmp/never')",
    "chroot": "import os; os.chroot('/')",
    "terminal": "import fcntl, termios; fcntl.ioctl(2, termios.TIOCSTI, b'x')",
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_calls_are_refused(attempt: str, escape: Callable[[str], str]) -> None:
    """Network, processes, signals and the names of files are out of reach: EPERM by seccomp."""
    assert EPERM == escape(ATTEMPTS[attempt])


RAW = {name: numbers for table in (syscalls._NETWORK, syscalls._PROCESSES, syscalls._KERNEL, syscalls._FILES)
       for name, numbers in table.items()}  # fmt: skip


PROMISED = (
    "socket socketpair connect bind listen accept accept4 sendto sendmmsg execve execveat fork vfork ptrace kill tkill "
    "io_uring_setup io_uring_enter io_uring_register process_vm_readv process_vm_writev bpf perf_event_open mount "
    "unshare setns keyctl add_key request_key userfaultfd pidfd_send_signal pidfd_getfd"
)


def test_every_promised_call_is_listed() -> None:
    """Taking one out of the tables is noticed."""
    assert set() == set(PROMISED.split()) - RAW.keys()


@pytest.mark.parametrize(
    ("column", "header"),
    [(0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), (1, "/usr/include/asm-generic/unistd.h")],
)
def test_numbers_are_the_kernels(column: int, header: str) -> None:
    """Each number of the tables is the one in the C library's copy of the kernel's headers."""
    if not Path(header).is_file():
        pytest.skip(f"{header} is not installed")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text()))
    listed = {**RAW, **syscalls._OPENING, **syscalls._CONDITIONAL}
    wrong = {
        name: (pair[column], known.get(name))
        for name, pair in listed.items()
        if known.get(name, "-1") != str(pair[column]) and (name in known or pair[column] < 400)
    }
    assert {} == wrong


@pytest.mark.skipif(syscalls.architecture() is None, reason="no numbers are known for this machine")
def test_every_listed_call_is_refused_by_number(escape: Callable[[str], str]) -> None:
    """Each number of the table fails with EPERM, called raw with arguments that would fail otherwise too."""
    machine = syscalls.architecture()
    assert machine is not None
    numbers = {name: pair[machine.column] for name, pair in RAW.items() if pair[machine.column] >= 0}
    code = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def error(number):
    ctypes.set_errno(0)
    return ctypes.get_errno() if libc.syscall(number, -1, -1, -1, -1, -1, -1) == -1 else 0
result = {{name: error(number) for name, number in {numbers!r}.items()}}
"""
    assert str(dict.fromkeys(numbers, 1)) == escape(code)


@NEEDS_LANDLOCK
@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/maps", "/", str(ROOT / "pyproject.toml"), "/dev/null"])
def test_files_cannot_be_opened(path: str, escape: Callable[[str], str]) -> None:
    """Nothing of the file system is readable, the package's own sources included."""
    assert EACCES == escape(f"import os; os.open({path!r}, os.O_RDONLY)")


@NEEDS_LANDLOCK
def test_files_cannot_be_made(escape: Callable[[str], str], tmp_path: Path) -> None:
    """Not even in a folder that everyone may write to."""
    assert EACCES == escape(f"open({str(tmp_path / 'new')!r}, 'w')")
    assert [] == list(tmp_path.iterdir())


@NEEDS_LANDLOCK
def test_fonts_can_be_read_and_not_written(escape: Callable[[str], str]) -> None:
    """The one thing that a worker may read."""
    font = str(sandbox.fonts_folder() / "DejaVuSans.ttf")
    assert "4" == escape(f"result = len(open({font!r}, 'rb').read(4))")
    assert EACCES == escape(f"open({font!r}, 'r+b')")


def test_limits_hold(escape: Callable[[str], str]) -> None:
    """Address space, core dumps, descriptors and file sizes are bounded, and may not be raised again."""
    code = """
import resource as r
result = [r.getrlimit(k) for k in (r.RLIMIT_AS, r.RLIMIT_CORE, r.RLIMIT_NOFILE, r.RLIMIT_FSIZE)]
"""
    space = 256_000_000 + sandbox.MEMORY_SLACK_BYTES
    assert str([(space, space), (0, 0), (64, 64), (2**29, 2**29)]) == escape(code)


def test_the_process_cannot_be_dumped(escape: Callable[[str], str]) -> None:
    """Neither a core nor a tracer of the same user gets at an original's bytes."""
    assert "0" == escape("import ctypes; result = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)")


def test_threads_may_be_started_and_processes_not(escape: Callable[[str], str]) -> None:
    """libvips needs threads; they live under the same filter."""
    code = """
import threading, os
said = []
def inside():
    try:
        os.kill(os.getppid(), 0)
    except OSError as error:
        said.append(error.errno)
thread = threading.Thread(target=inside)
thread.start()
thread.join()
result = said
"""
    assert "[1]" == escape(code)


def test_no_inherited_descriptor_leads_out(escape: Callable[[str], str]) -> None:
    """The queue, the job's three, the worker's own five and the standard ones: nothing else is open."""
    code = """
import os
result = 0
for fd in range(3, 10_000):
    try:
        os.fstat(fd)
    except OSError:
        continue
    result += 1
"""
    # Queue, job (3), pidfd, wake-up pipe (2), epoll, statm, status.
    assert "10" == escape(code)


def test_probe_leaves_this_process_alone() -> None:
    """Layers are found out in a child; the caller stays free, and the answer is whole."""
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(200)]
    try:
        layers = sandbox.probe()
    finally:
        for fd in held:
            os.close(fd)
    assert layers.rlimits
    assert layers.no_new_privileges
    assert layers.seccomp == (syscalls.architecture() is not None)
    with socket.socket():
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64


def test_layers_are_described() -> None:
    """The operator reads what holds and what is missing."""
    full = sandbox.Layers(rlimits=True, no_new_privileges=True, landlock_abi=7, seccomp=True)
    bare = sandbox.Layers(rlimits=True, no_new_privileges=True, seccomp=True, denies_open=True)
    assert (
        "rlimits, no new privileges, Landlock files, TCP, abstract sockets and signals (ABI 7), seccomp"
        == full.describe()
    )
    assert "rlimits, no new privileges, no Landlock (SVG is refused), seccomp that denies open" == bare.describe()
    assert (True, True, False, False) == (full.are_complete, full.allows_svg, bare.are_complete, bare.allows_svg)


WITHOUT_LANDLOCK = """
import os, sys
from imgserve.adapters.render import sandbox, syscalls
syscalls.LANDLOCK_CREATE_RULESET = 100_000  # a kernel without it answers ENOSYS
layers = sandbox.enter(256_000_000, ())
try:
    os.open("/etc/passwd", os.O_RDONLY)
except OSError as error:
    print(layers.landlock_abi, layers.denies_open, error.errno)
"""


@pytest.mark.skipif(syscalls.architecture() is None, reason="no numbers are known for this machine")
def test_without_landlock_seccomp_denies_open() -> None:
    """The other layer takes over, and says so."""
    said = subprocess.run([sys.executable, "-c", WITHOUT_LANDLOCK], cwd=ROOT, capture_output=True, check=False)
    assert b"0 True 1\n" == said.stdout, said.stderr


def test_a_foreign_architecture_is_killed() -> None:
    """A 32-bit call has other numbers: the filter looks at the architecture first."""
    machine = syscalls.architecture()
    assert machine is not None
    program = sandbox._program(machine, denies_open=False)
    # load architecture; equal? skip one; kill.
    assert (machine.audit, 0x80000000) == (
        int.from_bytes(program[12:16], "little"),
        int.from_bytes(program[20:24], "little"),
    )
