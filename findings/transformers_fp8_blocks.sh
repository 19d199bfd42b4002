#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.13.0: where it dequantizes an FP8 checkpoint, it takes the size of
# the blocks from the number of scales, and `weight_block_size` for nothing.
#
# Expected: with `weight_block_size` [128, 128], rows 0 to 127 of a weight are multiplied by the first
# scale and the others by the next, the last block being as large as what is left. So are they stored
# by those who quantize, and so reads them the same file's function for gradients.
# Seen: the block is the number of rows divided by that of the scales. Of 192 rows with two scales,
# rows 96 to 127 get the second block's scale, without a word; so do columns. With 320 rows and three
# scales, loading fails. Without a GPU this is how every FP8 checkpoint is read, with one it is
# `dequantize=True`. Weights whose sides are multiples of the block are right.
# What to do: check the shapes, or dequantize with the block's size before loading.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error CUDA_VISIBLE_DEVICES=

"$folder/venv/bin/python" - "$folder/model" <<'PYTHON'
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()
folder = sys.argv[1]
blocks = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
config = LlamaConfig(
    vocab_size=8,
    hidden_size=128,
    intermediate_size=192,
    num_hidden_layers=1,
    num_attention_heads=2,
    dtype="bfloat16",
    quantization_config=blocks,
)
config.save_pretrained(folder)
del config.quantization_config
weights = LlamaForCausalLM(config).bfloat16().state_dict()
for name, weight in list(weights.items()):
    if "_proj" in name:  # ones in FP8, and the numbers of their blocks as scales
        rows, columns = (-(-size // 128) for size in weight.shape)
        weights[name] = torch.ones_like(weight).to(torch.float8_e4m3fn)
        weights[f"{name}_scale_inv"] = torch.arange(1.0, rows * columns + 1).view(rows, columns)
save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})

model = AutoModelForCausalLM.from_pretrained(folder)
mlp = model.model.layers[0].mlp
for name, ends in (("gate_proj", mlp.gate_proj.weight[:, 0]), ("down_proj", mlp.down_proj.weight[0])):
    numbers, counts = ends.float().unique(return_counts=True)
    print(name, tuple(getattr(mlp, name).weight.shape), dict(zip(numbers.tolist(), counts.tolist())))
    assert numbers.tolist() == [1.0, 2.0]
    assert counts.tolist() == [96, 96], "128 and 64 would be right"
PYTHON
