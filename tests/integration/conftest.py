"""Tests that take ``link`` run over each of the transports that are one link over different carriers."""

from __future__ import annotations

import pytest

from tests.support import links


@pytest.fixture(params=["tcp", "http", "grpc"])
def link(request):
    return links.link(request.param)
