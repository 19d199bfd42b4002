"""The native engine: continuous batching over a paged key-value cache.

`engine` is the step loop; `scheduler` plans a step, `batch` lays it out, `model_runner` runs it,
`sampler` takes the tokens. `models`, `ops` and `attention` are what a step computes with.
"""
