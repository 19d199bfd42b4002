#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.13.0: an FP8 checkpoint that it has dequantized is saved as FP8
# numbers with scales, beside a config.json that does not say so.
#
# Expected: `from_pretrained` with `dequantize=True`, or where there is no GPU, and `save_pretrained`
# give a folder with the same model, in bfloat16 or in FP8.
# Seen: the weights are quantized again on their way to the file, while `quantization_config` has been
# removed. Whoever loads the folder gets the FP8 numbers without their scales, another model; the only
# hint are scales called UNEXPECTED, which "can be ignored" in a model for another task. Weights
# that are no multiple of a block stay in bfloat16, so that a folder holds both.
# What to do: save `model.state_dict()` with safetensors, or put the field back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error CUDA_VISIBLE_DEVICES=

"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()
folder, saved = f"{sys.argv[1]}/from", f"{sys.argv[1]}/to"
config = LlamaConfig(
    vocab_size=8,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    dtype="bfloat16",
)
config.quantization_config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
config.save_pretrained(folder)
del config.quantization_config
weights = LlamaForCausalLM(config).bfloat16().state_dict()
for name, weight in list(weights.items()):
    if "_proj" in name:
        rows, columns = (size // 128 for size in weight.shape)
        blocks = weight.float().view(rows, 128, columns, 128)
        scales = blocks.abs().amax((1, 3), keepdim=True) / 448
        weights[name] = (blocks / scales).to(torch.float8_e4m3fn).view_as(weight)
        weights[f"{name}_scale_inv"] = scales.view(rows, columns)
save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})

model = AutoModelForCausalLM.from_pretrained(folder)
model.save_pretrained(saved)
name = "model.layers.0.mlp.gate_proj.weight"
loaded = model.state_dict()[name]
stored = load_file(f"{saved}/model.safetensors")[name]
again = AutoModelForCausalLM.from_pretrained(saved).state_dict()[name]
with open(f"{saved}/config.json") as file:
    quantized = "quantization_config" in json.load(file)
print(f"loaded as {loaded.dtype}, largest {loaded.abs().max():.3f}")
print(f"saved as {stored.dtype}, {'' if quantized else 'not '}called quantized")
print(f"largest when loaded again: {again.abs().max():.3f}")
assert loaded.dtype == torch.bfloat16 and loaded.abs().max() < 1
assert stored.dtype == torch.float8_e4m3fn and not quantized and again.abs().max() == 448
PYTHON
