"""Whom calls are signed as: by an entry of a kubeconfig, or by a pod's service account."""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardwise.cli import kubeconfig as files
from shardwise.cli import plugin
from shardwise.cli.errors import CliError

if TYPE_CHECKING:
    from shardwise.cli.kubeconfig import Entry


def sign_as(configuration: Any, entry: Entry) -> None:
    """Make the configuration that of an entry of a kubeconfig. Raises CliError."""
    user, credential, token = dict(entry.user), None, files.token_of(entry)
    user.pop("tokenFile", None)
    if token is not None:
        user["token"] = token
    elif user.pop("exec", None) is not None:
        credential = plugin.run(entry)
        token = credential.token or None
        if credential.certificate:
            for key, text in (("certificate", credential.certificate), ("key", credential.key)):
                user[f"client-{key}-data"] = b64encode(text.encode()).decode()
    _load(configuration, entry, user)
    key = configuration.api_key
    if token is not None:
        key["BearerToken"] = f"Bearer {token}"
    elif "auth-provider" in user and "BearerToken" not in key:
        name = (user["auth-provider"] or {}).get("name")
        raise CliError(
            f"no credentials: {entry.where}: the auth-provider {name!r} gives no token; log in "
            "anew, or use an exec plug-in, which kubectl has in its place since 1.26"
        )
    if entry.user.get("tokenFile"):
        configuration.refresh_api_key_hook = _token_file(entry)
    elif credential is not None and credential.token and credential.expires is not None:
        configuration.refresh_api_key_hook = _plugin(entry, credential)


def _token_file(entry: Entry) -> Callable[[Any], None]:
    """What reads the token anew before each call: whoever keeps the file replaces it."""

    def read_anew(configuration: Any) -> None:
        configuration.api_key["BearerToken"] = f"Bearer {files.token_of(entry)}"

    return read_anew


def _plugin(entry: Entry, credential: plugin.Credential) -> Callable[[Any], None]:
    """What runs the plug-in again before the call after its token's end."""
    held, lock = [credential], threading.Lock()  # `logs` and `watch` call from several threads.

    def run_anew(configuration: Any) -> None:
        with lock:
            if held[0].expired:
                held[0] = plugin.run(entry)
            configuration.api_key["BearerToken"] = f"Bearer {held[0].token}"

    return run_anew


def _load(configuration: Any, entry: Entry, user: dict[str, Any]) -> None:
    """Have the package read server, certificates and proxy."""
    import kubernetes.config

    config: Any = kubernetes.config  # The package has no annotations worth the name.
    try:
        config.load_kube_config_from_dict(
            entry.as_config(user), client_configuration=configuration, persist_config=False
        )
    except (config.ConfigException, OSError, LookupError, TypeError, ValueError) as error:
        raise CliError(
            f"no cluster: {entry.where}: context {entry.context}: {error}; see what the context "
            "names, or choose another with --context"
        ) from error


def in_cluster(configuration: Any) -> str:
    """Make the configuration that of this pod; its namespace. Raises CliError."""
    import kubernetes.config

    config: Any = kubernetes.config
    try:
        config.load_incluster_config(client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        raise CliError(
            f"no cluster: this pod's service account: {error}; name a kubeconfig with --kubeconfig "
            "or KUBECONFIG"
        ) from error
    return _service_account_namespace() or ""


def _service_account_namespace() -> str | None:
    file = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    return file.read_text().strip() if file.exists() else None
