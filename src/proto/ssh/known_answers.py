#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prints known_answers.h: what the cryptographic parts of SSH must give for fixed inputs, worked out
from the documents with python3-cryptography and hashlib and without a line of our C.
    src/proto/ssh/known_answers.py | clang-format-14 >src/proto/ssh/known_answers.h
The vectors of RFC 7748 and RFC 8032 are in known_answer_test.c as the RFCs print them."""
import base64
import hashlib
import struct

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.poly1305 import Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def string(value):
    return struct.pack(">I", len(value)) + value


def mpint(value):
    """RFC 4251 §5, by way of a number."""
    number = int.from_bytes(value, "big")
    return string(number.to_bytes((number.bit_length() + 8) // 8, "big") if number else b"")


def show(name, value):
    print(f"static const uint8_t {name}[] = {{{', '.join(f'0x{byte:02x}' for byte in value)}}};")


def raw(key):
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def fill(seed, length):
    """Bytes that look like nothing, the same each time."""
    out, count = b"", 0
    while len(out) < length:
        out += hashlib.sha256(f"{seed} {count}".encode()).digest()
        count += 1
    return out[:length]


def shares():
    """RFC 8731 §3.1: secrets whose first bytes make the three kinds of mpint."""
    peer = X25519PrivateKey.from_private_bytes(fill("peer", 32))
    kinds = {
        "high": lambda s: s[0] >= 0x80,                  # a zero byte comes in front
        "zero": lambda s: s[0] == 0 and 0 < s[1] < 0x80,  # a byte goes
        "both": lambda s: s[0] == 0 and s[1] >= 0x80,     # one goes and one comes
    }
    show("other_share", raw(peer))
    for kind, fits in kinds.items():
        count = 0
        while True:
            own = X25519PrivateKey.from_private_bytes(fill(f"own {kind} {count}", 32))
            secret = own.exchange(peer.public_key())
            if fits(secret):
                break
            count += 1
        show(f"own_private_{kind}", fill(f"own {kind} {count}", 32))
        show(f"secret_{kind}", mpint(secret))


def exchange():
    """RFC 5656 §4 (H) and RFC 4253 §7.2, all six keys at the length of two hashes."""
    own = X25519PrivateKey.from_private_bytes(fill("client", 32))
    peer = X25519PrivateKey.from_private_bytes(fill("server", 32))
    parts = [b"SSH-2.0-client_1", b"SSH-2.0-server_2 words", b"\x14" + fill("I_C", 300),
             b"\x14" + fill("I_S", 200), string(b"ssh-ed25519") + string(fill("K_S", 32)),
             raw(own), raw(peer)]
    k = mpint(own.exchange(peer.public_key()))
    h = hashlib.sha256(b"".join(map(string, parts)) + k).digest()
    session = fill("session", 32)
    show("client_private", fill("client", 32))
    show("server_private", fill("server", 32))
    show("client_share", parts[5])
    show("server_share", parts[6])
    show("client_init", parts[2])
    show("server_init", parts[3])
    show("host_blob", parts[4])
    show("exchange_hash", h)
    show("session_id", session)
    for letter in b"ABCDEF":
        first = hashlib.sha256(k + h + bytes([letter]) + session).digest()
        show(f"key_{chr(letter).lower()}", first + hashlib.sha256(k + h + first).digest())


def pad(payload, block):
    padding = block - (1 + len(payload)) % block
    padding += block if padding < 4 else 0
    padding += block if 4 + 1 + len(payload) + padding < 16 else 0  # RFC 4253 §6
    return bytes([padding]) + payload + bytes(padding)


def gcm(name, length):
    """RFC 5647 §7: length clear and authenticated, the low 64 bits of the IV count up. The counter
    starts two before its end, so that it goes over."""
    key, fixed = fill(f"gcm {length}", length), fill("fixed", 4)
    show(f"{name}_key", key)
    show(f"{name}_iv", fixed + struct.pack(">Q", (1 << 64) - 2))
    for count in range(4):
        plain = pad(fill("payload", 20 * count + 1), 16)
        head = struct.pack(">I", len(plain))
        nonce = fixed + struct.pack(">Q", (count - 2) % (1 << 64))
        show(f"{name}_{count}", head + AESGCM(key).encrypt(nonce, plain, head))


def chacha_stream(key, counter, sequence, data):
    nonce = struct.pack("<Q", counter) + struct.pack(">Q", sequence)
    return Cipher(algorithms.ChaCha20(key, nonce), None).encryptor().update(data)


def chacha():
    """OpenSSH's PROTOCOL.chacha20poly1305: K_2 (the first half) for the packet, K_1 for its length;
    the block with counter 0 of K_2 is the Poly1305 key, the packet starts with counter 1."""
    key = fill("chacha", 64)
    show("chacha_key", key)
    for count, sequence in enumerate((0, 1, 3, 0xffffffff)):
        plain = pad(fill("payload", 20 * count + 1), 8)
        length = chacha_stream(key[32:], 0, sequence, struct.pack(">I", len(plain)))
        body = chacha_stream(key[:32], 1, sequence, plain)
        poly = Poly1305(chacha_stream(key[:32], 0, sequence, bytes(32)))
        poly.update(length + body)
        show(f"chacha_{count}", length + body + poly.finalize())


def fingerprint():
    """Of the public key in RFC 8032 §7.1, test 1."""
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    blob = string(b"ssh-ed25519") + string(public)
    text = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    print(f'#define FINGERPRINT_1 "SHA256:{text}"')


print("""/* SPDX-License-Identifier: MIT
 *
 * Made by known_answers.py; see there.
 */
#ifndef CV_PROTO_SSH_KNOWN_ANSWERS_H
#define CV_PROTO_SSH_KNOWN_ANSWERS_H

#include <stdint.h>
""")
shares()
exchange()
show("payload_bytes", fill("payload", 61))
gcm("gcm128", 16)
gcm("gcm256", 32)
chacha()
fingerprint()
print("\n#endif")
