"""Pages of the KV cache: which are held by sequences, and which can be taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable

NULL_PAGE = 0  # padding rows write here; no sequence owns it


class PagePool:
    """Page numbers with reference counts.

    A page is free, held (by one or more sequences), or kept: held by no sequence, but with its
    content known to the prefix cache, which evicts kept pages when free ones run out.

    Args:
        n_pages: total number of pages; page 0 is never handed out.
        keep: called when a page's last holder releases it; whether the prefix cache keeps it.
        evict: called when no page is free; evicts one kept page and returns it, or None if there
            is none.
    """

    def __init__(
        self, n_pages: int, keep: Callable[[int], bool], evict: Callable[[], int | None]
    ) -> None:
        self.n_pages = n_pages
        self._free = list(range(n_pages - 1, NULL_PAGE, -1))  # a stack: recent pages come first
        self._holders = [0] * n_pages
        self._keep = keep
        self._evict = evict
        self.peak_held = 0
        self._n_held = 0

    @property
    def capacity(self) -> int:
        """Number of pages that sequences can hold in total."""
        return self.n_pages - 1

    @property
    def n_held(self) -> int:
        """Number of pages that sequences hold."""
        return self._n_held

    @property
    def n_available(self) -> int:
        """Number of pages that can be taken: free and kept ones."""
        return self.capacity - self._n_held

    def holders(self, page: int) -> int:
        """How many sequences hold a page."""
        return self._holders[page]

    def take(self) -> int:
        """Take a page for one holder.

        Raises:
            RuntimeError: no page is available.
        """
        page = self._free.pop() if self._free else self._evict()
        if page is None:
            raise RuntimeError("no page is available")
        self._hold(page)
        return page

    def share(self, page: int) -> None:
        """Add a holder to a held or kept page."""
        if self._holders[page]:
            self._holders[page] += 1
        else:
            self._hold(page)

    def release(self, pages: Iterable[int]) -> None:
        """Release pages, the last one first, so that the tail of a prefix is evicted first.

        Raises:
            RuntimeError: no sequence holds one of the pages.
        """
        for page in reversed(list(pages)):
            if self._holders[page] <= 0:
                raise RuntimeError(f"page {page} is released but nobody holds it")
            self._holders[page] -= 1
            if self._holders[page] == 0:
                self._n_held -= 1
                if not self._keep(page):
                    self._free.append(page)

    def reclaim(self, page: int) -> None:
        """Free a kept page that the prefix cache has forgotten."""
        self._free.append(page)

    def check(self, kept: set[int]) -> None:
        """Check that every page is in exactly one state; for tests.

        Args:
            kept: the pages that the prefix cache keeps.

        Raises:
            RuntimeError: a page is in two states or in none.
        """
        held = {page for page, count in enumerate(self._holders) if count}
        free = set(self._free)
        everything = set(range(1, self.n_pages))
        if len(free) != len(self._free) or free & held or free & kept or held & kept:
            raise RuntimeError("a page is in two states at once")
        if free | held | kept != everything or len(held) != self._n_held:
            raise RuntimeError(f"pages are lost: {sorted(everything - free - held - kept)[:10]}")

    def _hold(self, page: int) -> None:
        self._holders[page] = 1
        self._n_held += 1
        self.peak_held = max(self.peak_held, self._n_held)
