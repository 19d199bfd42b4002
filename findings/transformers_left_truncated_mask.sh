#!/usr/bin/env bash
# transformers 5.23.0: a conversation that is truncated on the left loses its whole assistant mask.
#
# Expected: `apply_chat_template(..., return_assistant_tokens_mask=True)` has ones at the tokens of
# the assistant that are in `input_ids`, as its documentation says; on whichever side
# `truncation_side` cuts.
# Seen: on the right it is so. On the left, as soon as the beginning of the first answer is cut, all
# is zero, those answers included that are there from beginning to end. Nothing is said. Training on
# the assistant's tokens alone gets nothing from such a conversation, that is from the longest.
# What to do: ask without truncation, and cut ids and mask alike.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  transformers==5.23.0 jinja2==3.1.6
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

"$folder/venv/bin/python" - <<'PYTHON'
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

template = """
{%- for message in messages %}
  {%- if message.role == "assistant" %}
    {{- "A " }}{% generation %}{{ message.content + " E" }}{% endgeneration %}{{ " " }}
  {%- else %}
    {{- "U " + message.content + " " }}
  {%- endif %}
{%- endfor %}"""
words = Tokenizer(WordLevel({w: i for i, w in enumerate("A U E hi one two three four".split())}))
words.pre_tokenizer = Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, chat_template=template)
question = {"role": "user", "content": "hi"}
answers = [{"role": "assistant", "content": text} for text in ("one two", "three", "four")]
conversation = [message for answer in answers for message in (question, answer)]


def marked(side, length):
    tokenizer.truncation_side = side
    found = tokenizer.apply_chat_template(
        conversation,
        return_dict=True,
        return_assistant_tokens_mask=True,
        truncation=True,
        max_length=length,
    )
    ids, mask = found["input_ids"], found["assistant_masks"]
    print(f"{side} {length:2}: {tokenizer.decode(ids)!r}, mask {mask}")
    return tokenizer.decode([token for token, ones in zip(ids, mask) if ones])


assert marked("right", 16) == marked("left", 16) == "one two E three E four E"
assert marked("right", 12) == "one two E three E"
assert marked("left", 14) == "one two E three E four E"
assert marked("left", 12) == "", "'two E three E four E' would be right"
assert marked("left", 6) == "", "'four E' would be right"
PYTHON
