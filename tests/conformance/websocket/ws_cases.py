# SPDX-License-Identifier: MIT
"""The 517 cases that Autobahn's test suite tries on a WebSocket peer that echoes, as a table.

The numbers are that suite's, so that its reports and these tests can be laid side by side; bytes
and expectations follow RFC 6455 and RFC 7692. A case is what is sent, what must come back, and how
the connection ends. It says nothing of roles: each is tried on a server and on a client.

Verdicts are the suite's: OK, NON-STRICT (the RFC leaves it open, and the case says so), WRONG CODE,
UNCLEAN, FAILED. INFORMATIONAL cases have no right answer by the RFC; ours is written down here.
"""
from dataclasses import dataclass

from ws_wire import BINARY, CLOSE, PING, PONG, TEXT, close_payload

MIB = 1 << 20
HELLO = b"Hello, world!"
# Long enough to see that nothing comes.
QUIET_S = 0.15


@dataclass(frozen=True)
class Frame:
    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0


@dataclass(frozen=True)
class Quiet:
    """Nothing more is sent, and nothing must come, for a while."""


@dataclass(frozen=True)
class Await:
    """The next thing that must come, before more is sent."""
    event: tuple


@dataclass(frozen=True)
class Case:
    id: str
    steps: tuple
    want: tuple = ()  # events before the Close
    codes: tuple = (1000,)  # of their Close
    fails: bool = False  # it is for them to end the connection
    chop: object = None  # None: all at once; "frames": a write a frame; n: n bytes a write
    chunks: tuple = ()  # the last frame's payload in these pieces, with silence between
    clauses: tuple = ()

    @property
    def section(self):
        return self.id.rpartition(".")[0]


@dataclass(frozen=True)
class Bulk:
    """`count` messages of `size`, each answered before the next."""
    id: str
    opcode: int
    size: int
    count: int
    fragment: int = 0  # of what is sent
    chop: int = 0
    data: str = "fill"  # ws_data
    deflate: int = 0  # which row of DEFLATE, 0: no extension
    clauses: tuple = ()

    @property
    def section(self):
        return self.id.rpartition(".")[0]


def message(opcode, payload):
    return ("message", opcode, payload)


def text(payload, **kw):
    return Frame(TEXT, payload, **kw)


def cont(payload=b"", fin=True):
    return Frame(0, payload, fin)


def echo(id_, opcode, payload, **kw):
    return Case(id_, (Frame(opcode, payload),), (message(opcode, payload),), **kw)


def numbered(section, make, items):
    return [make(f"{section}.{n}", *item) for n, item in enumerate(items, 1)]


# ---- 1 framing: the three forms of a length ----

def framing():
    sizes = [(0, None), (125, None), (126, None), (127, None), (128, None), (65535, None),
             (65536, None), (65536, 997)]
    for section, opcode, byte in (("1.1", TEXT, b"*"), ("1.2", BINARY, b"\xfe")):
        yield from numbered(section, lambda id_, size, chop, o=opcode, b=byte: echo(
            id_, o, b * size, chop=chop, clauses=("6455:5.2-5",)), sizes)


# ---- 2 pings and pongs ----

def pings():
    bytes_ = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
    must = ("6455:5.5.2-1", "6455:5.5.3-1")
    ten = [b"payload-%d" % i for i in range(10)]

    def ping(id_, *payloads, chop=None):
        return Case(id_, tuple(Frame(PING, p) for p in payloads), tuple(("pong", p) for p in payloads),
                    chop=chop, clauses=must)
    yield ping("2.1", b"")
    yield ping("2.2", HELLO)
    yield ping("2.3", bytes_)
    yield ping("2.4", b"\xfe" * 125)
    yield Case("2.5", (Frame(PING, b"\xfe" * 126),), codes=(1002,), fails=True,
               clauses=("6455:5.5-1",))
    yield ping("2.6", b"\xfe" * 125, chop=1)
    yield Case("2.7", (Frame(PONG),), clauses=("6455:5.5.3-2",))
    yield Case("2.8", (Frame(PONG, b"nobody asked"),), clauses=("6455:5.5.3-2",))
    yield Case("2.9", (Frame(PONG, b"nobody asked"), Frame(PING, b"asked")), (("pong", b"asked"),),
               clauses=("6455:5.5.3-2", *must))
    yield ping("2.10", *ten)
    yield ping("2.11", *ten, chop=1)


# ---- 3 reserved bits, 4 reserved opcodes ----

def breaks(id_, *frames, before=(), chop=None, code=1002, clauses=()):
    """A first text that is echoed (in `before`), then what breaks a rule, then nothing more."""
    want = tuple(message(TEXT, f.payload) for f in before)
    return Case(id_, (*before, *frames), want, (code,), True, chop, clauses=clauses)


def reserved_bits():
    rule = ("6455:5.2-1",)
    first, ping = (text(HELLO),), Frame(PING)
    yield breaks("3.1", text(HELLO, rsv=1), clauses=rule)
    yield breaks("3.2", text(HELLO, rsv=2), ping, before=first, clauses=rule)
    yield breaks("3.3", text(HELLO, rsv=3), ping, before=first, chop="frames", clauses=rule)
    yield breaks("3.4", text(HELLO, rsv=4), ping, before=first, chop=1, clauses=rule)
    yield breaks("3.5", Frame(BINARY, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", rsv=5), clauses=rule)
    yield breaks("3.6", Frame(PING, HELLO, rsv=6), clauses=rule)
    yield breaks("3.7", Frame(CLOSE, rsv=7), clauses=rule)


def reserved_opcodes():
    first, ping = (text(HELLO),), Frame(PING)
    for section, base in (("4.1", 3), ("4.2", 11)):
        rule = ("6455:5.2-2",)
        yield breaks(f"{section}.1", Frame(base), clauses=rule)
        yield breaks(f"{section}.2", Frame(base + 1, b"reserved opcode"), clauses=rule)
        yield breaks(f"{section}.3", Frame(base + 2), ping, before=first, clauses=rule)
        yield breaks(f"{section}.4", Frame(base + 3, HELLO), ping, before=first, clauses=rule)
        yield breaks(f"{section}.5", Frame(base + 4, HELLO), ping, before=first, chop=1, clauses=rule)


# ---- 5 fragmentation ----

def fragmentation():
    one, two = b"fragment1", b"fragment2"
    control, join, order = ("6455:5.4-3", "6455:5.5-2"), ("6455:5.4-1",), ("6455:5.4-6",)
    middle = ("6455:5.4-2", "6455:5.4-5")
    chops = (None, "frames", 1)
    yield breaks("5.1", Frame(PING, one, fin=False), cont(two), clauses=control)
    yield breaks("5.2", Frame(PONG, one, fin=False), cont(two), clauses=control)
    for n, chop in enumerate(chops):
        yield Case(f"5.{3 + n}", (text(one, fin=False), cont(two)), (message(TEXT, one + two),),
                   chop=chop, clauses=join)
    for n, chop in enumerate(chops):
        yield Case(f"5.{6 + n}", (text(one, fin=False), Frame(PING, b"between"), cont(two)),
                   (("pong", b"between"), message(TEXT, one + two)), chop=chop, clauses=middle)
    for n, chop in enumerate(chops):
        yield breaks(f"5.{9 + n}", cont(b"continues nothing"), text(HELLO), chop=chop, clauses=order)
    for n, chop in enumerate(chops):
        yield breaks(f"5.{12 + n}", cont(b"continues nothing", fin=False), text(HELLO), chop=chop,
                     clauses=order)
    yield Case("5.15", (text(one, fin=False), cont(two), cont(b"fragment3", fin=False), text(HELLO)),
               (message(TEXT, one + two),), (1002,), True, clauses=order)
    for n, fin in ((16, False), (17, True)):
        again = (cont(one, fin=fin), text(two, fin=False), cont(b"fragment3"))
        yield breaks(f"5.{n}", *again, *again, clauses=order)
    yield breaks("5.18", text(one, fin=False), text(two), clauses=order)
    five = [b"fragment%d" % n for n in range(1, 6)]
    for n, chop in ((19, None), (20, "frames")):
        yield Case(f"5.{n}",
                   (text(five[0], fin=False), cont(five[1], fin=False), Frame(PING, b"first"),
                    Await(("pong", b"first")), Quiet(), cont(five[2], fin=False),
                    cont(five[3], fin=False), Frame(PING, b"second"), cont(five[4])),
                   (("pong", b"second"), message(TEXT, b"".join(five))), chop=chop, clauses=middle)


# ---- 6 UTF-8 ----

KOSME = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"  # a Greek word with U+1F79
BEYOND = b"\xf4\x90\x80\x80"  # U+110000


def split_text(id_, payload, at, **kw):
    """A text message in frames cut at these places."""
    edges = [0, *at, len(payload)]
    pieces = [payload[a:b] for a, b in zip(edges, edges[1:])]
    frames = tuple(Frame(TEXT if i == 0 else 0, piece, fin=i == len(pieces) - 1)
                   for i, piece in enumerate(pieces))
    return Case(id_, frames, **kw)


def utf8_fragments():
    good, bad = ("6455:5.6-1",), ("6455:8.1-1",)
    yield echo("6.1.1", TEXT, b"", clauses=good)
    yield Case("6.1.2", (text(b"", fin=False), cont(fin=False), cont()), (message(TEXT, b""),),
               clauses=("6455:5.4-1",))
    yield Case("6.1.3", (text(b"", fin=False), cont(b"in the middle", fin=False), cont()),
               (message(TEXT, b"in the middle"),), clauses=("6455:5.4-1",))
    mixed = "Hello-µ@ßöäüàá-UTF-8!!".encode()
    yield echo("6.2.1", TEXT, mixed, clauses=good)
    yield split_text("6.2.2", mixed, (12,), want=(message(TEXT, mixed),), clauses=good)
    for n, payload in ((3, mixed), (4, KOSME)):
        yield split_text(f"6.2.{n}", payload, range(1, len(payload)),
                         want=(message(TEXT, payload),), clauses=good)
    broken = KOSME + b"\xed\xa0\x80edited"
    yield Case("6.3.1", (text(broken),), codes=(1007,), fails=True, clauses=bad)
    yield split_text("6.3.2", broken, range(1, len(broken)), codes=(1007,), fails=True, clauses=bad)
    # Failing fast: the end of the message is never sent, and its first part is no fault yet.
    whole = KOSME + BEYOND + b"edited"
    for n, cut in ((1, (11, 15)), (2, (12, 13))):
        yield Case(f"6.4.{n}", (text(whole[:cut[0]], fin=False), Quiet(),
                                cont(whole[cut[0]:cut[1]], fin=False)),
                   codes=(1007,), fails=True, clauses=bad)
    for n, cut in ((3, (11, 15)), (4, (12, 13))):
        yield Case(f"6.4.{n}", (text(whole),), codes=(1007,), fails=True,
                   chunks=(cut[0], cut[1]), clauses=bad)


def starts(low, high):
    """The lead bytes of a length, but the last, each before a space."""
    return b"".join(bytes([byte, 0x20]) for byte in range(low, high))


def utf8_sequences():
    """6.5 to 6.23: (is it UTF-8, bytes)."""
    ends_early = [b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xf8\x80\x80\x80", b"\xfc\x80\x80\x80\x80",
                  b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf", b"\xfb\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf"]
    tails = (b"\x80\xbf" * 3)[:6]
    planes = [code for plane in range(1, 17) for code in (plane * 0x10000 + 0xfffe,
                                                          plane * 0x10000 + 0xffff)]
    nonchars = [0xfffe, 0xffff, *planes]

    def points(*codes):
        return [(True, chr(code).encode()) for code in codes]

    def wrong(*sequences):
        return [(False, sequence) for sequence in sequences]

    high, low = (0xd800, 0xdb7f, 0xdb80, 0xdbff), (0xdc00, 0xdfff)

    def surrogate(code):
        return chr(code).encode("utf-8", "surrogatepass")
    return {
        5: [(True, b"hello" + s + b"world") for s in
            (b"$", b"\xc2\xa2", b"\xe2\x82\xac", b"\xf0\xa4\xad\xa2")] + [(True, KOSME)],
        6: [(n in (2, 5, 7, 9, 11), KOSME[:n]) for n in range(1, 12)],
        7: points(0, 0x80, 0x800, 0x10000),
        8: wrong(b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"),
        9: points(0x7f, 0x7ff, 0xffff, 0x10ffff),
        10: wrong(b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"),
        11: points(0xd7ff, 0xe000, 0xfffd, 0x10ffff) + wrong(BEYOND),
        12: wrong(b"\x80", b"\xbf", *(tails[:n] for n in range(2, 7)), bytes(range(0x80, 0xbf))),
        13: wrong(starts(0xc0, 0xdf), starts(0xe0, 0xef), starts(0xf0, 0xf7), starts(0xf8, 0xfb),
                  starts(0xfc, 0xfd)),
        14: wrong(*ends_early),
        15: wrong(b"".join(ends_early)),
        16: wrong(b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"),
        17: wrong(b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf",
                  b"\xfc\x80\x80\x80\x80\xaf"),
        18: wrong(b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf",
                  b"\xfc\x83\xbf\xbf\xbf\xbf"),
        19: wrong(b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80",
                  b"\xfc\x80\x80\x80\x80\x80"),
        20: wrong(*map(surrogate, (*high, 0xdc00, 0xdf80, 0xdfff))),
        21: wrong(*(surrogate(a) + surrogate(b) for a in high for b in low)),
        22: points(*nonchars),
        23: points(0xfff9, 0xfffa, 0xfffb, 0xfffc, 0xfffd, 0xfffe, 0xffff),
    }


def utf8():
    yield from utf8_fragments()
    for section, sequences in utf8_sequences().items():
        for n, (is_good, payload) in enumerate(sequences, 1):
            id_ = f"6.{section}.{n}"
            if is_good:
                yield echo(id_, TEXT, payload, clauses=("6455:5.6-1",))
            else:
                yield Case(id_, (text(payload),), codes=(1007,), fails=True, clauses=("6455:8.1-1",))


# ---- 7 closing ----

def closes(id_, payload, codes, clauses, before=(), after=(), want=()):
    """We send Close; what comes behind it is not answered."""
    return Case(id_, (*before, Frame(CLOSE, payload), *after), want, codes, clauses=clauses)


def closing():
    normal = close_payload(1000)
    answered, silent = ("6455:5.5.1-3",), ("6455:5.5.1-3", "6455:5.5.1-5")
    yield closes("7.1.1", normal, (1000,), answered, before=(text(HELLO),), want=(message(TEXT, HELLO),))
    yield closes("7.1.2", normal, (1000,), silent, after=(Frame(CLOSE),))
    yield closes("7.1.3", normal, (1000,), ("6455:5.5.2-2", *silent), after=(Frame(PING),))
    yield closes("7.1.4", normal, (1000,), silent, after=(text(HELLO),))
    yield closes("7.1.5", normal, (1000,), silent, before=(text(b"fragment1", fin=False),),
                 after=(cont(b"fragment2"),))
    big = (b"BAsd7&jh23" * 26215)[:256 << 10]
    # Informational: all that came before the Close is answered.
    yield closes("7.1.6", normal, (1000,), answered, before=(text(big), text(HELLO)),
                 after=(Frame(PING),), want=(message(TEXT, big), message(TEXT, HELLO)))
    yield closes("7.3.1", b"", (None,), ("6455:7.1.5-1", *answered))
    yield closes("7.3.2", b"a", (1002,), ("6455:5.5.1-1",))
    yield closes("7.3.3", normal, (1000,), answered)
    yield closes("7.3.4", close_payload(1000, b"Hello World!"), (1000,), answered)
    yield closes("7.3.5", close_payload(1000, b"*" * 123), (1000,), answered)
    yield closes("7.3.6", close_payload(1000, b"*" * 124), (1002,), ("6455:5.5-1",))
    yield closes("7.5.1", close_payload(1000, KOSME + b"\xed\xa0\x80edited"), (1007,),
                 ("6455:5.5.1-2",))
    for n, code in enumerate((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000,
                              4999), 1):
        yield closes(f"7.7.{n}", close_payload(code), (code,), ("6455:7.4.2-2", *answered))
    for n, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), 1):
        yield closes(f"7.9.{n}", close_payload(code), (1002,),
                     ("6455:7.4.1-1" if 1004 <= code <= 1006 else "6455:7.4.2-1",))
    # Informational: codes that no range covers are as wrong as those above.
    for n, code in enumerate((5000, 65535), 1):
        yield closes(f"7.13.{n}", close_payload(code), (1002,), ("6455:7.4.2-1",))


# ---- 9 limits and performance, 10 ----

def limits():
    sizes = (64 << 10, 256 << 10, MIB, 4 * MIB, 8 * MIB, 16 * MIB)
    fragments = (64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, MIB, 4 * MIB)
    kinds = (TEXT, BINARY)
    for section, opcode in zip((1, 2), kinds):
        for n, size in enumerate(sizes, 1):
            yield Bulk(f"9.{section}.{n}", opcode, size, 1)
    for section, opcode in zip((3, 4), kinds):
        for n, size in enumerate(fragments, 1):
            yield Bulk(f"9.{section}.{n}", opcode, 4 * MIB, 1, fragment=size,
                       clauses=("6455:5.4-1",))
    for section, opcode in zip((5, 6), kinds):
        for n in range(6):
            yield Bulk(f"9.{section}.{n + 1}", opcode, MIB, 1, chop=64 << n)
    for section, opcode in zip((7, 8), kinds):
        for n, size in enumerate((0, 16, 64, 256, 1024, 4096), 1):
            yield Bulk(f"9.{section}.{n}", opcode, size, 1000)
    yield Bulk("10.1.1", TEXT, 65536, 1, fragment=1300, clauses=("6455:5.4-1",))


# ---- 12 and 13 permessage-deflate ----

DATA = (("json", TEXT), ("html", TEXT), ("prose", BINARY), ("picture", BINARY), ("document", BINARY))
SIZES = [(n, 0) for n in (16, 64, 256, 1 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10,
                          128 << 10)] + \
        [(n << 10, 256) for n in (8, 16, 32, 64, 128)] + \
        [(128 << 10, n) for n in (1 << 10, 4 << 10, 32 << 10)]

ASKS = "client_no_context_takeover; client_max_window_bits"
NO_TAKEOVER = "server_no_context_takeover"
# Rows 1 to 7 of section 13: what a client asks of the server (what the server sends), and what a
# server asks of the client, the first that the client's offer allows.
DEFLATE = (
    (("",), ({},)),
    ((NO_TAKEOVER,), ({"takeover": True},)),
    (("server_max_window_bits=8",), ({"bits": 8},)),
    (("server_max_window_bits=15",), ({"bits": 15},)),
    ((f"{NO_TAKEOVER}; server_max_window_bits=8",), ({"takeover": True, "bits": 8},)),
    ((f"{NO_TAKEOVER}; server_max_window_bits=15",), ({"takeover": True, "bits": 15},)),
    ((f"{NO_TAKEOVER}; server_max_window_bits=8", NO_TAKEOVER, ""),
     ({"takeover": True, "bits": 8}, {"takeover": True}, {})),
)


def offer_of(row):
    """The field a client of row 1 to 7 sends."""
    return ", ".join("; ".join(filter(None, ("permessage-deflate", ASKS, wish)))
                     for wish in DEFLATE[row - 1][0])


def answer_of(row):
    """What a server of that row answers to an offer's parameters."""
    def choose(offer):
        for wish in DEFLATE[row - 1][1] if offer is not None else ():
            if ("takeover" in wish and "client_no_context_takeover" not in offer) or \
                    ("bits" in wish and "client_max_window_bits" not in offer):
                continue
            answer = {}
            if "takeover" in wish:
                answer["client_no_context_takeover"] = None
            if "bits" in wish:
                answer["client_max_window_bits"] = wish["bits"]
            if "server_no_context_takeover" in offer:
                answer["server_no_context_takeover"] = None
            if offer.get("server_max_window_bits"):
                answer["server_max_window_bits"] = offer["server_max_window_bits"]
            return answer
        return None
    return choose


def compression():
    for section, (data, opcode) in enumerate(DATA, 1):
        for n, (size, fragment) in enumerate(SIZES, 1):
            yield Bulk(f"12.{section}.{n}", opcode, size, 1000, fragment, data=data, deflate=1,
                       clauses=("7692:7.2.1-1", "7692:7.2.2-1"))
    for row in range(1, len(DEFLATE) + 1):
        for n, (size, fragment) in enumerate(SIZES, 1):
            yield Bulk(f"13.{row}.{n}", TEXT, size, 1000, fragment, data="json", deflate=row,
                       clauses=("7692:7.2.1-1", "7692:7.2.2-1"))


CASES = [*framing(), *pings(), *reserved_bits(), *reserved_opcodes(), *fragmentation(), *utf8(),
         *closing(), *limits(), *compression()]
BY_ID = {case.id: case for case in CASES}
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}
