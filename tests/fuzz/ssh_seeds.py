#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the first inputs of the SSH fuzzers, whole conversations as the RFCs have them:
    tests/fuzz/ssh_seeds.py tests/fuzz/corpus
The shape is told in src/proto/ssh/ssh_fuzz.h. The committed corpora hold these and what fuzzing has
added to them."""
import struct
import sys
from pathlib import Path

PACKET, RAW, ACT = range(3)


def string(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack(">I", len(value)) + value


def u32(*values):
    return b"".join(struct.pack(">I", value) for value in values)


def record(kind, body):
    return struct.pack(">BH", kind, len(body)) + body


def say(number, *parts):
    return record(PACKET, bytes([number]) + b"".join(parts))


def act(what, which=0, more=0):
    return record(ACT, struct.pack(">BBH", what, which, more))


def kexinit(strict=None, guess=0, kex="curve25519-sha256", compression="none"):
    names = [kex + (f",{strict}" if strict else ""), "ssh-ed25519", "aes128-gcm@openssh.com",
             "aes128-gcm@openssh.com", "", "", compression, compression, "", ""]
    return say(20, bytes(16), *map(string, names), bytes([guess]), u32(0))


NINES = bytes([9]) * 32
STRICT_C, STRICT_S = "kex-strict-c-v00@openssh.com", "kex-strict-s-v00@openssh.com"
IDENT = record(RAW, b"SSH-2.0-peer\r\n")
ECDH_INIT = say(30, string(NINES))
ECDH_REPLY = say(31, string(string("ssh-ed25519") + string(NINES)), string(NINES),
                 string(string("ssh-ed25519") + string(NINES * 2)))
NEWKEYS = say(21)
SERVICE = say(5, string("ssh-userauth"))
AUTH = say(50, string("alice"), string("ssh-connection"), string("none"))
DATA = say(94, u32(0), string(b"x" * 100))

SERVER = kexinit(STRICT_C) + ECDH_INIT + NEWKEYS + SERVICE + AUTH
CLIENT = kexinit(STRICT_S) + ECDH_REPLY + NEWKEYS + say(6, string("ssh-userauth")) + say(52)

TRANSPORT = {
    "server": (0, 0, IDENT + SERVER + DATA + say(1, u32(11), string("bye"), string(""))),
    "server-slow": (0x10, 1, SERVER + DATA),
    "server-zlib": (0x12, 0, kexinit(None, 0, compression="zlib@openssh.com") + ECDH_INIT + NEWKEYS
                    + SERVICE + AUTH),
    "server-rekey": (0x10, 7, SERVER + DATA + kexinit() + ECDH_INIT + NEWKEYS + DATA),
    "server-rekeys": (0x10, 0, SERVER + act(1) + kexinit() + DATA + ECDH_INIT + NEWKEYS + act(3, 255)),
    "server-guess": (0x10, 0, kexinit(None, 1, "ecdh-sha2-nistp256,curve25519-sha256")
                     + say(30, string(b"\4" * 65)) + ECDH_INIT + NEWKEYS),
    "server-noise": (0x10, 0, say(2, string("x")) + say(4, b"\0", string("x"), string(""))
                     + kexinit() + say(3, u32(0)) + ECDH_INIT + NEWKEYS + SERVICE
                     + say(50, string("a"), string("ssh-connection"), string("password"), b"\0",
                           string("x")) + AUTH + say(192) + say(7, u32(0))),
    "client": (0x11, 0, CLIENT + DATA + say(192)),
    "client-slow": (0x15, 3, record(RAW, b"") + CLIENT + DATA),
    "client-lines": (1, 5, record(RAW, b"hello\r\nSSH-1.99-old stuff\r\n") + kexinit()),
    "client-zlib": (0x13, 0, kexinit(None, 0, compression="zlib@openssh.com,none") + ECDH_REPLY
                    + NEWKEYS + say(6, string("ssh-userauth")) + say(52)),
    "client-refuses": (0x19, 0, kexinit(STRICT_S) + ECDH_REPLY + NEWKEYS),
    "client-rekey": (0x11, 0, CLIENT + act(1) + kexinit() + ECDH_REPLY + NEWKEYS + act(4, 9)),
    "client-failure": (0x11, 0, kexinit() + ECDH_REPLY + NEWKEYS + say(53, string("hi"), string(""))
                       + say(51, string("publickey"), b"\0")),
}


def opening(kind, mine=7, window=1 << 21, packet=32768, host="home"):
    return say(90, string(kind), u32(mine, window, packet), string(host), u32(80), string("::1"),
               u32(4711))


def end(channel=0):
    return say(96, u32(channel)) + say(97, u32(channel))


def forward(name, port=80):
    return say(80, string(name), b"\1", string("home"), u32(port))


REKEY_S = kexinit() + ECDH_INIT + NEWKEYS
REKEY_C = kexinit() + ECDH_REPLY + NEWKEYS
WRITE, CONSUME, EOF, CLOSE, CONFIRM = (8 + 10 * n for n in range(5))

SESSION = {
    "direct": (0x17, 0, opening("direct-tcpip") + act(WRITE, 0, 5000) + DATA + act(CONSUME, 0, 100)
               + end()),
    "direct-slow": (0x13, 9, opening("direct-tcpip", window=100) + act(WRITE, 0, 500)
                    + say(93, u32(0, 1000)) + act(WRITE, 0, 60000) + act(0) + DATA + end()),
    "direct-close": (0x11, 0, opening("direct-tcpip") + act(CLOSE) + say(97, u32(0))),
    "direct-later": (0x09, 0, opening("direct-tcpip") + act(CONFIRM) + DATA + act(EOF) + end()),
    "forwarded": (0x10, 0, opening("forwarded-tcpip") + DATA + act(WRITE, 0, 60000) + act(0) + end()),
    "open": (0x11, 0, act(1) + say(91, u32(0, 5, 4096, 2048)) + act(WRITE, 0, 9000)
             + say(93, u32(0, 1 << 20)) + act(WRITE, 0, 60000) + DATA + act(EOF) + end()),
    "open-client": (0x10, 0, act(1) + act(1) + say(91, u32(1, 5, 4096, 2048))
                    + say(92, u32(0, 1), string("no"), string("")) + say(97, u32(1))),
    "open-small": (0x11, 0, act(1) + act(EOF) + say(91, u32(0, 5, 4096, 1023)) + say(97, u32(0))),
    "open-cancel": (0x11, 0, act(1) + act(CLOSE) + say(91, u32(0, 5, 4096, 2048)) + say(97, u32(0))),
    "forward": (0x11, 0, forward("tcpip-forward") + forward("cancel-tcpip-forward")
                + say(80, string("x@example.com"), b"\1") + act(3, 1, 4) + act(3)
                + say(80, string("tunnel@culvert"), b"\1", b"{}")),
    "hostkeys": (0x10, 0, say(80, string("hostkeys-00@openssh.com"), b"\0",
                              string(string("ssh-ed25519") + string(NINES)))),
    "asked": (0x11, 0, act(2, 1, 100) + act(2, 0, 1) + act(2, 1, 1) + say(81, b"x") + say(82)),
    "keepalive": (0x11, 0, act(5, 0, 60001) + say(82) + act(5, 0, 60001) + act(5, 0, 60001)
                  + act(5, 0, 60001) + act(5, 0, 60001)),
    "refused": (0x11, 0, opening("session") + opening("forwarded-tcpip")
                + opening("direct-tcpip", packet=10) + opening("direct-tcpip", host="a" * 256)),
    "requests": (0x11, 0, opening("direct-tcpip") + say(98, u32(0), string("shell"), b"\1")
                 + say(95, u32(0, 1), string("x" * 50)) + say(95, u32(0, 1), string("")) + end()),
    "rekey": (0x13, 0, opening("direct-tcpip") + REKEY_S + act(WRITE, 0, 1000) + DATA + REKEY_S + end()),
    "rekey-ours": (0x11, 5, opening("direct-tcpip") + act(4) + act(WRITE, 0, 100)
                   + act(2, 1, 50) + DATA + forward("tcpip-forward") + act(CLOSE) + REKEY_S + DATA
                   + say(97, u32(0))),
    "rekey-client": (0x10, 0, opening("forwarded-tcpip") + act(4) + act(EOF) + REKEY_C + end()),
    "pause": (0x11, 0, act(6, 1) + act(5, 0, 50000) + act(6) + act(5, 0, 50000) + say(82)),
    "unknown": (0x11, 0, say(127) + say(79) + say(200) + say(83)),
    "kex-flood": (0x11, 0, act(4) + (forward("x") + say(90, string("x"), u32(1, 1, 1))) * 8 + REKEY_S),
}


def pair(mode, *acts):
    """(what, side, stream, how much)"""
    return bytes([mode]) + b"".join(bytes([what << 1 | side, stream, much])
                                    for what, side, stream, much in acts)


ALL = [(3, 0, 0, 0), (3, 1, 0, 0)]
PAIR = {
    "one": pair(0, (4, 0, 0, 0), *ALL, (9, 0, 0, 200), *ALL, (9, 1, 0, 99), (13, 0, 0, 0), *ALL),
    "both": pair(6, (4, 0, 0, 0), (4, 1, 0, 0), *ALL, (9, 0, 0, 255), (9, 1, 0, 255), (0, 0, 0, 9),
                 (9, 1, 1, 255), *ALL, (12, 0, 0, 255), *ALL, (14, 1, 0, 0)),
    "rekey": pair(2, (4, 0, 0, 0), *ALL, (5, 0, 0, 0), (9, 0, 0, 200), (5, 1, 0, 0), (0, 0, 0, 60),
                  (6, 0, 0, 0), (6, 1, 0, 0), *ALL, *ALL, (9, 1, 0, 128)),
    "zlib": pair(1, (4, 0, 0, 0), *ALL, (9, 0, 0, 250), (5, 0, 0, 0), *ALL, *ALL, (9, 1, 0, 250)),
    "many": pair(4, *[(4, n & 1, 0, 0) for n in range(12)], *ALL,
                 *[(9, n & 1, n, 255) for n in range(12)], (8, 0, 0, 9), *ALL, (15, 0, 3, 0)),
}


def main():
    folder = Path(sys.argv[1])
    for name, seeds in (("ssh_transport_fuzz", TRANSPORT), ("ssh_session_fuzz", SESSION)):
        seeds = {key: bytes([mode, step]) + body for key, (mode, step, body) in seeds.items()}
        write(folder / name, seeds)
    write(folder / "ssh_pair_fuzz", PAIR)


def write(folder, seeds):
    folder.mkdir(parents=True, exist_ok=True)
    for key, seed in seeds.items():
        (folder / key).write_bytes(seed)


if __name__ == "__main__":
    main()
