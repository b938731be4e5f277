"""What Unix has and other systems lack is taken away; then a script or a command of the package runs.

    python tests/other_systems.py FOLDER

Modules (``fcntl``, ``resource``, …), functions (``os.fork``, ``os.statvfs``, …), signals and ``/proc`` are gone, links
are refused. As under Windows a file that is open or mapped is neither
replaced nor removed, no folder is opened, and what is open for reading alone is not flushed. This is no other system;
what it shows is that nothing of ours leans on what Unix adds.
"""

from __future__ import annotations

import builtins
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "crypt", "readline")
FUNCTIONS = (
    "fork", "forkpty", "getuid", "geteuid", "getgid", "getegid", "getgroups", "setsid", "killpg", "getpgid", "getpgrp",
    "sched_getaffinity", "sched_setaffinity", "statvfs", "fstatvfs", "mkfifo", "mknod", "chown", "lchown", 
    "uname", "getloadavg", "nice", "wait3", "wait4", "pread", "pwrite", "posix_fallocate", "sendfile", "sync",
    "confstr", "sysconf", "getpriority", "initgroups", "fchdir", "chroot",
)  # fmt: skip
SIGNALS = (
    "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "SIGALRM", "SIGQUIT", "SIGSTOP", "SIGCONT",
    "SIGTSTP", "SIGXCPU", "alarm", "setitimer", "getitimer", "pause", "pthread_kill", "pthread_sigmask",
    "sigpending", "sigwait",
    "sigtimedwait", "sigwaitinfo", "siginterrupt",
)  # fmt: skip
FOLDERS = ("/proc", "/sys", "/dev/shm", "/etc")


def take_away() -> None:
    """All of it, for the rest of the process; call it when other packages are imported, which know other systems."""
    _refuse_what_is_in_use()
    _refuse_flushing()
    _hide_folders()
    os.symlink = _no_link  # type: ignore[assignment]
    os.link = _no_link  # type: ignore[assignment]
    subprocess.Popen.kill = subprocess.Popen.terminate  # type: ignore[method-assign]
    usage = shutil.disk_usage("/")
    shutil.disk_usage = lambda path: usage
    shutil._USE_CP_SENDFILE = False  # type: ignore[attr-defined]
    for name in FUNCTIONS:
        if hasattr(os, name):
            delattr(os, name)
    for name in SIGNALS:
        if hasattr(signal, name):
            delattr(signal, name)
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]


def _no_link(*arguments: object, **settings: object) -> None:
    raise OSError(1314, "A required privilege is not held by the client")


def _in_use() -> Iterator[str]:
    """The files that this process has open or mapped."""
    for handle in _listdir("/proc/self/fd"):
        try:
            yield _readlink(f"/proc/self/fd/{handle}")
        except OSError:
            continue
    with _open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        yield from {line.split(maxsplit=5)[5].rstrip("\n") for line in file if line.count("/")}


_listdir, _readlink, _open, _stat = os.listdir, os.readlink, builtins.open, os.stat


def _refuse_what_is_in_use() -> None:
    shutil._use_fd_functions = False  # type: ignore[attr-defined]

    def careful(function: Callable[..., Any], both: bool) -> Callable[..., Any]:
        def inner(path: Any, *more: Any, **settings: Any) -> Any:
            for each in (path, *more[:1]) if both else (path,):
                real = os.path.realpath(os.fsdecode(each))
                for used in _in_use():
                    if "lock" in os.path.basename(used):  # of filelock, which has another way elsewhere
                        continue
                    if used == real or used.startswith(real + os.sep):
                        raise PermissionError(errno.EACCES, f"{used} is used by this process", os.fsdecode(each))
            return function(path, *more, **settings)

        return inner

    for name in ("replace", "rename"):
        setattr(os, name, careful(getattr(os, name), both=True))
    for name in ("unlink", "remove", "rmdir"):
        setattr(os, name, careful(getattr(os, name), both=False))


def _refuse_flushing() -> None:
    import fcntl

    sync, open_ = os.fsync, os.open

    def fsync(handle: Any) -> None:
        number = handle if isinstance(handle, int) else handle.fileno()
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        sync(handle)

    def open_no_folder(path: Any, *more: Any, **settings: Any) -> int:
        if isinstance(path, str | bytes | os.PathLike) and os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_(path, *more, **settings)

    os.fsync, os.open = fsync, open_no_folder


def _hide_folders() -> None:
    def hidden(path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and str(path).startswith(FOLDERS)

    def stat(path: Any, *more: Any, **settings: Any) -> os.stat_result:
        if hidden(path):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return _stat(path, *more, **settings)

    os.stat = stat


# -- the path of a user ------------------------------------------------------------------------------------------------
def run(*words: object) -> None:
    """A command of the package in this process; any exit code but 0 ends it."""
    from tasktokens import cli

    print("+", *words, flush=True)
    sys.argv = ["tasktokens", *map(str, words)]
    try:
        cli.main()
    except SystemExit as stop:
        if stop.code:
            raise


def walk(folder: Path) -> None:
    """check, train, stop, resume, evaluate, predict, discover, train on that, review, compare with the first."""
    import tasktokens

    data, mine = folder / "my data", folder / "runs" / "mine"
    settings = [
        f"data.root={data.as_posix()}", f"run.dir={mine.as_posix()}", "data.size=[32,48]", "data.labels=one",
        "model.backbone=test_resnet", "model.pretrained=false", "model.width=16", "method.stage1_steps=6",
        "method.stage2_steps=4", "optim.batch_size=2", "optim.warmup=1", "run.device=cpu", "run.threads=1",
        "run.checkpoint_every=2", "run.keep=1", "run.evaluate=test", "data.holdout=0.34", "run.validate_every=3",
    ]  # fmt: skip
    run("check", data, "--html", folder / "check.html", "-q")
    configuration = tasktokens.load_config(None, settings)
    try:
        tasktokens.train(configuration, quiet=True, callbacks=[_stop_at(4)])
        raise AssertionError("it was to be stopped")
    except KeyboardInterrupt:
        print("+ stopped", flush=True)
    run("train", "--resume", f"run.dir={mine.as_posix()}", "-q")
    run("evaluate", mine, "--split", "test")
    run("predict", mine, next((data / "images").iterdir()), "--out", folder / "predicted", "-q")
    run("discover", mine, "--out", folder / "filled", "--threshold", "0.01", "--page", "--pictures", "-q")
    run("discover", mine, "--out", folder / "filled", "--overwrite", "-q")
    run("review", folder / "filled", "--top", "3", "-q")
    run("train", *(word for word in settings if "root=" not in word and "run.dir" not in word), "-q",
        f"data.root={(folder / 'filled').as_posix()}", f"run.dir={(folder / 'runs' / 'again').as_posix()}")  # fmt: skip
    run("train", *settings, "--overwrite", "-q")
    run("runs", folder / "runs")
    run("push", mine, "--out", folder / "shared")
    run("push", mine, "--out", folder / "shared", "--overwrite")
    print("+ done")


def _stop_at(step: int) -> Any:
    from tasktokens import Callback

    class Stop(Callback):
        def on_step(self, trainer: Any) -> None:
            if trainer.step == step:
                raise KeyboardInterrupt

    return Stop()


def main() -> None:
    """Import what is there already on other systems, take away, and go through the verbs."""
    import processes

    for name in processes.PRELOAD:
        __import__(name)
    import platform

    platform.platform()  # which keeps its answer
    take_away()
    walk(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
