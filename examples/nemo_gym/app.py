"""NeMo Gym 0.7: copy this folder to `resources_servers/flip` of a checkout.

    gym env start --resources-server flip --model-type openai_model

Rows of a dataset need nothing but `responses_create_params`: its last user turn is the instruction.
"""

from flipfast.trainers.nemo_gym import FlipResourcesServer

if __name__ == "__main__":
    FlipResourcesServer.run_webserver()
