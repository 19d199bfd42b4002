#!/usr/bin/env bash
# safetensors 0.8.0 with numpy 2.4.6: an array that is not in C order is written in the order of its
# memory, so that another array is read back.
#
# Expected: `safetensors.numpy.save` writes the array, as 0.7.0 does, or refuses it, as
# `safetensors.torch.save` does a tensor that is not contiguous; "contiguous" is what its
# documentation asks for.
# Seen: 0.8.0 takes a transposed array and one in Fortran order (which is contiguous, too) without a
# word. Shape and dtype are right in the file, the numbers are in other places. Transposing is what
# converters of checkpoints do, and results of scikit-learn are often in Fortran order.
# What to do: `numpy.ascontiguousarray` before saving.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for release in 0.7.0 0.8.0; do
  python3 -m venv "$folder/$release"
  "$folder/$release/bin/python" -m pip install --quiet --disable-pip-version-check \
    "safetensors==$release" numpy==2.4.6
  "$folder/$release/bin/python" - "$release" <<'PYTHON'
import sys

import numpy
from safetensors.numpy import load, save

rows = numpy.arange(8.0).reshape(2, 4)
arrays = {"C order": rows, "transposed": rows.T, "Fortran order": numpy.asfortranarray(rows)}
for name, array in arrays.items():
    again = load(save({"array": array}))["array"]
    same = numpy.array_equal(array, again)
    print(f"{sys.argv[1]}, {name}: {array.tolist()} {'is' if same else 'becomes'} {again.tolist()}")
    assert again.shape == array.shape
    assert same == (sys.argv[1] == "0.7.0" or name == "C order")
PYTHON
done
