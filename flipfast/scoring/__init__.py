"""The path of a row from texts to a reward, in order.

1. `copying`, `defences`: what a response copies from its instruction, and guards against it.
2. `assembly`: builds what a configuration names: the prompt renderer, the output watchers.
3. `running`: runs identical requests once, in batches, on the backend.
4. `generation` (inferred instructions) or `likelihood` (no decoding): how a row's samples are run.
5. `device_scoring`: F1 computed from the output tokens on the GPU that holds them.
6. `reading`: otherwise the text of each output, and the instruction in it.
7. `samples`: a sample's score and status, and a row's reward from its samples.
8. `batches`, `best_of`, `streaming`: scoring of whole batches, of groups, and row by row.
9. `async_scoring`, `background`: the same for asyncio code, and for blocking callers.
10. `credit`: splits a response's reward over its parts.
11. `shaping`, `ensemble`: transforms and combines rewards, also those of several models.
"""
