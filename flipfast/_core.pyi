from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

def overlap_f1(
    predictions: tuple[str, ...], references: tuple[str, ...], threads: int = 0
) -> npt.NDArray[np.float64]: ...
def word_hashes(
    texts: tuple[str, ...],
) -> tuple[
    npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]
]: ...

class Drafter:
    """Proposes the next tokens of growing outputs: an output often repeats what is at hand.

    Each next token of a draft comes from the likeliest source: one of those given for the output,
    what the output has written itself, or what closed outputs have written. How likely each is
    right is learned from what becomes of the proposals. Any thread may call it; the GIL is
    released.

    Args:
        max_draft: most tokens of a draft, at least 1.
    """

    def __init__(self, max_draft: int) -> None: ...
    def open(self, sources: Sequence[Sequence[int]], start: Sequence[int] = ...) -> int:
        """A handle for an output.

        Args:
            sources: token sequences that it may repeat, likeliest first; they are copied. -1
                stands for the output's start: the draft for an empty output is what follows it.
            start: tokens that the output begins with.

        Raises:
            ValueError: a negative token, but for the -1 of a source.
        """

    def extend(self, handles: Sequence[int], tokens: Sequence[Sequence[int]]) -> None:
        """Tell what outputs have got since.

        Args:
            handles: of the outputs.
            tokens: for each of them.

        Raises:
            ValueError: an unknown handle, a negative token or lists of different lengths; nothing
                is changed then.
        """

    def propose(
        self, handles: Sequence[int], limits: Sequence[int], threshold: float
    ) -> list[tuple[list[int], list[float]]]:
        """Draft the next tokens of each output.

        Args:
            handles: of the outputs.
            limits: most tokens of each draft.
            threshold: a token is drafted if it and all before it in the draft are accepted with at
                least this chance, as far as is known.

        Returns:
            The tokens of each draft, and the chances that a token and all before it are accepted.

        Raises:
            ValueError: an unknown handle or lists of different lengths.
        """

    def close(self, handle: int, learn: bool) -> None:
        """Forget an output; with learn, others may repeat it.

        Raises:
            ValueError: an unknown handle.
        """

class ObjectScanner:
    """Follows a model's output, as it grows, up to where its instruction is closed for good.

    It follows only a clean leading object: JSON's white space, closed think blocks and one ``` or
    ```json fence, then a brace and pairs of strings, all valid for `json.loads` so far. Any other
    byte makes it give up, and so does a value that only shows the format ("...", "<x>", nothing).
    The first value under a key that spells "inferred instruction" counts, other keys with
    "instruction" do not. Models forget to escape quotes, so that the quote at a value's end counts
    once a `}`, or a comma with a whole next key and its colon, has followed.

    Attributes:
        closed: whether the value is closed: nothing that follows can matter.
        dead: whether it has given up.
        start: the byte where the value begins, behind its opening quote; -1 before it.
        end: the byte of the quote that ends it, -1 before it; final once it is closed.
    """

    def __init__(self) -> None: ...
    def feed(self, data: bytes) -> None:
        """Read the next bytes; the result does not hang on how an output is cut into pieces."""

    @property
    def closed(self) -> bool: ...
    @property
    def dead(self) -> bool: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
