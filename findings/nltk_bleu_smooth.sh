#!/usr/bin/env bash
# nltk 3.10.4: BLEU with `SmoothingFunction().method5` or `method7` exceeds 1.
#
# Expected: BLEU is at most 1, which an identical text gets. Method 5 (Chen and Cherry, 2014)
# averages, as nltk's documentation says, the counts of matching n-grams of neighbouring lengths. On
# counts, which get smaller by one with each length, that changes nothing for an identical text.
# Seen: the precisions are averaged instead, and the one before the first is the first plus one. An
# identical text of five words and more gets above 1.11, and one with a wrong word can get above 1.
# Method 7 applies method 5 after method 4. As a reward it exceeds what a perfect text should get.
# What to do: another method, or `sacrebleu.sentence_bleu`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check nltk==3.10.4

"$folder/venv/bin/python" - <<'PYTHON'
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

smoothing = SmoothingFunction()
reference = "name one large river in the north of spain that you have seen or read of".split()
one_wrong = [*reference[:-1], "about"]
short = reference[:5]
for method in range(1, 8):
    smooth = getattr(smoothing, f"method{method}")
    same = sentence_bleu([reference], reference, smoothing_function=smooth)
    wrong = sentence_bleu([reference], one_wrong, smoothing_function=smooth)
    five = sentence_bleu([short], short, smoothing_function=smooth)
    print(f"method {method}: identical {same:.3f}, five words {five:.3f}, one wrong {wrong:.3f}")
    if method in (5, 7):
        assert same > 1.11 and five > 1.11 and wrong > 1
    else:
        assert same == five == 1 and wrong < 1
PYTHON
