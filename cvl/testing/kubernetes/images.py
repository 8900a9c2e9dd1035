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


def ensure(engine: EngineApi, image: str, policy: str, tell: Callable[[str, str], None]) -> None:
    """See to it that an image is here, as the policy says. Raises `ImageError`.

    `tell` hears of events: reason, message.
    """
    if not _REFERENCE.fullmatch(image):
        why = f'couldn\'t parse image name "{image}": invalid reference format'
        message = f'Failed to apply default image tag "{image}": {why}'
        raise ImageError(reason="InvalidImageName", message=message, event="InspectFailed")
    here = engine.image(image)
    if here and policy != "Always":
        tell("Pulled", f'Container image "{image}" already present on machine')
        return
    if policy == "Never":
        message = f'Container image "{image}" is not present with pull policy of Never'
        raise ImageError(reason=NEVER, message=message, event=NEVER)
    tell("Pulling", f'Pulling image "{image}"')
    if why := engine.pull(image):
        told = f"rpc error: code = Unknown desc = Error response from daemon: {why}"
        raise ImageError(reason=PULL, message=f'Failed to pull image "{image}": {told}')
    tell("Pulled", f'Successfully pulled image "{image}"')
