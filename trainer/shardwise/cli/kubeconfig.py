"""Reads kubeconfig files as kubectl does: several merged, and what a user's entry asks for.

The `kubernetes` package makes a connection of one entry with its certificates. What it has no part
for, or goes on without a word where it fails, is done here: merging (the first file that sets
something wins, an empty one sets nothing), impersonation, token files that are read anew, and exec
plug-ins, whose failure ends the command: nothing is ever sent anonymously in their place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from shardwise.cli.errors import CliError

Object = dict[str, Any]

LISTS: Final[Mapping[str, str]] = {"clusters": "cluster", "users": "user", "contexts": "context"}
FILES: Final[Mapping[str, Sequence[str]]] = {
    "clusters": ("certificate-authority",),
    "users": ("client-certificate", "client-key", "tokenFile"),
    "contexts": (),
}
"""Fields that name files, relative to the kubeconfig that they stand in."""
HEADER: Final = frozenset(map(chr, range(0x20, 0x7F)))


@dataclass(frozen=True)
class Entry:
    """What a context names.

    Attributes:
        where: the kubeconfig files, for messages.
        folder: of the file that the user's entry is in; commands may be relative to it.
    """

    context: str
    namespace: str
    cluster: Object
    user: Object
    where: str
    folder: Path

    def as_config(self, user: Object) -> Object:
        """A kubeconfig with this entry alone, and this user in it."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "chosen",
            "contexts": [{"name": "chosen", "context": {"cluster": "chosen", "user": "chosen"}}],
            "clusters": [{"name": "chosen", "cluster": self.cluster}],
            "users": [{"name": "chosen", "user": user}],
        }


def find(kubeconfig: Path | None) -> list[Path] | None:
    """The files by --kubeconfig, KUBECONFIG and ~/.kube/config; None: there are none, and this is
    a pod."""
    if kubeconfig is not None:
        return [kubeconfig]
    if named := os.environ.get("KUBECONFIG"):
        return [Path(each).expanduser() for each in named.split(os.pathsep) if each]
    usual = Path.home() / ".kube" / "config"
    if not usual.exists() and "KUBERNETES_SERVICE_HOST" in os.environ:
        return None
    return [usual]


def read(files: Sequence[Path], context: str | None) -> Entry:
    """The entry of a context, or of the current one.

    Raises:
        CliError: a file cannot be read, or there is no such context.
    """
    where = os.pathsep.join(map(str, files))
    merged = _Merged()
    for file in files:
        if file.exists() or len(files) == 1:
            merged.add(file)
    name = context or merged.current
    contexts = merged.lists["contexts"]
    if not contexts:
        raise _unusable(where, "has no contexts")
    if not name:
        raise _unusable(
            where, f"sets no current-context; choose one by --context: {', '.join(contexts)}"
        )
    if name not in contexts:
        flag = "--context: " if context else ""
        what = "context" if context else "context of its current-context,"
        raise CliError(
            f"{flag}{where} has no {what} {name!r}; it has {', '.join(sorted(contexts))}"
        )
    chosen, _ = contexts[name]
    cluster = str(chosen.get("cluster") or "")
    if cluster not in merged.lists["clusters"]:
        raise _unusable(
            where, f"context {name!r} names the cluster {cluster!r}, which is not there"
        )
    user, folder = str(chosen.get("user") or ""), Path.cwd()
    entry: Object = {}
    if user:
        if user not in merged.lists["users"]:
            raise _unusable(where, f"context {name!r} names the user {user!r}, who is not there")
        entry, folder = merged.lists["users"][user]
    found = merged.lists["clusters"][cluster][0]
    if not isinstance(found.get("server"), str) or not found["server"]:
        raise _unusable(where, f"cluster {cluster!r} has no server")
    namespace = str(chosen.get("namespace") or "")
    return Entry(name, namespace, found, entry, where, folder)


@dataclass
class _Merged:
    """Several kubeconfig files as one: the first to set something wins."""

    current: str = ""
    lists: dict[str, dict[str, tuple[Object, Path]]] = field(
        default_factory=lambda: {key: {} for key in LISTS}
    )

    def add(self, file: Path) -> None:
        import yaml

        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise _unusable(str(file), error.strerror or str(error)) from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise _unusable(str(file), f"no YAML: {' '.join(str(error).split())}") from error
        if content is None:
            return
        if not isinstance(content, dict):
            raise _unusable(str(file), "is no kubeconfig: it holds no mapping")
        folder = file.absolute().parent
        for key, part in LISTS.items():
            found = content.get(key) or []
            if not isinstance(found, list):
                raise _unusable(str(file), f"{key} is no list")
            for each in found:
                self._add_one(file, folder, key, part, each)
        self.current = self.current or str(content.get("current-context") or "")

    def _add_one(self, file: Path, folder: Path, key: str, part: str, each: Any) -> None:
        named = each.get("name") if isinstance(each, dict) else None
        if not isinstance(named, str):
            raise _unusable(str(file), f"{key} has an entry without a name")
        body = each.get(part) or {}
        if not isinstance(body, dict):
            raise _unusable(str(file), f"{key}: {part} of {named!r} is no mapping")
        made = dict(body)
        for name in FILES[key]:
            if made.get(name):
                made[name] = str(folder / str(made[name]))
        self.lists[key].setdefault(named, (made, folder))


def _unusable(where: str, what: str) -> CliError:
    return CliError(
        f"no cluster: {where}: {what}; name a kubeconfig with --kubeconfig or KUBECONFIG"
    )


def impersonation(entry: Entry) -> list[tuple[str, str]]:
    """The headers for whom the user's entry wants to act as.

    Raises:
        CliError: groups or more, and nobody that they are of; or a name that no header can hold.
    """
    user = entry.user
    headers = [("Impersonate-User", str(user["as"]))] if user.get("as") else []
    if user.get("as-uid"):
        headers.append(("Impersonate-Uid", str(user["as-uid"])))
    groups = user.get("as-groups") or []
    extra = user.get("as-user-extra") or {}
    if not isinstance(groups, list) or not isinstance(extra, dict):
        raise _unusable(
            entry.where, "as-groups must be a list and as-user-extra a mapping of lists"
        )
    headers += [("Impersonate-Group", str(group)) for group in groups]
    for key, values in extra.items():
        if not isinstance(values, list):
            raise _unusable(entry.where, f"as-user-extra: {key} must be a list")
        # As client-go: a key is percent-encoded, for headers are not.
        named = f"Impersonate-Extra-{quote(str(key), safe='')}"
        headers += [(named, str(value)) for value in values]
    if headers and headers[0][0] != "Impersonate-User":
        raise _unusable(
            entry.where, "as-groups, as-uid and as-user-extra need an `as`: whose they are"
        )
    for name, value in headers:
        if not HEADER.issuperset(value):
            raise _unusable(entry.where, f"{name}: {value!r} is not plain ASCII")
    return headers


def token_of(entry: Entry) -> str | None:
    """The static token of an entry; of a file, as it is now.

    Raises:
        CliError: the file cannot be read, or what is there is no token.
    """
    user, token = entry.user, entry.user.get("token")
    if user.get("tokenFile"):
        try:
            token = Path(user["tokenFile"]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            told = getattr(error, "strerror", None) or "is no text"
            raise _unusable(entry.where, f"tokenFile {user['tokenFile']}: {told}") from error
    if token is None or not str(token).strip():
        if user.get("tokenFile"):
            raise _unusable(entry.where, f"tokenFile {user['tokenFile']} is empty")
        return None
    found = str(token).strip()
    if not HEADER.issuperset(found):
        raise _unusable(entry.where, "its token has characters that no token has")
    return found


def cluster_info(entry: Entry) -> Object:
    """What a plug-in with provideClusterInfo is told of the cluster."""
    cluster = entry.cluster
    told: Object = {"server": cluster["server"]}
    for ours, theirs in (
        ("tls-server-name", "tls-server-name"),
        ("insecure-skip-tls-verify", "insecure-skip-tls-verify"),
        ("certificate-authority-data", "certificate-authority-data"),
        ("proxy-url", "proxy-url"),
        ("disable-compression", "disable-compression"),
    ):
        if cluster.get(ours):
            told[theirs] = cluster[ours]
    for extension in cluster.get("extensions") or ():
        if isinstance(extension, dict) and extension.get("name") == (
            "client.authentication.k8s.io/exec"
        ):
            told["config"] = extension.get("extension")
    return told
