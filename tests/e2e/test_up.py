# SPDX-License-Identifier: MIT
"""`culvert up` finds model servers by what they answer and publishes them; `culvert top` shows how
they are."""
import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from culvert import BIN, PEERS, free_port, wait_for


def models(*ids, owner=None):
    return {"object": "list", "data": [
        {"id": name, "object": "model", **({"owned_by": owner} if owner else {})} for name in ids]}


OLLAMA = {"/api/version": {"version": "0.5.7"}, "/api/tags": {"models": [
    {"name": "nomic-embed-text:latest"}, {"name": "llama3:8b"}]},
    "/v1/models": models("llama3:8b", owner="library")}
# What servers of each kind answer, as far as it tells them apart. Several imitate others.
KINDS = {
    "ollama": OLLAMA,
    "lmstudio": {"/api/v0/models": models("qwen2.5-7b"),
                 "/v1/models": models("qwen2.5-7b", owner="organization_owner")},
    "llamacpp": {"/props": {"default_generation_settings": {"n_ctx": 4096}, "total_slots": 1},
                 "/v1/models": models("model.gguf", owner="llamacpp"),
                 "/api/tags": {"models": [{"name": "model.gguf"}]}},
    "vllm": {"/version": {"version": "0.6.4"},
             "/v1/models": models("mistralai/Mistral-7B", owner="vllm")},
    "sglang": {"/v1/models": models("default", owner="sglang")},
    "localai": {"/system": {"backends": ["llama-cpp"], "loaded_models": []},
                "/v1/models": models("phi-2")},
    "koboldcpp": {"/api/extra/version": {"result": "KoboldCpp", "version": "1.76"},
                  "/api/tags": {"models": [{"name": "koboldcpp"}]},
                  "/v1/models": models("koboldcpp/x", owner="koboldcpp")},
    "openai": {"/v1/models": models("jan-model", owner="jan")},
}


@pytest.fixture
def server(world):
    """Makes an HTTP server on loopback that knows these pages; gives its port."""
    def make(pages, raw=None):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):  # noqa: N802 - the library's name
                body = raw or json.dumps(pages.get(self.path, {"detail": "no"})).encode()
                self.send_response(200 if self.path in pages or raw else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        made.daemon_threads = True
        thread = threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True)
        thread.start()

        def close():
            made.shutdown()
            made.server_close()
            thread.join(5)
        world.cleanups.append(close)
        return made.server_address[1]
    return make


# -- finding ---------------------------------------------------------------------------------------

def test_each_server_is_known_by_its_answers(world, server):
    ports = {kind: server(pages) for kind, pages in KINDS.items()}
    done = world.run("up", "--dry-run", *ports.values(), check=0)
    lines = done.stdout.splitlines()
    assert len(lines) == len(KINDS)
    titles = {"ollama": "Ollama", "lmstudio": "LM Studio", "llamacpp": "llama.cpp", "vllm": "vLLM",
              "sglang": "SGLang", "localai": "LocalAI", "koboldcpp": "KoboldCpp",
              "openai": "a server with OpenAI's API"}
    for line, (kind, port) in zip(lines, ports.items(), strict=True):
        assert line.startswith(f"found {titles[kind]} on port {port}, "), line
    assert "2 models, such as llama3:8b" in lines[0]  # not the one for embeddings


def test_what_is_no_model_server_is_not_published(world, server):
    hole = socket.create_server(("127.0.0.1", 0))  # takes connections and says nothing
    ports = [server({}), server({}, raw=b"\xff{[not json"), server({"/v1/models": {"data": 7}}),
             server({}, raw=b"[" * 100000), hole.getsockname()[1], free_port()]
    done = world.run("up", "--dry-run", *ports)
    hole.close()
    assert done.returncode == 1 and not done.stdout
    assert "no model server answers" in done.stderr and "something else" in done.stderr
    assert str(ports[-1]) in done.stderr


def test_names_that_a_shell_would_read_are_not_printed(world, server):
    evil = models("'; rm -rf ~; '", "\x1b[2J", "fine-model", owner="vllm")
    done = world.run("up", "--dry-run", server({"/v1/models": evil}), check=0)
    assert "such as fine-model" in done.stdout and "rm -rf" not in done.stdout


def test_usage(world, server):
    port = server(OLLAMA)
    for args in (["0"], ["65536"], ["x"], [port, server(OLLAMA), "--name", "home"],
                 [str(free_port())] * 17):
        assert world.run("up", "--dry-run", *args).returncode == 2
    done = world.run("up", port)
    assert done.returncode == 2 and "server" in done.stderr
    done = world.run("up", port, "--server", "ws://localhost:1")
    assert done.returncode == 3 and "CULVERT_TOKEN" in done.stderr


# -- publishing ------------------------------------------------------------------------------------

@pytest.fixture
def model(world):
    port = free_port()
    world.spawn(PEERS / "model_server", f"127.0.0.1:{port}")

    def is_up():
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        return False
    wait_for(is_up, what="the model server")
    return port


def up(world, relay, *ports, args=(), sub="alice"):
    return world.start("up", "up", *ports, "--server", relay.url, *args,
                       env={"CULVERT_TOKEN": world.token(sub)})


def test_the_printed_line_leads_to_a_chat(world, model):
    relay = world.relay()
    running = up(world, relay, model, args=["--name", "home"])
    wait_for(lambda: b"Open until" in running.stdout, what="how to use it")
    text = running.stdout.decode()
    assert f"URL              {relay.http_url}/t/home/" in text
    assert f"OpenAI base URL  {relay.http_url}/t/home/v1\n" in text
    assert world.token() not in text
    line = re.search(r"try it +(curl .*)", text).group(1)
    done = subprocess.run(["sh", "-c", line], env=world.env({"CULVERT_TOKEN": world.token()}),
                          capture_output=True, timeout=30, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["done"] is True
    # Elsewhere than on a terminal: a line when something changes.
    wait_for(lambda: b"quality" in running.stdout, what="the state of the link")
    relay.stop()
    wait_for(lambda: b"\nwaiting to " in running.stdout or b"\ndetached to " in running.stdout,
             what="news of the loss")
    assert b"\x1b" not in running.stdout


def test_several_servers_have_names_of_their_kind(world, server):
    relay = world.relay()
    first, second, third = server(OLLAMA), server(OLLAMA), server(KINDS["vllm"])
    running = up(world, relay, first, second, third)
    wait_for(lambda: b"Open until" in running.stdout, what="how to use it")
    for name, path in (("ollama", "api/tags"), (f"ollama-{second}", "api/tags"),
                       ("vllm", "v1/models")):
        assert relay.fetch(f"/t/{name}/{path}", world.token()).status == 200
    assert b"v1/chat/completions" in running.stdout and b"mistralai/Mistral-7B" in running.stdout


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, world, *args, env=None):
        self.near, far = pty.openpty()
        self.process = subprocess.Popen([str(BIN), *map(str, args)], env=world.env(env),
                                        stdin=far, stdout=far, stderr=far, start_new_session=True)
        os.close(far)
        self.text = b""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        with contextlib.suppress(OSError):
            while data := os.read(self.near, 65536):
                self.text += data

    def end(self):
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(30)
        self.reader.join(10)
        os.close(self.near)
        return code


def test_on_a_terminal_the_picture_is_replaced(world, model):
    relay = world.relay()
    terminal = Terminal(world, "up", model, "--server", relay.url,
                        env={"CULVERT_TOKEN": world.token(), "LOG_LEVEL": "error"})
    wait_for(lambda: terminal.text.count(b"\x1b[3A") >= 2, what="two pictures more")
    top = Terminal(world, "top")
    wait_for(lambda: top.text.count(b"\x1b[3A") >= 1, what="the same from outside")
    assert top.end() == 0
    assert terminal.end() == 0
    pictures = terminal.text.split(b"\x1b[3A")
    assert b"published" in pictures[1] and b"127.0.0.1" in pictures[1]
    for line in pictures[1].split(b"\r\n"):
        assert len(re.sub(rb"\x1b\[[0-9]*[A-Z]", b"", line)) < 80


# -- top -------------------------------------------------------------------------------------------

def test_top_elsewhere_than_on_a_terminal(world):
    done = world.run("top")
    assert done.returncode == 1 and "no agent" in done.stdout
    relay = world.relay()
    world.http(relay, world.service().port)
    assert relay.fetch("/t/home/x", world.token()).status == 200
    done = world.run("top", check=0)
    assert re.search(r"agent \d+  runs for \d+ s  streams 1 now, 1 so far\n", done.stdout)
    assert "\x1b" not in done.stdout
    done = world.run("top", "--json", "--count", "2", check=0)
    first, second = [json.loads(line)["agents"][0] for line in done.stdout.splitlines()]
    assert first["pid"] == second["pid"] and second["carried"] == 1
    assert second["age_ms"] - first["age_ms"] >= 900
    assert world.run("top", "--count", "0").returncode == 2
