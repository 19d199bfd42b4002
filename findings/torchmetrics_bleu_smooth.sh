#!/usr/bin/env bash
# torchmetrics 1.9.0 with torch 2.13.0: BLEU's `smooth=True` does nothing where smoothing is needed.
#
# Expected: with `smooth=True`, which follows Lin and Och (2004), a text that shares words with its
# reference but no four in a row gets a score between 0 and 1: the counts of two and more words are
# raised by one for just this case. So do `sacrebleu` ("add-k", 1) and nltk (`method2`).
# Seen: if any of the four counts is zero, the score is 0 before smoothing is looked at. An identical
# text of two words gets 0, with and without. Where no count is zero, the smoothed score is that of
# sacrebleu, so that long texts show nothing. As a reward it is 0 for nearly all short answers.
# What to do: `sacrebleu.sentence_bleu(..., smooth_method="add-k")` or nltk.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 torchmetrics==1.9.0 sacrebleu==2.6.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PYTHON'
from sacrebleu.metrics import BLEU
from torchmetrics.functional.text import bleu_score

other = BLEU(smooth_method="add-k", smooth_value=1, tokenize="none", effective_order=True)
pairs = [
    ("the cat sat on the mat", "the cat sat on a mat"),
    ("name one large river of spain", "name one large lake of spain"),
    ("name a river", "name one river"),
    ("hello world", "hello world"),
]
for text, reference in pairs:
    plain = bleu_score([text], [[reference]]).item()
    smooth = bleu_score([text], [[reference]], smooth=True).item()
    right = other.sentence_score(text, [reference]).score / 100
    print(f"{text} / {reference}: {plain:.3f}, smooth {smooth:.3f}, sacrebleu {right:.3f}")
    assert right > 0.4
    if plain:
        assert abs(smooth - right) < 1e-5 and smooth > plain
    else:
        assert smooth == 0
assert plain == 0, "the last pair is such a case"
PYTHON
