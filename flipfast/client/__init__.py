"""The client of a flipfast server: needs neither torch nor triton nor transformers.

`FlipClient` blocks; `AsyncFlipClient` is for asyncio code. Both default to the server's address and
key in FLIPFAST_URL and FLIPFAST_API_KEY.
"""

from flipfast.client.aio import AsyncFlipClient
from flipfast.client.sync import FlipClient

__all__ = ["AsyncFlipClient", "FlipClient"]
