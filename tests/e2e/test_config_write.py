# SPDX-License-Identifier: MIT
"""`culvert config set|reset|profiles|edit`: one key changes and nothing else of the file; what is
wrong changes nothing; agents that run take it up."""
import json
import os
import signal
import stat

import pytest
from culvert import AGENT_READY, wait_for

FILE = """\
# my agent
server: wss://relay.example.org  # the relay

tunnels:
  - name: home   # llama
    target: 11434
reconnect: {max: 20s}
# the end
"""


@pytest.fixture
def path(world):
    made = world.write("agent.yaml", FILE)
    made.chmod(0o640)
    return made


def config(world, *args, code=0):
    done = world.run("config", *args)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def shown(world, path, key):
    values = json.loads(config(world, "show", "--json", "-c", path).stdout)
    return values[key]


# -- set and reset ---------------------------------------------------------------------------------

def test_a_key_is_set_and_the_rest_stays(world, path):
    done = config(world, "set", "reconnect.max", "30s", "-c", path)
    assert "reconnect.max = 30s (was 20s)" in done.stdout
    assert path.read_text() == FILE.replace("20s", "30s")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    config(world, "set", "ws.ping_interval", "10s", "-c", path)
    config(world, "set", "ssh.ciphers", "aes256-gcm@openssh.com,aes128-gcm@openssh.com", "-c",
           path)
    config(world, "set", "proxy", "http://user:se cret@proxy.example:3128", "-c", path, code=1)
    assert path.read_text() == FILE.replace("20s", "30s").replace(
        "# the end\n",
        "ws:\n  ping_interval: 10s\n"
        "ssh:\n  ciphers: [aes256-gcm@openssh.com, aes128-gcm@openssh.com]\n# the end\n")
    assert shown(world, path, "ws.ping_interval") == "10s"
    config(world, "reset", "ws.ping_interval", "-c", path)
    config(world, "reset", "ssh.ciphers", "-c", path)
    config(world, "reset", "links", "-c", path)  # it is not there
    assert path.read_text() == FILE.replace("20s", "30s")
    config(world, "reset", "--all", "-c", path)
    assert path.read_text() == FILE.replace("reconnect: {max: 20s}\n", "")


def test_a_secret_is_written_and_never_shown(world, path):
    done = config(world, "set", "proxy", "http://user:hunter22@proxy.example:3128", "-c", path)
    assert "hunter22" not in done.stdout + done.stderr
    assert "hunter22" in path.read_text()


@pytest.mark.parametrize("args, text", [
    (["set", "ws.ping_interval", "5ms"], '"5ms", but must be a duration'),
    (["set", "ws.ping_interval", "5ms"], "1s to 10m"),
    (["set", "links", "17"], "1 to 16"),
    (["set", "log.level", "loud"], "error, warn, info, debug, trace"),
    (["set", "ws.ping_intervall", "5s"], "did you mean ws.ping_interval?"),
    (["set", "reconnect.initial", "25s"], "must not be longer than reconnect.max"),
    (["set", "tunnels", "x"], "config edit"),
    (["set", "server", "ftp://x"], "must be a URL"),
])
def test_what_is_wrong_is_told_and_changes_nothing(world, path, args, text):
    done = config(world, *args, "-c", path, code=1)
    assert text in done.stderr
    assert path.read_text() == FILE
    assert os.listdir(world.folder).count("agent.yaml") == 1
    assert not [name for name in os.listdir(world.folder) if name.startswith("agent.yaml.")]


@pytest.mark.parametrize("args", [
    ["set", "links"], ["set"], ["reset"], ["edit", "x"], ["profiles", "fast"], ["frobnicate"],
    ["set", "links", "2", "3"],
])
def test_usage(world, path, args):
    config(world, *args, "-c", path, code=2)
    assert path.read_text() == FILE


def test_without_a_file_it_is_asked_for(world):
    assert "-c FILE" in config(world, "set", "links", "2", code=2).stderr


def test_a_file_that_is_not_there_is_made(world):
    path = world.folder / "new.yaml"
    config(world, "set", "server", "wss://relay.example.org", "-c", path)
    assert path.read_text() == "server: wss://relay.example.org\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_to_a_file_stays_a_link(world, path):
    link = world.folder / "link.yaml"
    link.symlink_to(path)
    config(world, "set", "links", "2", "-c", link)
    assert link.is_symlink() and "links: 2" in path.read_text()


def test_a_relays_file(world):
    path = world.write("relay.yaml", "listen: 127.0.0.1:0\ntrusted_proxy: [127.0.0.1/32]\n"
                       "limits:\n  free: {links: 3} # few\n")
    done = config(world, "set", "limits.free.links", "5", "-c", path)
    assert "SIGHUP" in done.stdout and "limits:\n  free: {links: 5} # few\n" in path.read_text()


def test_a_broken_file_is_named_and_left_alone(world):
    path = world.write("broken.yaml", "server: [\n")
    assert "broken.yaml:" in config(world, "set", "links", "2", "-c", path, code=1).stderr
    assert path.read_text() == "server: [\n"


# -- profiles --------------------------------------------------------------------------------------

def test_profiles(world, path):
    text = config(world, "profiles").stdout
    for name in ("stable-network", "unstable-network", "low-bandwidth"):
        assert name in text
        config(world, "profiles", name, "-c", path)
        config(world, "check", "-c", path)
    assert shown(world, path, "ssh.compression") is True
    assert "# the relay" in path.read_text() and "# llama" in path.read_text()
    once = path.read_text()
    assert "nothing changes" in config(world, "profiles", "low-bandwidth", "-c", path).stdout
    assert path.read_text() == once


# -- edit ------------------------------------------------------------------------------------------

def edit(world, path, script, code=0):
    editor = world.write("editor.sh", f"#!/bin/sh\n{script}\n")
    editor.chmod(0o700)
    done = world.run("config", "edit", "-c", path, env={"VISUAL": None, "EDITOR": f"{editor} -x"})
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_edit(world, path):
    edit(world, path, 'sed -i "s/20s/40s/" "$2"')
    assert path.read_text() == FILE.replace("20s", "40s")
    done = edit(world, path, 'sed -i "s/40s/4/" "$2"', code=1)
    assert "reconnect.max" in done.stderr and path.read_text() == FILE.replace("20s", "40s")
    kept = [name for name in os.listdir(world.folder) if name.endswith(".edit.yaml")]
    assert len(kept) == 1 and kept[0] in done.stderr
    assert (world.folder / kept[0]).read_text() == FILE.replace("20s", "4")
    edit(world, path, "exit 3", code=1)
    assert path.read_text() == FILE.replace("20s", "40s")


# -- agents that run -------------------------------------------------------------------------------

def test_agents_that_run_take_it_up(world):
    relay = world.relay()
    service = world.service()
    path = world.write("agent.yaml", f"server: {relay.url}\n"
                       f"tunnels: [{{name: home, target: {service.port}}}]\n"
                       "shutdown: {drain: 1h}\n")
    other = world.http(relay, service.port, name="other")  # runs without a file
    agent = world.start("agent", "agent", "-c", path, env={"CULVERT_TOKEN": world.token(),
                                                           "CULVERT_WS_PONG_TIMEOUT": "9s"})
    agent.wait_log(AGENT_READY)
    for key, value, outcome in [
        ("shutdown.drain", "0", "in force"),
        ("ws.ping_interval", "5s", "in force for the next link"),
        ("ws.pong_timeout", "5s", "stays, a flag or the environment sets it"),
        ("log.level", "warn", "stays, a flag or the environment sets it"),
        ("links", "2", "takes a restart"),
    ]:
        done = config(world, "set", key, value, "-c", path)
        assert f"agent {agent.pid}  {key}: {outcome}\n" in done.stdout, done.stdout
        assert f"agent {other.pid}" not in done.stdout
    assert len(agent.find("setting_changed")) == 4
    assert not other.find("setting_changed")
    # It is so: with an hour to drain the end would wait for the connection that is kept.
    assert relay.fetch("/t/home/x", world.token()).status == 200
    agent.signal(signal.SIGTERM)
    agent.wait(10)
    # And after a restart.
    again = world.start("again", "agent", "-c", path, env={"CULVERT_TOKEN": world.token()})
    again.wait_log(AGENT_READY)
    wait_for(lambda: len(again.find("link_up")) == 2, what="two links")


def test_an_agent_refuses_what_makes_no_sense(world):
    path = world.write("agent.yaml", "server: ws://127.0.0.1:9\n"
                       "tunnels: [{name: home, target: 80}]\n")
    agent = world.start("agent", "agent", "-c", path, env={"CULVERT_TOKEN": "a.b.c"})
    socket = world.state / "run" / f"{agent.pid}.sock"
    wait_for(socket.exists, what="the control socket")
    import socket as library
    with library.socket(library.AF_UNIX) as asking:
        asking.connect(str(socket))
        answers = asking.makefile("rb")
        for question in ({}, {"settings": []}, {"settings": {"links": 2}},
                         {"settings": {"nothing": "1"}}, {"settings": {"reconnect.max": "1ms"}},
                         {"settings": {f"k{i}": "1" for i in range(65)}}):
            asking.sendall(json.dumps({"command": "set", **question}).encode() + b"\n")
            assert json.loads(answers.readline())["error"]["message"], question
        asking.sendall(b'{"command":"status"}\n')
        assert json.loads(answers.readline())["config"] == str(path)
