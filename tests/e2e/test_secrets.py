# SPDX-License-Identifier: MIT
"""Where secrets must not be: in core files, in files that others can read, in logs.

That no token and no line of a private key is in any log is looked at after every test, in
culvert.py; here is proven that this look finds something.
"""
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from culvert import BIN, free_port, wait_for

NOBODY = 65534
BAD_MODES = [0o644, 0o604, 0o602]


def crash(folder, env, token):
    """Starts an agent that holds a token and kills it with SIGSEGV, core files allowed. Gives
    whether the kernel dumped core, and the file if there is one."""
    folder.mkdir()

    def allow():
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
        os.chdir(folder)
    process = subprocess.Popen(
        [str(BIN), "http", "1", "--server", f"ws://127.0.0.1:{free_port()}", "--name", "home"],
        env={**env, "CULVERT_TOKEN": token}, preexec_fn=allow, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: b"reconnect" in (line := process.stderr.readline()) or b"refused" in line,
                 20, "log record of the agent")
        process.send_signal(signal.SIGSEGV)
        _, status = os.waitpid(process.pid, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.returncode = 0
        process.stderr.close()
    files = [path for path in folder.iterdir() if path.is_file()]
    return os.WCOREDUMP(status), files


def is_sanitized():
    return b"__asan_" in BIN.read_bytes() or b"__tsan_" in BIN.read_bytes()


def test_a_crash_leaves_no_core_file_with_secrets(world):
    if is_sanitized():
        pytest.skip("sanitizers handle SIGSEGV themselves")
    token = world.token()
    env = world.env()
    env.pop("CULVERT_DUMPABLE", None)
    has_dumped, files = crash(world.folder / "as-shipped", env, token)
    assert not has_dumped
    assert not files
    # The same crash with dumping allowed, to see that this machine would have written the token.
    has_dumped, files = crash(world.folder / "dumpable", {**env, "CULVERT_DUMPABLE": "1"}, token)
    if not has_dumped or not files:
        pytest.skip("no core either way: this system writes none to a file here")
    assert any(token.encode() in path.read_bytes() for path in files)


def test_other_processes_of_the_user_cannot_read_its_memory(world):
    """Seen by who owns /proc/PID/mem: root, whoever runs it (proc(5))."""
    if os.geteuid() != 0:
        pytest.skip("wants root, to run the relay as another user")
    if is_sanitized():
        pytest.skip("the leak sanitizer must attach to its own process")
    # pytest's folders are root's alone.
    state = Path(tempfile.mkdtemp(prefix="culvert-nobody-"))
    os.chown(state, NOBODY, NOBODY)
    try:
        for choice, owner in ((None, 0), ("1", NOBODY)):
            assert owner_of_memory(world.env({"CULVERT_STATE_DIR": state, "HOME": state,
                                              "CULVERT_DUMPABLE": choice})) == owner
    except PermissionError:
        pytest.skip("another user cannot run the program from here")
    finally:
        shutil.rmtree(state)


def owner_of_memory(env):
    """Of a relay that runs as nobody."""
    process = subprocess.Popen(
        [str(BIN), "server", "--dev", "--listen", f"127.0.0.1:{free_port()}"], env=env,
        user=NOBODY, group=NOBODY, extra_groups=[], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert b"host key" in process.stderr.readline()
        return Path(f"/proc/{process.pid}/mem").stat().st_uid
    finally:
        process.terminate()
        process.communicate(timeout=20)


def refused(world, config, *words):
    path = world.write("relay.yaml", config)
    done = world.run("server", "--listen", f"127.0.0.1:{free_port()}", *words, "-c", path)
    assert done.returncode == 1
    assert "TUNNEL_" in done.stderr and "chmod 600" in done.stderr
    return done.stderr


@pytest.mark.parametrize("mode", BAD_MODES, ids=oct)
def test_a_host_key_that_others_can_read_is_refused(world, mode):
    path = world.folder / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    path.chmod(mode)
    assert "host_key" in refused(world, f"ssh:\n  host_key_file: {path}\n", "--dev")


@pytest.mark.parametrize("mode", BAD_MODES, ids=oct)
def test_a_tls_key_that_others_can_read_is_refused(world, authority, mode):
    cert, key = authority.issue()
    before = key.stat().st_mode
    key.chmod(mode)
    try:
        said = refused(world, f"tls:\n  cert_file: {cert}\n  key_file: {key}\n", "--dev")
        assert key.name in said
    finally:
        key.chmod(before)


@pytest.mark.parametrize("mode", BAD_MODES, ids=oct)
def test_an_hmac_secret_that_others_can_read_is_refused(world, mode):
    path = world.write("secret", "0123456789abcdef" * 4)
    path.chmod(mode)
    said = refused(world, f"""
listen: ["127.0.0.1:{free_port()}"]
trusted_proxy: [127.0.0.1/32]
auth:
  issuer: https://issuer.example/
  audience: [relay]
  algorithms: [HS256]
  secret_file: {path}
""")
    assert "secret" in said


def test_keys_are_made_for_their_owner_alone(world):
    old = os.umask(0)
    try:
        world.relay()
    finally:
        os.umask(old)
    made = [path for path in world.state.rglob("*") if path.is_file() and "key" in path.name]
    assert len(made) >= 2
    for path in made:
        assert path.stat().st_mode & 0o777 == 0o600, path
    assert world.state.stat().st_mode & 0o077 == 0


def test_the_look_for_secrets_in_logs_finds_them(world):
    relay = world.relay()
    assert not relay.complaints()
    path, text = world.key_texts()[0]
    assert path.is_relative_to(world.state) and len(text) >= 24
    relay.lines.append(f"a line with {text} in it")
    try:
        assert any("is in the log" in complaint for complaint in relay.complaints())
    finally:
        relay.lines.pop()


