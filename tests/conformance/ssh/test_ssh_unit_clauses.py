# SPDX-License-Identifier: MIT
"""Clauses that a unit test in C shows: known answers, nonces, limits of time. Runs the programs
again and takes their word by name."""
import re
import subprocess

import pytest
from culvert import PEERS

UNITS = PEERS.parents[1] / "src" / "proto" / "ssh"

SHOWN = {
    ("ssh_wire_test", "mpints_are_minimal"): ["4251:5-3"],
    ("ssh_wire_test", "name_lists_are_strict"): ["4251:5-4", "4251:5-6"],
    ("ssh_known_answer_test", "x25519_agrees_as_rfc_7748_prints_it"): ["8731:3.1-1"],
    ("ssh_known_answer_test", "secrets_lose_leading_zeros_and_keep_their_sign"):
        ["8731:3.1-1", "8731:3.1-2", "4251:5-3"],
    ("ssh_known_answer_test", "shares_of_low_order_or_other_length_are_refused"):
        ["8731:3-1", "8731:3-2"],
    ("ssh_known_answer_test", "the_exchange_hash_is_that_of_rfc_5656"): ["8731:3.1-3", "4253:8-1"],
    ("ssh_known_answer_test", "keys_are_derived_as_rfc_4253_says"): ["4253:7.2-1"],
    ("ssh_known_answer_test", "gcm_packets_are_sealed_as_rfc_5647_says"):
        ["5647:7.1-1", "5647:7.2-1", "5647:7.2-2", "5647:7.3-1"],
    ("ssh_known_answer_test", "chacha_packets_are_sealed_as_openssh_says"):
        ["openssh-chacha:1-1", "openssh-chacha:1-2", "openssh-chacha:1-4"],
    ("ssh_known_answer_test", "clear_packets_are_as_rfc_4253_says"):
        ["4253:6-1", "4253:6-2", "4253:6-3"],
    ("ssh_known_answer_test", "host_keys_sign_as_rfc_8032_prints_it"):
        ["8709:4-1", "8709:6-1", "8709:6-2"],
    ("ssh_host_key_test", "only_an_exact_signature_verifies"): ["8709:8-1"],
    ("ssh_nonce_test", "gcm_nonces_never_repeat"): ["5647:7.1-1", "5647:7.1-2"],
    ("ssh_nonce_test", "chacha_nonces_never_repeat"):
        ["openssh-chacha:1-1", "openssh-strict:1-3", "4253:6.4-1"],
    ("ssh_nonce_test", "keys_change_before_the_sequence_wraps"): ["openssh-chacha:1-5"],
    ("ssh_transport_test", "every_tampered_byte_is_noticed"): ["4253:6.4-2"],
    ("ssh_transport_test", "a_refused_host_key_ends_it"): ["4253:8-3"],
    ("ssh_transport_test", "an_unanswered_host_key_waits_and_times_out"):
        ["4252:4-2", "4251:9.3.7-1", "4253:8-3"],
    ("ssh_transport_test", "keys_change_by_age_and_a_silent_peer_is_dropped"): ["4253:9-5"],
    ("ssh_transport_test", "unknown_messages_are_answered_during_a_key_exchange"):
        ["4253:11.4-1", "4253:7.1-6"],
    ("ssh_transport_strangers_test", "floods_without_content_are_stopped"): ["4251:9.3.7-1"],
}
PROGRAMS = sorted({program for program, _ in SHOWN})


@pytest.fixture(scope="module")
def results():
    """Names of the tests that passed, by program; each is run once."""
    if not (UNITS / PROGRAMS[0]).exists():
        pytest.skip("the unit tests are not built")
    return {program: set(re.findall(r"^\[ +OK \] (\w+)", "\n".join(
        (done := subprocess.run([UNITS / program], capture_output=True, text=True, timeout=300)).stdout
        .splitlines() + done.stderr.splitlines()), re.M)) for program in PROGRAMS}


@pytest.mark.parametrize("program, name", [
    pytest.param(*key, marks=pytest.mark.clause(*keys), id=key[1]) for key, keys in SHOWN.items()])
def test_a_unit_test_shows_it(results, program, name):
    assert name in results[program]
