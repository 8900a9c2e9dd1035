"""Lambda Cloud's HTTP API, as far as renting needs it (OpenAPI 1.10.0).

Each failure says what the caller may conclude: `Rejected` and `NoCapacity`, nothing was made;
`Ambiguity`, nobody knows; any other `ProviderError`, ask again. The key is in no message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, cast

from cvl.core import replies
from cvl.core.api_key import checked
from cvl.core.digest import blake2b
from cvl.core.errors import (
    Ambiguity,
    AuthError,
    CvlError,
    Missing,
    NoCapacity,
    ProviderError,
    Rejected,
    UsageError,
    used_up,
)
from cvl.core.extras import Extra
from cvl.core.http.errors import Trouble, beneath, reason, trouble
from cvl.core.http.secure_url import address
from cvl.core.octets import octets, to_send
from cvl.core.parallel import bounded
from cvl.core.retry import briefly
from cvl.core.scope import Clock, DeadlineExceeded, Scope, SystemClock
from cvl.core.server_clock import ServerClock
from cvl.rental.rate_limit import Pace
from cvl.rental.shared_cache import Answers

if TYPE_CHECKING:
    from urllib3 import PoolManager

EXTRA = Extra(name="remote", modules=("urllib3",))
BASE = "https://cloud.lambda.ai/api/v1"
PAUSES, THROTTLED_PAUSES = (0.3, 0.6, 1.2), (1.0, 2.0, 4.0)
"""Seconds between the attempts of a request that may be repeated, and after a 429."""
CONNECT_LIMIT, READ_LIMIT = 10.0, 30.0
"""Seconds to connect; between two pieces of an answer."""
PATIENCE = 2
"""Read limits that a whole answer may take, however steadily it drips."""
LAUNCH = "/instance-operations/launch"
TERMINATE = "/instance-operations/terminate"
OK, TOO_MANY = range(200, 300), 429

BLOCK = 1 << 16
Json = Mapping[str, object]
Reply = tuple[int, Mapping[str, str], bytes]
"""An answer's status, its headers, and its body."""
Unless = Callable[[], bool]
"""Whether what is asked for is to be had otherwise by now."""

NO_KEY = (
    "LAMBDA_API_KEY not set",
    "make a key in the Lambda Cloud dashboard and export it as LAMBDA_API_KEY",
)

WRONG = "see LAMBDA_API_BASE and HTTPS_PROXY"
UNTRUSTED = "SSL_CERT_FILE names the authorities of your network, where it has its own"
DEFINITE: Mapping[str, tuple[type[ProviderError], str]] = {
    "instance-operations/launch/insufficient-capacity": (
        NoCapacity,
        "another region or type may have some: `cvl offers`; or --wait-capacity 2h",
    ),
    "instance-operations/launch/file-system-in-wrong-region": (Rejected, "choose its region"),
    "global/quota-exceeded": (Rejected, "ask Lambda for a higher quota, or end other machines"),
    "global/invalid-parameters": (Rejected, "`cvl offers` shows the types and regions"),
    "global/object-does-not-exist": (Rejected, "`cvl offers` shows the types and regions"),
}
"""Codes after which nothing was made, with what to do now (facts of the API's own document)."""
FORBIDDEN: Mapping[str, str] = {
    "global/account-inactive": "activate the account in the Lambda Cloud dashboard",
    "global/invalid-address": "complete the address in the Lambda Cloud dashboard",
    "global/forbidden": "use a key that may launch instances",
}
"""Codes of a 403, and what to do now."""


class Forbidden(AuthError):
    """The key is one, and may not do that (403)."""


class Throttled(Ambiguity):
    """Too many requests, of ours or of others with this account; what became of it is unknown."""


class Overtaken(Exception):
    """Somebody else has asked meanwhile."""


class LambdaAPI:
    """One account, through its key."""

    def __init__(
        self,
        key: str,
        base: str = BASE,
        *,
        interval: float = 1.0,
        launch_interval: float = 12.0,
        read_limit: float = READ_LIMIT,
        another: Callable[[str], str] = lambda _refused: "",
        clock: Clock | None = None,
    ) -> None:
        """`interval` and `launch_interval`: seconds between two requests, two launches.

        `another` returns what has replaced a key that is refused, "" for nothing. Raises
        `UsageError` for what cannot be a key, and where it would travel unencrypted.
        """
        self.key, self._read_limit = checked(key, "LAMBDA_API_KEY"), read_limit
        self.base = address(base, "LAMBDA_API_BASE").rstrip("/")
        self._another, self._clock = another, clock or SystemClock()
        account = blake2b(octets(f"{base}{self.key}"), digest_size=6).hexdigest()
        self._account = f"lambda-{account}"
        self._pace = Pace(self._account, interval, self._clock)
        self._launch_pace = Pace(f"lambda-launch-{account}", launch_interval, self._clock)
        self._launch_taken: float | None = None
        self._pool: PoolManager | None = None
        self._server = ServerClock(self._clock)

    def now(self) -> float | None:
        """Return UTC epoch seconds by the API's own clock, if it tells."""
        if self._server.told() is None:
            self.get("/regions")
        return self._server.told()

    def launch_turn(self, scope: Scope) -> None:
        """Return when a launch may be sent. Raises as `scope`: who waits has sent nothing."""
        self._launch_taken = self._launch_pace.wait(scope, urgent=True)

    def get(self, path: str) -> object:
        """Return `data` of a GET. Raises `ProviderError`, `Missing`, `AuthError`."""
        return self._patient("GET", path, None)

    def once_asked(self, path: str) -> object:
        """Return `data` of a GET that is made once: what it would tell is not worth a wait."""
        return self._send("GET", path, None)

    def listed(self, path: str) -> object:
        """Return `data` of a list: asked for now, by us or by another process of ours."""
        sent = start = self._clock.monotonic()
        answers = Answers(f"{self._account}{path.replace('/', '-')}")

        def overtaken() -> bool:
            nonlocal sent
            sent = self._clock.monotonic()
            return answers.since(start) is not None

        try:
            data = self._patient("GET", path, None, unless=overtaken)
        except Overtaken:
            return answers.since(start)
        if self._pace.limited:
            answers.keep(sent, data)
        return data

    def post(self, path: str, body: Json) -> object:
        """Return `data` of a POST that may be repeated safely."""
        return self._patient("POST", path, body)

    def delete(self, path: str) -> None:
        """Make a DELETE."""
        self._patient("DELETE", path, None)

    def once(self, path: str, body: Json) -> object:
        """Return `data` of a POST that creates something: sent once. Raises as the module says.

        That it was not allowed proves nothing: it may be said by whoever stands before the API,
        after another has let the request through.
        """
        try:
            return self._send("POST", path, body)
        except AuthError as error:
            self._renew()
            raise Ambiguity(str(error), error.hint) from error
        finally:
            if path == LAUNCH:
                self._launch_pace.arrived(self._launch_taken)

    def _patient(
        self, method: str, path: str, body: Json | None, *, unless: Unless = lambda: False
    ) -> object:
        for attempt in briefly(PAUSES, self._clock):
            try:
                return self._send(method, path, body, unless=unless)
            except AuthError as error:
                if not self._renew():
                    raise
                failure: CvlError = error
                attempt.at_once()
            except Ambiguity as error:
                failure = error
                attempt.pauses = THROTTLED_PAUSES if isinstance(error, Throttled) else PAUSES
                attempt.asked(error.wait)
        raise failure

    def _renew(self) -> bool:
        """Take the key that has replaced a refused one; return whether there is one."""
        if key := self._another(self.key):
            self.key = key
        return bool(key)

    def _send(
        self, method: str, path: str, body: Json | None, *, unless: Unless = lambda: False
    ) -> object:
        if not self.key:
            raise CvlError(*NO_KEY)
        request = partial(self._answer, method, path, body)
        try:
            status, headers, answer = self._in_turn(request, unless, urgent=method != "GET")
        except (CvlError, Overtaken):
            raise
        except DeadlineExceeded:
            raise Ambiguity("the Lambda API did not answer in full within its time") from None
        except replies.TooLong as error:
            raise Ambiguity(f"the Lambda API answered {error}") from None
        except Exception as error:
            raise used_up(error) or _unanswered(error) from error
        self._server.heard(headers)
        try:
            return _judge(status, answer)
        except Ambiguity as error:
            error.wait = replies.asked_to_wait(headers)
            raise

    def _answer(self, method: str, path: str, body: Json | None) -> Reply:
        """Send one request, and read no more of its answer than makes sense."""
        response = self._opened().request(
            method,
            self.base + path,
            body=None if body is None else to_send(body, "Lambda"),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
            redirect=False,
            preload_content=False,
        )
        try:
            answer = replies.taken(response.stream(BLOCK, decode_content=False))
        except BaseException:
            response.close()
            raise
        response.release_conn()
        return response.status, response.headers, answer

    def _in_turn(self, request: Callable[[], Reply], unless: Unless, *, urgent: bool) -> Reply:
        """Send a request when it is its turn. What looks can wait; what ends costs money.

        On a busy machine the turn may be over before the request is on its way: then it waits
        for the next. Raises as `request`, `DeadlineExceeded`, and `Overtaken`.
        """
        while True:
            turn = self._pace.wait(urgent=urgent, unless=unless)
            if turn is None:
                raise Overtaken

            def send(turn: float = turn) -> Reply | None:
                return None if self._pace.missed(turn) else request()

            try:
                reply = bounded(send, Scope(seconds=self._read_limit * PATIENCE))
            finally:
                self._pace.arrived(turn)
            if reply is not None:
                return reply

    def _opened(self) -> PoolManager:
        if self._pool is None:
            from cvl.core.http.pool import pool

            self._pool = pool(EXTRA, limits=(CONNECT_LIMIT, self._read_limit), retries=False)
        return self._pool


def _unanswered(error: Exception) -> CvlError:
    """Return what follows from whatever a library raises on the way to the API and back."""
    what = trouble(error)
    if what is Trouble.WRONG:
        return UsageError(f"the Lambda API cannot be called: {reason(error)}", WRONG)
    if what is Trouble.NEVER:
        return Rejected(f"the Lambda API cannot be reached: {reason(error)}", "check your network")
    if what is Trouble.UNTRUSTED:
        return Ambiguity(f"the Lambda API's certificate is not trusted: {reason(error)}", UNTRUSTED)
    return Ambiguity(f"the Lambda API did not answer ({type(beneath(error)).__name__})")


def _judge(status: int, answer: bytes) -> object:
    """Return the reply's `data`, or raise what the caller may conclude from it."""
    if status == TOO_MANY:
        raise Throttled(
            "the Lambda API answered 429: too many requests",
            "other programs may use the same account; try again in a minute",
        )
    try:
        reply = cast("Mapping[str, Mapping[str, object]]", replies.parsed(answer))
        if status in OK:
            return reply["data"]
        code, message = str(reply["error"]["code"]), str(reply["error"]["message"])
    except replies.TooLong as error:
        raise Ambiguity(f"the Lambda API answered {error}") from None
    except (ValueError, KeyError, TypeError):
        raise Ambiguity(f"the Lambda API answered {status} and no JSON of its own") from None
    if code == "global/invalid-api-key" or status == 401:  # noqa: PLR2004
        raise AuthError(
            "Authentication failed: Lambda does not accept this API key",
            "set LAMBDA_API_KEY to a valid key from the Lambda Cloud dashboard",
        )
    if status == 403:  # noqa: PLR2004
        raise Forbidden(f"Lambda: {message}", FORBIDDEN.get(code, FORBIDDEN["global/forbidden"]))
    if status == 404:  # noqa: PLR2004
        raise Missing(f"Lambda: {message}", "`cvl offers` shows the types and regions")
    if code in DEFINITE:
        kind, hint = DEFINITE[code]
        raise kind(f"Lambda: {message}", hint)
    raise Ambiguity(f"the Lambda API answered {status}: {code}: {message}")
