# SPDX-License-Identifier: MIT
"""Starting where the system refuses something: a clear word and exit code 1, or a start without
it; never a crash, a hang or half a process."""
import contextlib
import errno
import json
import subprocess

import pytest
from attack import IS_SANITIZED
from client import fetch
from culvert import BIN, SANITIZER, free_port, wait_for

CALLS = [("socket", errno.EMFILE), ("open", errno.EMFILE), ("open", errno.ENFILE),
         ("eventfd", errno.EMFILE), ("thread", errno.EAGAIN), ("memory", errno.ENOMEM)]


def start(world, faults, *words):
    """Runs until it is ready or has ended; (exit code or None, log)."""
    port = free_port()
    log = world.folder / "start.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [str(BIN), "server", "--dev", "--listen", f"127.0.0.1:{port}", "--workers", "2", *words],
            env=world.env(faults.env()), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=out)

    def look():
        if process.poll() is not None:
            return True
        with contextlib.suppress(OSError, AssertionError):
            return fetch(port, "/readyz", timeout=2).status == 200
        return False
    try:
        wait_for(look, 30, "start or end")
        code = process.poll()
        if code is None:
            faults.clear()
            process.terminate()
            assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
    text = log.read_text()
    assert not SANITIZER.search(text), text
    return code, text


@pytest.mark.parametrize(("call", "error"), CALLS,
                         ids=[f"{call}-{errno.errorcode[error]}" for call, error in CALLS])
def test_a_start_that_is_refused_something_says_so(world, new_faults, call, error):
    faults = new_faults()
    faults.fail(call, error)
    code, text = start(world, faults)
    assert faults.hits(call)
    assert code in (1, None), text
    if code == 1:
        assert "culvert" in text, "it ended without a word"


@pytest.mark.parametrize(("call", "error"), [("socket", errno.EMFILE), ("open", errno.EMFILE),
                                             ("eventfd", errno.EMFILE), ("thread", errno.EAGAIN)],
                         ids=["socket", "open", "eventfd", "thread"])
def test_each_call_of_a_start_may_fail(world, new_faults, call, error):
    """The first, the second, …: one failure each, until a start sees none."""
    for skip in range(60):
        faults = new_faults()
        faults.fail(call, error, count=1, skip=skip)
        code, text = start(world, faults)
        assert code in (1, None), (skip, text)
        if not faults.hits(call):
            assert code is None
            return
    raise AssertionError(f"a start has more than 60 calls of {call}")


def test_allocations_of_a_start_may_fail(world, new_faults):
    """A sample of them; relay_alloc_test has them all, without main()."""
    for skip in range(0, 400, 40 if IS_SANITIZED else 20):
        faults = new_faults()
        faults.fail("memory", errno.ENOMEM, count=1, skip=skip)
        code, text = start(world, faults)
        assert code in (1, None), (skip, text)


@pytest.mark.parametrize("words", [["token", "--dev", "--sub", "alice"], ["config", "show"],
                                   ["config", "show", "--json"]], ids=" ".join)
def test_allocations_of_a_command_may_fail(world, new_faults, words):
    faults = new_faults()
    for skip in range(0, 2000, 40 if IS_SANITIZED else 7):
        faults.fail("memory", errno.ENOMEM, count=1, skip=skip)
        before = faults.hits("memory")
        done = world.run(*words, env=faults.env())
        assert done.returncode in (0, 1), (skip, done.returncode, done.stderr)
        assert done.returncode == 0 or "culvert" in done.stderr, skip
        if done.returncode == 0 and words[0] == "token":
            assert done.stdout.count(".") == 2
        if done.returncode == 0 and "--json" in words and done.stdout:
            json.loads(done.stdout)
        if faults.hits("memory") == before:
            return


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EIO], ids=errno.errorcode.get)
def test_without_randomness_nothing_goes_on(world, new_faults, error):
    """Keys, ids and nonces that could be guessed are worse than no relay."""
    token = world.token("alice")
    faults = new_faults()
    relay = world.relay(env=faults.env())
    relay.expect_error("random|crypto library")
    faults.fail("random", error)
    faults.fail("open", errno.EMFILE)  # nor /dev/urandom
    for _ in range(20):
        with contextlib.suppress(OSError, AssertionError):
            relay.fetch("/tunnel", token, headers=[
                ("Connection", "Upgrade"), ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Protocol", "culvert.v1"),
                ("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEA==")])
        if relay.process.poll() is not None:
            break
    relay.stopped = True
    assert relay.wait(10) not in (0, None)
    assert "random" in relay.tail(), relay.tail()
    done = world.run("token", "--dev", "--sub", "bob", env={**faults.env(), "CULVERT_STATE_DIR":
                                                            world.folder / "other"})
    assert done.returncode != 0 and not done.stdout


def test_randomness_that_is_interrupted_or_short_is_asked_for_again(world, new_faults):
    faults = new_faults()
    faults.fail("random", errno.EINTR, chance=0.3)
    faults.shorten("random", 3)
    relay = world.relay(env=faults.env())
    world.http(relay, world.service().port)
    assert relay.fetch("/t/home/x", world.token("alice")).status == 200
    assert faults.hits("random") > 3
