# SPDX-License-Identifier: MIT
"""The lists of clauses hold together: each clause has a test or a reason."""
import pytest

import clauses

RFCS = clauses.load()


@pytest.mark.parametrize("rfc", RFCS, ids=[rfc.path.stem for rfc in RFCS])
def test_every_clause_has_a_test_or_a_reason(rfc, named_clauses):
    bare = [key for key, clause in rfc.clauses.items()
            if key not in named_clauses and not clause.reason]
    assert not bare, f"neither test nor reason: {' '.join(bare)}"


@pytest.mark.parametrize("rfc", RFCS, ids=[rfc.path.stem for rfc in RFCS])
def test_no_clause_has_both(rfc, named_clauses):
    both = [key for key, clause in rfc.clauses.items() if key in named_clauses and clause.reason]
    assert not both, f"a test and a reason why there is none: {' '.join(both)}"


def test_the_lists_read_as_they_say(tmp_path):
    path = tmp_path / "rfc1.clauses"
    path.write_text("# words\ntitle: A thing\n1.2-1 MUST NOT  Do it\n    twice.\n"
                    "1.2-2 MAY  Sing.\n    not ours: we have\n        no voice.\n"
                    "A.1-1 SHOULD  Rest.\n    not covered: no time.\n")
    rfc = clauses.Rfc(path)
    assert [c.key for c in rfc.ours] == ["1:1.2-1", "1:A.1-1"]
    assert rfc.clauses["1:1.2-1"].text == "Do it twice."
    assert rfc.clauses["1:1.2-2"].reason == "we have no voice."
    assert rfc.summary({"1:1.2-1": {"passed"}}) == [
        "RFC 1 (A thing): 1 of 2 clauses covered, 1 more are not ours",
        "    not covered: §A.1-1 (no time.)"]
    assert "    not covered: §1.2-1 (failed; skipped)" in rfc.summary(
        {"1:1.2-1": {"passed", "failed", "skipped"}})
    for wrong in ("    goes on with nothing\n", "1.2-1 OUGHT  x\n", "1.2-1 MAY x\n1.2-1 MAY y\n",
                  "    not ours: whose\n"):
        path.write_text(wrong)
        with pytest.raises(ValueError):
            clauses.Rfc(path)
