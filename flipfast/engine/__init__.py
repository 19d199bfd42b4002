"""The native engine: continuous batching over a paged KV cache.

`step_loop` runs the steps: `scheduler` plans a step, `batch` lays it out, `model_runner` runs it,
`sampler` picks the tokens. `models`, `ops` and `attention` do a step's computation.
"""
