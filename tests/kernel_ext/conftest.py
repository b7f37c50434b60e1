"""A kernel with the extension loaded, reaching no registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.kernel_ext.kernel import Kernel


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for all tests of a module that only look at what a cell does."""
    need("busybox")
    place = tmp_path_factory.mktemp("shared")
    (place / "work").mkdir()
    kernel = Kernel(place / "work", place / "state")
    try:
        assert kernel.run("%load_ext bknb\n%config Bknb.offline = True").status == "ok"
        yield kernel
    finally:
        kernel.close()


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    """One kernel for one test."""
    need("busybox")
    folder = tmp_path / "work"
    folder.mkdir()
    kernel = Kernel(folder, tmp_path / "state")
    try:
        assert kernel.run("%load_ext bknb\n%config Bknb.offline = True").status == "ok"
        yield kernel
    finally:
        kernel.close()
