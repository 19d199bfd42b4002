"""What the device is, and the rates that everything else is compared with."""

from __future__ import annotations

import torch

from bench.facts import versions
from bench.gpu.place import Place


def run(place: Place) -> None:
    """Note versions, memory, and the rates of a copy and a product."""
    properties = torch.cuda.get_device_properties(place.device)
    free, total = torch.cuda.mem_get_info(place.device)
    print(versions())
    place.note(
        "device",
        "device",
        capability=f"{properties.major}.{properties.minor}",
        multiprocessors=properties.multi_processor_count,
        free_gib=free / 2**30,
        total_gib=total / 2**30,
        copy_gb_per_s=1e-9 * place.rates.bytes_a_s,
        product_gflop_per_s=1e-9 * place.rates.flops_a_s,
        dtype="bfloat16",
    )
