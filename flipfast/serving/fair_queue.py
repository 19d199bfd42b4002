"""A queue in which callers take turns."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """First in, first out per caller; round robin, one item each, between callers.

    A caller with a thousand items thus delays another's single item by one, not by a thousand.
    """

    def __init__(self) -> None:
        # The first caller is served next; items are in order of arrival.
        self._callers: OrderedDict[str, OrderedDict[Item, None]] = OrderedDict()
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def push(self, caller: str, item: Item) -> None:
        """Add an item after the caller's others."""
        self._callers.setdefault(caller, OrderedDict())[item] = None
        self._n += 1

    def pop(self) -> Item:
        """Remove and return the next item; raises KeyError if there is none."""
        caller, items = self._callers.popitem(last=False)
        item, _ = items.popitem(last=False)
        self._n -= 1
        if items:
            self._callers[caller] = items  # after the others
        return item

    def remove(self, caller: str, item: Item) -> bool:
        """Remove an item from anywhere in the queue; returns whether it was there."""
        items = self._callers.get(caller, OrderedDict())
        if item not in items:
            return False
        del items[item]
        self._n -= 1
        if not items:
            del self._callers[caller]
        return True
