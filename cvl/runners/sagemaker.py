"""SageMakerRunner: an example as a managed training job on AWS.

SageMaker enforces MaxRuntimeInSeconds itself, whatever becomes of this machine: no guardian is
needed to end the bill. The job's name carries the run id and is unique in an account, so a lost
reply is settled by asking for that name, and a request can be repeated.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import IO, Any, Unpack

from cvl import engine
from cvl.aws import check, image, inputs, price, registry
from cvl.aws.contents import ENTRY_FILE, Contents, contents_of, write_tar
from cvl.aws.job import OVER, TrainingJob, stop, tags_of
from cvl.aws.order import STOP, Order, Runtime, deadline, job_name, max_wait, request, runtime
from cvl.aws.place import Place
from cvl.aws.session import Account, Missing, Reply, Taken, configured
from cvl.errors import AuthError, CvlError, Rejected, Unreachable, UsageError
from cvl.leases import HOUR, Leases, cost
from cvl.ledger import Ledger
from cvl.paths import ledger_file
from cvl.provider import Provider, Reapable
from cvl.runners import frontdoor
from cvl.runners.frontdoor import Common
from cvl.scope import Cancelled, DeadlineExceeded, Scope
from cvl.spec import EMPTY, RUN_ID, ExitStatus, JobSpec, Plan, Quote, Resource
from cvl.units import dollars, minutes

KIND = "training-job"
SETTLE = float(os.environ.get("SAGEMAKER_SETTLE", "60"))
"""Seconds after a request in which what it made may not be found yet."""
GRACE = 90.0
"""Of the 120 s between TERM and KILL, what the job has; the rest is for moving its results."""
UPLOAD_LIMIT = 900.0
"""Seconds in which a stopped job has to be seen ended: SageMaker uploads its results first."""
OLDEST = timedelta(days=31)
"""A job is never older: 28 days of running and some of waiting."""
CREATE_PAUSES = (0.5, 1.0, 2.0, 4.0)
SHELL = frozenset({"bash", "sh"})

LAYERS = (
    "SageMaker itself, at MaxRuntimeInSeconds, whatever becomes of this machine",
    "cvl, on Ctrl-C, `cvl stop` and `cvl reap`, by StopTrainingJob",
    "`cvl reap` from any machine with the credentials, past the deadline in the job's tags",
)


class SageMakerRunner:
    """Builds the image, starts the job, follows it, brings its results."""

    name = "sagemaker"

    def __init__(
        self, role_arn: str, region: str | None = None, profile: str | None = None
    ) -> None:
        """Connects to nothing. `role_arn` is what the job itself runs as."""
        self._role_arn = role_arn
        self._account = Account(region, profile)

    def run(
        self,
        example: str,
        preset: str,
        args: Sequence[str] = (),
        *,
        instance_type: str,
        output_path: str,
        spot: bool = False,
        max_wait_minutes: float | None = None,
        max_run_minutes: float | None = None,
        entry_command: str | None = None,
        download_outputs: bool = True,
        image_uri: str | None = None,
        volume_gb: int = 30,
        build_arg: Sequence[str] = (),
        **common: Unpack[Common],
    ) -> ExitStatus:
        """Run the example as a training job; its results also stay below `output_path`.

        `entry_command` is a line for a shell, run in place of the preset's. `image_uri` is
        taken as it is: nothing is built. Returns the script's exit code; raises `CvlError`.
        """
        order = Order(
            role_arn=self._role_arn,
            instance_type=instance_type,
            output=Place.parse(output_path),
            spot=spot,
            max_wait=None if max_wait_minutes is None else minutes(max_wait_minutes),
            image=image_uri or "",
            volume_gb=volume_gb,
            build_args=tuple(build_arg),
        )
        if not download_outputs:
            common["fetch"] = False
        common.setdefault("grace", GRACE)
        spec = frontdoor.job(
            example, preset, args, common, timeout_minutes=max_run_minutes, checked=False
        )
        spec = replace(spec, argv=command(spec, entry_command))
        options = replace(
            frontdoor.options_of(spec, common),
            guarded=False,
            grace=STOP + UPLOAD_LIMIT,
        )
        provider = SageMaker(self._account, order)
        return engine.run(spec, provider, Ledger(ledger_file()), options)

    @classmethod
    def reapable(cls) -> Reapable | None:
        """Return what `cvl reap` asks, None where nothing speaks of AWS."""
        if not configured():
            return None
        account = Account()
        return SageMaker(account) if account.has_credentials() else None

    @classmethod
    def reopen(cls, handle: Mapping[str, str], secrets: Mapping[str, str] = EMPTY) -> Provider:
        del secrets
        account = Account(handle.get("region"), handle.get("profile"), handle.get("endpoint"))
        output = handle.get("output")
        return SageMaker(account, output=Place.parse(output) if output else None)


def command(spec: JobSpec, entry_command: str | None) -> tuple[str, ...]:
    """Return what runs in the container. Raises `UsageError` for a preset that cannot.

    A training job cannot start containers of its own: a script that does is replaced by the
    Python file that it would run.
    """
    args = spec.argv[len(spec.argv) - len(spec.args) :]
    if entry_command:
        line = entry_command if re.search(r"\$[@*]|\$\{[@*]", entry_command) else None
        return ("sh", "-c", line or f'{entry_command} "$@"', "entry", *args)
    if spec.argv[:2] == ("bash", "-c") or spec.argv[0] not in SHELL:
        return spec.argv
    assert spec.source is not None
    folder = spec.source.root / spec.source.folder
    script = folder / spec.argv[1]
    if script.is_file() and not (spec.needs.docker and starts_docker(script.read_bytes())):
        return spec.argv
    names = [f"{spec.preset}.py", *(["train.py"] if "train" in spec.preset else [])]
    for name in names:
        if (folder / name).is_file():
            return ("python", name, *spec.argv[2:])
    raise UsageError(
        f"preset {spec.preset!r} of {spec.example} starts Docker itself, which no training job can",
        "say what to run instead, such as --entry-command 'python predict.py'",
    )


def starts_docker(script: bytes) -> bool:
    """Return whether a script calls Docker, in a line that is no comment."""
    return re.search(rb"^[^#\n]*\bdocker\b", script, re.MULTILINE) is not None


class SageMaker:
    """The `Provider`: training jobs of one account and region."""

    name = "sagemaker"
    many_nodes = True
    settle = SETTLE
    secrets: Mapping[str, str] = EMPTY  # boto3 finds the credentials, in any process

    def __init__(
        self, account: Account, order: Order | None = None, *, output: Place | None = None
    ) -> None:
        """`order` is needed to plan and launch; `output` to find what jobs were given."""
        self._account, self._order = account, order
        self._output = order.output if order else output
        self._price: Decimal | None = None
        self._no_price = ""
        self._contents: Contents | None = None

    def plan(self, spec: JobSpec) -> Plan:
        order = self._ordered()
        self._ask_price(order, spec.nodes)
        run = runtime(spec.limits, self._price)
        contents = self._chosen(spec)
        planned = order.image or f"{self._planned_uri(order)}:{self._tag(contents, spec)}"
        count = f"{spec.nodes} x " if spec.nodes > 1 else ""
        return Plan(
            runner=self.name,
            where=f"{count}{order.instance_type} in {self._account.region}",
            request=self._request(spec, run, planned),
            quote=self._quote(order, run),
            layers=LAYERS,
            warnings=contents.warnings if contents else (),
        )

    def handle(self, spec: JobSpec) -> Mapping[str, str]:
        return {
            "run": spec.run_id,
            "job": job_name(spec.run_id),
            "output": str(self._ordered().output),
            "nodes": str(spec.nodes),
            "price": "" if self._price is None else str(self._price),
            **self._account.address,
        }

    def launch(self, spec: JobSpec, leases: Leases, scope: Scope) -> TrainingJob:
        order = self._ordered()
        contents = self._chosen(spec)
        if contents and not order.image:
            image.check(contents, spec.image or "", spec.example)
        check.check(self._account, order, scope)
        scope.checkpoint()
        found = order.image or self._image(spec, scope)
        run = runtime(spec.limits, self._price)
        body = self._request(spec, run, found)
        try:
            self._give_input(spec, run, leases)
            scope.checkpoint()
            scope.tell("waiting", f"{job_name(spec.run_id)}: asking for {order.instance_type}")
            leases.acquire(
                Resource(
                    kind=KIND,
                    name=job_name(spec.run_id),
                    run_id=spec.run_id,
                    deadline=deadline(order, run, self.now()),
                ),
                partial(self._create, body, scope),
            )
        except CvlError:
            leases.release(kind=inputs.KIND)
            raise
        return TrainingJob(self._account, self.handle(spec), scope.tell, _note_cost)

    def attach(self, handle: Mapping[str, str]) -> TrainingJob:
        return TrainingJob(self._account, handle, billed=_note_cost)

    def owned(self, kind: str = "") -> Iterator[Resource]:
        if kind in {"", KIND}:
            yield from self._jobs()
        if kind in {"", inputs.KIND} and self._output:
            yield from inputs.found(self._account, self._output)

    def destroy(self, resource: Resource) -> None:
        if resource.kind == KIND:
            stop(self._account, resource.name)
        else:
            inputs.remove(self._account, Place.parse(resource.id))

    def now(self) -> float:
        """Return UTC epoch seconds by AWS's clock."""
        return self._account.now()

    def _ordered(self) -> Order:
        assert self._order is not None, "this provider was reopened: it can only attach"
        return self._order

    def _ask_price(self, order: Order, nodes: int) -> None:
        try:
            self._price = price.hourly(self._account, order.instance_type) * nodes
        except CvlError as error:
            self._no_price = f"no price: {error}"

    def _quote(self, order: Order, run: Runtime) -> Quote:
        hours = (Decimal(run.seconds + STOP) / HOUR).quantize(Decimal("0.01"))
        note = f"SageMaker ends it after {run.seconds} s of training ({run.why}) and 120 s to stop"
        if order.spot:
            note = f"spot: up to this; waits and runs {max_wait(order, run)} s at most; {note}"
        if self._price is None:
            return Quote(max_hours=hours, note=f"{self._no_price}; {note}")
        return Quote(
            price_per_hour=self._price,
            max_hours=hours,
            max_cost=cost(self._price, run.seconds + STOP),
            note=f"up to {dollars(self._price)} an hour; {note}" if order.spot else note,
        )

    def _request(self, spec: JobSpec, run: Runtime, found: str) -> dict[str, object]:
        order = self._ordered()
        return request(
            order,
            spec,
            run,
            image=found,
            owner=Ledger(ledger_file()).id(),
            deadline=deadline(order, run, self.now()),
        )

    def _chosen(self, spec: JobSpec) -> Contents | None:
        if self._contents is None and spec.source is not None:
            self._contents = contents_of(spec.source)
        return self._contents

    def _planned_uri(self, order: Order) -> str:
        return registry.uri(order.account, self._account.region, order.partition)

    def _tag(self, contents: Contents | None, spec: JobSpec) -> str:
        assert contents is not None, "without an example there is nothing to build"
        return contents.tag(spec.image or "", *self._ordered().build_args)

    def _image(self, spec: JobSpec, scope: Scope) -> str:
        """Return the image's URI once the registry has it."""
        order, contents = self._ordered(), self._chosen(spec)
        assert contents is not None
        assert spec.source is not None
        tag = self._tag(contents, spec)
        place = registry.opened(self._account)
        if (spec.build and spec.build.when == "always") or not place.has(tag):
            check.quota(self._account, order, spec.nodes, scope)
            image.provide(
                contents, spec.source.root, place, tag, spec.image or "", order.build_args, scope
            )
        return f"{place.uri}:{tag}"

    def _give_input(self, spec: JobSpec, run: Runtime, leases: Leases) -> None:
        order = self._ordered()
        name = job_name(spec.run_id)
        place = inputs.place_of(order.output, name)
        marks = {
            "cvl-run": spec.run_id,
            "cvl-owner": Ledger(ledger_file()).id(),
            "cvl-deadline": str(int(deadline(order, run, self.now()))),
        }
        with tempfile.TemporaryFile() as code:
            more = self._code(spec, code) if order.image else {}
            leases.acquire(
                Resource(kind=inputs.KIND, name=name, run_id=spec.run_id),
                partial(inputs.upload, self._account, place, spec, marks, more),
            )

    def _code(self, spec: JobSpec, code: IO[bytes]) -> Mapping[str, IO[bytes]]:
        """Return what an image that we did not build lacks: our script and the example."""
        import io

        more: dict[str, IO[bytes]] = {inputs.ENTRY: io.BytesIO(ENTRY_FILE.read_bytes())}
        if (contents := self._chosen(spec)) and spec.source:
            write_tar(code, spec.source.root, contents.placed(), {})
            code.seek(0)
            more[inputs.CODE] = code
        return more

    def _create(self, body: Mapping[str, Any], scope: Scope) -> str:
        """Create the job, once, however often that takes: its name is its token.

        After a lost reply a refusal proves nothing: the first request may have been the reason.
        """
        doubt: Exception | None = None
        waiting = scope.shielded(60.0)
        for pause in CREATE_PAUSES:
            try:
                made = self._account.once("sagemaker", "create_training_job", **body)
                return str(made["TrainingJobArn"])
            except Taken:
                return self._arn(str(body["TrainingJobName"]))
            except Unreachable as error:
                doubt = error
            except (Rejected, AuthError) as error:
                if doubt is None:
                    raise
                raise doubt from error
            scope.tell("waiting", f"{doubt}; asking again")
            try:
                waiting.sleep(pause)
            except (DeadlineExceeded, Cancelled):
                break
        assert doubt is not None
        raise doubt

    def _arn(self, name: str) -> str:
        found = self._account.call("sagemaker", "describe_training_job", TrainingJobName=name)
        return str(found["TrainingJobArn"])

    def _jobs(self) -> Iterator[Resource]:
        """Yield our jobs of the last weeks, the ended ones as not alive."""
        since = datetime.fromtimestamp(self.now(), UTC) - OLDEST
        more: dict[str, str] = {}
        while True:
            page = self._account.call(
                "sagemaker",
                "list_training_jobs",
                NameContains=inputs.PREFIX,
                CreationTimeAfter=since,
                SortBy="CreationTime",
                SortOrder="Descending",
                MaxResults=100,
                **more,
            )
            yield from self._ours(page["TrainingJobSummaries"])
            if not page.get("NextToken"):  # a page may be empty and not the last
                return
            more = {"NextToken": page["NextToken"]}

    def _ours(self, summaries: Iterable[Reply]) -> Iterator[Resource]:
        for each in summaries:
            name, arn = str(each["TrainingJobName"]), str(each["TrainingJobArn"])
            run_id = name.removeprefix(inputs.PREFIX)
            if not name.startswith(inputs.PREFIX) or not RUN_ID.match(run_id):
                continue
            state = str(each["TrainingJobStatus"])
            found = Resource(kind=KIND, name=name, id=arn, run_id=run_id, note=state)
            if state in OVER:
                yield replace(found, alive=False)
                continue
            try:
                tags = tags_of(self._account, arn)
            except Missing:
                continue
            if tags.get("cvl-run") == run_id:
                due = tags.get("cvl-deadline", "")
                yield replace(
                    found,
                    owner=tags.get("cvl-owner", ""),
                    deadline=float(due) if due.isdigit() else None,
                )


def _note_cost(run_id: str, spent: Decimal) -> None:
    """Note what AWS billed: the ledger's own reckoning knows no waiting and no spot."""
    Ledger(ledger_file()).note(run_id, cost=spent)
