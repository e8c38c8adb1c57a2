"""A network of our own: nothing outside is reached, and nothing outside reaches Orthanc, which listens everywhere."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.tools import program

CLONE_NEWNET = 0x40000000  # <linux/sched.h>; os.unshare comes with Python 3.12


@contextmanager
def loopback_only() -> Iterator[bool]:
    """This thread and what it starts see only a loopback of their own while the block runs; whether that was allowed.

    Where the kernel does not permit it (not root, or a narrow container), the block runs in the network as it is.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        alone = libc.unshare(CLONE_NEWNET) == 0
        if alone:
            subprocess.run([program("ip"), "link", "set", "lo", "up"], check=True)
        try:
            yield alone
        finally:
            if alone and libc.setns(before, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "cannot return to the network of the other tests")
    finally:
        os.close(before)
