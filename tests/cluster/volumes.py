"""A folder of this machine as a volume of the rig's nodes, which are this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubectl import Kubectl

SIZE = "64Mi"


@contextlib.contextmanager
def claim(namespace: Kubectl, name: str, folder: Path) -> Iterator[Path]:
    """A claim of this name in the namespace, and the folder that is behind it.

    On another cluster a folder of the test's machine cannot be a node's, so the volume's content
    could not be looked at from here: there the test is skipped.
    """
    if os.environ.get("KUBECONFIG"):
        pytest.skip("the volume is a folder of the rig's nodes, which are this machine")
    folder.mkdir()
    folder.chmod(0o777)  # hostPath volumes take no fsGroup
    volume = f"{namespace.namespace}-{name}"
    shared = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {**shared, "capacity": {"storage": SIZE}, "hostPath": {"path": str(folder)}},
        }
    )
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": {
                **shared,
                "volumeName": volume,
                "resources": {"requests": {"storage": SIZE}},
            },
        }
    )
    try:
        yield folder
    finally:
        namespace.run("delete", "pv", volume, "--wait=false")
