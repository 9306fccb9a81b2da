# SPDX-License-Identifier: MIT
"""The command line: exit codes, help, config check, nothing secret on it."""
import json
import re

import pytest
from culvert import free_port, wait_for

COMMANDS = ["server", "agent", "http", "tcp", "forward", "stdio", "token", "demo", "config",
            "version"]


@pytest.fixture
def run(world):
    return world.run


def test_version(run):
    done = run("version", check=0)
    assert re.match(r"culvert \d+\.\d+\.\d+", done.stdout)
    assert run("--version", check=0).stdout == done.stdout


def test_version_as_json(run):
    assert json.loads(run("version", "--json", check=0).stdout)["version"]


@pytest.mark.parametrize("words", [["--help"], ["help"], ["-h"]])
def test_help_names_every_command(run, words):
    done = run(*words, check=0)
    for command in COMMANDS:
        assert re.search(rf"^\s*(culvert )?{command}\b", done.stdout, re.M), command


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(run, command):
    done = run(command, "--help", check=0)
    assert done.stdout.lower().startswith("usage: culvert " + command)
    assert "example" in done.stdout.lower()
    assert not done.stderr


@pytest.mark.parametrize("words", [
    [], ["nonsense"], ["server", "--nonsense"], ["http"], ["http", "80", "90", "--server", "ws://h"],
    ["http", "notaport", "--server", "ws://127.0.0.1:1"], ["http", "11434"], ["forward", "1"],
    ["http", "70000", "--server", "ws://127.0.0.1:1"], ["config", "nonsense"],
    ["http", "80", "--server", "gopher://x"], ["http", "80", "--server", "ws://127.0.0.1:1",
                                               "--name", "Bad_Name"],
    ["http", "80", "--server", "ws://127.0.0.1:1", "--preset", "nonsense"],
    ["token", "--sub", "alice"], ["token", "--dev"], ["token", "--dev", "--sub", "a", "--ttl", "x"],
    ["server", "--workers", "many"], ["server", "--listen", "nowhere"]])
def test_wrong_usage_is_2(run, words):
    done = run(*words, env={"CULVERT_TOKEN": "x.y.z"})
    assert done.returncode == 2, done.stderr
    assert done.stderr and not done.stdout


def test_a_mistyped_command_or_option_gets_a_suggestion(run):
    assert "server" in run("servr").stderr
    assert "--server" in run("http", "80", "--sever", "x").stderr


@pytest.mark.parametrize("command", ["http", "tcp", "stdio", "forward", "agent", "server"])
def test_tokens_do_not_go_on_the_command_line(run, command):
    done = run(command, "--token", "secret.secret.secret")
    assert done.returncode == 2
    assert "secret.secret" not in done.stderr


def test_a_wrong_flag_is_named_once(run):
    done = run("server", "--dev", "--listen", "nope")
    assert done.returncode == 2
    assert done.stderr.startswith('--listen is "nope", but must be a list of addresses')


def test_no_token_at_all_is_3(run, world):
    relay = world.relay()
    done = run("stdio", "--server", relay.url, env={"CULVERT_TOKEN": None}, input="")
    assert done.returncode == 3 and "CULVERT_TOKEN" in done.stderr


def test_a_refused_token_is_3(run, world):
    relay = world.relay()
    done = run("stdio", "--server", relay.url, env={"CULVERT_TOKEN": "a.b.c"}, input="")
    assert done.returncode == 3, done.stderr
    done = run("http", "80", "--server", relay.url, env={"CULVERT_TOKEN": "a.b.c"})
    assert done.returncode == 3, done.stderr
    assert "a.b.c" not in done.stderr + done.stdout


def test_an_unreachable_relay_is_4(run):
    done = run("stdio", "--server", f"ws://127.0.0.1:{free_port()}",
               env={"CULVERT_TOKEN": "a.b.c"}, input="")
    assert done.returncode == 4, done.stderr


def test_an_agent_goes_on_trying_an_unreachable_relay(world):
    service = world.service()
    port = free_port()
    token = world.token()
    agent = world.start("agent", "http", service.port, "--server", f"ws://127.0.0.1:{port}",
                        "--name", "home", env={"CULVERT_TOKEN": token})
    agent.expect_error(".*")
    wait_for(lambda: agent.find(text="refused"), 10, "failed try")
    relay = world.relay(port=port)
    agent.wait_log("tunnel_published", timeout=10)
    assert relay.fetch("/t/home/", token).status == 200


def test_a_token_file_is_read_again_when_it_changes(world):
    service = world.service()
    relay = world.relay()
    path = world.write("token", "a.b.c\n")
    path.write_text(world.token() + "\n")
    agent = world.start("agent", "http", service.port, "--server", relay.url, "--name", "home",
                        "--token-file", path, env={"CULVERT_TOKEN": None})
    agent.wait_log("tunnel_published")
    port = relay.port
    path.write_text(world.token("alice", "--ttl", "2h") + "\n")
    relay.stop()
    world.relay(port=port)
    wait_for(lambda: len(agent.find("tunnel_published")) >= 2, 20, "second publication")


def test_output_that_is_no_terminal_has_no_colours(world):
    for words in (["--help"], ["version"], ["nonsense"]):
        done = world.run(*words)
        assert "\x1b" not in done.stdout + done.stderr


def test_help_of_a_command_is_asked_for_either_way(run):
    assert run("help", "http", check=0).stdout == run("http", "--help", check=0).stdout
    assert "server" in run("help", "servr").stderr


@pytest.mark.parametrize("words", [["server", "--dev", "--listen"], ["forward"]])
def test_a_port_in_use_is_told_whoever_uses_it(world, words):
    """SO_REUSEPORT must not let a second relay take every other connection of the first."""
    relay = world.relay()
    more = [] if words[0] == "server" else ["home", "--server", relay.url]
    done = world.run(*words, f"127.0.0.1:{relay.port}", *more,
                     env={"CULVERT_TOKEN": world.token()})
    assert done.returncode == 1, done.stderr
    assert "Address already in use" in done.stderr


def test_token_prints_nothing_but_the_token(run):
    done = run("token", "--dev", "--sub", "alice", check=0)
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", done.stdout)


# -- configuration ---------------------------------------------------------------------------------

def check(world, text, *flags):
    path = world.write("culvert.yaml", text)
    return world.run("config", "check", "-c", path, *flags), path


def test_a_good_configuration_passes(world):
    done, _ = check(world, "listen: ['127.0.0.1:8080']\nworkers: 2\nlog: {level: debug}\n", "--dev")
    assert done.returncode == 0, done.stderr + done.stdout
    done, _ = check(world, "server: wss://relay.example\ntunnels:\n  - {name: home, target: '80'}\n")
    assert done.returncode == 0, done.stderr + done.stdout


def test_config_check_says_what_the_start_would_say(world):
    done, path = check(world, "trusted_proxy: ::1\nauth: {jwks_file: j.json}\n")
    assert done.returncode == 1
    assert "auth.issuer is missing" in done.stderr and "auth.audience is missing" in done.stderr
    started = world.run("server", "-c", path)
    assert started.returncode == 1 and started.stderr == done.stderr


def test_a_bad_agent_file_is_not_taken_for_a_relay_s(world):
    done, _ = check(world, "server: wss://relay.example\ntunnels:\n"
                           "  - {name: Home, target: 'a:b', preset: x}\n")
    assert done.returncode == 1 and "no setting" not in done.stderr, done.stderr
    assert "tunnels[0].preset" in done.stderr and "is missing" not in done.stderr


@pytest.mark.parametrize("text, line, key, words", [
    ("workers: 2\nlisten: ['127.0.0.1:8080']\nws:\n  ping_interval: 1ms\n", 4, "ws.ping_interval",
     ["1ms"]),
    ("workers: 99999\n", 1, "workers", ["99999", "256"]),
    ("listen: ['127.0.0.1:8080']\nworkerz: 2\n", 2, "workerz", []),
    ("workers: many\n", 1, "workers", ["many"]),
    ("log:\n  level: loud\n", 2, "log.level", ["loud", "debug"]),
    ("limits:\n  head_bytes: 1GiB\n", 2, "limits.head_bytes", ["1GiB"]),
    ("workers: 1\nworkers: 2\n", 2, "workers", []),
    ("trusted_proxy: [10.0.0.0/99]\n", 1, "trusted_proxy", ["10.0.0.0/99"]),
])
def test_mistakes_are_named_by_file_line_key_value_and_range(world, text, line, key, words):
    done, path = check(world, text)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert re.search(rf"{re.escape(path.name)}:{line}\b", said), said
    assert key in said
    for word in words:
        assert word in said, said


def test_all_mistakes_are_told_at_once(world):
    done, _ = check(world, "workers: many\nlog: {level: loud}\nnonsense: 1\n")
    said = done.stdout + done.stderr
    assert all(word in said for word in ("many", "loud", "nonsense"))


def test_flags_go_before_environment_before_file(world):
    path = world.write("culvert.yaml", "log: {level: error}\nworkers: 1\n")
    shown = world.run("config", "show", "-c", path, env={"LOG_LEVEL": "trace"}, check=0).stdout
    assert re.search(r"level: \"?trace", shown) and re.search(r"workers: \"?1", shown)
    shown = world.run("config", "show", "-c", path, env={"LOG_LEVEL": None}, check=0).stdout
    assert re.search(r"level: \"?error", shown)


def test_config_show_as_json(world):
    path = world.write("agent.yaml", "server: wss://relay.example\ntunnels:\n"
                                     "  - {name: home, target: '80', allow: ['GET /a\"b']}\n")
    shown = json.loads(world.run("config", "show", "--json", "-c", path, check=0).stdout)
    assert shown["server"] == "wss://relay.example" and shown["ws.ping_interval"] == "30s"
    assert shown["tunnels"][0]["allow"] == ['GET /a"b'] and shown["token_file"] is None
    shown = json.loads(world.run("config", "show", "--json", check=0).stdout)
    assert shown["workers"] == 0 and shown["ssh.compression"] is False


def test_a_bad_environment_value_is_named(world):
    done = world.run("server", "--dev", "--listen", f"127.0.0.1:{free_port()}",
                     env={"CULVERT_WS_PING_INTERVAL": "never"})
    assert done.returncode == 2 or done.returncode == 1
    assert "CULVERT_WS_PING_INTERVAL" in done.stderr and "never" in done.stderr


def test_config_check_without_a_file_that_exists(world):
    done = world.run("config", "check", "-c", world.folder / "none.yaml")
    assert done.returncode == 1 and "none.yaml" in done.stdout + done.stderr
