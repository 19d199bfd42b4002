"""gguf's reader of files, kept from looking past their end."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, GGUFValueType


def value_of(field: Any) -> Any:
    """A field of the metadata as Python has it."""
    is_array = field.types[:1] == [GGUFValueType.ARRAY]
    return field.parts[field.data[0]] if is_array else field.contents()


class BoundedReader(GGUFReader):
    """gguf's reader, which never looks past the end of the file.

    The original returns what is there, however little, and goes on with it.
    """

    def _get(
        self,
        offset: int,
        dtype: npt.DTypeLike,
        count: int = 1,
        override_order: Any = None,
    ) -> npt.NDArray[Any]:
        kind = np.dtype(dtype)
        end = int(offset) + kind.itemsize * int(count)
        if end > len(self.data):
            raise ValueError(f"it has {len(self.data)} bytes, and an entry ends at {end}")
        found: npt.NDArray[Any] = np.frombuffer(self.data, kind, int(count), int(offset))
        return found.view(kind.newbyteorder(override_order or self.byte_order))

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        """An array as one part, a list; the original makes a part of each of its entries."""
        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        kind = GGUFValueType(int(self._get(orig_offs, np.uint32)[0]))
        length = int(self._get(orig_offs + 4, np.uint64)[0])
        at = orig_offs + 12
        values: list[Any]
        if kind == GGUFValueType.STRING:
            values, end = self._strings(at, length)
        elif kind in self.gguf_scalar_to_np:
            numbers = self._get(at, self.gguf_scalar_to_np[kind], length)
            values, end = numbers.tolist(), at + numbers.nbytes
        else:
            raise ValueError(f"an array of {kind.name} at byte {orig_offs}")
        return end - orig_offs, [values], [0], [GGUFValueType.ARRAY, kind]

    def _strings(self, at: int, length: int) -> tuple[list[str], int]:
        data, values = memoryview(self.data.data), []
        for _ in range(length):
            begin = at + 8
            end = begin + int.from_bytes(data[at:begin], "little")
            if end > len(data):
                raise ValueError(f"it has {len(data)} bytes, and a string ends at {end}")
            values.append(str(data[begin:end], "utf-8"))
            at = end
        return values, at
