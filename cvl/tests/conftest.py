"""One throw-away host for the whole of a worker's tests; whoever breaks things makes its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cvl.testing.sshd import Sshd


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("host")) as sshd:
        yield sshd
