# SPDX-License-Identifier: MIT
"""What the compiler and linker were asked for is in the program (docs/decisions/hardening.md)."""
import json
import re
import shutil
import subprocess

import pytest
from culvert import BIN, BUILD

pytestmark = pytest.mark.skipif(not shutil.which("readelf"), reason="no readelf (binutils)")


def readelf(*arguments):
    return subprocess.run(["readelf", "-W", *arguments, str(BIN)], check=True, capture_output=True,
                          text=True).stdout


def build_option(name):
    path = BUILD / "meson-info" / "intro-buildoptions.json"
    if not path.exists():
        pytest.skip("the build folder does not say how it was configured")
    return next(o["value"] for o in json.loads(path.read_text()) if o["name"] == name)


def compiler():
    path = BUILD / "meson-info" / "intro-compilers.json"
    return json.loads(path.read_text())["host"]["c"]["id"] if path.exists() else "gcc"


@pytest.fixture(name="is_plain")
def fixture_is_plain():
    """Optimised, without sanitizers or counters: as people get it."""
    return build_option("b_sanitize") == "none" and not build_option("b_coverage") \
        and str(build_option("optimization")) not in ("0", "plain", "g")


def imported():
    return set(re.findall(r"FUNC\s+GLOBAL\s+DEFAULT\s+UND\s+([\w]+)", readelf("--dyn-syms")))


def test_the_program_is_position_independent():
    assert re.search(r"Type:\s+DYN", readelf("-h"))
    assert re.search(r"FLAGS_1.*\bPIE\b", readelf("-d"))


def test_relocations_are_done_at_start_and_then_read_only():
    segments = readelf("-l")
    assert re.search(r"^\s+GNU_RELRO\b", segments, re.M)
    assert "BIND_NOW" in readelf("-d")
    # Full RELRO: no table of pointers is left outside of it to be bound later.
    assert not re.search(r"\.got\.plt\b", readelf("-S"))


def test_nothing_is_writable_and_executable():
    segments = readelf("-l")
    stack = re.search(r"^\s+GNU_STACK\s+.*$", segments, re.M)
    assert stack and " RWE " not in stack.group() and " RW " in stack.group()
    for line in re.findall(r"^\s+LOAD\s+.*$", segments, re.M):
        flags = re.search(r" ([R ])([W ])([E ]) 0x[0-9a-f]+$", line)
        assert flags, line
        assert not (flags.group(2) == "W" and flags.group(3) == "E"), line
    assert "TEXTREL" not in readelf("-d")


def test_return_addresses_may_be_kept_on_a_shadow_stack(is_plain):
    if not is_plain:
        pytest.skip("sanitizers bring objects without the mark")
    assert re.search(r"x86 feature:.*SHSTK", readelf("-n"))


def test_every_object_of_ours_is_ready_for_branch_tracking(is_plain):
    if not is_plain:
        pytest.skip("looks at the program as people get it")
    objects = [str(path) for path in (BUILD / "src").rglob("*.c.o")]
    assert len(objects) > 80
    notes = subprocess.run(["readelf", "-W", "-n", *objects], check=True, capture_output=True,
                           text=True).stdout
    marked = len(re.findall(r"x86 feature: IBT, SHSTK", notes))
    assert marked == len(objects)


def test_stacks_have_canaries(is_plain):
    if not is_plain:
        pytest.skip("sanitizers look after the stack themselves")
    assert "__stack_chk_fail" in imported()


def test_copies_are_checked(is_plain):
    if not is_plain:
        pytest.skip("_FORTIFY_SOURCE wants optimisation and no sanitizer")
    names = imported()
    checked = {name for name in names if name.endswith("_chk")}
    # What our code calls with sizes that the compiler does not know at build time.
    for name in ("__snprintf_chk", "__vsnprintf_chk"):
        assert name in checked
    if compiler() == "gcc":
        assert "__memcpy_chk" in checked
    # Without a bound of their own, these would be calls that escaped it. (A plain snprintf is one
    # whose bound the compiler has proven.)
    assert not names & {"sprintf", "vsprintf", "strcpy", "strcat", "gets"}
