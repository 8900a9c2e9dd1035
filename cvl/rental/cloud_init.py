"""What a rented machine is told for its first boot: a cloud-config, which every cloud passes on.

https://cloudinit.readthedocs.io/en/latest/reference/modules.html#ssh
"""

from __future__ import annotations

from collections.abc import Mapping

from cvl.core.interfaces import Order
from cvl.core.spec import EMPTY


def user_data(order: Order, more: Mapping[str, object] = EMPTY) -> str:
    """Return the cloud-config that gives the machine the host key that we made and pin."""
    import yaml

    config = {
        "ssh_deletekeys": True,
        "ssh_keys": {
            "ed25519_private": order.host_key,
            "ed25519_public": order.host_public_key,
        },
        "ssh_authorized_keys": [order.public_key],
        **more,
    }
    return "#cloud-config\n" + yaml.safe_dump(config, sort_keys=False)
