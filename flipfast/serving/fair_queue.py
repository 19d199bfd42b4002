"""A queue in which callers take turns."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """First come, first served within a caller; between callers, one item each in turn.

    A caller with a thousand items so delays another one's single item by one, not by a thousand.
    """

    def __init__(self) -> None:
        # The first caller is the next to be served; items are in order of arrival.
        self._callers: OrderedDict[str, OrderedDict[Item, None]] = OrderedDict()
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def push(self, caller: str, item: Item) -> None:
        """Add an item behind the caller's others."""
        self._callers.setdefault(caller, OrderedDict())[item] = None
        self._n += 1

    def pop(self) -> Item:
        """Take the next item; KeyError where there is none."""
        caller, items = self._callers.popitem(last=False)
        item, _ = items.popitem(last=False)
        self._n -= 1
        if items:
            self._callers[caller] = items  # behind the others
        return item

    def remove(self, caller: str, item: Item) -> bool:
        """Take an item out, wherever it is; whether it was there."""
        items = self._callers.get(caller, OrderedDict())
        if item not in items:
            return False
        del items[item]
        self._n -= 1
        if not items:
            del self._callers[caller]
        return True
