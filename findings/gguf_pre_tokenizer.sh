#!/usr/bin/env bash
# transformers 5.23.0: the rule by which a GGUF file's text is cut before its merges is read for some
# files, and replaced by GPT-2's, without a word, for others.
#
# Expected: `AutoTokenizer.from_pretrained(..., gguf_file=...)` cuts a text as the field
# `tokenizer.ggml.pre` of the file says, as llama.cpp does, or says that it does not know the rule.
# Seen: "llama-bpe" (three digits at most) and "qwen2" (each digit alone) are followed. "smollm" and
# "starcoder", which have each digit alone as well, and a name that does not exist, are cut like
# "gpt-2": a number is one piece, and merges apply inside it. Of real answers to
# SmolLM2-135M-Instruct a third get other ids than in llama.cpp and in the original tokenizer, so
# that the model reads what it was not trained on.
# What to do: take the tokenizer from the original repository, not from the file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.23.0 gguf==0.19.0
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

from gguf import GGUFWriter
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer

folder, found = Path(sys.argv[1]), {}
tokens = [*sorted(ByteLevel.alphabet()), "12", "34", "1234", "<end>"]
for pre in ("gpt-2", "smollm", "starcoder", "no-such-rule", "llama-bpe", "qwen2"):
    writer = GGUFWriter(folder / f"{pre}.gguf", "llama")
    shape = {"block_count": 1, "context_length": 64, "embedding_length": 8}
    for name, value in {**shape, "attention.head_count": 1}.items():
        writer.add_uint32(f"llama.{name}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges(["1 2", "3 4", "12 34"])
    writer.add_bos_token_id(len(tokens) - 1)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=f"{pre}.gguf")
    found[pre] = tokenizer.tokenize("1234")
    print(f"{pre}: {found[pre]}")
assert found.pop("llama-bpe") == ["12", "3", "4"], found
assert found.pop("qwen2") == ["1", "2", "3", "4"], found
assert all(pieces == ["1234"] for pieces in found.values()), found
PYTHON
