"""A certificate authority for one cluster, and the server certificate it signs."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import CertificateBuilder

NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
LIFE = timedelta(days=2)


def authority(folder: Path) -> tuple[bytes, ssl.SSLContext]:
    """Return the authority's certificate (PEM) and what a server on loopback uses.

    The keys are written into `folder`, which nobody else may read.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _builder("cvl-test-ca", "cvl-test-ca", root_key)
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    signed_root = root.sign(root_key, SHA256())
    names = [x509.DNSName(name) for name in NAMES]
    addresses = [x509.IPAddress(ip_address("127.0.0.1"))]
    server = _builder("kube-apiserver", "cvl-test-ca", key).add_extension(
        x509.SubjectAlternativeName([*names, *addresses]), critical=False
    )
    pem = server.sign(root_key, SHA256()).public_bytes(Encoding.PEM)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = folder / "server.pem"
    file.touch(0o600)
    file.write_bytes(pem + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return signed_root.public_bytes(Encoding.PEM), context


def _builder(subject: str, issuer: str, key: EllipticCurvePrivateKey) -> CertificateBuilder:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFE)
    )
