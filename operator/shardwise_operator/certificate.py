"""The coordinator's certificate: made once, kept in a Secret, pinned by every worker.

Self-signed, and trusted by workers as the only authority, so no authority of the cluster's is
asked and none has to be mounted. Run at start, before the coordinator listens.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shardwise_operator import names
from shardwise_operator.port import ApiError, Cluster
from shardwise_operator.settings import CERTIFICATE_SECRET

YEARS = 10


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM texts."""

    certificate: str
    key: str = field(repr=False)

    def server_context(self) -> ssl.SSLContext:
        """For the coordinator's side. The key touches the disk for a moment, readable by us only:
        Python's ssl takes keys from files alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        handle, path = tempfile.mkstemp(prefix="shardwise-")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(self.certificate + self.key)
            context.load_cert_chain(path)
        finally:
            os.unlink(path)  # noqa: PTH108 - the path is a plain string here
        return context


def service_names(host: str) -> tuple[str, ...]:
    """The names that a Service of this host name answers to."""
    if not host.endswith(".svc"):
        return (host,)
    short, _, rest = host.partition(".")
    namespace = rest.removesuffix(".svc")
    return (short, f"{short}.{namespace}", host, f"{host}.cluster.local")


def make_certificate(hosts: Sequence[str], now: datetime) -> Certificate:
    """A new key, and a certificate for these names that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shardwise-coordinator")])
    public = key.public_key()
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # The nodes' clocks may be behind ours.
        .not_valid_after(now + timedelta(days=365 * YEARS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(h) for h in hosts]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            True,
        )
        .sign(key, hashes.SHA256())
    )
    return Certificate(
        certificate=built.public_bytes(serialization.Encoding.PEM).decode(),
        key=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )


async def ensure_certificate(
    cluster: Cluster, namespace: str, hosts: Sequence[str], now: datetime
) -> Certificate:
    """That of the Secret; a new one is put there if there is none.

    Raises:
        ApiError: the Secret can be neither read nor created.
        ValueError: the Secret is there and does not hold a certificate.
    """
    try:
        return _read(await cluster.get("secrets", namespace, CERTIFICATE_SECRET))
    except ApiError as error:
        if error.status != 404:
            raise
    made = make_certificate(hosts, now)
    try:
        await cluster.create("secrets", namespace, _secret(namespace, made))
    except ApiError as error:
        if error.status != 409:
            raise
        # Another process was quicker: workers must see one certificate.
        return _read(await cluster.get("secrets", namespace, CERTIFICATE_SECRET))
    return made


def _read(secret: dict[str, Any]) -> Certificate:
    data = secret.get("data") or {}
    try:
        return Certificate(
            base64.b64decode(data["tls.crt"]).decode(), base64.b64decode(data["tls.key"]).decode()
        )
    except (KeyError, ValueError):
        raise ValueError(
            f"the Secret {CERTIFICATE_SECRET} holds no tls.crt and tls.key; delete it, and restart "
            "the operator to have it made anew"
        ) from None


def _secret(namespace: str, made: Certificate) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {
            "name": CERTIFICATE_SECRET,
            "namespace": namespace,
            "labels": {names.MANAGED_BY: names.MANAGER},
        },
        "data": {
            "tls.crt": base64.b64encode(made.certificate.encode()).decode(),
            "tls.key": base64.b64encode(made.key.encode()).decode(),
        },
    }
