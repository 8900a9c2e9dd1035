"""How a server is verified: by the authorities of this machine, or by those that are given."""

from __future__ import annotations

import os
import ssl

from cvl.core.errors import UsageError

BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables beside OpenSSL's own `SSL_CERT_FILE` and `SSL_CERT_DIR`: files of authorities that are
trusted as well."""


def context(authority: str | None = None) -> ssl.SSLContext:
    """Return how a server is verified: by `authority` (PEM) alone, else by what is trusted here.

    From 3.13 on Python takes no authority that lacks a key usage or identifier; those that
    clusters and companies make for themselves often do, and everybody else takes them. That one
    check is left out. Raises `ssl.SSLError` for an authority that is none, and `UsageError`.
    """
    tls = ssl.create_default_context(cadata=authority)
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    for name in () if authority else BUNDLES:
        if file := os.environ.get(name):
            _trust(tls, name, file)
    return tls


def _trust(tls: ssl.SSLContext, name: str, file: str) -> None:
    place = {"capath": file} if os.path.isdir(file) else {"cafile": file}  # noqa: PTH112
    try:
        tls.load_verify_locations(**place)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"{name} names {file}, which holds no authorities: {error.strerror or error}",
            f"correct or unset {name}",
        ) from error
