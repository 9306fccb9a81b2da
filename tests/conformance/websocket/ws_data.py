# SPDX-License-Identifier: MIT
"""What the compressed messages carry: five kinds of data, made from fixed seeds, so that a message
that differs differs on every machine. Each is about 256 KiB and is read round and round."""
import functools
import json
import random
import zlib

SIZE = 256 << 10


@functools.lru_cache(maxsize=None)
def words():
    rng = random.Random(2229)
    return ["".join(rng.choice("etaoinshrdlucmfwyp") for _ in range(rng.randint(2, 11)))
            for _ in range(3000)]


def prose():
    rng = random.Random(1)
    return " ".join(rng.choices(words(), k=SIZE // 5)).encode()


def jsons():
    rng = random.Random(2)
    rows = [{"id": n, "name": rng.choice(words()), "value": rng.random(),
             "tags": rng.choices(words(), k=3), "on": rng.random() < .5} for n in range(SIZE // 90)]
    return json.dumps(rows, indent=1).encode()


def html():
    rng = random.Random(3)
    rows = (f'<tr class="row{n % 2}"><td>{n}</td><td><a href="/{w}">{w}</a></td></tr>\n'
            for n, w in enumerate(rng.choices(words(), k=SIZE // 60)))
    return ("<!doctype html><table>\n" + "".join(rows) + "</table>\n").encode()


def picture():
    rng = random.Random(4)
    return bytes((x * x // 97 + y * 3 + rng.randint(0, 7)) & 255 for y in range(512)
                 for x in range(512))


def document():
    """Compressed pieces between plain ones, as in a PDF."""
    rng, out = random.Random(5), b""
    while len(out) < SIZE:
        piece = zlib.compress(" ".join(rng.choices(words(), k=2000)).encode())
        out += b"stream %d\n" % len(piece) + piece + b"\nendstream\n" + b"0000000016 65535 f\n" * 9
    return out


KINDS = {"prose": prose, "json": jsons, "html": html, "picture": picture, "document": document}


@functools.lru_cache(maxsize=None)
def data(kind):
    return KINDS[kind]()[:SIZE]


def messages(kind, is_text, size, count):
    """`count` messages of `size` bytes."""
    if kind == "fill":
        payload = (b"*" if is_text else b"\xfe") * size
        for _ in range(count):
            yield payload
        return
    whole = data(kind) * (2 + size // SIZE)
    for n in range(count):
        at = n * size % SIZE
        yield whole[at:at + size]
