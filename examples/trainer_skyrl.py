"""SkyRL: registers the environment, and plays one episode as SkyRL's generator does.

    environment.env_class=flip        # and env_class "flip" in the dataset's rows

Register it in the file that calls SkyRL's entry point, inside the Ray task, as for any environment
of one's own.
"""

import skyrl_gym

skyrl_gym.register(
    id="flip",
    entry_point="flipfast.trainers.skyrl:FlipEnv",
    kwargs={"timeout": 120},  # and for a server "target": "http://127.0.0.1:8000"
)

env = skyrl_gym.make("flip", env_config={}, extras={"max_turns": 1})
env.init([{"role": "user", "content": "How do I make banana bread?"}])
print(env.step("To make banana bread, mash three ripe bananas and mix them with flour."))
print(env.get_metrics())
