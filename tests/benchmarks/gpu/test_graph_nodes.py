"""Nodes of a CUDA graph are counted by the driver, here a library that plays it."""

from __future__ import annotations

import subprocess
import types
from typing import Any

import pytest
import torch

from sonomime.benchmarks.gpu import graph_nodes
from sonomime.benchmarks.gpu.graph_nodes import count_launches, node_kinds

GRAPH = 0x7F0011223344  # wider than an int

# As cuda.h declares them; nodes are addresses too, and their kind is in their last digit.
DRIVER = """
#include <stddef.h>
extern "C" int cuGraphGetNodes(void* graph, void** nodes, size_t* count) {
    size_t base = 0x7F0011223340;
    if ((size_t)graph != base + 4) return 400;
    size_t kinds[] = {0, 0, 0, 1, 1, 2, 4};
    if (nodes) for (size_t i = 0; i < *count; ++i) nodes[i] = (void*)(base + kinds[i]);
    *count = 7;
    return 0;
}
extern "C" int cuGraphNodeGetType(void* node, int* kind) {
    if ((size_t)node >> 32 == 0) return 1;
    *kind = (int)((size_t)node & 15);
    return 0;
}
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.cpp").write_text(DRIVER)
    command = ["g++", "-shared", "-fPIC", "driver.cpp", "-o", "driver.so"]
    subprocess.run(command, cwd=folder, check=True)
    return str(folder / "driver.so")


def test_nodes_are_counted_by_kind(driver: str) -> None:
    assert node_kinds(GRAPH, driver) == {0: 3, 1: 2, 2: 1, 4: 1}
    with pytest.raises(RuntimeError, match="cuGraphGetNodes failed with CUDA error 400"):
        node_kinds(GRAPH + 1, driver)


@pytest.mark.parametrize(("graph", "by_the_host"), [(True, 1), (False, 6)])
def test_what_a_frame_enqueues(
    graph: bool, by_the_host: int, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Graph:
        def __init__(self, keep_graph: bool) -> None:
            assert keep_graph, "else it is gone before it can be counted"

        def raw_cuda_graph(self) -> int:
            return GRAPH

    class Chain:
        def record(self, graph: Graph) -> Graph:
            return graph

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(graph_nodes, "node_kinds", lambda raw: node_kinds(raw, driver))
    chain: Any = Chain()
    assert count_launches(chain, graph) == {
        "kernels": 3, "copies": 3, "other": 1, "by_the_host": by_the_host,
    }  # fmt: skip


def test_launches_that_cannot_be_counted_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(keep_graph: bool) -> None:
        raise TypeError("no such argument\nand more")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", refuse)
    chain: Any = types.SimpleNamespace(record=None)
    assert count_launches(chain, True) == {"absent": "TypeError: no such argument"}
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda keep_graph: None)
    assert count_launches(chain, True)["failed"], "it was begun, and may spoil the process"
