"""The `Provider` for training jobs: plan, check, build, create, find again, end."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import partial
from typing import IO

from cvl.cleanup.leases import HOUR, cost
from cvl.container.contents import Contents, contents_of, tar
from cvl.core.errors import CvlError, explained
from cvl.core.interfaces import Leases
from cvl.core.paths import ledger_file
from cvl.core.request_template import Merged
from cvl.core.retry import create
from cvl.core.scope import Scope, Tell, silent
from cvl.core.spec import EMPTY, STOP_LIMIT, JobSpec, Plan, Quote, Resource
from cvl.core.tags import Marks, name_of
from cvl.core.units import priced
from cvl.ledger import Ledger
from cvl.providers.aws import identity as whose
from cvl.providers.aws.api_errors import EXTRA
from cvl.providers.aws.session import Account
from cvl.providers.sagemaker import (
    check,
    docker,
    image,
    inputs,
    job_options,
    job_requests,
    price,
    registry,
    template,
)
from cvl.providers.sagemaker.job import LISTING_LAG, TrainingJob
from cvl.providers.sagemaker.job_options import STOP, JobOptions, Runtime, deadline, runtime
from cvl.providers.sagemaker.job_requests import KIND
from cvl.providers.sagemaker.s3_location import S3Location

UPLOAD_LIMIT = 900.0
"""Seconds that SageMaker may take to upload the results of a job that was stopped."""
LAYERS = (
    "SageMaker itself, at MaxRuntimeInSeconds, whatever becomes of this machine",
    "cvl, on Ctrl-C, `cvl stop` and `cvl reap`, by StopTrainingJob",
    "`cvl reap` from any machine with the credentials, past the deadline in the job's tags",
)


class SageMaker:
    """The `Provider`: training jobs of one account and region."""

    name = "sagemaker"
    many_nodes = True
    guarded = False  # SageMaker ends a job at its limit, whatever becomes of this machine
    stop_limit = STOP + UPLOAD_LIMIT + STOP_LIMIT
    listing_lag = LISTING_LAG
    unique = frozenset[str]()
    secrets: Mapping[str, str] = EMPTY  # boto3 finds the credentials, in any process

    def __init__(
        self,
        account: Account,
        options: JobOptions | None = None,
        *,
        output: S3Location | None = None,
    ) -> None:
        """`options` is needed to plan and launch; `output` to find what jobs were given."""
        self._account, self._options = account, options
        self._output = options.output if options else output
        self._price: Decimal | None = None
        self._no_price = ""
        self._chosen: Contents | None = None

    def identity(self) -> str:
        """As the seam says; the role's account, for others' credentials start nothing there."""
        return whose.identity_of(self._account, self._required().role.account)

    def confirm(self, identity: str) -> None:
        whose.confirm(self._account, identity)

    def plan(self, spec: JobSpec) -> Plan:
        options = self._required()
        options.check_arch()
        try:
            self._price = price.hourly(self._account, options.instance_type) * spec.nodes
        except CvlError as error:
            self._no_price = f"no price: {explained(error)}"
        run = runtime(spec.limits, self._price, self._currency())
        contents = self._contents(spec)
        count = f"{spec.nodes} x " if spec.nodes > 1 else ""
        request = self._request(spec, run, options.image or self._planned_image(spec))
        return Plan(
            runner=self.name,
            where=f"{count}{options.instance_type} in {self._account.region}",
            request=request.value,
            quote=self._quote(options, run),
            layers=LAYERS,
            warnings=(*(contents.warnings if contents else ()), *request.warnings),
            obstacle=EXTRA.lacking(),
        )

    def handle(self, spec: JobSpec) -> Mapping[str, str]:
        return {
            "run": spec.run_id,
            "job": name_of(spec.run_id),
            "output": str(self._required().output),
            "nodes": str(spec.nodes),
            "price": "" if self._price is None else str(self._price),
            "currency": self._currency(),
            # a spot job starts again, and then reads them again
            "secrets": "there" if spec.secrets and not self._required().spot else "",
            **self._account.address,
        }

    def launch(self, spec: JobSpec, leases: Leases, scope: Scope) -> TrainingJob:
        options = self._required()
        contents = self._contents(spec)
        if contents and not options.image:
            image.check(contents, spec.image or "", spec.example)
        check.check(self._account, options, scope)
        scope.checkpoint()
        uri = options.image or self._image(spec, scope)
        run = runtime(spec.limits, self._price, self._currency())
        body = self._request(spec, run, uri).value
        self._give_input(spec, run, leases)
        scope.checkpoint()
        scope.tell("waiting", f"{name_of(spec.run_id)}: asking for {options.instance_type}")
        leases.acquire(
            Resource(
                kind=KIND,
                name=name_of(spec.run_id),
                run_id=spec.run_id,
                deadline=deadline(options, run, self.now()),
            ),
            partial(create, partial(job_requests.create, self._account, body), scope),
        )
        return TrainingJob(self._account, self.handle(spec), scope.tell, _note_cost, answered=True)

    def attach(self, handle: Mapping[str, str], tell: Tell = silent) -> TrainingJob:
        return TrainingJob(self._account, handle, tell, _note_cost)

    def owned(self, kind: str = "") -> Iterator[Resource]:
        if kind in {"", KIND}:
            yield from job_requests.jobs(self._account)
        if kind in {"", inputs.KIND} and self._output:
            yield from inputs.inputs(self._account, self._output)

    def destroy(self, resource: Resource) -> None:
        if resource.kind == KIND:
            job_requests.stop(self._account, resource.name)
            if self._output is None:  # nobody here knows of its input, which it needs no more
                job_requests.drop_input(self._account, resource.name)
        else:
            inputs.remove(self._account, S3Location.parse(resource.id))

    def now(self) -> float:
        """Return UTC epoch seconds by AWS's clock."""
        return self._account.now()

    def _required(self) -> JobOptions:
        assert self._options is not None, "this provider was reopened: it can only attach"
        return self._options

    def _currency(self) -> str:
        return price.currency(self._account.region)

    def _quote(self, options: JobOptions, run: Runtime) -> Quote:
        hours = (Decimal(run.seconds + STOP) / HOUR).quantize(Decimal("0.01"))
        note = f"SageMaker ends it after {run.seconds} s of training ({run.why}) and 120 s to stop"
        if options.spot:
            wait = job_options.max_wait(options, run)
            note = f"spot: up to this; waits and runs {wait} s at most; {note}"
        if self._price is None:
            return Quote(max_hours=hours, note=f"{self._no_price}; {note}")
        unit = self._currency()
        return Quote(
            price_per_hour=self._price,
            max_hours=hours,
            max_cost=cost(self._price, run.seconds + STOP),
            currency=unit,
            note=f"up to {priced(self._price, unit)} an hour; {note}" if options.spot else note,
        )

    def _request(self, spec: JobSpec, run: Runtime, uri: str) -> Merged:
        options = self._required()
        ours = job_options.request(options, spec, run, image=uri, marks=self._marks(spec, run))
        return template.under(ours, options.template, self._account)

    def _marks(self, spec: JobSpec, run: Runtime) -> Marks:
        due = deadline(self._required(), run, self.now())
        return Marks(run_id=spec.run_id, owner=Ledger(ledger_file()).id(), deadline=due)

    def _contents(self, spec: JobSpec) -> Contents | None:
        if self._chosen is None and spec.source is not None:
            self._chosen = contents_of(spec.source)
        return self._chosen

    def _planned_image(self, spec: JobSpec) -> str:
        role = self._required().role
        uri = registry.uri(role.account, self._account.region, role.partition)
        return f"{uri}:{self._tag(spec)}"

    def _tag(self, spec: JobSpec) -> str:
        contents = self._contents(spec)
        assert contents is not None, "without an example there is nothing to build"
        return image.tag_of(contents, spec.image or "", *self._required().build_args)

    def _image(self, spec: JobSpec, scope: Scope) -> str:
        """Return the image's URI once the registry has it."""
        options, tag, contents = self._required(), self._tag(spec), self._contents(spec)
        assert contents is not None
        repository = registry.repository(self._account)
        always = spec.build and spec.build.when == "always"
        if repository and not always and registry.has(self._account, tag):
            return f"{repository}:{tag}"
        docker.check()
        check.quota(self._account, options, spec.nodes, scope)
        uri = f"{repository or registry.create(self._account)}:{tag}"
        registry.login(self._account)  # who gets none is told before a build of hours
        limited = scope.within(image.BUILD_LIMIT)
        image.make(contents, uri, spec.image or "", options.build_args, limited)
        registry.push(self._account, uri, limited)
        return uri

    def _give_input(self, spec: JobSpec, run: Runtime, leases: Leases) -> None:
        options, name = self._required(), name_of(spec.run_id)
        location = inputs.location_of(options.output, name)
        marks = self._marks(spec, run).tags
        with tempfile.TemporaryFile() as code:
            more = self._code(spec, code) if options.image else {}
            leases.acquire(
                Resource(kind=inputs.KIND, name=name, run_id=spec.run_id),
                partial(inputs.upload, self._account, location, spec, marks, more),
            )

    def _code(self, spec: JobSpec, code: IO[bytes]) -> Mapping[str, IO[bytes]]:
        """Return what an image that we did not build lacks: our script and the example."""
        more: dict[str, IO[bytes]] = {inputs.ENTRY: io.BytesIO(image.entry())}
        if (contents := self._contents(spec)) and spec.source:
            code.writelines(tar(contents.tree, contents.placed(), {}))
            code.seek(0)
            more[inputs.CODE] = code
        return more


def _note_cost(run_id: str, spent: Decimal) -> None:
    """Note what AWS billed: the ledger's own reckoning knows no waiting and no spot."""
    Ledger(ledger_file()).note(run_id, cost=spent)
