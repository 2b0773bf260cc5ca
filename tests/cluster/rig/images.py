"""Builds both images from the Dockerfile with buildah, and loads them into the rig's nodes.

An image's tag is a hash of all that goes into it, so an unchanged image is neither built nor loaded
again. Knows no test.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RIG = Path(__file__).resolve().parent
ROOT = RIG.parents[2]
BASE = "localhost/python:3.11-slim"
INPUTS = ("Dockerfile", ".dockerignore", "pyproject.toml", "requirements/lock.txt")
SOURCES = ("operator", "trainer")
ARGUMENTS = {
    "operator": ["--build-arg", f"PYTHON={BASE}"],
    "trainer": [
        "--build-arg",
        f"PYTHON={BASE}",
        "--build-arg",
        "TORCH_INDEX_URL=",
        "--build-arg",
        "DATASETS=dataset-fashion-mnist",
    ],
}
BUILD_SECONDS = 1800
Call = Callable[..., str]
"""Runs a command within so many seconds, in the folder `cwd`."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image's name, in the two parts that the chart takes."""

    repository: str
    tag: str

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"

    @classmethod
    def parse(cls, text: str) -> Image:
        repository, _, tag = text.rpartition(":")
        return cls(repository, tag)


def source_hash(root: Path = ROOT) -> str:
    """Changes with whatever goes into an image."""
    files = [root / name for name in INPUTS]
    for source in SOURCES:
        files += sorted((root / source).rglob("*.py"))
    digest = hashlib.sha256(repr(ARGUMENTS).encode())
    for file in files:
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _built(image: Image) -> bool:
    return not subprocess.run(
        [str(RIG / "image"), "has", str(image)], check=False, timeout=60
    ).returncode


def build(say: Callable[[str], None], call: Call) -> dict[str, Image]:
    """Both images by target, built unless they are there."""
    tag = source_hash()
    images = {target: Image(f"localhost/shardwise-{target}", tag) for target in ARGUMENTS}
    for target, image in images.items():
        if _built(image):
            continue
        say(f"building {image}")
        for arguments in (
            ("base", BASE),
            ("build", str(image), target, *ARGUMENTS[target]),
            ("prune", image.repository, tag),
        ):
            call([str(RIG / "image"), *arguments], BUILD_SECONDS, cwd=ROOT)
    return images


def load(image: Image, run: Path, say: Callable[[str], None], call: Call) -> None:
    """Puts the image on every node of the rig's cluster that has it not."""
    sockets = sorted(run.glob("node*/containerd.sock"))
    wanting = [socket for socket in sockets if not _on_node(socket, image)]
    if not wanting:
        return
    say(f"loading {image} on {len(sockets)} nodes")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        archive = Path(folder, "image.tar")
        call([str(RIG / "image"), "save", str(image), str(archive)], BUILD_SECONDS)
        call([str(RIG / "cluster"), "load", str(archive)], BUILD_SECONDS)


def _on_node(socket: Path, image: Image) -> bool:
    listing = subprocess.run(
        ["ctr", "-a", str(socket), "-n", "k8s.io", "images", "ls", "-q"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return str(image) in listing.stdout.split()
