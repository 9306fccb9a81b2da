# SPDX-License-Identifier: MIT
"""What scanners find on the relay's TLS port: testssl.sh, nmap's ssl-enum-ciphers, s_client."""
import json
import re
import shutil
import subprocess

import pytest
from bulk import IS_SANITIZED
from client import Client
from test_tls import Secure, key  # noqa: F401 - a fixture

GOOD = {"OK", "INFO", "DEBUG"}
# Not about the relay: testssl.sh's own openssl, and the certificate that these tests make for two
# days, without a place to ask whether it was revoked.
EXCUSED = {"engine_problem", "cert_expirationStatus", "cert_notAfter", "cert_revocation"}
# testssl.sh has s_client end with its standard input, at once: half the time that is before the
# ticket came, and the next s_client finds its file missing. test_s_client_resumes_its_session waits.
EARLY_END = ("sessionresumption_ticket", "check failed because of connect problem")
SUITES = {"TLS_AKE_WITH_AES_128_GCM_SHA256", "TLS_AKE_WITH_AES_256_GCM_SHA384",
          "TLS_AKE_WITH_CHACHA20_POLY1305_SHA256"}
# Protocols, preferences, headers and the faults that a look at the handshake shows.
SHORT = ["-p", "-P", "-h", "-H", "-I", "-T", "-R", "-Z", "-C"]


@pytest.fixture
def secure(world, authority, key):  # noqa: F811
    return Secure(world, authority, key)


def need(program):
    path = shutil.which(program)
    if not path:
        pytest.skip(f"{program} is not installed")
    return path


@pytest.mark.skipif(IS_SANITIZED, reason="half a minute for handshakes that are OpenSSL's")
@pytest.mark.parametrize("checks", [SHORT, pytest.param([], marks=pytest.mark.long, id="all")])
def test_testssl_finds_nothing(secure, world, authority, row, checks):
    report = world.folder / "testssl.json"
    done = subprocess.run(
        [need("testssl"), "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none",
         "--add-ca", authority.ca, "--jsonfile", report, "--ip", "127.0.0.1", *checks,
         f"localhost:{secure.relay.port}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, cwd=world.folder)
    findings = {entry["id"]: entry for entry in json.loads(report.read_text())}
    assert not [entry for entry in findings.values()
                if entry["severity"] not in GOOD and entry["id"] not in EXCUSED
                and (entry["id"], entry["finding"]) != EARLY_END], done.stdout
    said = {name: findings[name]["finding"] for name in
            ("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2")}
    assert set(said.values()) == {"not offered"}, said
    assert findings["TLS1_3"]["severity"] == "OK"
    row.note("testssl.sh", "scanner", f"{len(findings)} findings")


def test_nmap_sees_tls_1_3_and_its_suites_only(secure, row):
    done = subprocess.run([need("nmap"), "--unprivileged", "-sT", "-Pn", "-n", "-p",
                           str(secure.relay.port), "--script", "ssl-enum-ciphers", "127.0.0.1"],
                          capture_output=True, text=True, timeout=300)
    assert re.findall(r"(SSLv\d|TLSv[\d.]+):", done.stdout) == ["TLSv1.3"], done.stdout
    suites = dict(re.findall(r"(TLS_\w+)(?: \(\S+\))? - (\w)", done.stdout))
    assert set(suites) == SUITES and set(suites.values()) == {"A"}, done.stdout
    row.note("nmap", "scanner", "ssl-enum-ciphers")


def s_client(secure, *options, input=b""):
    return subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{secure.relay.port}",
                           "-CAfile", secure.authority.ca, "-servername", "localhost", *options],
                          input=input, capture_output=True, timeout=60)


@pytest.mark.parametrize("old", ["-tls1", "-tls1_1", "-tls1_2"])
def test_s_client_with_an_older_version_is_told_why(secure, old):
    done = s_client(secure, old, "-cipher", "ALL:@SECLEVEL=0")
    assert done.returncode != 0
    assert b"alert protocol version" in done.stderr


def test_s_client_resumes_its_session(secure, tmp_path):
    """With a ticket, on whichever worker the next connection ends up."""
    ask = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    first = s_client(secure, "-ign_eof", "-sess_out", tmp_path / "session", input=ask)
    assert first.returncode == 0 and b"HTTP/1.1 200" in first.stdout
    for _ in range(8):
        again = s_client(secure, "-ign_eof", "-sess_in", tmp_path / "session", input=ask)
        assert b"\nReused, TLSv1.3" in again.stdout and b"HTTP/1.1 200" in again.stdout


def test_plain_http_on_the_tls_port_ends_at_once(secure):
    with Client(secure.relay.port) as client:
        client.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
        client.is_closed()
        assert not client.buffer.startswith(b"HTTP/")
    assert secure.relay.fetch("/livez").status == 200


def test_what_browsers_are_told(secure):
    """On the relay's own answers; a service's are its own."""
    own = secure.fetch("/nothing/here")
    assert own.get("X-Content-Type-Options") == "nosniff"
    assert own.get("Strict-Transport-Security") == "max-age=31536000"
    secure.agent()
    foreign = secure.fetch()
    assert foreign.status == 200
    assert not foreign.all("X-Content-Type-Options")
    assert not foreign.all("Strict-Transport-Security")


def test_browsers_are_not_told_to_keep_to_tls_where_there_is_none(world):
    assert not world.relay().fetch("/livez").all("Strict-Transport-Security")
