"""One thread a process, as in a worker: the bits of a kernel follow from the number of threads."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)
