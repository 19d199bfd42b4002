"""NeMo-RL: registers the environment, and makes the call that its rollouts make of the actor.

    env:
      flip:
        target: http://127.0.0.1:8000    # else each actor has an engine of its own
        timeout: 120
    data:
      train: {env_name: flip, processor: math_hf_data_processor, ...}

In `run_grpo.py`, before the data is set up: `flipfast.trainers.nemo_rl.register()`. The dataset's
answer, which becomes `ground_truth` in `extra_env_info`, is the instruction.
"""

from flipfast.trainers.nemo_rl import FlipEnvironment

environment = FlipEnvironment({"timeout": 120})
log = [
    {"role": "user", "content": "How do I make banana bread?"},
    {"role": "assistant", "content": "To make banana bread, mash bananas and add flour."},
]
print(environment.step([log], [{"ground_truth": "How do I make banana bread?"}]))
print(environment.global_post_process_and_metrics({})[1])
