import numpy as np
import numpy.typing as npt

def overlap_f1(
    predictions: tuple[str, ...], references: tuple[str, ...], threads: int = 0
) -> npt.NDArray[np.float64]: ...
