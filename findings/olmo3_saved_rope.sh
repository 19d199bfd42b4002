#!/usr/bin/env bash
# transformers 5.12.1 and 5.23.0: an OLMo 3 configuration that the older release has saved means
# another model to the newer one.
#
# Expected: what 5.12.1 saves, 5.23.0 reads as it was: a rope base (theta) of 10000 in every layer.
# Seen: 5.12.1 keeps one set of rope parameters for all layers, 5.23.0 one for each kind of layer. It
# takes the saved set for neither: both kinds get the default base, 500000, and nothing is said. With
# `rope_theta` beside no `rope_parameters`, as before 5.0, only the layers with a sliding window get
# the default. Models with OLMo 3's own base are not concerned; others turn other queries and keys.
# What to do: write `rope_parameters` with a set for each kind into config.json.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for release in 5.12.1 5.23.0; do
  python3 -m venv "$folder/$release"
  "$folder/$release/bin/python" -m pip install --quiet --disable-pip-version-check \
    "transformers==$release"
done
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error

"$folder/5.12.1/bin/python" - "$folder/model" <<'PYTHON'
import sys

from transformers import Olmo3Config

config = Olmo3Config(rope_theta=10000.0)
assert config.rope_parameters["rope_theta"] == 10000.0, config.rope_parameters
config.save_pretrained(sys.argv[1])
PYTHON

"$folder/5.23.0/bin/python" - "$folder/model" <<'PYTHON'
import sys

from transformers import AutoConfig, Olmo3Config

saved, old = AutoConfig.from_pretrained(sys.argv[1]), Olmo3Config(rope_theta=10000.0)
for name, config in (("saved by 5.12.1", saved), ("rope_theta alone", old)):
    kinds = {kind: config.rope_parameters[kind]["rope_theta"] for kind in set(config.layer_types)}
    print(f"{name}: {dict(sorted(kinds.items()))}")
    expected = 500000.0 if config is saved else 10000.0
    assert kinds == {"full_attention": expected, "sliding_attention": 500000.0}
PYTHON
