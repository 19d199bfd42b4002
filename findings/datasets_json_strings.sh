#!/usr/bin/env bash
# datasets 5.2.0 with pyarrow 26.0.1: in a JSON column of mixed types, strings turn into other values.
#
# Expected: `load_dataset("json")` gives every row the value that the file has. Where a column has
# strings and other values (the contents of messages, some of which are lists of parts, or answers,
# some of which are numbers), it gets the type `Json`, which is there to keep them as they are.
# Seen: a string that is JSON itself is stored as it stands and parsed when it is read: "42" becomes
# an int, "true" a bool, "null" None, "007" 7, and an assistant's answer in JSON a dict. Nothing is
# said. Without the one row of another type all strings are kept. Streaming, `Dataset.from_list(...,
# on_mixed_types="use_json")` and `features=Features({...: Json()})` do the same. A reward function
# gets a dict or a number for the text that was to be scored.
# What to do: one type a column: write plain strings as a list of one part, too, or give `features`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1 numpy==2.4.6
export HF_HUB_OFFLINE=1 HF_HOME="$folder/home"

"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys

from datasets import Dataset, Features, Json, disable_progress_bars, load_dataset

disable_progress_bars()


def load(name, contents, **options):
    """The column after a way through a file with one JSON object a line."""
    path = f"{sys.argv[1]}/{name}.jsonl"
    with open(path, "w") as file:
        file.writelines(json.dumps({"content": content}) + "\n" for content in contents)
    rows = load_dataset("json", data_files=path, split="train", **options)
    return [row["content"] for row in rows]


texts = ["a river", "42", "007", "true", "null", '{"instruction": "Name a river."}']
parts = [{"type": "text", "text": "42"}]
mixed = [*texts, parts]
assert load("texts", texts) == texts

found = load("mixed", mixed)
for text, value in zip(texts, found):
    print(f"{text!r} becomes {value!r}")
assert found == ["a river", 42, 7, True, None, {"instruction": "Name a river."}, parts]

rows = [{"content": content} for content in mixed]
assert load("mixed", mixed, streaming=True) == found
assert Dataset.from_list(rows, on_mixed_types="use_json")["content"][:] == found
assert Dataset.from_list(rows, features=Features({"content": Json()}))["content"][:] == found
PYTHON
