"""First output: how long until the first byte of what runs on another machine is here."""

from __future__ import annotations

from bench import commands, rivals
from bench.cvls import Cvl
from bench.pairs import in_turns
from bench.profiles import calls, functions, imports
from bench.values import Goal, Measure, Sample, Topic
from bench.work import Host, Work, example, host

BASE = "ssh HOST cmd, cold"
GOALS = {
    ("--docker", "cold"): 1.4,
    ("--docker", "kept"): 0.55,
    ("--ssh", "cold"): 1.6,
    ("--ssh", "kept"): 0.8,
}
FABRIC = """
import fabric, sys
config = fabric.Config(runtime_ssh_path=sys.argv[2])
fabric.Connection(sys.argv[1], config=config).run("echo hello")
"""
PARAMIKO = """
import paramiko, sys
name, path = sys.argv[1:]
with open(path) as file:
    config = paramiko.SSHConfig.from_text(file.read()).lookup(name)
client = paramiko.SSHClient()
client.load_host_keys(config["userknownhostsfile"].strip('"'))
client.connect(config["hostname"], int(config["port"]), config["user"], allow_agent=False,
    look_for_keys=False, key_filename=[each.strip('"') for each in config["identityfile"]])
print(client.exec_command("echo hello")[1].read().decode())
client.close()
"""
ASYNCSSH = """
import asyncio, asyncssh, sys
async def main():
    name, path = sys.argv[1:]
    async with asyncssh.connect(name, config=path) as connection:
        print((await connection.run("echo hello")).stdout)
asyncio.run(main())
"""
SCRIPTS = {"fabric": FABRIC, "paramiko": PARAMIKO, "asyncssh": ASYNCSSH}
REASONS = {
    "kept": "Over a kept connection what is left is cvl itself: most of the client's processor "
    "time goes into loading Python, click and cvl (the imports below), before anything is asked. "
    "Then the host unpacks, copies the workspace and leaves a supervisor: ten short processes.",
    "cold": "The connection is made while cvl loads, so on two idle cores both pass at once; on "
    "busy ones they add up, and the handshake is itself processor time on this same machine.",
}
MODULES = ("cvl.cli.run", "cvl.providers.docker", "cvl.host.upload.tree", "cvl.host.job")


def measure(work: Work) -> Topic:
    """Measure `cvl run` cold and kept beside ssh and the Python libraries."""
    topic = Topic(
        name="first_byte",
        title="First output over SSH",
        question="How long until the first byte of what runs on another machine is here?",
    )
    with host(work) as there:
        example(there.repo, "hello", "echo hello\n")
        measures, goals = _measures(work, there)
        found = in_turns(measures, rounds=work.sizes.rounds, seconds=work.seconds)
        note = (
            "The host is an sshd on loopback. What is done once (our shell files, cvl itself, the "
            "example's first sync) was done before. `kept`: over the connection that an earlier "
            "command left; the libraries can keep none from one command to the next."
        )
        topic.tables = [
            found.table("To the first byte", "first_s", "ms", BASE, goals, scale=1000, note=note),
            found.table("Processor time of the client", "cpu_s", "ms", BASE, scale=1000),
        ]
        topic.missing = found.missing
        topic.reasons = REASONS
        if topic.missed():
            _profile(topic, work.cvls[0], there)
    topic.notes = [f"{name} {rivals.version(name)}" for name in SCRIPTS if work.rivals]
    return topic


def _measures(work: Work, there: Host) -> tuple[dict[str, Measure], dict[str, Goal]]:
    env = there.env(work.cvls[0])
    measures: dict[str, Measure] = {
        BASE: lambda: commands.timed(there.ssh("echo hello"), env, first=True),
        "ssh HOST cmd, kept": lambda: commands.timed(
            there.ssh("echo hello", kept=there.warm(work.cvls[0])), env, first=True
        ),
    }
    goals = {}
    for cvl in work.cvls:
        for (flag, state), limit in GOALS.items():
            name = f"{cvl.called(flag)}, {state}"
            measures[name] = _run(there, cvl, flag, cold=state == "cold")
            if not cvl.name:
                goals[name] = Goal(limit=limit)
    if work.rivals:
        measures |= {f"{name}, cold": _library(there, name) for name in SCRIPTS}
    return measures, goals


def _run(there: Host, cvl: Cvl, flag: str, *, cold: bool) -> Measure:
    def take() -> Sample:
        if cold:
            there.cool(cvl)
        else:
            there.warm(cvl)
        return commands.timed(there.run(cvl, "hello", flag=flag), there.env(cvl), first=True)

    return take


def _library(there: Host, name: str) -> Measure:
    def take() -> Sample:
        python = rivals.rival(name)
        argv = [python, "-c", SCRIPTS[name], there.name, str(there.sshd.ssh_config)]
        return commands.timed(argv, first=True)

    return take


def _profile(topic: Topic, cvl: Cvl, there: Host) -> None:
    argv = there.run(cvl, "hello")
    topic.profiles["imports of `cvl run --docker`"] = imports(cvl, *MODULES)
    topic.profiles["functions of `cvl run --docker`, kept"] = functions(
        cvl, argv[1:], there.env(cvl)
    )
    topic.profiles["system calls of `cvl run --docker`, kept"] = calls(argv, there.env(cvl))
