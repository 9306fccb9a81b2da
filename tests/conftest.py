# SPDX-License-Identifier: MIT
"""Fixtures of every folder here: a world per test, and worlds that a module's tests share where
starting one for each would only take time. The harness that they come from lies in e2e/; names of
test files are unique over all folders."""
import os
import secrets
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

for folder in ("e2e", "conformance", "adversarial", "interop", "resilience", "observability"):
    sys.path.insert(0, str(Path(__file__).parent / folder))

import culvert  # noqa: E402
from culvert import World  # noqa: E402
from scene import Scene  # noqa: E402

pytest_plugins = ["clauses_plugin", "rows_plugin", "interop_plugin", "figures_plugin"]
DEFAULT_WORKERS = int(os.environ.get("CULVERT_TEST_WORKERS", "2"))

# Folders and files whose bounds are wide, or that are skipped, where the program has sanitizers.
PLAIN = ("adversarial/", "observability/", "e2e/test_hardening.py", "e2e/test_secrets.py",
         "e2e/test_basic.py", "interop/test_scanners.py")


def pytest_collection_modifyitems(items):
    for item in items:
        place = Path(item.path).relative_to(Path(__file__).parent).as_posix()
        if place.startswith(PLAIN):
            item.add_marker("plain")


def pytest_sessionstart(session):
    if not culvert.BIN.exists() and not culvert.PEERS.exists():
        raise pytest.UsageError(f"nothing to test: {culvert.BIN} is not there, run make")


@pytest.fixture
def workers():
    """How many workers the relay has; tests override it with parametrize."""
    return DEFAULT_WORKERS


@pytest.fixture
def world(tmp_path, workers):
    world = World(tmp_path, workers)
    try:
        yield world
    finally:
        world.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A world for a whole module: its tests must leave it as they found it."""
    world = World(tmp_path_factory.mktemp("shared"), DEFAULT_WORKERS)
    try:
        yield world
    finally:
        world.close()


@pytest.fixture
def home(world):
    """The usual scene: a relay, an echo service published as alice's `home`."""
    return Scene(world)


@pytest.fixture(scope="module")
def shared_home(shared):
    return Scene(shared)


@pytest.fixture
def scene(world):
    """Makes a Scene with arguments of the test's own."""
    return lambda **kw: Scene(world, **kw)


class Authority:
    """Certificates made with the openssl command line."""

    def __init__(self, folder):
        self.folder = folder
        self.count = 0
        self.ca = self.folder / "ca.pem"
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                      "-nodes", "-days", "2", "-subj", "/CN=test authority",
                      "-addext", "basicConstraints=critical,CA:TRUE",
                      "-keyout", self.folder / "ca.key", "-out", self.ca)

    @staticmethod
    def _openssl(*args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)

    def issue(self, names="DNS:localhost,IP:127.0.0.1"):
        """(certificate path, key path) for these names."""
        self.count += 1
        base = self.folder / f"server{self.count}"
        cert, key, csr = base.with_suffix(".pem"), base.with_suffix(".key"), \
            base.with_suffix(".csr")
        extensions = base.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                      "-subj", f"/CN=server {self.count}", "-keyout", key, "-out", csr)
        self._openssl("x509", "-req", "-in", csr, "-CA", self.ca, "-CAkey", self.folder / "ca.key",
                      "-set_serial", str(1 << 120 | secrets.randbits(120)), "-days", "2", "-extfile", extensions,
                      "-out", cert)
        return cert, key

    def context(self):
        """What a consumer that trusts this authority uses."""
        return ssl.create_default_context(cafile=str(self.ca))


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def libssh_client(tmp_path_factory):
    """tests/peers/libssh_client.c, compiled against Debian's libssh."""
    return compile_libssh(tmp_path_factory, "libssh_client")


@pytest.fixture(scope="session")
def libssh_pump(tmp_path_factory):
    """tests/peers/libssh_pump.c, compiled against Debian's libssh."""
    return compile_libssh(tmp_path_factory, "libssh_pump")


def compile_libssh(tmp_path_factory, name):
    target = tmp_path_factory.mktemp("libssh") / name
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libssh"], check=True,
                           capture_output=True, text=True).stdout.split()
    source = culvert.ROOT / "tests" / "peers" / f"{name}.c"
    subprocess.run(["gcc", "-std=gnu2x", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1",
                    "-o", target, source, *flags], check=True)
    return target
