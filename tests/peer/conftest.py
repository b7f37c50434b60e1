"""A registry that BuildKit and bknb both pull from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bench.rows import Mirror
from tests.conftest import need


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    """A registry for both."""
    need("busybox")
    found = Mirror(tmp_path_factory.mktemp("mirror"))
    yield found
    found.close()
