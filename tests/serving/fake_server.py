"""A server process before a scripted scorer: `python -m tests.serving.fake_server [fail]`."""

import asyncio
import sys

from flipfast.errors import ModelLoadError
from flipfast.serving.logs import configure_logging
from flipfast.serving.options import ServerOptions
from flipfast.serving.server import serve
from tests.serving.fake_scorer import FakeScorer


async def main(fails):
    scorer = FakeScorer()

    async def start():
        scorer.state = "starting"
        await asyncio.sleep(0.3)
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
