"""Images: whether a container may have one, as the kubelet decides it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from cvl.testing.kubernetes.engine_api import EngineApi

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = (
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
_REFERENCE = re.compile(
    rf"(?:{_HOST}(?::\d+)?/)?{_PART}(?:/{_PART})*(?::[\w][\w.-]{{0,127}})?"
    r"(?:@[A-Za-z][\w]*(?:[-_+.][A-Za-z]\w*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)
PULL, BACK_OFF, NEVER = "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageError(Exception):
    """Why there is no image. `event` is the reason of the event that tells it."""

    reason: str
    message: str
    event: str = "Failed"


def is_reference(image: str) -> bool:
    """Return whether that names an image (github.com/distribution/reference, grammar)."""
    return _REFERENCE.fullmatch(image) is not None and len(image) <= 400


def ensure(
    engine: EngineApi,
    image: str,
    policy: str,
    broken: Callable[[], bool],
    tell: Callable[[str, str], None],
) -> str:
    """Return the id of an image, pulled if the policy says so. Raises `ImageError`.

    `broken` says whether a pull is to fail; `tell` hears of events: reason, message.
    """
    if not is_reference(image):
        why = f'couldn\'t parse image name "{image}": invalid reference format'
        if is_reference(image.lower()):
            why += ": repository name must be lowercase"
        message = f'Failed to apply default image tag "{image}": {why}'
        raise ImageError(reason="InvalidImageName", message=message, event="InspectFailed")
    here = engine.image(image)
    if policy == "Never" and here is None:
        message = f'Container image "{image}" is not present with pull policy of Never'
        raise ImageError(reason=NEVER, message=message, event=NEVER)
    if here is not None and policy != "Always":
        tell("Pulled", f'Container image "{image}" already present on machine')
        return str(here["Id"])
    tell("Pulling", f'Pulling image "{image}"')
    why = "toomanyrequests: injected" if broken() else engine.pull(image)
    here = None if why else engine.image(image)
    if here is None:
        told = f"rpc error: code = Unknown desc = Error response from daemon: {why}"
        message = f'Failed to pull image "{image}": {told}'
        raise ImageError(reason=PULL, message=message)
    tell("Pulled", f'Successfully pulled image "{image}"')
    return str(here["Id"])
