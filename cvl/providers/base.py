"""From names to a `JobSpec` to an `ExitStatus`: what the `run` of every runner shares."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cvl.catalog import (
    Lookup,
    build_of,
    find,
    find_inputs,
    find_preset,
    image_for,
    needs_of,
    resolve,
)
from cvl.core.errors import CvlError, NotFound
from cvl.core.interfaces import Observer, Owner, Provider, completed
from cvl.core.paths import ledger_file
from cvl.core.spec import (
    FETCH_LIMIT,
    GRACE,
    RESULTS,
    ExitStatus,
    JobSpec,
    Limits,
    LogChunk,
    Source,
    new_run_id,
)
from cvl.core.units import minutes, sane
from cvl.ledger import Ledger
from cvl.providers import arguments
from cvl.providers.common import Common
from cvl.run import lifecycle


def run(provider: Provider, spec: JobSpec, common: Common) -> ExitStatus:
    """Run a resolved job. Raises `CvlError`."""
    whole = _whole(completed(provider, Provider))
    return lifecycle.run(spec, whole, Ledger(ledger_file()), options_of(common))


def job(
    query: str,
    preset: str,
    args: Sequence[str],
    common: Common,
    timeout_minutes: float | None = None,
    timeout_action: str | None = None,
    *,
    checked: bool = True,
    sent: bool = True,
) -> JobSpec:
    """Resolve an example and a preset to a job. Raises `UsageError`.

    `checked`: the runner executes the preset's script, so it has to be there. `sent`: what the
    arguments name leaves this machine.
    """
    arguments.only(common, Common.__annotations__)
    arguments.sensible(common)
    args = arguments.words(args)
    example = find(query, lookup(common))
    chosen = find_preset(example, preset)
    inputs = find_inputs(chosen, args, Path.cwd())
    files: Mapping[str, Path] = inputs.files
    warnings: tuple[str, ...] = ()
    if sent and inputs.files:
        from cvl.host.upload.inputs import sift

        files, warnings = sift(inputs.files, inputs.folders, example.root)
    include = arguments.words(common.get("include"))
    argv = resolve(example, chosen, inputs.args, check=checked)
    name = example.path or example.name
    bare = JobSpec(
        run_id=new_run_id(name),
        argv=argv,
        example=name,
        preset=chosen.name,
        args=args,
        env=chosen.env,
        source=Source(root=example.root, folder=example.path, include=include),
        inputs=files,
        warnings=warnings,
        image=image_for(example, chosen) or None,
        build=build_of(example, chosen),
        needs=needs_of(example, chosen),
    )
    return equipped(bare, common, limits(common, timeout_minutes, timeout_action))


def _whole(provider: Provider) -> Provider:
    """Return a provider. Raises `CvlError` where it, of another package's, lacks what one says."""
    declared = Owner.__annotations__ | Provider.__annotations__
    lacks = [each for each in declared if not hasattr(provider, each)]
    if lacks:
        raise CvlError(
            f"the provider {type(provider).__name__} does not say its {' and '.join(lacks)}",
            "cvl.core.interfaces has what each means",
        )
    return provider


def is_known(example: str, common: Common) -> bool:
    """Return whether the example is known here. Raises `UsageError` for a broken one."""
    try:
        find(example, replace(lookup(common), warn=lambda _said_before: None))
    except NotFound:
        return False
    return True


def lookup(common: Common) -> Lookup:
    """Return what decides where examples are looked for."""
    root = common.get("root")
    return Lookup(
        named=arguments.path(root, "root") if root else None,
        configured=common.get("configured_root"),
        env=os.environ,
        warn=observer_of(common).warn,
    )


def observer_of(common: Common) -> Observer:
    """Return who hears of the run."""
    return common.get("observer") or Callbacks(common)


def equipped(bare: JobSpec, common: Common, bounds: Limits) -> JobSpec:
    """Return a job that knows what it runs with all else that the caller wants of it.

    Raises `UsageError` for a variable that is not the caller's to set.
    """
    arguments.free(bare.env)
    when = common.get("build", "auto")
    return replace(
        bare,
        secrets=arguments.variables(common.get("env")),
        build=replace(bare.build, when=when) if bare.build and when != "never" else None,
        limits=bounds,
        nodes=common.get("nodes", 1),
        tty=common.get("tty", False),
        detach=common.get("detach", False),
    )


def limits(
    common: Common, timeout_minutes: float | None, timeout_action: str | None = None
) -> Limits:
    """Return the limits that the caller gave. Raises `UsageError` for an absurd one."""
    timeout, fetch = common.get("timeout"), common.get("fetch_limit", FETCH_LIMIT)
    if timeout is not None:
        timeout = sane(timeout, f"{timeout} seconds")
    elif timeout_minutes is not None:
        timeout = minutes(timeout_minutes)
    return Limits(
        timeout=timeout,
        grace=arguments.seconds(common.get("grace", GRACE), "grace"),
        fetch=sane(fetch, f"fetch_limit={fetch}"),
        timeout_action=timeout_action,
        max_cost=common.get("max_cost", common.get("configured_max_cost")),
    )


def options_of(common: Common) -> lifecycle.Options:
    """Return what a run needs beside its job. Raises `UsageError`."""
    output_dir, bounds = common.get("output_dir"), limits(common, None)
    results = arguments.results(output_dir or RESULTS)
    return lifecycle.Options(
        observer=observer_of(common),
        agree=common.get("agree") or (lambda _plan: None),
        results=results if output_dir else None,
        fetch=common.get("fetch", True),
        keep=common.get("keep", False),
        keep_on_fetch_failure=common.get("keep_rented", False),
        grace=bounds.grace,
        fetch_limit=bounds.fetch,
    )


class Callbacks:
    """The `Observer` made of the two callables that a Python caller may give."""

    def __init__(self, common: Common) -> None:
        self._output, self._event = common.get("on_output"), common.get("on_event")

    def phase(self, name: str, text: str) -> None:
        if self._event:
            self._event(name, text)

    def output(self, chunk: LogChunk) -> None:
        if self._output:
            self._output(chunk)

    def warn(self, text: str) -> None:
        self.phase("warning", text)
