"""Prefix caching: finds the pages that hold the start of a prompt."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as SequenceOf
from itertools import count
from typing import NamedTuple

import numpy as np

from flipfast.engine.kv_cache import PagePool
from flipfast.engine.sequence import TOKEN_BYTES, Sequence

ROOT = 0


class _Node(NamedTuple):
    number: int
    parent: int
    key: bytes
    pinned: bool


class PrefixCache:
    """A tree of full pages, found by the exact tokens on the path from the root.

    A page is registered when the step that fills it is planned: a later sequence of the same step
    may already read it, because each layer writes the whole step's keys and values before any
    query reads them. Pages that no sequence holds are kept and evicted in least-recently-used
    order; a child is never used without its parents, so leaves are evicted before them. Pinned
    pages are evicted last. The last, partly filled page of a leader's prompt is registered, too.

    Args:
        n_pages: of the pool.
        page_size: tokens per page.
        enabled: False keeps nothing and finds nothing.
        copies_pins: find the tokens of a pinned prefix behind its last full page, too, in the page
            of any prompt that goes on with them. They are copied for each sequence: worth it where
            a row costs more than the copies, on a CPU but not on a GPU.
    """

    def __init__(
        self, n_pages: int, page_size: int, *, enabled: bool = True, copies_pins: bool = True
    ) -> None:
        self.pool = PagePool(n_pages, self._keep, self._evict)
        self.page_size = page_size
        self.n_evicted = 0
        self._enabled = enabled
        self._copies_pins = copies_pins
        self._numbers = count(ROOT + 1)
        self._pages: dict[tuple[int, bytes], int] = {}  # (parent's number, tokens) -> page
        self._nodes: dict[int, _Node] = {}  # page -> its node
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._kept_pinned: OrderedDict[int, None] = OrderedDict()
        self._pins: set[bytes] = set()  # pinned prefixes of every number of full pages, as bytes
        self._paths: dict[int, bytes] = {ROOT: b""}  # number -> all tokens, for pinned nodes only
        self._rests: dict[bytes, list[bytes]] = {}  # a pin's full pages -> its tokens behind them
        self._rest_pages: dict[tuple[int, bytes], int] = {}  # (parent's number, such) -> page
        self._rests_in: dict[int, list[tuple[int, bytes]]] = {}  # page -> its keys there

    def pin(self, token_ids: SequenceOf[int]) -> None:
        """Keep the full pages of this prompt prefix, once computed, for longer than others."""
        whole = np.asarray(token_ids, dtype="<i4").tobytes()
        width = self.page_size * TOKEN_BYTES
        n_full = len(whole) // width
        self._pins |= {whole[: end * width] for end in range(1, n_full + 1)}
        path, rest = whole[: n_full * width], whole[n_full * width :]
        if rest and self._copies_pins:
            known = {rest, *self._rests.get(path, ())}
            self._rests[path] = sorted(known, key=len, reverse=True)

    def match(self, sequence: Sequence) -> list[int]:
        """Full pages that hold the start of the prompt, within its first `n_reusable` tokens."""
        node, pages = ROOT, []
        for index in range(sequence.n_reusable // self.page_size):
            page = self._pages.get((node, sequence.page_key(index, self.page_size)))
            if page is None:
                break
            pages.append(page)
            node = self._nodes[page].number
        return pages

    def attach(self, sequence: Sequence, pages: list[int]) -> None:
        """Attach the pages that `match` found to a sequence."""
        for page in pages:
            self._kept.pop(page, None)
            self._kept_pinned.pop(page, None)
            self.pool.share(page)
        sequence.pages = list(pages)
        sequence.n_computed = len(pages) * self.page_size
        sequence.n_registered = len(pages)
        sequence.node = self._nodes[pages[-1]].number if pages else ROOT

    def match_rest(self, sequence: Sequence) -> tuple[int, int] | None:
        """A page that begins with the next tokens after the pages just attached, and how many.

        They are the rest of the prompt, or of a pinned prefix. The page may be copied but not
        shared: its holder may be writing tokens behind them.
        """
        n_full, n_rest = divmod(sequence.n_reusable, self.page_size)
        if sequence.n_registered == n_full and n_rest:
            page = self._pages.get((sequence.node, sequence.page_key(n_full, self.page_size)))
            if page is not None:
                return page, n_rest
        following = sequence.page_key(sequence.n_registered, self.page_size)
        path = self._paths.get(sequence.node)
        for rest in () if path is None else self._rests.get(path, ()):
            page, n = self._rest_pages.get((sequence.node, rest)), len(rest) // TOKEN_BYTES
            fits = sequence.n_registered * self.page_size + n <= sequence.n_reusable
            if page is not None and fits and following.startswith(rest):
                return page, n
        return None

    def n_kept(self, pages: SequenceOf[int]) -> int:
        """How many of these pages no sequence holds."""
        return sum(not self.pool.holders(page) for page in pages)

    def register(self, sequence: Sequence) -> list[int]:
        """Register the prompt pages that a planned step fills; returns those that are new."""
        if not self._enabled:
            return []
        new = []
        full = min(sequence.n_computed, sequence.n_prompt) // self.page_size
        for index in range(sequence.n_registered, full):
            key = (sequence.node, sequence.page_key(index, self.page_size))
            page = self._pages.get(key)
            if page is None:
                page = sequence.pages[index]
                self._add(key, page)
                new.append(page)
            # If another sequence has computed the same page, both continue from its node.
            sequence.node = self._nodes[page].number
        sequence.n_registered = max(sequence.n_registered, full)
        if sequence.leads and sequence.n_computed >= sequence.n_prompt:
            # The last page, filled in part: its key is shorter than those of full pages.
            key = (sequence.node, sequence.page_key(full, self.page_size))
            if key[1] and key not in self._pages:
                self._add(key, sequence.pages[full])
                new.append(sequence.pages[full])
        return new

    def forget(self, pages: SequenceOf[int]) -> None:
        """Unregister pages whose content is not valid; kept ones become free."""
        for page in pages:
            if page in self._nodes:
                self._remove(page)
                if page in self._kept or page in self._kept_pinned:
                    self._kept.pop(page, None)
                    self._kept_pinned.pop(page, None)
                    self.pool.reclaim(page)

    def clear(self) -> None:
        """Forget everything: the weights have changed."""
        self.forget(list(self._nodes))

    def kept_pages(self) -> set[int]:
        """Registered pages that no sequence holds."""
        return set(self._kept) | set(self._kept_pinned)

    def _add(self, key: tuple[int, bytes], page: int) -> None:
        parent, tokens = key
        number = next(self._numbers)
        path = self._paths.get(parent)
        pinned = path is not None and path + tokens in self._pins
        if pinned and path is not None:
            self._paths[number] = path + tokens
        self._pages[key] = page
        self._nodes[page] = _Node(number, parent, tokens, pinned)
        for rest in self._rests.get(path, ()) if path is not None else ():
            if tokens.startswith(rest) and (parent, rest) not in self._rest_pages:
                self._rest_pages[parent, rest] = page
                self._rests_in.setdefault(page, []).append((parent, rest))

    def _remove(self, page: int) -> None:
        node = self._nodes.pop(page)
        for key in self._rests_in.pop(page, ()):
            del self._rest_pages[key]
        self._paths.pop(node.number, None)
        del self._pages[node.parent, node.key]

    def _keep(self, page: int) -> bool:
        node = self._nodes.get(page)
        if node is None:
            return False
        (self._kept_pinned if node.pinned else self._kept)[page] = None
        return True

    def _evict(self) -> int | None:
        kept = self._kept or self._kept_pinned
        if not kept:
            return None
        page, _ = kept.popitem(last=False)
        self._remove(page)
        self.n_evicted += 1
        return page
