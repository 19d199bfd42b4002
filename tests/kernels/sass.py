"""Machine code of compiled kernels, as NVIDIA's tools in Triton's package read it."""

import re
from collections import Counter

import networkx

from bench.sass import told


def resources(cubin):
    """Registers a thread, and bytes of stack a thread, which is where spills go."""
    found = re.search(r"REG:(\d+) STACK:(\d+)", told(cubin, "cuobjdump", "--dump-resource-usage"))
    return int(found[1]), int(found[2])


def operations(cubin):
    """How often each operation, such as HGMMA, is in the code."""
    return Counter(_operation(one) for block in _blocks(cubin)[0] for one in block)


def inner_loop(cubin, operation):
    """Operations of the shortest way from this one back to it; none if it is in no loop."""
    blocks, edges = _blocks(cubin)
    graph = networkx.DiGraph()
    for one, other in edges:
        graph.add_edge(one, other, weight=len(blocks[other]))
    ways = []
    for at in graph:
        if any(_operation(one) == operation for one in blocks[at]):
            for after in graph[at]:
                if networkx.has_path(graph, after, at):
                    ways.append(networkx.shortest_path(graph, after, at, weight="weight"))
    counts = [Counter(_operation(one) for at in way for one in blocks[at]) for way in ways]
    return min(counts, key=Counter.total, default=Counter())


def _blocks(cubin):
    """Instructions between labels and branches, and which of these blocks may follow which."""
    blocks, labels = [[]], {}
    for line in told(cubin, "nvdisasm", "--print-code").splitlines():
        if label := re.match(r"(\.L_\w+):", line):
            if blocks[-1]:
                blocks.append([])
            labels[label[1]] = len(blocks) - 1
        elif instruction := re.match(r"\s+/\*[0-9a-f]+\*/\s+([^;]+);", line):
            if instruction[1].strip() != "NOP":
                blocks[-1].append(instruction[1])
            if _operation(instruction[1]) in ("BRA", "EXIT"):
                blocks.append([])
    edges = []
    for at, block in enumerate(blocks):
        last = block[-1] if block else ""
        if target := re.search(r"BRA.*`\((\.L_\w+)\)", last):
            edges.append((at, labels[target[1]]))
        is_sure = re.match(r"(BRA|EXIT)\b(?!.*\bU?P\d)", last)
        if not is_sure and at + 1 < len(blocks):
            edges.append((at, at + 1))
    return blocks, edges


def _operation(instruction):
    """The first word without its modifiers: HGMMA of "@P0 HGMMA.64x256x16.F32.BF16 R24, ..."."""
    return re.sub(r"^@!?\w+\s+", "", instruction.strip()).split(maxsplit=1)[0].split(".")[0]
