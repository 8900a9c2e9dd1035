"""The documentation says what is so: its links lead somewhere, its commands do what it shows.

Every block of commands on a page is run, in order, in a folder of the page's own: `HOST` is a
throw-away sshd, `RUN` the newest run, the Lambda Cloud, AWS and Kubernetes are those on loopback.
`…` in what a page shows stands for anything, and other lines may stand between those that it shows.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which

import click
import pytest

from cvl.cli import COMMANDS, cvl
from cvl.cli.options import parameters
from cvl.core.spec import EXIT_CODES
from cvl.providers import BUILT_IN, load
from cvl.providers.common import Common
from cvl.testing import docker_engine
from cvl.testing.machine import possible
from cvl.testing.sagemaker import cloud, registry
from cvl.testing.sshd import Sshd
from cvl.tests.pages import (
    AWS,
    FENCE,
    KUBE,
    PAGES,
    README,
    ROOT,
    Block,
    Lab,
    blocks_of,
    kept_packages,
    named,
    section,
)

EVERY_PAGE = [*PAGES, *sorted((ROOT / "examples").rglob("README.md"))]
RUN_PAGES = [page for page in PAGES if page.is_file() and blocks_of(page)]
pytestmark = pytest.mark.skipif(not README.is_file(), reason="needs the source tree")

LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    host = Sshd(tmp_path / "host", name="HOST", env=kept_packages())
    with host, Lab(tmp_path, host) as lab:
        home = lab.bash("ssh HOST 'cd && pwd; echo ~'").split()
        assert home[-1] == str(host.home), "what a page removes there must not be our own"
        yield lab


@pytest.mark.slow
@pytest.mark.timeout(900)  # the examples' packages may have to be fetched first
@pytest.mark.parametrize("page", RUN_PAGES, ids=named)
def test_every_command_does_what_its_page_shows(page: Path, lab: Lab) -> None:
    if AWS in page.read_text() and (why := no_aws()):
        pytest.skip(why)
    if KUBE in page.read_text() and (why := docker_engine.missing()):
        pytest.skip(why)
    if page != README:
        lab.run(next(block for block in blocks_of(README) if "hello" in block.text))
        if any(word in page.read_text() for word in ("--remote lambda", "LambdaLabs")):
            lab.start_cloud()
    for block in map(cheap, blocks_of(page)):
        if (possible() and rents(block)) or (not which("aws") and "$ aws " in block.text):
            continue
        lab.run(block)


def no_aws() -> str:
    """Return why the AWS on loopback cannot be started here."""
    return docker_engine.missing() or registry.missing() or cloud.missing()


def cheap(block: Block) -> Block:
    """Return the block with what takes minutes only planned."""
    text = re.sub(
        r"^((?:\$ )?cvl run)(?=.* nanogpt )", r"\1 --dry-run", block.text, flags=re.MULTILINE
    )
    return Block(block.kind, text)


def rents(block: Block) -> bool:
    return "--remote lambda" in block.text or "LambdaLabs" in block.text


@pytest.mark.parametrize("page", EVERY_PAGE, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(re.sub(FENCE, "", page.read_text("utf-8"))):
        path, _, anchor = link.partition("#")
        if not re.match(r"\w+:", link):
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """Return what GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(FENCE, "", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, ahead = set(), [README]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        links = [link.partition("#")[0] for link in LINK.findall(page.read_text("utf-8"))]
        found = {(page.parent / link).resolve() for link in links if link.endswith(".md")}
        ahead += found - seen - set(ahead)
    assert set(PAGES) <= seen


def test_the_readme_names_every_command_and_every_exit_code() -> None:
    text = README.read_text("utf-8")
    for name, (_, words) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(words)}$", text, re.MULTILINE)
    for code in {*EXIT_CODES.values(), 2} - {0}:
        assert re.search(rf"^\|.*\b{code}\b.*\|", text, re.MULTILINE), code


OTHERS = {"--hosts", "--clean", "--epochs", "--max_iters", "--model", "--fault", "--init"}
"""Options that pages mention and that are not ours to check: other programs' and scripts'."""


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_option_that_is_mentioned_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    for command in re.findall(rf"\bcvl ((?:{'|'.join(COMMANDS)})\b[^`'\n;|]*)", text):
        name, *words = re.split(r" (?:EXAMPLE|digits|hello|nanogpt)\b", command)[0].split()
        unknown = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert unknown <= options_of(name), command
    if page.parent != ROOT / "docs" / "decisions":
        known = OTHERS.union(*map(options_of, COMMANDS), {"--version", "--help"})
        assert set(re.findall(r"`(--[a-z][a-z-]+)", text)) <= known | others_of(page)


def options_of(name: str) -> set[str]:
    """Return the options of one command, those of all runners included."""
    context = click.Context(cvl)
    command = cvl.get_command(context, name)
    assert command is not None
    own = [*command.get_params(click.Context(command))]
    if name == "run":
        own += [each.option for runner in BUILT_IN for each in parameters(load(runner))]
    return {opt for each in own for opt in (*each.opts, *each.secondary_opts)} | {"--help"}


def others_of(page: Path) -> set[str]:
    """Return the options that a page's own table declares: those of another program."""
    rows = re.findall(r"^\| (`--.*?) \|", page.read_text("utf-8"), re.MULTILINE)
    return set(re.findall(r"`(--[a-z-]+)", " ".join(rows)))


@pytest.mark.parametrize("runner", BUILT_IN)
def test_the_options_of_a_runner_are_on_its_page(runner: str) -> None:
    own = ROOT / f"docs/{runner}.md"
    text = own.read_text("utf-8") if own.exists() else section(ROOT / "docs/runners.md", runner)
    said = set(re.findall(r"`--(?:no-)?([a-z][a-z0-9-]*)", text))
    options = {each.name.replace("_", "-") for each in parameters(load(runner))} - {"host"}
    assert options <= said
    if not own.exists():
        assert said <= options | set(BUILT_IN) | {"remote"}


def test_the_page_of_the_python_api_has_every_parameter() -> None:
    page = ROOT / "docs/python-api.md"
    said = set(
        re.findall(r"^\| `(\w+)` \|", section(page, "What every runner takes"), re.MULTILINE)
    )
    assert said == set(Common.__annotations__) - {"configured_root", "configured_max_cost"}


@pytest.mark.parametrize("runner", BUILT_IN)
def test_the_page_of_the_python_api_has_every_signature(runner: str) -> None:
    kind = load(runner)
    run = "run_remote" if hasattr(kind, "run_remote") else "run"
    made = signature(kind.__init__) if parameters_of(kind.__init__) else ""
    text = f"`{kind.__name__}({made}).{run}({signature(getattr(kind, run))})`"
    assert text in (ROOT / "docs/python-api.md").read_text("utf-8").splitlines()


def signature(function: Callable[..., object]) -> str:
    """Return a function's parameters as a page shows them: without their types."""
    words, named = [], False
    for each in parameters_of(function):
        if each.kind is each.KEYWORD_ONLY and not named:
            words.append("*")
            named = True
        default = "" if each.default is each.empty else f"={each.default!r}"
        words.append(f"{each.name}{default}")
    return ", ".join(words)


def parameters_of(function: Callable[..., object]) -> list[inspect.Parameter]:
    found = inspect.signature(function).parameters.values()
    several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [each for each in found if each.name != "self" and each.kind not in several]


MEANT = {
    "lambda": (
        "LAMBDA_API_KEY not set",
        "Authentication failed",
        "Instance not ready",
        "Instance not terminated",
    ),
    "sagemaker": (
        "boto3 not installed",
        "ECR push failed",
        "SageMaker training job failed",
        "S3",
    ),
    "k8s": ("websockets not installed", "no kubeconfig found", "you may not"),
}
"""What users of a runner will look for, by the words that they know."""


def test_the_page_of_troubles_has_a_heading_for_each_message_of_a_runner() -> None:
    found = troubles()
    for runner in set(MEANT) & set(BUILT_IN):
        for words in MEANT[runner]:
            assert any(heading.startswith(words) for heading in found), words


SAID = {
    "Instance not ready": "did not come up",
    "Instance not terminated": "not seen gone",
    "Unable to locate credentials": "NoCredentialsError",
    **{f"{name} not installed": "} not installed" for name in ("boto3", "urllib3", "websockets")},
}
"""What is said for words that users know from elsewhere; and of any package that is missing."""


def test_the_page_of_troubles_quotes_what_the_program_says() -> None:
    files = [*ROOT.glob("cvl/**/*.py"), *ROOT.glob("cvl/**/*.sh")]
    files = [file for file in files if not {"testing", "tests"} & {*file.relative_to(ROOT).parts}]
    said = [re.sub(r"[\"']\s*f?[\"']", "", file.read_text("utf-8")) for file in files]
    for heading in troubles():
        parts = [part.strip() for part in SAID.get(heading, heading).split("…")]
        assert any(all(part in text for part in parts) for text in said), heading


def troubles() -> list[str]:
    text = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    return re.findall(r"^### (.+)$", text, re.MULTILINE)
