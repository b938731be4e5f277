"""How a process of the command line ends: a sentence and an exit code in place of a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType

from tasktokens.errors import OtherRankError, TaskTokensError
from tasktokens.utils import console


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Errors of the user in the block are one sentence and exit code 2; Ctrl-C exits with 130, SIGTERM with 143."""
    # By an exception, so that what is half done is cleaned up on the way out.
    before = signal.signal(signal.SIGTERM, _end)
    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)  # a terminal that was closed; nohup ignores it
    before_hangup = signal.getsignal(hangup)
    if before_hangup != signal.SIG_IGN:
        signal.signal(hangup, _end)
    try:
        yield
    except SystemExit as leaving:
        if not leaving.code and _ranks_joined():
            # Threads of gloo that outlive Python now and then abort a process that has done all its work. Only here:
            # where one rank alone has failed, leaving could wait for the others.
            sys.modules["torch.distributed"].destroy_process_group()
        raise
    except OtherRankError:
        sys.exit(2)  # that rank has printed it
    except TaskTokensError as error:
        _wait_for_first_rank()
        console.say(f"error: {' '.join(str(error).split())}")
        sys.exit(2)
    except BrokenPipeError:  # the reader of the output, such as head, has seen enough
        console.close_lost_streams()
        sys.exit(0)
    except OSError as error:
        console.say(f"error: {_about_system(error)}")
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        console.say(
            "error: this needs torch, which is not installed: pip install tasktokens; without it 'predict' takes an "
            "exported model (.onnx, .xml) and images, without --tile and videos"
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except RuntimeError as error:
        if not _ranks_joined() or not sys.modules["tasktokens.utils.distributed"].lost_contact(error):
            raise
        console.say(f"error: rank {launched_rank()} has lost contact with another rank, which says why")
        sys.exit(2)
    finally:
        if (processes := sys.modules.get("tasktokens.utils.processes")) is not None:
            processes.kill_remaining()  # while signals are still caught: one that hangs would outlive this process
        signal.signal(hangup, before_hangup)
        signal.signal(signal.SIGTERM, before)


def launched_rank() -> int:
    """Which of the processes that a launcher started this one is; 0 without a launcher."""
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdigit() else 0


def _about_system(error: OSError) -> str:
    """What happens to a disk or a folder is no fault of the program: full, read-only, a name that is too long."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left on the disk{where}; free some space, then resume or start again"
    return f"{error.strerror or error}{where}; check that the path exists and is accessible"


def _ranks_joined() -> bool:
    torch = sys.modules.get("torch.distributed")
    return torch is not None and torch.is_available() and torch.is_initialized()


def _wait_for_first_rank() -> None:
    """Before ranks are connected all meet the same error: the first reports it, the launcher then ends the others."""
    if launched_rank() > 0 and not _ranks_joined():
        time.sleep(3)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)
