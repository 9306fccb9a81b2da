# SPDX-License-Identifier: MIT
"""`culvert demo`: what it prints is true and works."""
import json
import os
import re
import shutil
import signal
import subprocess
import time

import culvert
import pytest

ANSWER = "Hello from the far side of the tunnel!"


@pytest.fixture
def demo_env(world, tmp_path):
    """No state folder given: the demo makes one in TMPDIR."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    env = world.env({"CULVERT_STATE_DIR": None, "LOG_FORMAT": None, "LOG_LEVEL": None,
                     "TMPDIR": scratch})
    yield env
    assert list(scratch.iterdir()) == [], "the folder of the keys is gone"


class Demo:
    """A running `culvert demo`: its stdout with the time of every piece."""

    def __init__(self, env, *args):
        self.process = subprocess.Popen([str(culvert.BIN), "demo", *args], env=env,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        self.pieces = []

    @property
    def text(self):
        return b"".join(piece for _, piece in self.pieces).decode()

    def read(self, until=None):
        while until is None or until not in self.text:
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                assert until is None, f"no {until!r} in\n{self.text}"
                break
            self.pieces.append((time.monotonic(), piece))
        return self.text

    def end(self, code=0):
        _, errors = self.process.communicate(timeout=30)
        assert self.process.returncode == code, errors
        assert not culvert.SANITIZER.search(errors.decode()), errors
        return errors.decode()


def shell(script, env):
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True,
                          timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_once_prints_the_answer_token_by_token(demo_env):
    demo = Demo(demo_env, "--once")
    text = demo.read()
    assert demo.end() == "", "nothing on stderr"
    if "a small one of our own" not in text:
        pytest.skip("an Ollama runs on this machine")
    assert ANSWER in text
    begin = text.index("Model:")
    answer_end = text.index("The same by hand")
    offset, times = 0, []
    for at, piece in demo.pieces:
        if begin < offset < answer_end:
            times.append(at)
        offset += len(piece)
    assert len(times) >= 20, "the answer comes in pieces"
    assert times[-1] - times[0] > 0.5


def test_what_it_says_works_until_ctrl_c(demo_env):
    demo = Demo(demo_env)
    text = demo.read("Ctrl-C")
    exports = "\n".join(re.findall(r"^ +(export .*)$", text, re.M))
    curl = re.search(r"^ +(curl .*)$", text, re.M).group(1)
    lines = shell(f"{exports}\n{curl}", demo_env).splitlines()
    assert json.loads(lines[-1])["done"] is True
    models = json.loads(shell(f"{exports}\ncurl -sf -H \"Authorization: Bearer $OPENAI_API_KEY\" "
                              "$OPENAI_BASE_URL/models", demo_env))
    body = json.dumps({"model": models["data"][0]["id"], "stream": True, "max_tokens": 5,
                       "messages": [{"role": "user", "content": "hi"}]})
    events = shell(f"{exports}\ncurl -sfN -H \"Authorization: Bearer $OPENAI_API_KEY\" "
                   f"$OPENAI_BASE_URL/chat/completions -d '{body}'", demo_env)
    assert events.rstrip().endswith("data: [DONE]")
    refused = shell(f"{exports}\ncurl -s -o /dev/null -w '%{{http_code}}' -X POST -H "
                    "\"Authorization: Bearer $TOKEN\" ${OPENAI_BASE_URL%/v1}/api/pull", demo_env)
    assert refused == "403", "the tunnel has the rules of the preset"
    demo.process.send_signal(signal.SIGINT)
    demo.read()
    demo.end()


def test_ctrl_c_in_the_middle_of_the_answer(demo_env):
    demo = Demo(demo_env)
    demo.read("Model:  ")
    demo.process.send_signal(signal.SIGINT)
    demo.read()
    demo.end()


def test_a_reader_that_leaves_is_no_crash(demo_env):
    demo = Demo(demo_env, "--once")
    demo.read("Model:  ")
    demo.process.stdout.close()
    demo.process.stdout = None
    demo.end()


def test_keys_stay_in_a_state_folder_that_is_given(world, demo_env):
    demo_env["CULVERT_STATE_DIR"] = str(world.state)
    demo = Demo(demo_env, "--once")
    demo.read()
    demo.end()
    names = {path.name for path in world.state.iterdir()}
    assert {"dev-key.pem", "host_key"} <= names


def test_a_failure_is_said_in_one_sentence(demo_env, tmp_path):
    (tmp_path / "file").write_text("")
    demo_env["CULVERT_STATE_DIR"] = str(tmp_path / "file" / "state")
    demo = Demo(demo_env, "--once")
    demo.read()
    errors = demo.end(1)
    assert errors.startswith("culvert demo: making the state folder failed: ")
    assert errors.count("\n") == 1


def test_wrong_usage(demo_env):
    demo = Demo(demo_env, "--twice")
    assert "--twice" in demo.end(2)


def in_a_network_of_its_own(script, env):
    """Port 11434 belongs to the whole machine: other tests must not find what listens there."""
    if not shutil.which("unshare") or not shutil.which("ip") or \
            subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    return subprocess.run(["unshare", "-rn", "bash", "-c", f"ip link set lo up\n{script}"], env=env,
                          capture_output=True, text=True, timeout=60)


def test_an_ollama_is_used_where_one_answers(demo_env):
    done = in_a_network_of_its_own(
        f"exec 3< <(exec {culvert.PEERS}/model_server 127.0.0.1:11434 5)\nread -u 3 line\n"
        f"{culvert.BIN} demo --once\ncode=$?\nkill $!\nexit $code", demo_env)
    assert done.returncode == 0, done.stderr
    assert "on 127.0.0.1:11434\n" in done.stdout and ANSWER in done.stdout


def test_an_ollama_that_fails_is_explained(demo_env, tmp_path):
    (tmp_path / "broken.py").write_text(
        "import http.server\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    protocol_version = 'HTTP/1.1'\n"
        "    def answer(self, status, body):\n"
        "        self.send_response(status)\n"
        "        self.send_header('Content-Length', str(len(body)))\n"
        "        self.end_headers()\n"
        "        self.wfile.write(body)\n"
        "    def do_GET(self): self.answer(200, b'{\"models\": [{\"name\": \"big:70b\"}]}')\n"
        "    def do_POST(self):\n"
        "        self.rfile.read(int(self.headers['Content-Length']))\n"
        "        self.answer(500, b'{\"error\": \"not enough memory\"}')\n"
        "    def log_message(self, *args): pass\n"
        "class S(http.server.ThreadingHTTPServer):\n"
        "    def handle_error(self, *args): pass\n"
        "server = S(('127.0.0.1', 11434), H)\n"
        "print('up', flush=True)\n"
        "server.serve_forever()\n")
    done = in_a_network_of_its_own(
        f"exec 3< <(exec /usr/bin/python3 {tmp_path}/broken.py)\nread -u 3 line\n"
        f"{culvert.BIN} demo --once\ncode=$?\nkill $!\nexit $code", demo_env)
    assert done.returncode == 1
    assert done.stderr == ("culvert demo: the chat through the tunnel failed: the answer was 500 "
                           "Internal Server Error: not enough memory.\n")
