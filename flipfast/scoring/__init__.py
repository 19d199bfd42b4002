"""The way of a row, from texts to a reward, in the order in which it goes.

1. `copying`, `defences`: what a response copies from its instruction, before and after scoring.
2. `assembly`: a configuration's parts; renders prompts and adds watchers of their outputs.
3. `running`: identical requests once, in batches, on the backend.
4. `generation` (inferred instructions) or `likelihood` (no decoding): how a row's samples are run.
5. `device_scoring`: F1 from the output tokens where they lie, on a GPU.
6. `reading`: else the text of each output, and the instruction in it.
7. `samples`: a sample's score and status, and a row's reward from its samples.
8. `batches`, `best_of`, `streaming`: the forms in which rows come: whole, as groups, one by one.
9. `async_scoring`, `background`: the same for asyncio code, and for callers that block.
10. `shaping`, `ensemble`: rewards changed, put together, and of several models.
"""
