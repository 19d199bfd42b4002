"""The client of a flipfast server: needs neither torch nor triton nor transformers.

`FlipClient` blocks, `AsyncFlipClient` is for asyncio code. Both take the server's address and key
from FLIPFAST_URL and FLIPFAST_API_KEY where they are given none.
"""

from flipfast.client.aio import AsyncFlipClient
from flipfast.client.sync import FlipClient

__all__ = ["AsyncFlipClient", "FlipClient"]
