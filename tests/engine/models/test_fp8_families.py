"""Families with 8-bit weights: all ways of rows into the products, in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
import transformers

pytest.importorskip("triton")

from flipfast.engine.attention import AttentionShape
from flipfast.engine.attention.reference import Backend
from flipfast.engine.models.decoder import Decoder
from flipfast.engine.models.families import read_spec
from flipfast.engine.models.fp8 import kinds_of, with_scales
from flipfast.engine.ops.fp8 import Fp8Linear
from flipfast.engine.ops.triton_ops import TritonOps
from tests.engine.models.paged import MAX_TOKENS, SHAPE, Paged, random_model
from tests.engine.models.test_fp8 import in_blocks
from tests.kernels.conftest import _one_chain_of_products  # noqa: F401  (a fixture)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="decoders of these tests are on the CPU"),
]
CPU = torch.device("cpu")
FEW = {"hidden_size": 144, "num_hidden_layers": 2, "initializer_range": 0.1}


@pytest.mark.parametrize("family", ["Qwen2", "Olmo2", "Gemma3Text"])
def test_logits_are_those_of_floats_but_for_the_rounding(family: str) -> None:
    """Biases, blocks without a norm before them, norms with an offset; a part left in floats."""
    config = getattr(transformers, f"{family}Config")(**{**SHAPE, **FEW})
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in random_model(config).state_dict().items():
        if not name.endswith("_proj.weight") or name.endswith("1.self_attn.k_proj.weight"):
            tensors[name] = weight
        else:
            tensors[name], tensors[f"{name}_scale"] = in_blocks(weight, 128, 128)
    kinds = kinds_of({name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()})
    architecture = f"{family.removesuffix('Text')}ForCausalLM"
    spec = read_spec({**config.to_dict(), "architectures": [architecture]})

    def logits(fp8: str) -> tuple[Decoder, torch.Tensor]:
        shape = AttentionShape(spec.n_heads, spec.n_kv_heads, spec.head_dim, torch.float32, CPU)
        decoder = Decoder(
            spec,
            TritonOps(CPU, torch.float32, fp8=fp8),
            Backend(shape),
            max_tokens=MAX_TOKENS,
            max_logit_rows=MAX_TOKENS,
            source_dtype=torch.float32,
            kinds=kinds,
        )
        decoder.load(with_scales(tensors.items(), "here"), "here")
        return decoder, Paged(decoder, 1).step([(0, [*range(2, 20)])], all_rows=True).clone()

    (decoder, found), (_, floats) = logits("kept"), logits("")
    first, second = (layer.linears() for layer in decoder._layers)
    assert all(isinstance(part, Fp8Linear) for part in [*first, *second[1:]])
    assert not isinstance(second[0], Fp8Linear)
    error = (found - floats).norm() / floats.norm()
    assert 1e-3 < error < 0.1, error
