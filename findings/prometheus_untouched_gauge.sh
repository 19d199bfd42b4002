#!/usr/bin/env bash
# prometheus_client 0.26.0: in multiprocess mode a gauge that a process has not set counts as 0.
#
# Expected: with `multiprocess_mode="min"` (or "max") the minimum (maximum) of what processes have
# set; a process that has only imported the module has no say, as with "mostrecent".
# Seen: making a gauge without labels writes a 0 into the process's file. One worker that is idle,
# or a parent that only imports the module, is enough: "min" is 0 for ever, and "max" is 0 where all
# values are negative (log-probabilities, temperatures). With a label it is as expected, because
# such a gauge comes into being when `labels` is called.
# What to do: give a gauge with "min" or "max" a label, or set it when the process starts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  prometheus-client==0.26.0
mkdir "$folder/values"
export PROMETHEUS_MULTIPROC_DIR="$folder/values"
cat >"$folder/gauges.py" <<'PYTHON'
from prometheus_client import Gauge

modes = ("min", "max", "livemin", "livemax", "mostrecent")
plain = {mode: Gauge(f"plain_{mode}", "no label", multiprocess_mode=mode) for mode in modes}
labelled = {
    mode: Gauge(f"labelled_{mode}", "a label", ["model"], multiprocess_mode=mode) for mode in modes
}
values = {mode: -5 if "max" in mode else 5 for mode in modes}
PYTHON
cd "$folder"
venv/bin/python - <<'PYTHON'
from gauges import labelled, modes, plain, values

for mode in modes:
    plain[mode].set(values[mode])
    labelled[mode].labels("a").set(values[mode])
PYTHON
venv/bin/python -c "import gauges"
venv/bin/python - <<'PYTHON'
from gauges import modes, values
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

registry = CollectorRegistry()
MultiProcessCollector(registry)
for mode in modes:
    with_label = registry.get_sample_value(f"labelled_{mode}", {"model": "a"})
    without = registry.get_sample_value(f"plain_{mode}")
    print(f"{mode}: set {values[mode]}, with a label {with_label}, without {without}")
    assert with_label == values[mode]
    assert without == (values[mode] if mode == "mostrecent" else 0)
PYTHON
