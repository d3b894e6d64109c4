"""An exported model that AOTInductor compiles on the CPU: the loaded package computes the same at other sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.export import Dim

from kernelgen.torch import LSTM

pytestmark = pytest.mark.unit


def test_a_package_computes_the_same(tmp_path: Path) -> None:
    module = LSTM(3, 4, bidirectional=True, batch_first=True)
    with torch.no_grad():
        dynamic = ({0: Dim("B", min=1), 1: Dim("T", min=1)},)
        exported = torch.export.export(module, (torch.randn(2, 5, 3),), dynamic_shapes=dynamic)
        package = torch._inductor.aoti_compile_and_package(
            exported,
            package_path=str(tmp_path / "model.pt2"),
            inductor_configs={"aot_inductor.compile_wrapper_opt_level": "O0"},
        )
        loaded = torch._inductor.aoti_load_package(package)
        x = torch.randn(4, 7, 3)
        output, (h, c) = loaded(x)
        wanted, (last, cell) = module(x)
    for found, other in ((output, wanted), (h, last), (c, cell)):
        torch.testing.assert_close(found, other)
