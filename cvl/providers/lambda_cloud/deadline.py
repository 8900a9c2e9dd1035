"""The dead-man timer on a Lambda machine (`--self-terminate`): it ends itself at its deadline.

An OS shutdown does not end the billing of a Lambda instance; only the API does. So this puts the
account's key on the machine, readable by root there: opt-in, and said before it happens. The
timer is a systemd one, so it survives a reboot; time is the API's own (HTTP `Date`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from textwrap import dedent

from cvl.core.interfaces import Order

LOOK = 60
"""Seconds between two looks at the clock."""
REDACTED = "<redacted:api_key>"
LAYER = "the machine itself, at its deadline (the account's API key is on it, readable by root)"
WARNING = (
    "--self-terminate puts your Lambda API key on the machine; a job that becomes root there "
    "can read it"
)

SCRIPT = dedent("""\
    #!/usr/bin/env python3
    import json
    import time
    import urllib.request
    from email.utils import parsedate_to_datetime

    with open("/etc/cvl/deadline.json") as file:
        facts = json.load(file)


    class Stay(urllib.request.HTTPRedirectHandler):
        # whoever sends us elsewhere does not get the key sent there
        def redirect_request(self, *_):
            return None


    opened = urllib.request.build_opener(Stay).open


    def call(path, body=None, attempts=20):
        # the API takes one request a second, and others may share it: wait, and try again
        for left in reversed(range(attempts)):
            time.sleep(1.5)
            try:
                return answered(path, body)
            except (OSError, ValueError, LookupError) as error:
                if not left:
                    raise
                time.sleep(asked(getattr(error, "headers", None)))


    def asked(headers):
        # 60 s at most: this machine costs money
        text = (headers or {}).get("Retry-After") or ""
        if text.isdecimal():
            return min(int(text[:9]), 60)
        try:
            left = parsedate_to_datetime(text) - parsedate_to_datetime(headers["Date"])
            return min(max(left.total_seconds(), 0), 60)
        except (TypeError, ValueError, IndexError, OverflowError):
            return 0


    def answered(path, body):
        request = urllib.request.Request(
            facts["base"] + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": "Bearer " + facts["key"],
                "Content-Type": "application/json",
                "User-Agent": "cvl",
            },
        )
        with opened(request, timeout=30) as reply:
            return json.load(reply)["data"], parsedate_to_datetime(reply.headers["Date"])


    machines, now = call("/instances")
    tag = {"key": "cvl-run", "value": facts["run"]}
    mine = [each["id"] for each in machines if tag in (each.get("tags") or [])]
    if mine and now.timestamp() >= facts["deadline"]:
        call("/instance-operations/terminate", {"instance_ids": mine})
""")

SERVICE = dedent("""\
    [Unit]
    Description=End this rented machine at its deadline
    [Service]
    Type=oneshot
    ExecStart=/usr/local/sbin/cvl-deadline
""")

TIMER = dedent("""\
    [Unit]
    Description=End this rented machine at its deadline
    [Timer]
    OnBootSec={seconds}
    OnUnitActiveSec={seconds}
    [Install]
    WantedBy=timers.target
""")


def cloud_config(order: Order, base: str, key: str) -> Mapping[str, object]:
    """Return the cloud-config entries that arm the timer at every boot."""
    facts = {"base": base, "key": key, "run": order.run_id, "deadline": int(order.deadline)}
    files = (
        ("/etc/cvl/deadline.json", "0600", json.dumps(facts)),
        ("/usr/local/sbin/cvl-deadline", "0700", SCRIPT),
        ("/etc/systemd/system/cvl-deadline.service", "0644", SERVICE),
        ("/etc/systemd/system/cvl-deadline.timer", "0644", TIMER.format(seconds=LOOK)),
    )
    return {
        "write_files": [
            {"path": path, "permissions": mode, "owner": "root:root", "content": content}
            for path, mode, content in files
        ],
        "runcmd": [
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", "--now", "cvl-deadline.timer"],
        ],
    }
