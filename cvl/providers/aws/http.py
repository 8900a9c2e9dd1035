"""How AWS's own library dials: with our rules for proxies and authorities, as far as it can.

It knows `HTTPS_PROXY` and `NO_PROXY` by the rules of Python: neither `ALL_PROXY` nor networks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from cvl.core.errors import UsageError
from cvl.core.http.proxies import proxy_for

CREDENTIALS = "https://sts.amazonaws.com"
NAMES = ("https_proxy", "http_proxy", "all_proxy", "no_proxy")
ITS_OWN = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
"""Variables by which the library finds authorities itself."""
OURS = ("SSL_CERT_FILE", "CURL_CA_BUNDLE")


def proxies(url: str) -> Mapping[str, str] | None:
    """Return the proxy that leads to an endpoint, by its scheme; None where no variable is set.

    Raises `UsageError` for one that the library cannot use, and as `proxy_for` does.
    """
    if not any(os.environ.get(each) for name in NAMES for each in (name, name.upper())):
        return None
    proxy = proxy_for(url)
    if proxy is None:
        return {}
    if proxy.scheme not in {"http", "https"}:
        if proxy.name.lower() == "all_proxy":
            return {}  # so it was asked without us, too
        raise UsageError(
            f"{proxy.name} names a {proxy.scheme} proxy, which AWS's own library does not know",
            "give it an http:// one, or name .amazonaws.com in NO_PROXY",
        )
    return {url.partition("://")[0]: proxy.url}


def prepare(core: Any) -> None:
    """Let a session of botocore's ask by the same rules for its credentials: for a role, a login.

    A proxy that it does not know is told when a service is asked.
    """
    with suppress(UsageError):
        if (through := proxies(CREDENTIALS)) is not None:
            config = import_module("botocore.config").Config(proxies=through)
            core.set_default_client_config(config)


def authorities(session: Any) -> str | None:
    """Return a file of authorities to trust, None for what the library finds itself."""
    chosen = session._session.get_config_variable("ca_bundle")  # noqa: SLF001 - boto3 hides it
    if chosen or any(os.environ.get(name) for name in ITS_OWN):
        return None
    paths = (os.environ.get(name) for name in OURS)
    return next((path for path in paths if path and Path(path).is_file()), None)
