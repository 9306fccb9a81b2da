# SPDX-License-Identifier: MIT
"""npm packages of a folder's package.json, installed once per lock file into the build folder."""
import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import culvert
import pytest

HERE = Path(__file__).parent
FILES = ("package.json", "package-lock.json")


def install(here, label):
    """The folder that holds node_modules; skips where the packages cannot be had."""
    for program in ("node", "npm"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    name = hashlib.sha256(b"".join((here / file).read_bytes() for file in FILES)).hexdigest()[:16]
    folder = culvert.BUILD / f"{label}-npm-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            for file in FILES:
                shutil.copy(here / file, folder / file)
            # Pure JavaScript is enough: no optional native parts, no install scripts.
            done = subprocess.run(
                ["npm", "ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund",
                 "--loglevel=error"], cwd=folder, capture_output=True, text=True, timeout=120)
            if done.returncode != 0:
                pytest.skip(f"npm ci: {done.stderr.strip()[-300:]}")
            (folder / "done").touch()
    return folder


def node_environment(world):
    """Environment for node with the packages of this folder."""
    folder = install(HERE, "interop")
    return world.env({"NODE_PATH": str(folder / "node_modules"), "PATH": os.environ["PATH"]})
