"""What would take a stage's time away, in a sentence each: the stages of flipfast.profiling."""

from __future__ import annotations

# By the stage's name; "product" stands for all products of the decoder.
REMEDIES = {
    "product": "Fewer tokens to run: a shorter prompt, more of it shared, the direct style; "
    "weights and numbers of lower precision; a smaller model.",
    "attention": "Shorter responses (max_response_tokens); while decoding, more tokens accepted "
    "a pass, as each pass reads all keys; far below the floor, a better kernel.",
    "write keys": "A kernel that writes keys with norm and rotation, where the backend has none.",
    "embed": "Nothing much: it copies a row of a table for each token.",
    "rms_norm": "Fusing it with the product behind it.",
    "add_rms_norm": "Fusing it with the products on either side.",
    "add": "Fusing it with the norm behind it.",
    "norm_rope": "Fusing it with the product before it.",
    "norm_rope_write": "Fusing it with the product before it; fewer tokens to run.",
    "gated": "Computing it at the end of the product before it, without writing gate and up.",
    "argmax": "Taking it inside the head's product, as is done where all rows are greedy.",
    "log_prob": "Taking it inside the head's product.",
    "fused_argmax": "Fewer passes a reward: drafts, early stop, shorter outputs; a smaller "
    "vocabulary.",
    "fused_log_prob": "Fewer true tokens; a smaller vocabulary.",
    "step, rest": "Fewer and larger steps: more rows at a time, drafts; on CUDA recorded graphs, "
    "which rest while stages are timed.",
    "wait for tokens": "Nothing on the host: it is the device's work that is waited for.",
    "plan": "Fewer steps: more rows at a time, drafts.",
    "drafts": "Fewer or shorter drafts where few of them are accepted; else they pay for it.",
    "inverter, rest": "Larger calls and fewer steps: it is the bookkeeping of sequences in Python.",
    "decoding": "Leaving texts undecoded until they are read, as is done on CUDA.",
    "prompts": "Rendering a repeated context once; more threads for the tokenizer.",
    "parsing": "Shorter outputs: early stop, the direct style.",
    "word F1": "Nothing much: it runs in C++; more rows a call use more threads.",
    "reference words": "Fewer distinct instructions in a call.",
    "find spans": "Shorter outputs; more rows in a call, for one launch serves all.",
    "word F1 from ids": "Shorter outputs; more rows in a call, for one launch serves all.",
    "rest": "Larger calls: results are put together row by row in Python.",
}


def remedy(stage: str) -> str:
    """What would remove a stage.

    Raises:
        KeyError: of a stage that has no sentence yet: add one above.
    """
    return REMEDIES["product" if stage.startswith("product ") else stage]
