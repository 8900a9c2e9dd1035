"""All of it together: moto, our jobs, a registry, and the environment that reaches them."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from shutil import rmtree
from typing import Any, Self

from cvl.testing import needs
from cvl.testing.docker_engine import Engine
from cvl.testing.sagemaker.api import TrainingJobs
from cvl.testing.sagemaker.faults import Fault, Faults
from cvl.testing.sagemaker.jobs import Delays, Job
from cvl.testing.sagemaker.registry import PASSWORD, USER, ImageRegistry
from cvl.testing.sagemaker.storage import WireStorage
from cvl.testing.sagemaker.wire import Application, Wire

ACCOUNT = "123456789012"
BUCKET = "cvl-test-bucket"
ROLE = "cvl-training"
TRUST = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", '
    '"Principal": {"Service": "sagemaker.amazonaws.com"}}]}'
)


def missing() -> str:
    """Return why there can be no such cloud here, "" if there can."""
    return needs.missing("boto3", "flask_cors", "moto.moto_server.werkzeug_app")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the cloud behaves; seconds. `late_streams`: how long no log stream is listed."""

    region: str = "us-east-1"
    start: float = 0.1
    upload: float = 0.05
    stop: float = 120.0


class AwsCloud:
    """AWS on a free port of loopback. Use as a context manager; one at a time in a process."""

    def __init__(
        self,
        settings: Settings = Settings(),
        *,
        engine: Engine | None = None,
        registry: ImageRegistry | None = None,
    ) -> None:
        """Without an engine jobs only walk through their states."""
        self.settings, self.registry = settings, registry
        self._engine = engine
        self._folder = Path(tempfile.mkdtemp(prefix="cvl-aws-"))
        self._faults = Faults()
        host = registry.host if registry else ""
        self.wire = Wire(_moto(), host, self._faults)
        self._server: Any = None
        self._clients: dict[str, Any] = {}
        self._storage: WireStorage | None = None

    def __enter__(self) -> Self:
        make_server = import_module("werkzeug.serving").make_server
        handler = import_module("moto.moto_server.werkzeug_app").MotoRequestHandler
        self._server = make_server(
            "127.0.0.1", 0, self.wire, threaded=True, request_handler=_quiet(handler)
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.reset()
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.close()
        self._server.shutdown()
        self._server.server_close()
        rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where all services answer."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def role(self) -> str:
        """A role that SageMaker may assume."""
        return f"arn:aws:iam::{ACCOUNT}:role/{ROLE}"

    @property
    def output(self) -> str:
        """A place in a bucket that is there."""
        return f"s3://{BUCKET}/runs"

    @property
    def env(self) -> Mapping[str, str]:
        """What a client needs in its environment; no other AWS configuration is seen."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing-secret",
            "AWS_DEFAULT_REGION": self.settings.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self._folder / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self._folder / "credentials"),
            "SAGEMAKER_LOOK": "0.1",
            "SAGEMAKER_SETTLE": "1",
            "SAGEMAKER_DRAIN": "2",
        }

    @property
    def _jobs(self) -> TrainingJobs:
        assert self.wire.jobs is not None
        return self.wire.jobs

    @property
    def jobs(self) -> Mapping[str, Job]:
        """All training jobs, by name."""
        return self._jobs.jobs

    @property
    def quotas(self) -> dict[str, float]:
        """What quotas there are, by their names at AWS; to be changed."""
        return self._jobs.quotas.limits

    def going_on(self) -> list[Job]:
        """Return the jobs that have not ended: what would cost money."""
        return self._jobs.going_on()

    def interrupt(self) -> None:
        """Take the instances of all that train away, as happens to spot jobs."""
        for job in self.going_on():
            job.interrupted.set()

    def inject(self, fault: Fault) -> None:
        """Let something go wrong."""
        self._faults.inject(fault)

    def client(self, service: str) -> Any:
        """Return a client of our own; its requests are logged as anybody's."""
        if service not in self._clients:
            session = import_module("boto3").session.Session(
                aws_access_key_id="x", aws_secret_access_key="y", region_name=self.settings.region
            )
            self._clients[service] = session.client(service, endpoint_url=self.url)
        return self._clients[service]

    def objects(self) -> list[str]:
        """Return the keys of everything in the bucket."""
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [each["Key"] for page in pages for each in page.get("Contents", ())]

    def requests(self, operation: str) -> int:
        """Return how many requests for an operation clients have made."""
        return sum(entry.operation == operation for entry in self.wire.log)

    def reset(self, settings: Settings | None = None) -> None:
        """Begin anew, with a bucket and a role."""
        if self.wire.jobs:
            self.wire.jobs.close()
        self.settings = settings or self.settings
        self._faults.clear()
        urllib.request.urlopen(f"{self.url}/moto-api/reset", data=b"", timeout=30).close()
        s = self.settings
        self._storage = self._storage or WireStorage(self.url, s.region)
        self._storage.forget()
        delays = Delays(start=s.start, upload=s.upload, stop=s.stop)
        self.wire.jobs = TrainingJobs(s.region, self._storage, delays, self._docker_env())
        self.client("s3").create_bucket(Bucket=BUCKET)
        self.client("iam").create_role(RoleName=ROLE, AssumeRolePolicyDocument=TRUST)
        self.wire.log.clear()
        self.wire.violations.clear()
        self.wire.hook = lambda _operation, _moment: None
        self.wire.expired_key = ""
        self.wire.hidden_streams, self.wire.empty_pages = 0.0, 0

    def _docker_env(self) -> Mapping[str, str] | None:
        """Let the service log in to the registry, with a configuration of its own."""
        if self._engine is None:
            return None
        env = {"DOCKER_HOST": self._engine.url, "DOCKER_CONFIG": str(self._folder / "docker")}
        if self.registry:
            login = ["docker", "login", "-u", USER, "--password-stdin", self.registry.host]
            subprocess.run(
                login,
                input=PASSWORD.encode(),
                env={**os.environ, **env},
                check=True,
                capture_output=True,
                timeout=60,
            )
        return env


def _moto() -> Application:
    server = import_module("moto.moto_server.werkzeug_app")
    application: Application = server.DomainDispatcherApplication(server.create_backend_app)
    return application


def _quiet(handler: type) -> type:
    """Return a request handler that writes no log lines to stderr."""
    return type("Quiet", (handler,), {"log": lambda *_: None, "protocol_version": "HTTP/1.1"})
