"""Which proxy leads to an address."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.core.errors import UsageError
from cvl.core.http.proxies import Proxy, named, proxy_for, spared
from cvl.core.secrets import clean

HERE = "http://127.0.0.1:3128"
AWAY = "http://proxy.example:3128"
URL = "https://api.example/v1"


@pytest.mark.parametrize(
    ("variables", "url", "leads"),
    [
        ({}, URL, ""),
        ({"HTTPS_PROXY": AWAY}, URL, "proxy.example"),
        ({"https_proxy": AWAY}, URL, "proxy.example"),
        ({"https_proxy": "http://small:1", "HTTPS_PROXY": AWAY}, URL, "small"),
        ({"https_proxy": "", "HTTPS_PROXY": AWAY}, URL, ""),
        ({"HTTPS_PROXY": "  ", "ALL_PROXY": AWAY}, URL, ""),
        ({"HTTP_PROXY": AWAY}, URL, ""),
        ({"HTTP_PROXY": AWAY}, "http://api.example/", "proxy.example"),
        ({"HTTP_PROXY": AWAY, "REQUEST_METHOD": "GET"}, "http://api.example/", ""),
        ({"HTTPS_PROXY": AWAY}, "http://api.example/", ""),
        ({"ALL_PROXY": AWAY}, URL, "proxy.example"),
        ({"all_proxy": AWAY}, "http://api.example/", "proxy.example"),
        ({"ALL_PROXY": "http://all:1", "HTTPS_PROXY": AWAY}, URL, "proxy.example"),
        ({"HTTPS_PROXY": "proxy.example:3128"}, URL, "proxy.example"),
        ({"HTTPS_PROXY": AWAY, "NO_PROXY": "api.example"}, URL, ""),
        (
            {"HTTPS_PROXY": AWAY, "no_proxy": "other", "NO_PROXY": "api.example"},
            URL,
            "proxy.example",
        ),
        # this machine is itself only for what is on it
        ({"HTTPS_PROXY": AWAY}, "https://127.0.0.1:6443", ""),
        ({"HTTPS_PROXY": AWAY}, "https://localhost:6443", ""),
        ({"HTTPS_PROXY": AWAY}, "https://[::1]:6443", ""),
        ({"HTTPS_PROXY": HERE}, "https://127.0.0.1:6443", "127.0.0.1"),
        ({"HTTP_PROXY": HERE, "ALL_PROXY": HERE}, "http://127.0.0.1:9000", ""),
    ],
)
def test_the_environment_says_which(variables: dict[str, str], url: str, leads: str) -> None:
    found = proxy_for(url, variables)
    assert (found.host if found else "") == leads


@pytest.mark.parametrize(
    ("no_proxy", "there"),
    [
        ("*", True),
        ("x, *", True),
        ("api.example.com", True),
        ("API.Example.COM", True),
        ("api.example.com.", True),
        ("example.com", True),
        (".example.com", True),
        ("*.example.com", True),
        ("a.b,c example.com", True),
        ("com", True),
        ("api.example.com:443", True),
        ("api.example.com:8443", False),
        (".example.com:443", True),
        ("example.org", False),
        ("ample.com", False),
        ("pi.example.com", False),
        ("www.api.example.com", False),
        ("10.0.0.0/8", False),
        (".", False),
        ("", False),
        (" , ,", False),
    ],
)
def test_names_that_no_proxy_spares(no_proxy: str, *, there: bool) -> None:
    assert spared("api.example.com", 443, no_proxy) is there


@pytest.mark.parametrize(
    ("host", "no_proxy", "there"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3:443", True),
        ("10.1.2.3", "10.1.2.3:80", False),
        ("10.1.2.3", "10.1.2.3/24", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.30", False),
        ("10.1.2.30", "10.1.2.3", False),
        ("10.1.2.3", "10.1.*", True),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("fd00::5", "fd00::/8", True),
        ("fd00::5", "[fd00::5]:443", True),
        ("fd00::5", "[fd00::5]:80", False),
        ("fd00::5", "[fd00::]/8", True),
        ("fd00::5", "fd00::5", True),
        ("fe00::5", "fd00::/8", False),
    ],
)
def test_addresses_that_no_proxy_spares(host: str, no_proxy: str, *, there: bool) -> None:
    assert spared(host, 443, no_proxy) is there


LABEL = st.text("abcz09", min_size=1, max_size=5)


@given(st.lists(LABEL, min_size=1, max_size=4), st.lists(LABEL, min_size=1, max_size=4))
def test_a_name_spares_itself_and_what_is_below(above: list[str], below: list[str]) -> None:
    name = ".".join(above)
    assert spared(name, 443, name)
    assert spared(".".join([*below, *above]), 443, f"other.test,.{name}")
    assert not spared(f"x{name}", 443, name) or f"x{above[0]}" == above[0]


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_a_network_spares_what_is_in_it(address: object, bits: int) -> None:
    assert spared(str(address), 443, f"{address}/{bits}")


def test_a_proxy_is_taken_apart() -> None:
    found = named("http://me:s3cr%40t!pass@proxy.example:3128/", "HTTPS_PROXY")
    assert found == Proxy(
        scheme="http",
        host="proxy.example",
        port=3128,
        name="HTTPS_PROXY",
        user="me",
        password="s3cr@t!pass",
    )
    assert str(found) == "the proxy proxy.example:3128 (HTTPS_PROXY)"
    assert "s3cr" not in repr(found)
    assert clean("it said s3cr@t!pass") == "it said <redacted>"
    assert named(found.url, "HTTPS_PROXY") == found
    assert named("https://[::1]", "x").url == "https://[::1]:443"
    assert named("SOCKS5://p", "x").port == 1080


@pytest.mark.parametrize(
    "value",
    [
        "http://",
        "http://:80",
        "http://me:secret-word@",
        "http://me:secret-word@proxy:port",
        "http://me:secret-word@proxy:99999",
        "http://me:secret#word@proxy:80",
        "http://me:word@secret/secret@proxy:80",
        "http://me:secret?@proxy:80",
        "http://me:secret word@pro xy:80",
        "ftp://me:secret-word@proxy",
        "socks4://me:secret-word@proxy",
        "http://me:secret-word@[::1",
    ],
)
def test_what_is_no_proxy_is_told_without_its_password(value: str) -> None:
    with pytest.raises(UsageError, match="HTTPS_PROXY") as caught:
        proxy_for(URL, {"HTTPS_PROXY": value})
    assert "secret" not in str(caught.value) + caught.value.hint


def test_a_command_that_dials_nobody_loads_none_of_it() -> None:
    code = (
        "import sys; from cvl.__main__ import main; sys.argv=['cvl','--version']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.exit(any(m.startswith(('cvl.core.http','ssl','urllib3')) for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
