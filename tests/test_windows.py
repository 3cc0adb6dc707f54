"""What Windows lacks is not asked for: no machine with Windows was at hand, so this stands in."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from fakes import ROOT

MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
ATTRIBUTES = {
    "os": (
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "chown", "chroot", "fchmod"),
        *("fchown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getloadavg", "getpgid"),
        *("getuid", "killpg", "lchown", "mkfifo", "nice", "openpty", "pread", "pwrite"),
        *("sched_getaffinity", "setpgid", "setsid", "setuid", "statvfs", "sync", "sysconf"),
        *("uname", "wait", "wait3", "wait4"),
    ),
    "signal": (
        *("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGTSTP", "SIGUSR1", "SIGUSR2"),
        *("alarm", "pause", "pthread_sigmask", "setitimer", "siginterrupt", "sigwait"),
    ),
    "socket": ("AF_UNIX", "SO_REUSEPORT"),
}
GUARDED = "runs/lock.py"  # says `if sys.platform == "win32"`, which the second test takes

# The library's rooms are imported twice: what others import is then loaded, and stays whole.
AS_ON_WINDOWS = """
import importlib, os, pkgutil, signal, socket, sys, types
from pathlib import Path

def load():
    import remask
    for module in pkgutil.walk_packages(remask.__path__, "remask."):
        importlib.import_module(module.name)

load()
import fcntl
msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_UNLCK, msvcrt.LK_NBLCK = 0, 2

def locking(descriptor, mode, count):
    assert count == 1 and os.lseek(descriptor, 0, os.SEEK_CUR) > 1000, "the name must be readable"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if mode else fcntl.LOCK_UN)
    except BlockingIOError as error:
        raise PermissionError(13, "Permission denied") from error

msvcrt.locking = locking
for name in [name for name in sys.modules if name.partition(".")[0] == "remask"]:
    del sys.modules[name]
attributes, modules = eval(sys.argv[2]), eval(sys.argv[3])
for module, names in attributes.items():
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
sys.modules.update(dict.fromkeys(modules), msvcrt=msvcrt)
sys.platform = "win32"
load()

from remask.errors import RunBusy
from remask.runs.lock import RunLock

folder = Path(sys.argv[1])
first = RunLock.take(folder)
try:
    RunLock.take(folder)
except RunBusy as busy:
    assert str(os.getpid()) in str(busy), busy
else:
    raise AssertionError("taken twice")
first.release()
RunLock.take(folder).release()
print("done")
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_module_loads_and_a_run_is_locked(tmp_path: Path) -> None:
    command = [sys.executable, "-c", AS_ON_WINDOWS, str(tmp_path), repr(ATTRIBUTES), repr(MODULES)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.endswith("done\n"), done.stderr


def test_no_function_asks_for_what_windows_lacks() -> None:
    found = []
    for path in sorted((ROOT / "src" / "remask").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name in MODULES]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                missing = ATTRIBUTES.get(node.value.id, ())
                names = [node.attr] if node.attr in missing else []
            else:
                names = []
            found += [f"{path}:{node.lineno}: {name}" for name in names if GUARDED not in str(path)]
    assert not found
