"""How a training is asked to end, and that it ends with its launcher. Acts on this process only.

SIGTERM and SIGINT ask the loop to write a checkpoint and stop. `accelerate launch` waits for its
child but does not forward signals, and a launcher that is killed leaves the child running (seen
with accelerate 1.15): on Linux the kernel is asked to send SIGTERM when the parent dies.
"""

import ctypes
import os
import signal
import sys
import threading
from types import FrameType

PR_SET_PDEATHSIG = 1
"""Linux, <sys/prctl.h>."""

STOPPED_EXIT_CODE = 128 + signal.SIGTERM
"""What a shell reports of a process that SIGTERM ended."""


class StopRequest:
    """Whether someone asked to stop; callable, for the loop."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self) -> bool:
        """Say whether to stop."""
        return self._event.is_set()

    def listen(self) -> None:
        """Take over SIGTERM and SIGINT.

        A second SIGINT (an impatient person) ends the process; a second SIGTERM does not, since
        the death of the launcher sends one on top of that of whoever ended it.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._event.set()
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)


def end_with_parent() -> None:
    """Ask for SIGTERM when the launcher dies; elsewhere than on Linux, do nothing."""
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() == 1:  # it died before we asked
        os.kill(os.getpid(), signal.SIGTERM)
