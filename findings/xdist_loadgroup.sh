#!/usr/bin/env bash
# pytest-xdist 3.8.0 with pytest 9.2.0: `--dist loadgroup` does not keep a group together.
#
# Expected (pytest-xdist's documentation): tests marked xdist_group("one") run in one process.
# Seen: without a word of warning they are spread over both. pytest-xdist 3.8.0 puts the group's
# name behind `item._nodeid`, from which pytest 9.1 and older make an item's `nodeid`; pytest 9.2
# makes it from elsewhere, so the scheduler never reads the name. With pytest 8.4.2 the same file
# runs in one process. What to do meanwhile: one file a group, and `--dist loadfile`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/test_group.py" <<'PYTHON'
import os
import time

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("i", range(8))
def test_where(i):
    time.sleep(0.2)
    with open(os.environ["PLACES"], "a") as file:
        print(os.environ["PYTEST_XDIST_WORKER"], file=file)
PYTHON

processes() { # the number of processes that the group ran in, under a release of pytest
  python3 -m venv "$folder/$1"
  "$folder/$1/bin/python" -m pip install --quiet --disable-pip-version-check \
    "pytest==$1" pytest-xdist==3.8.0 execnet==2.1.2
  (cd "$folder" && PLACES="$folder/places-$1" "$folder/$1/bin/python" -m pytest -q -n 2 \
    --dist loadgroup -p no:cacheprovider test_group.py >"$folder/log-$1")
  sort -u "$folder/places-$1" | wc -l
}

old=$(processes 8.4.2)
new=$(processes 9.2.0)
echo "processes that one group ran in: pytest 8.4.2: $old, pytest 9.2.0: $new"
[ "$old" = 1 ] && [ "$new" = 2 ]
