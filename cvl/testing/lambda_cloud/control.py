"""The other door, for tests in other processes: `/_control/...`, which no real cloud has.

GET  bill | log | instances | violations      what there is
POST faults   {"name": NAME} or a Fault's fields      DELETE faults
POST machines {"id": ID, "do": "cut" | "on" | "reboot" | "shutdown" | "move"}
POST reset    a new account
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from cvl.testing.lambda_cloud.faults import FAULTS, Fault, What
from cvl.testing.lambda_cloud.instance import Instance
from cvl.testing.lambda_cloud.real_hosts import RealHost
from cvl.testing.lambda_cloud.replies import ApiError, Reply, failure, success

if TYPE_CHECKING:
    from cvl.testing.lambda_cloud.cloud import LambdaCloud

PREFIX = "/_control/"
Body = Mapping[str, object]


def control(cloud: LambdaCloud, method: str, path: str, body: bytes) -> Reply:
    """Answer a request for the other door."""
    name = f"{method} {path.removeprefix(PREFIX)}"
    try:
        given = json.loads(body or b"{}")
        if name not in _DOORS or not isinstance(given, dict):
            raise ApiError(404, "global/not-found")
        return success(json.loads(json.dumps(_DOORS[name](cloud, given), default=str)))
    except (ValueError, TypeError, KeyError) as error:
        return failure(ApiError(400, "global/invalid-parameters", repr(error)))
    except ApiError as error:
        return failure(error)


def fault_of(given: Mapping[str, Any]) -> Fault:
    """Return the fault that is described: by `name`, other fields changed, or by its fields."""
    fields = {key: value for key, value in given.items() if key != "name"}
    if "what" in fields:
        fields["what"] = What(fields["what"])
    return replace(FAULTS[given["name"]], **fields) if "name" in given else Fault(**fields)


def _bill(cloud: LambdaCloud, _body: Body) -> object:
    bill = cloud.bill()
    lines = [asdict(line) for line in bill.lines]
    return {"lines": lines, "cost": bill.cost, "seconds": bill.seconds}


def _log(cloud: LambdaCloud, _body: Body) -> object:
    return [asdict(entry) for entry in cloud.log]


def _instances(cloud: LambdaCloud, _body: Body) -> object:
    cloud.state.advance()
    return [_shown(each) for each in list(cloud.state.instances.values())]


def _shown(instance: Instance) -> Mapping[str, object]:
    return {
        "id": instance.id,
        "name": instance.name,
        "status": instance.status,
        "address": instance.host.address,
        "costs": instance.costs,
    }


def _violations(cloud: LambdaCloud, _body: Body) -> object:
    return cloud.violations


def _inject(cloud: LambdaCloud, body: Body) -> object:
    cloud.inject(fault_of(body))
    return {}


def _clear(cloud: LambdaCloud, _body: Body) -> object:
    cloud.clear_faults()
    return {}


def _machines(cloud: LambdaCloud, body: Body) -> object:
    host = cloud.state.instances[str(body["id"])].host
    todo: Mapping[str, Callable[[], None]] = {
        "cut": host.power_cut,
        "on": host.power_on,
        "reboot": host.reboot,
        "move": host.move,
        "shutdown": host.power_cut,
    }
    if body["do"] == "shutdown" and isinstance(host, RealHost) and host.machine is not None:
        host.machine.run("shutdown", "-h", "now")
    else:
        todo[str(body["do"])]()
    return {}


def _reset(cloud: LambdaCloud, _body: Body) -> object:
    cloud.reset()
    return {}


_DOORS: Mapping[str, Callable[[LambdaCloud, Body], object]] = {
    "GET bill": _bill,
    "GET log": _log,
    "GET instances": _instances,
    "GET violations": _violations,
    "POST faults": _inject,
    "DELETE faults": _clear,
    "POST machines": _machines,
    "POST reset": _reset,
}
