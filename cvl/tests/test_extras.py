"""A package that is not installed: one sentence with the command that brings it, everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from decimal import Decimal
from pathlib import Path

import pytest

import cvl
from cvl.core.extras import ALWAYS, OLDEST
from cvl.core.spec import Resource, new_run_id
from cvl.ledger import Ledger, Run, RunState
from cvl.providers import every
from cvl.testing.cli_harness import Desk, Done

PROJECT = Path(cvl.__file__).parents[1] / "pyproject.toml"
ABSENT = """
import os, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ.get("ABSENT", "").split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Absent())
"""
OTHERS = "s3transfer jmespath dateutil six"
"""What boto3 needs itself."""
LACKING = [
    *[("lambda", "remote", name) for name in ("urllib3",)],
    *[("sagemaker", "aws", name) for name in ("boto3", "botocore", "urllib3", *OTHERS.split())],
    *[("k8s", "k8s", name) for name in ("urllib3", "websockets")],
    ("lambda", "remote", "urllib3 boto3 botocore websockets"),
    ("sagemaker", "aws", "urllib3 boto3 botocore websockets"),
    ("k8s", "k8s", "urllib3 boto3 botocore websockets"),
]
CLOSE = {"urllib3", "boto3", "websockets"}
"""What our own code imports."""
EACH = [each for each in LACKING if each[2] in CLOSE]
NOWHERE = "http://127.0.0.1:9"
KUBECONFIG = json.dumps(
    {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": NOWHERE}}],
        "users": [{"name": "u", "user": {}}],
    }
)
LOGIN = {
    "lambda": {
        "LAMBDA_API_KEY": "secret_one_0123456789",
        "LAMBDA_API_BASE": NOWHERE,
        "LAMBDA_API_RPS": "1000",
    },
    "sagemaker": {
        "AWS_ACCESS_KEY_ID": "A",
        "AWS_SECRET_ACCESS_KEY": "S",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": NOWHERE,
    },
    "k8s": {},
}
HANDLES = {
    "lambda": {"machine": "m"},
    "sagemaker": {"job": "cvl-j", "region": "us-east-1", "output": "s3://bucket/runs"},
    "k8s": {"job": "cvl-j", "namespace": "default", "context": "c"},
}
KINDS = {"lambda": "instance", "sagemaker": "training-job", "k8s": "job"}
WHERE = {
    "lambda": ["--remote", "lambda", "-y"],
    "sagemaker": [
        *["--sagemaker", "--role-arn", "arn:aws:iam::123456789012:role/r", "-y"],
        *["--instance-type", "ml.g5.xlarge", "--output-path", "s3://bucket/runs"],
        *["--image-uri", "image"],
    ],
    "k8s": ["--k8s", "--image", "image", "--timeout", "1h", "-y"],
}
ME = "from cvl.core.process import me; print(me(), end='')"
DETACHED = {"lambda": ["-d", "--accept-unguarded"], "sagemaker": ["-d"], "k8s": ["-d"]}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent/sitecustomize.py").write_text(ABSENT)
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    env = {"PYTHONPATH": str(tmp_path / "absent"), "KUBECONFIG": str(tmp_path / "kubeconfig")}
    return Desk(folder=tmp_path, options=("--local",), env=env)


def noted(desk: Desk, runner: str) -> str:
    """Note a run of a client that has died, with something rented that is still there."""
    ledger, run_id = Ledger(desk.state / "ledger.db"), new_run_id("one")
    handle = {"run": run_id, **HANDLES[runner]}
    dead = subprocess.check_output([sys.executable, "-c", ME], text=True)
    ledger.begin(Run(id=run_id, runner=runner, where="there", handle=handle, owner=dead))
    ledger.advance(run_id, RunState.LAUNCHING)
    thing = Resource(
        kind=KINDS[runner], name=f"cvl-{run_id}", run_id=run_id, price_per_hour=Decimal(1)
    )
    lease = ledger.intend(run_id, thing, provider=runner)
    assert lease
    assert ledger.confirm(lease, "the-id")
    ledger.advance(run_id, RunState.RUNNING)
    return run_id


def explained(done: Done, extra: str, absent: str) -> None:
    """See one sentence that names the package and what installs it, and nothing else."""
    assert done.code == 125, done
    said = [line for line in done.err.splitlines() if not line.startswith("cvl: nobody looks")]
    assert said[-1].startswith(f"hint: pip install 'cvl[{extra}]'"), done.err
    assert [line for line in said if line.startswith("cvl: ")] == said[-2:-1], done.err
    assert said[-2].removesuffix(" not installed").removeprefix("cvl: ") in absent.split(), done.err
    assert "defect" not in done.err


@pytest.mark.parametrize(("runner", "extra", "absent"), LACKING)
def test_whatever_needs_it_says_what_to_install(
    desk: Desk, runner: str, extra: str, absent: str
) -> None:
    run, without = noted(desk, runner), {"ABSENT": absent, **LOGIN[runner]}
    commands = [
        ["run", *WHERE[runner], "one", "sh", "true"],
        [
            "run",
            *WHERE[runner],
            "-d",
            *(["--accept-unguarded"] * (runner == "lambda")),
            "one",
            "sh",
        ],
        ["attach", run],
        ["stop", run],
        ["fetch", run],
        ["logs", run],
        ["logs", "-f", run],
        *([["offers"], ["offers", "--json"]] if runner == "lambda" else ()),
    ]
    for words in commands if absent in CLOSE else commands[:3]:
        explained(desk.cvl(*words, env=without), extra, absent)
    known = Ledger(desk.state / "ledger.db")
    assert [each.id for each in known.runs()] == [run]
    assert known.run(run).state is RunState.RUNNING
    assert [each.run_id for each in known.leases(open_only=True)] == [run]


@pytest.mark.parametrize(("runner", "extra", "absent"), EACH)
def test_a_plan_needs_none_and_names_it(desk: Desk, runner: str, extra: str, absent: str) -> None:
    for more in ([], ["--json"]):
        words = ["run", *WHERE[runner], "--dry-run", *more, "one", "sh", "true"]
        done = desk.cvl(*words, env={"ABSENT": absent, **LOGIN[runner]})
        assert done.code == 0, done
        assert f"pip install 'cvl[{extra}]'" in done.out.decode() + done.err
        assert "defect" not in done.err


@pytest.mark.parametrize(("runner", "extra", "absent"), EACH)
def test_reap_says_what_it_cannot_end_and_what_would_let_it(
    desk: Desk, runner: str, extra: str, absent: str
) -> None:
    run = noted(desk, runner)
    for more in ([], ["--dry-run"], ["-y"]):
        done = desk.cvl("reap", *more, env={"ABSENT": absent, **LOGIN[runner]})
        assert done.code == (2 if more == [] else 125), done
        assert more == [] or f"pip install 'cvl[{extra}]'" in done.err, done
        assert "defect" not in done.err
        assert run in done.out.decode(), done
    assert f"still open: run {run}" in done.err
    known = Ledger(desk.state / "ledger.db")
    assert [each.run_id for each in known.leases(open_only=True)] == [run]


@pytest.mark.parametrize("absent", ["urllib3 boto3 botocore websockets"])
def test_all_else_goes_on(desk: Desk, absent: str) -> None:
    for runner in HANDLES:
        noted(desk, runner)
    without = {"ABSENT": absent, **LOGIN["lambda"], **LOGIN["sagemaker"]}
    for words in (
        ["list"],
        ["info", "one"],
        ["ps"],
        ["ps", "-a", "--json"],
        ["trust", "--list"],
        ["run", "--local", "one", "sh", "true"],
        ["run", "--help"],
        *([command, "--help"] for command in ("offers", "reap", "doctor", "attach")),
    ):
        done = desk.cvl(*words, env=without)
        assert done.code == 0, (words, done)
        assert "not installed" not in done.err


@pytest.mark.parametrize(("runner", "extra", "absent"), EACH)
def test_doctor_names_it(desk: Desk, runner: str, extra: str, absent: str) -> None:
    done = desk.cvl("doctor", env={"ABSENT": absent})
    assert f"pip install 'cvl[{extra}]'" in done.out.decode(), done
    there = desk.cvl("doctor")
    assert "pip install" not in there.out.decode(), there


FROM_PYTHON = """
import sys
from cvl.core.errors import CvlError, MissingExtra, MissingTool
from cvl.runners import K8sRunner, LambdaLabsRunner, SageMakerRunner

calls = {
    "lambda": lambda: LambdaLabsRunner("secret_one_0123456789").run("one", "sh", ["true"]),
    "sagemaker": lambda: SageMakerRunner("arn:aws:iam::123456789012:role/r", "us-east-1").run(
        "one", "sh", ["true"], instance_type="ml.g5.xlarge", output_path="s3://bucket/runs",
        image_uri="image",
    ),
    "k8s": lambda: K8sRunner("default").run("one", "sh", ["true"], image="image"),
}
try:
    calls[sys.argv[1]]()
except MissingTool as error:
    assert isinstance(error, MissingExtra)
    print(error, error.hint, error.exit_code, sep="|")
"""


@pytest.mark.parametrize(("runner", "extra", "absent"), EACH)
def test_from_python_too(desk: Desk, runner: str, extra: str, absent: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FROM_PYTHON, runner],
        env={**desk.environment, "ABSENT": absent, **LOGIN[runner]},
        cwd=desk.repo,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    sentence, hint, code = done.stdout.strip().split("|")
    assert sentence.removesuffix(" not installed") in absent.split(), done
    assert (hint, code, done.stderr) == (f"pip install 'cvl[{extra}]'", "125", "")
    assert desk.runs() == []


@pytest.mark.parametrize("package", sorted(ALWAYS))
def test_a_package_that_cvl_cannot_be_without_is_named(desk: Desk, package: str) -> None:
    (desk.repo / ".cvlignore").write_text("*.tmp\n")
    codes = set()
    for words in (["list"], ["run", *WHERE["k8s"], "--dry-run", "one", "sh"]):
        done = desk.cvl(*words, env={"ABSENT": package})
        codes.add(done.code)
        if done.code:
            hint = f"hint: pip install {ALWAYS[package]}"
            assert done.err.splitlines() == [f"cvl: {package} not installed", hint]
    assert codes == {0} if package == "rich" else 125 in codes


@pytest.mark.parametrize(("package", "version"), [("urllib3", "1.26.5"), ("websockets", "10.4")])
def test_one_that_is_too_old_is_said_to_be(desk: Desk, package: str, version: str) -> None:
    (desk.folder / "absent" / package).mkdir()
    (desk.folder / "absent" / package / "__init__.py").write_text(f"__version__ = {version!r}\n")
    run = noted(desk, "k8s")
    done = desk.cvl("attach", run)
    assert done.code == 125
    assert done.err.splitlines()[-2:] == [
        f"cvl: {package} {version} is too old",
        "hint: pip install 'cvl[k8s]'",
    ]


@pytest.mark.parametrize("text", ["def x(:\n", "raise OSError('bad ELF header')\n", "1/0\n"])
def test_one_that_is_damaged_is_said_to_be(desk: Desk, text: str) -> None:
    (desk.folder / "absent/urllib3.py").write_text(text)
    done = desk.cvl("offers", env=LOGIN["lambda"])
    assert done.code == 125
    assert done.err.splitlines()[0].startswith("cvl: urllib3 cannot be loaded: ")
    assert done.err.splitlines()[1:] == ["hint: pip install 'cvl[remote]'"]


@pytest.mark.skipif(not PROJECT.exists(), reason="needs the source tree")
def test_every_package_that_pip_brings_is_known() -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"]

    def packages(lines: list[str]) -> set[str]:
        return {line.partition(">=")[0] for line in lines}

    assert packages(project["dependencies"]) == set(ALWAYS.values())
    declared = [each.extra for each in every() if each.extra]
    for extra in declared:
        assert packages(extras[extra.name]) <= {each.partition(".")[0] for each in extra.modules}
    assert set(OLDEST) <= {module for extra in declared for module in extra.modules}
