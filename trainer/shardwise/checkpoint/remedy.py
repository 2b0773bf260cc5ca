"""Errors of file systems in words: what could not be done, why, and what helps."""

from __future__ import annotations

import errno

_ROOM = (
    "give the volume more room (spec.checkpoint.keep checkpoints and one more), or lower "
    "spec.checkpoint.keep"
)
_RIGHTS = "give group 65532 access to the volume, or the URL's credentials the right to it"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "mount the volume read-write (no readOnly in spec.checkpoint.volume)",
    errno.ENOENT: "see that the volume is mounted and that nothing else removes files there",
    errno.ENOTDIR: "name a directory in spec.checkpoint",
    errno.EPROTONOSUPPORT: (
        "see that spec.checkpoint.url has the right scheme, and install fsspec's package for it "
        "in the workers' image, such as s3fs for s3://"
    ),
    errno.ESTALE: "see that the volume is mounted",
}
_OTHER = "see that the volume or store works and that spec.checkpoint names the right place"


class CheckpointError(Exception):
    """Checkpoints cannot be read or written; the message names the place and the remedy."""


def explain(error: OSError, what: str) -> str:
    """One sentence: what failed, the system's words for why, the file, and the remedy."""
    number = error.errno
    if isinstance(error, PermissionError):
        number = errno.EACCES
    elif isinstance(error, FileNotFoundError):
        number = errno.ENOENT
    reason = error.strerror or str(error) or type(error).__name__
    file = f": {error.filename}" if error.filename else ""
    return f"{what}: {reason}{file}; {_REMEDIES.get(number or 0, _OTHER)}"
