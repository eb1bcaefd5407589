"""How threads wait for each other, settled before torch is loaded. No torch; sets the environment.

Standard variable of OpenMP, read once when torch loads its library: libgomp, LLVM's and Intel's
alike. A thread that waits at a barrier spins by default, for milliseconds, and on cores that others
use as well a step of the tiny preset took 1,700 to 2,050 ms instead of 126 to 134 ms (two shared
cores, torch 2.13).
"""

import os

VARIABLE = "OMP_WAIT_POLICY"


def let_threads_sleep() -> None:
    """Have idle threads sleep, unless the environment says otherwise; to be called before torch."""
    os.environ.setdefault(VARIABLE, "PASSIVE")
