#!/usr/bin/env bash
# math-verify 0.9.0 (latex2sympy2-extended 1.11.0): a number with LaTeX's space between the thousands
# is a product, and one with an exponent is only what comes before it.
#
# Expected: "$5\,000$" is 5000, as "$5,000$" and "5 000" are; "1e3" is 1000, or is not parsed.
# Seen: "$5\,000$" and "$5 000$" are 5 times 000, which is 0: any two such numbers are equal, and none
# equals itself without the space; "$2\,500$" equals "$502$". "1e3" equals "1", "3 1/2" equals "1",
# and "$1e3$" is three times Euler's number. Nothing is said, so that a reward for reinforcement
# learning (TRL's `accuracy_reward` among them) takes wrong answers for right ones, and right ones
# for wrong.
# What to do: take the spaces out and write exponents as powers before `parse`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  math-verify==0.9.0 latex2sympy2-extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0

"$folder/venv/bin/python" - <<'PYTHON'
from math_verify import parse, verify

as_expected = [("5000", "$5,000$"), ("5000", "5 000"), ("1000", "$10^3$")]
taken_for_equal = [
    (r"$5\,000$", r"$7\,000$"),
    (r"\boxed{5\,000}", r"\boxed{70\,000}"),
    (r"$502$", r"$2\,500$"),
    ("0", r"$25\,000$"),
    ("1", "1e3"),
    ("1", "3 1/2"),
]
taken_for_different = [
    ("5000", r"$5\,000$"),
    ("5000", "$5 000$"),
    ("1000", "1e3"),
    ("1000", "$1e3$"),
    ("7/2", "3 1/2"),
]
cases = ((as_expected, True), (taken_for_equal, True), (taken_for_different, False))
for pairs, equal in cases:
    for gold, answer in pairs:
        found = verify(parse(gold), parse(answer))
        print(f"gold {gold}, answer {answer}: {'right' if found else 'wrong'}")
        assert found == equal
PYTHON
