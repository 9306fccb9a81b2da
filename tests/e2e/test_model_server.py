# SPDX-License-Identifier: MIT
"""The model of `culvert demo` on its own (tests/peers/model_server), spoken to by curl and by
Python."""
import json
import signal
import subprocess
import time
import urllib.request

import culvert
import pytest
from client import Client

INTERVAL_MS = 20


class Model:
    def __init__(self, interval_ms=INTERVAL_MS):
        self.process = subprocess.Popen(
            [culvert.PEERS / "model_server", "127.0.0.1:0", str(interval_ms)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rsplit(" ", 1)[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def curl(self, path, *args):
        done = subprocess.run(["curl", "-sS", "-N", "--noproxy", "*", *args, self.url + path],
                              capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return json.load(opener.open(request, timeout=20))

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=10)
        assert self.process.returncode == 0 and errors == "", errors


@pytest.fixture
def model():
    model = Model()
    yield model
    model.close()


CHAT = {"model": "any", "messages": [{"role": "user", "content": "Is this a tunnel?"}]}


def test_curl_gets_lines_of_json(model):
    lines = [json.loads(line) for line in
             model.curl("/api/chat", "-d", json.dumps(CHAT)).splitlines()]
    text = "".join(line["message"]["content"] for line in lines)
    assert "Is this a tunnel?" in text
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    last = lines[-1]
    assert last["done_reason"] == "stop" and last["eval_count"] == len(lines) - 1
    assert last["total_duration"] >= last["eval_duration"] > 0


def test_every_token_comes_by_itself(model):
    with Client(model.port) as client:
        client.request("POST", "/v1/chat/completions",
                       body=json.dumps({**CHAT, "stream": True, "max_tokens": 20}).encode())
        response = client.response()
    assert response.is_complete and response.get("content-type") == "text/event-stream"
    events = response.body.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert len(events) - 3 == 20
    times = [at for at, piece in response.pieces if b"data: " in piece]
    assert len(times) >= 15, "the pieces come apart"
    assert times[-1] - times[0] > 15 * INTERVAL_MS / 1000


def test_python_gets_one_object_without_streaming(model):
    answer = model.post("/api/generate", {"model": "m", "prompt": "Well?", "stream": False})
    assert answer["done"] and "Well?" in answer["response"]
    answer = model.post("/v1/chat/completions", CHAT)
    assert answer["choices"][0]["message"]["role"] == "assistant"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_lists_and_descriptions(model):
    assert model.curl("/") == "Ollama is running"
    name = json.loads(model.curl("/api/tags"))["models"][0]["name"]
    assert json.loads(model.curl("/v1/models"))["data"][0]["id"] == name
    assert json.loads(model.curl(f"/v1/models/{name}"))["id"] == name
    assert json.loads(model.curl("/api/ps"))["models"][0]["model"] == name
    assert json.loads(model.curl("/api/version"))["version"]
    assert "completion" in model.post("/api/show", {"model": name})["capabilities"]
    assert "Content-Length: " in model.curl("/api/tags", "-I")


@pytest.mark.parametrize("path,args,status", [
    ("/api/chat", ["-d", "{"], 400),
    ("/v1/chat/completions", ["-d", "[]"], 400),
    ("/api/pull", ["-d", "{}"], 404),
    ("/v1/other", [], 404),
    ("/api/chat", [], 405),
])
def test_mistakes_are_explained(model, path, args, status):
    body, _, code = model.curl(path, "-w", "\n%{http_code}", *args).rpartition("\n")
    assert int(code) == status
    error = json.loads(body)["error"]
    assert (error["message"] if path.startswith("/v1/") else error) != ""


def test_a_body_that_is_too_large_is_refused(model):
    with Client(model.port) as client:
        client.request("POST", "/api/chat", headers=[("Content-Length", str(1024 * 1024 + 1))])
        assert client.response().status == 413
    with Client(model.port) as client:
        client.request("POST", "/api/chat", body=(b" " * 65536 for _ in range(15)))
        assert client.response().status == 400, "just large is read and judged"


def test_requests_may_be_sent_ahead(model):
    body = json.dumps({**CHAT, "options": {"num_predict": 3}}).encode()
    with Client(model.port) as client:
        for _ in range(3):
            client.request("POST", "/api/chat", body=body)
        client.request("GET", "/api/version")
        for _ in range(3):
            response = client.response()
            assert response.status == 200 and response.body.count(b"\n") == 4
        assert b"version" in client.response().body


def test_a_client_of_http_1_0_reads_until_the_end(model):
    done = model.curl("/api/chat", "-0", "-d", json.dumps(CHAT))
    assert json.loads(done.splitlines()[-1])["done"]


def test_clients_that_leave_are_forgotten(model):
    before = len(list(culvert.Path(f"/proc/{model.process.pid}/fd").iterdir()))
    for _ in range(30):
        with Client(model.port) as client:
            client.request("POST", "/api/chat", body=json.dumps(CHAT).encode())
            time.sleep(0.01)
    culvert.wait_for(
        lambda: len(list(culvert.Path(f"/proc/{model.process.pid}/fd").iterdir())) <= before,
        10, "end of the connections")
