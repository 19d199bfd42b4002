#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.13.0: importing a configuration class imports torch's compiler.
#
# Expected: `from transformers import LlamaConfig` is cheap, since a configuration is a table of
# numbers and strings and the package imports its parts when they are asked for; as does
# `from transformers import PreTrainedTokenizerFast`, which leaves torch._dynamo alone.
# Seen: the configuration's validators want the names of all activation functions. Their module asks
# for kernels of the hub, that for attention functions, these for continuous batching, and so
# torch._dynamo, torch.distributed.tensor and sympy are imported, 3 s on a machine where torch itself
# takes 1.5. Tools that only read a config.json pay for that at every start.
# What to do: where start-up matters and the fields are known, read config.json with `json`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  transformers==5.23.0 torch==2.13.0
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

for class in PreTrainedTokenizerFast LlamaConfig; do
  "$folder/venv/bin/python" - "$class" <<'PYTHON'
import sys

exec(f"from transformers import {sys.argv[1]}")
heavy = ("torch._dynamo", "torch.distributed.tensor", "sympy", "transformers.activations")
loaded = [name for name in heavy if name in sys.modules]
print(f"{sys.argv[1]}: {len(sys.modules)} modules, among them {loaded}")
assert loaded == (list(heavy) if sys.argv[1] == "LlamaConfig" else []), loaded
PYTHON
done
