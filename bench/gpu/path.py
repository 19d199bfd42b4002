"""The whole path against transformers, then how near prefill and decode come to their floors."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from bench.gpu.floors import Steps
from bench.gpu.place import Place
from bench.models import random_model, random_requests
from bench.scripted import Script, ScriptedModel, load_shape, random_outputs
from bench.shapes import SHAPES
from bench.workloads import columns, made_groups
from flipfast import FlipReward

SHAPE = "qwen3-0.6b"
_LEAST_EQUAL = 0.9  # of rewards in float32: a tie in the last bits may go either way
_MOST_ERROR = 2.0  # of our log-probabilities, in those of transformers in the same dtype
_N_DECODED = 64  # tokens


def run(place: Place) -> None:
    """Rewards, log-probabilities, shares."""
    rewards(place)
    log_probs(place)
    shares(place)


def rewards(place: Place) -> None:
    """The embedded model's rewards in float32 are those of transformers on the same device."""
    sizes = place.sizes
    texts = columns(made_groups(sizes.path_rows // 2, 2))
    options = {"device": str(place.device), "dtype": "float32", "style": "direct"}
    options |= {"max_new_tokens": sizes.path_tokens}
    found = []
    for backend in ("native", "transformers"):
        with FlipReward(**options, backend=backend) as reward:
            found.append(reward.score(*texts).rewards)
    equal = sum(a == b for a, b in zip(*found, strict=True)) / len(found[0])
    place.note("rewards equal to transformers'", "path", equal_rows=equal, dtype="float32")
    place.check(f"rewards of transformers: {equal:.0%} equal", equal >= _LEAST_EQUAL)


def log_probs(place: Place) -> None:
    """In bfloat16 a large shape's log-probabilities are about as far from float32 as those of
    transformers in bfloat16.
    """
    spec, checkpoint = random_model(SHAPE, str(place.device))
    config = SHAPES[SHAPE].config
    drawn = dict(checkpoint.tensors())
    if config["tie_word_embeddings"]:
        drawn.pop("lm_head.weight", None)  # of another draw, which the engine does not read
    built: Any = transformers.AutoConfig.for_model(SHAPES[SHAPE].model_type, **config)
    with torch.device(place.device):
        theirs: Any = transformers.AutoModelForCausalLM.from_config(built, dtype=torch.bfloat16)
    theirs.load_state_dict(drawn, strict=False)
    theirs.eval()
    requests = random_requests(place.sizes.path_rows, n_prompt=80, n_shared=16, vocab=10**3)
    cases = [(list(x.prompt_ids[:40]), list(x.prompt_ids[40:])) for x in requests]
    usual = _log_probs(theirs, cases, place.device)
    exact = _log_probs(theirs.float(), cases, place.device)
    del theirs, drawn
    model = ScriptedModel(
        (spec, checkpoint), device=str(place.device), **{"memory": 0.3, **place.sizes.engine}
    )
    ours = torch.tensor([model.log_probs(*case) for case in cases]).double()
    model.close()
    errors = [float((x - exact).square().mean().sqrt()) for x in (ours, usual)]
    spread = float(exact.std())
    place.note(
        "log-probabilities against float32",
        "path",
        error=errors[0],
        error_of_transformers=errors[1],
        spread=spread,
        dtype="bfloat16",
    )
    name = f"log-probabilities: off by {errors[0]:.2g}, those of transformers by {errors[1]:.2g}"
    place.check(name, errors[0] <= _MOST_ERROR * errors[1])


def _log_probs(model: Any, cases: Any, device: torch.device) -> torch.Tensor:
    """(cases, targets) float64 on the host."""
    rows = torch.tensor([prompt + targets for prompt, targets in cases], device=device)
    n = len(cases[0][0])
    with torch.inference_mode():
        logits = model(rows).logits[:, n - 1 : -1].double()
    return logits.log_softmax(-1).gather(-1, rows[:, n:, None])[..., 0].cpu()


def shares(place: Place) -> None:
    """Seconds and shares of the floor of prompts alone, and of the steps behind them."""
    wave, device = place.sizes.wave, str(place.device)
    model = load_shape(SHAPE, device, **place.sizes.engine)
    asked = random_requests(
        wave.n, n_prompt=wave.n_prompt, n_shared=wave.n_shared, vocab=model.vocab_size - 1
    )
    steps = Steps(model, SHAPE, place.rates)
    prompts = [list(request.prompt_ids) for request in asked]
    seconds, floors = [], []
    for n_out in (1, 1, 1 + _N_DECODED):  # the first one warms up
        script = Script(prompts, random_outputs([n_out] * wave.n, vocab=model.vocab_size))
        steps.reset()
        seconds.append(model.write(script).seconds)
        floors.append(steps.floor_s)
    model.close()
    figures = {"shape": SHAPE, "dtype": model.dtype, "n_rows": wave.n}
    prefill, decode = seconds[1], seconds[2] - seconds[1]
    place.note("prefill", "path", **figures, seconds=prefill, share_of_floor=floors[1] / prefill)
    place.note(
        "decode",
        "path",
        **figures,
        ms_a_step=1e3 * decode / _N_DECODED,
        share_of_floor=(floors[2] - floors[1]) / decode,
    )
