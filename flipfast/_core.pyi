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
