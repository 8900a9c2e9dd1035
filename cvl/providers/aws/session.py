"""One AWS account in one region, and its services.

botocore's own retries are off: here a request is repeated only where that is safe, and whoever
waits can say so.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from cvl.cleanup.reap_timer import lasting_variables
from cvl.core.errors import AuthError, CvlError, Unreachable, UsageError
from cvl.core.http.secure_url import address
from cvl.core.octets import readable
from cvl.core.retry import repeated
from cvl.core.scope import Clock, SystemClock
from cvl.core.server_clock import ServerClock
from cvl.providers.aws import http, login
from cvl.providers.aws.api_errors import EXTRA, boundary

Reply = Mapping[str, Any]

PAUSES = (0.3, 1.0, 2.0)
"""Seconds between the attempts of a request that may be repeated."""
CONNECT_LIMIT, READ_LIMIT = 10.0, 60.0
REGION = "give --region, set AWS_REGION, or one in your profile"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,62}")
OWN = (
    *(".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws"),
    *(".amazonwebservices.com.cn", ".amazonwebservices.eu", ".c2s.ic.gov", ".sc2s.sgov.gov"),
    *(".adc-e.uk", ".hci.ic.gov"),
)
"""How the names of AWS's own servers end, in every partition, and of those inside a VPC."""
CHOOSING = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
"""Variables that say that AWS is meant."""
FILES = (
    *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("AWS_CA_BUNDLE", "AWS_LOGIN_CACHE_DIRECTORY", "BOTO_CONFIG"),
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)
"""Variables that name files."""
NO_LOGIN = re.compile(r"AWS_(?:LAMBDA_|CLI_|EXECUTION_ENV$|PAGER$|DEFAULT_OUTPUT$)")
"""Those that say nothing to us."""
PAIR = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"})
"""A login that lasts, unless `AWS_SESSION_TOKEN` goes with it."""


class Answer(dict[str, Any]):
    """What AWS answers. What it lacks is `Unreachable`: the next answer may have it."""

    def __missing__(self, name: str) -> Any:
        raise Unreachable(f"AWS's answer makes no sense: it has no {name}")


class Client(Protocol):
    """What of a boto3 client is used: its operations, by name."""

    def __getattr__(self, operation: str) -> Callable[..., Any]: ...


class Account:
    """AWS as one set of credentials sees it, in one region."""

    def __init__(
        self,
        region: str | None = None,
        profile: str | None = None,
        endpoint: str | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Connects to nothing. `endpoint` stands for all services; None: the environment's."""
        self._region, self._profile = region, profile or os.environ.get("AWS_PROFILE") or None
        self._endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL") or None
        self.clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._session: Any = None
        self._who: Any = None
        self._clients: dict[tuple[str, str], Client] = {}
        self._server = ServerClock(self.clock)
        self._number = ""

    @property
    def region(self) -> str:
        """The region: given, else the environment's, else the profile's. Raises `UsageError`."""
        region = self._region or os.environ.get("AWS_REGION") or self._configured_region()
        if not region:
            raise UsageError("no AWS region is set", REGION)
        if not isinstance(region, str) or not NAME.fullmatch(region):
            raise UsageError(f"{str(region)[:40]!r} is no AWS region", REGION)
        return region

    @property
    def address(self) -> Mapping[str, str]:
        """What finds this account again from another process; no secrets."""
        return {
            "region": self.region,
            "profile": self._profile or "",
            "endpoint": self._endpoint or "",
        }

    def number(self) -> str:
        """Return the account's 12 digits, as AWS itself knows whose credentials these are.

        Asked once for each login. Raises `CvlError`.
        """
        if not self._number:
            self._number = str(self.call("sts", "get_caller_identity")["Account"])
        return self._number

    def endpoint(self, service: str) -> str:
        """Return who answers for a service: "" for AWS itself, else the address."""
        url = str(getattr(self.client(service), "meta").endpoint_url)  # noqa: B009 - no operation
        host = url.partition("://")[2].partition("/")[0].partition(":")[0]
        return "" if host.endswith(OWN) else url

    def regions(self) -> list[str]:
        """Return every region with SageMaker, of the partition that ours is in; asks nobody."""
        session, region = self._opened(), self.region
        with boundary(""), EXTRA.loading("boto3"):
            partition = session.get_partition_for_region(region)
            return sorted(session.get_available_regions("sagemaker", partition))

    def elsewhere(self, region: str) -> Account:
        """Return the same account in another region."""
        other = Account(region, self._profile, self._endpoint, clock=self.clock)
        other._session, other._lock = self._opened(), self._lock
        return other

    def now(self) -> float:
        """Return UTC epoch seconds by AWS's clock, as its latest answer said (`Date`)."""
        return self._server.now()

    def has_credentials(self) -> bool:
        """Return whether there are any, without asking anybody but this machine."""
        return login.credentials(self._opened()) is not None

    def call(self, service: str, operation: str, /, **parameters: Any) -> Reply:
        """Make a request that may be repeated. Raises as `api_errors.understood` says."""

        def step() -> Reply:
            _rewind(parameters)
            return self.once(service, operation, **parameters)

        return repeated(step, PAUSES, self.clock)

    def answered(self, service: str, operation: str, /, **parameters: Any) -> Reply:
        """As `call`, but without an answer it does not ask again: for what is not urgent."""
        silent: list[Unreachable] = []

        def step() -> Reply | None:
            try:
                return self.once(service, operation, **parameters)
            except Unreachable as error:
                if error.answered:
                    raise
                silent.append(error)
                return None

        if (reply := repeated(step, PAUSES, self.clock)) is None:
            raise silent[0]
        return reply

    def once(
        self, service: str, operation: str, /, *, region: str = "", **parameters: Any
    ) -> Reply:
        """Make a request once: `Unreachable` then leaves open whether anything came of it.

        One that is not heeded because of who we are is made again as whom we are by now, if
        somebody has logged in meanwhile.
        """
        before: object = None
        try:
            client = self.client(service, region)
            login.refresh(self._who)
            before = login.fingerprint(self._who)
            return self._send(client, service, operation, parameters)
        except AuthError:
            self._forget()
            again = self._renew(before, service, region)
            if again is None:
                raise
        _rewind(parameters)
        return self._send(again, service, operation, parameters)

    def _send(
        self, client: Client, service: str, operation: str, parameters: Mapping[str, Any]
    ) -> Reply:
        with boundary(service):
            reply: Reply = Answer(getattr(client, operation)(**readable(parameters, "AWS")))
        self._server.heard(reply.get("ResponseMetadata", {}).get("HTTPHeaders", {}))
        return reply

    def _renew(self, before: object, service: str, region: str) -> Client | None:
        """Return a client with other credentials than `before`, None where there are none."""
        try:
            client = self.client(service, region)
            return client if login.fingerprint(self._who) not in {before, None} else None
        except CvlError:
            self._forget()
            return None

    def client(self, service: str, region: str = "") -> Client:
        """Return the client of a service. Raises `MissingExtra`, `AuthError`, `UsageError`."""
        key = (service, region or self.region)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._connect(*key)
            return self._clients[key]

    def _connect(self, service: str, region: str) -> Client:
        config = EXTRA.needed("botocore.config").Config(
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT_LIMIT,
            read_timeout=READ_LIMIT,
            max_pool_connections=20,
        )
        if self._endpoint:
            address(self._endpoint, "AWS_ENDPOINT_URL")
        self._who = login.credentials(self._opened())
        client: Any = None
        with boundary(service), EXTRA.loading("boto3"):
            more = {"region_name": region, "endpoint_url": self._endpoint}
            more["verify"] = http.authorities(self._opened())
            client = self._opened().client(service, config=config, **more)
            proxies = http.proxies(client.meta.endpoint_url)
            if proxies is not None:  # where it leads is only known once it is made
                config = config.merge(EXTRA.needed("botocore.config").Config(proxies=proxies))
                client = self._opened().client(service, config=config, **more)
        address(str(client.meta.endpoint_url), f"the endpoint of {service}")
        return cast("Client", client)

    def _opened(self) -> Any:
        if self._session is None:
            self._session = login.open_session(EXTRA.needed("boto3"), self._profile)
        return self._session

    def _configured_region(self) -> object:
        session = self._opened()
        with boundary(""):
            return session.region_name

    def _forget(self) -> None:
        """Read the configuration anew next time: somebody may log in again meanwhile."""
        with self._lock:
            self._session = self._who = None
            self._clients.clear()
            self._number = ""


def _rewind(parameters: Mapping[str, Any]) -> None:
    """Let a body be sent from its beginning, also the second time."""
    if "Body" in parameters:
        parameters["Body"].seek(0)


def configured() -> bool:
    """Return whether anything on this machine speaks of AWS; loads nothing."""
    credentials = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    config = os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")
    files = any(os.path.lexists(os.path.expanduser(name)) for name in (credentials, config))  # noqa: PTH111
    return files or any(os.environ.get(name) for name in CHOOSING)


def lasting(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which a timer logs in: no login that ends within hours."""
    passing = PAIR if environ.get("AWS_SESSION_TOKEN") else frozenset()
    variables = lasting_variables(environ, ("AWS_", "BOTO_CONFIG"))
    return {
        name: value
        for name, value in variables.items()
        if name not in passing and not NO_LOGIN.match(name)
    }
