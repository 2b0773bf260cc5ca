"""A virtual environment of the benchmark's own for torchft, which is no dependency of Shardwise.

It sees this one's torch, so that all systems train with the same; what torchft needs besides is
pinned here.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

PLACE = Path(__file__).resolve().parents[3] / "out" / "torchft-venv"
TORCHFT = "torchft==0.2.0"
TELEMETRY = tuple(
    f"opentelemetry-{part}==1.45.2" for part in ("api", "sdk", "exporter-otlp-proto-http")
)
LIMIT_SECONDS = 600


def torchft_python(place: Path = PLACE) -> Path:
    """The interpreter that has torchft, from pip's default index; installed on first use.

    Raises:
        CalledProcessError: pip could not install it.
    """
    python = place / "bin" / "python"
    if not (place / "bin" / "torchft_lighthouse").exists():
        _run(sys.executable, "-m", "venv", "--clear", str(place))
        (packages,) = place.glob("lib/python*/site-packages")
        # A line that begins with "import" is run: this way the .pth files there are read as well.
        line = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
        (packages / "packages-of-shardwise.pth").write_text(line)
        _run(str(python), "-m", "pip", "install", "--quiet", *TELEMETRY)
        # Last, and alone: its lighthouse is the sign that all is there.
        _run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", TORCHFT)
    return python


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=LIMIT_SECONDS)
