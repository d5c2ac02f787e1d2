"""For Python on Linux, with this folder in PYTHONPATH: what a harness on macOS finds missing is
missing here too. It cannot show what is there instead, nor what behaves differently."""

import os
import sys
import sysconfig
import time

import psutil  # noqa: F401 - it and the next have to know where they are

sysconfig.get_config_vars()
for name in (
    *("pidfd_open", "waitid", "P_PID", "sched_getaffinity", "sched_setaffinity"),
    *("sched_setscheduler", "sched_param", "SCHED_FIFO", "SCHED_OTHER", "SCHED_RESET_ON_FORK"),
    *("copy_file_range", "posix_fadvise", "posix_fallocate", "memfd_create", "O_TMPFILE", "O_PATH"),
):
    if hasattr(os, name):
        delattr(os, name)
del time.CLOCK_BOOTTIME
sys.platform = "darwin"
