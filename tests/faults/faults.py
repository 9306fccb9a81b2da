# SPDX-License-Identifier: MIT
"""Makes calls of a running program fail: the page that shim.c reads, from the test's side.

    faults = Faults(folder)                     # one page per process that is to fail
    relay = world.relay(env=faults.env())
    faults.fail("accept", errno.EMFILE)         # every accept4 from now on
    faults.fail("memory", errno.ENOMEM, chance=0.01, count=20)
    faults.shorten("socket_read", 1)            # one byte at a time
    faults.clear()

The seed of the random choices is printed, and FAULTS_SEED repeats a run as far as threads allow.
"""
import ctypes
import mmap
import os
import random
import struct
import subprocess
from pathlib import Path

from culvert import INSTRUMENTS

# As in shim.c, in its order.
KINDS = ["socket_read", "socket_write", "file_read", "file_write", "pipe_write", "accept", "socket",
         "connect", "open", "epoll_wait", "epoll_ctl", "eventfd", "random", "memory", "any_memory",
         "sync", "rename", "link", "thread"]
ALWAYS = 1 << 20
HEAD_WORDS, RULE_WORDS = 2, 8
ERROR, ERROR_CHANCE, ERROR_SKIP, ERROR_LEFT, SHORT_MAX, SHORT_CHANCE, SEEN, HITS = \
    range(RULE_WORDS)
FOREVER = (1 << 64) - 1

IS_TSAN = "tsan" in INSTRUMENTS


def build_shim(folder):
    """Compiles shim.c; the path of the shared object."""
    target = Path(folder) / "shim.so"
    source = Path(__file__).parent / "shim.c"
    subprocess.run(["gcc", "-std=gnu2x", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2",
                    "-fPIC", "-shared", "-fno-builtin", "-o", target, source, "-ldl"], check=True)
    return target


class Faults:
    def __init__(self, path, shim):
        self.path = Path(path)
        self.shim = shim
        size = 8 * (HEAD_WORDS + RULE_WORDS * len(KINDS))
        self.path.write_bytes(bytes(size))
        with open(self.path, "r+b") as file:
            self.page = mmap.mmap(file.fileno(), size)
        seed = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().getrandbits(63))
        print(f"FAULTS_SEED={seed}")
        self._put(0, seed)

    def env(self):
        """What makes a program load the shim. The sanitizer's runtime need not come first: its
        malloc is what the shim's goes to."""
        # What counts coverage writes its files at the end, and takes memory for granted there.
        end = {"FAULTS_UNTIL_EXIT": "1"} if "coverage" in INSTRUMENTS else {}
        return {"LD_PRELOAD": self.shim, "FAULTS_FILE": self.path, **end,
                "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}

    def _put(self, word, value):
        struct.pack_into("=Q", self.page, 8 * word, value & FOREVER)

    def _word(self, kind, field):
        return HEAD_WORDS + RULE_WORDS * KINDS.index(kind) + field

    def _get(self, kind, field):
        return struct.unpack_from("=Q", self.page, 8 * self._word(kind, field))[0]

    def fail(self, kind, error, chance=1.0, count=FOREVER, skip=0):
        """From now on, after `skip` more, calls of this kind fail with this errno, `count` of
        them."""
        self._put(self._word(kind, ERROR), 0)
        self._put(self._word(kind, ERROR_CHANCE), int(chance * ALWAYS))
        self._put(self._word(kind, ERROR_SKIP), skip)
        self._put(self._word(kind, ERROR_LEFT), count)
        self._put(self._word(kind, ERROR), error)

    def shorten(self, kind, most, chance=1.0):
        """Transfers of this kind move 1 to `most` bytes."""
        self._put(self._word(kind, SHORT_CHANCE), int(chance * ALWAYS))
        self._put(self._word(kind, SHORT_MAX), most)

    def step_clock(self, seconds):
        """Wall-clock time is that much later (or earlier) for the program."""
        self._put(1, ctypes.c_uint64(int(seconds * 1000)).value)

    def clear(self):
        for kind in KINDS:
            self._put(self._word(kind, ERROR), 0)
            self._put(self._word(kind, SHORT_MAX), 0)
        self._put(1, 0)

    def hits(self, kind):
        return self._get(kind, HITS)

    def seen(self, kind):
        return self._get(kind, SEEN)
