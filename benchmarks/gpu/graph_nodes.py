"""What a captured frame enqueues: the nodes of its CUDA graph, as the driver tells them.

Not the profiler: CUPTI stays in the process and slows down every launch after it, and in some
versions of torch and CUDA it sees nothing of a graph.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from typing import Any

import torch

from .rows import said
from .stage_chain import DeviceChain

_KERNEL, _MEMCPY, _MEMSET = 0, 1, 2  # CUgraphNodeType


def count_launches(chain: DeviceChain, graph: bool) -> dict[str, Any]:
    """Kernels and copies of one frame, and launches by the host: one if it goes as a graph, else
    one each. Captures the frame again, so it is the last thing that is done with a chain."""
    try:
        kept = torch.cuda.CUDAGraph(keep_graph=True)
    except TypeError as error:  # an old torch keeps no graph
        return {"absent": said(error)}
    try:
        kinds = node_kinds(chain.record(kept).raw_cuda_graph())
    except Exception as error:  # the rest is worth knowing
        return {"failed": said(error)}
    kernels, copies = kinds[_KERNEL], kinds[_MEMCPY] + kinds[_MEMSET]
    return {
        "kernels": kernels,
        "copies": copies,
        "other": kinds.total() - kernels - copies,
        "by_the_host": 1 if graph else kernels + copies,
    }


def node_kinds(graph: int, library: str = "libcuda.so.1") -> Counter[int]:
    """How many nodes of each CUgraphNodeType a cudaGraph_t has.

    Raises:
        OSError: there is no such library.
        RuntimeError: the driver refuses the graph.
    """
    driver = ctypes.CDLL(library)
    count, kind = ctypes.c_size_t(), ctypes.c_int()

    def call(name: str, *arguments: Any) -> None:
        if status := getattr(driver, name)(*arguments):
            raise RuntimeError(f"{name} failed with CUDA error {status}")

    call("cuGraphGetNodes", ctypes.c_void_p(graph), None, ctypes.byref(count))
    nodes = (ctypes.c_void_p * count.value)()
    call("cuGraphGetNodes", ctypes.c_void_p(graph), nodes, ctypes.byref(count))
    kinds: Counter[int] = Counter()
    for node in nodes:
        call("cuGraphNodeGetType", ctypes.c_void_p(node), ctypes.byref(kind))
        kinds[kind.value] += 1
    return kinds
