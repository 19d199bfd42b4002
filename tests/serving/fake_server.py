"""A server process before a scripted scorer: `python -m tests.serving.fake_server [fail]`.

SIGUSR1 tells it that its engine has started, or has failed to, SIGUSR2 to answer what waits.
"""

import asyncio
import signal
import sys

from flipfast.errors import ModelLoadError
from flipfast.serving.logs import configure_logging
from flipfast.serving.options import ServerOptions
from flipfast.serving.server import serve
from tests.serving.fake_scorer import FakeScorer


async def main(fails):
    scorer = FakeScorer()
    scorer.state = "starting"
    started = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, started.set)
    loop.add_signal_handler(signal.SIGUSR2, scorer.go.set)

    async def start():
        await started.wait()
        if fails:
            raise ModelLoadError("no such model")
        scorer.state = "ready"

    try:
        await serve(scorer, ServerOptions(), host="127.0.0.1", port=0, start=start())
    finally:
        print(f"closed: {scorer.closed}, cancelled: {scorer.cancelled}", flush=True)


if __name__ == "__main__":
    configure_logging()
    asyncio.run(main(sys.argv[1:] == ["fail"]))
