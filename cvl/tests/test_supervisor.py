"""Starting and following a run by the shell files alone: dash, bash and busybox, no client."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

import pytest

from cvl.tests import farside
from cvl.tests.farside import Host, finish, payload, read_until, script, wait_for


@pytest.fixture(params=farside.SHELLS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    yield from farside.hosted(tmp_path, request.param)


@pytest.fixture
def dash(tmp_path: Path) -> Iterator[Host]:
    yield from farside.hosted(tmp_path, "dash")


def test_output_and_code_come_back(host: Host) -> None:
    reply = host.start("one", "echo out; echo err >&2; exit 7\n", follow=1)
    assert reply.body == b"out\nerr\n"
    assert reply.answers == ["started", "result exited 7 8"]
    assert reply.noise == b""
    assert reply.code == 0
    assert host.ask("status", id="one").last == "result exited 7 8"


@pytest.mark.parametrize("code", [0, 1, 2, 124, 126, 127, 128, 130, 138, 143, 255])
def test_exit_codes_are_exact(dash: Host, code: int) -> None:
    assert dash.start("one", f"exit {code}\n", follow=1).last == f"result exited {code} 0"


def test_a_job_killed_by_a_signal_exits_with_128_and_its_number(host: Host) -> None:
    assert host.start("one", "kill -9 $$\n", follow=1).last == "result exited 137 0"
    assert host.start("two", "kill -TERM $$\n", follow=1).last == "result exited 143 0"


def test_a_job_that_is_no_shell_script(host: Host) -> None:
    assert host.start("one", "exec no-such-program\n", follow=1).last.startswith(
        "result exited 127"
    )
    assert host.start("two", "if then\n", follow=1).last.startswith("result exited 2")


def test_the_environment_is_that_of_the_connection_and_little_more(host: Host) -> None:
    odd = {"id": "mine", "base": "x y", "verb": "v", "_": "sh", "EMPTY": "", "timeout": "5"}
    mine = Host(base=host.base, env={**host.env, **odd}, sh=host.sh)
    reply = mine.start(
        "one",
        "env\n",
        {"run/env.sh": b"export SECRET='s p a c e'\n"},
        follow=1,
    )
    seen = dict(line.split("=", 1) for line in reply.body.decode().splitlines() if "=" in line)
    job = host.job("one")
    added = {
        "PYTHONUNBUFFERED": "1",
        "CVL_RUN_ID": "one",
        "CVL_WORK_DIR": f"{job}/work",
        "CVL_CONTAINER_NAME": "cvl-one",
        "COMPOSE_PROJECT_NAME": "cvl-one",
        "SECRET": "s p a c e",
    }
    for noise in ("PWD", "OLDPWD", "SHLVL", "_"):
        seen.pop(noise, None)
    expected = {**mine.env, **added}
    expected["PATH"] = seen["PATH"] if seen["PATH"].endswith(expected["PATH"]) else "?"
    del expected["_"]
    assert seen == expected


def test_secrets_are_gone_at_the_end(host: Host) -> None:
    host.start("one", 'echo "$S"\n', {"run/env.sh": b"export S=tops3cret\n"}, follow=1)
    assert host.output("one") == b"tops3cret\n"
    assert not (host.run("one") / "env.sh").exists()


SECRETS = b"export S='tops3cret with spaces'\nexport PATH=/nowhere\n"
LOOKS = '[ -e "%s" ] && echo there; echo "$S"; (: <&3) 2>/dev/null && echo open; true\n'


def test_secrets_are_gone_as_soon_as_the_job_has_them(host: Host) -> None:
    """Also where they take away the way to `rm`; and no descriptor of them stays open."""
    looks = LOOKS % (host.run("one") / "env.sh")
    reply = host.start("one", looks, {"run/env.sh": SECRETS}, follow=1)
    assert (reply.body, reply.last) == (b"tops3cret with spaces\n", "result exited 0 22")


def test_a_build_leaves_them_for_the_job(host: Host) -> None:
    looks = LOOKS % (host.run("one") / "env.sh")
    files = {"run/env.sh": SECRETS, "run/build.sh": looks.encode()}
    reply = host.start("one", looks, files, follow=1)
    assert reply.body == b"there\ntops3cret with spaces\ntops3cret with spaces\n"


@pytest.mark.parametrize("build", ["exit 3", "kill -9 $$", "sleep 1000"])
def test_a_build_that_fails_leaves_none(build: str, host: Host) -> None:
    files = {"run/env.sh": b"export S=s\n", "run/build.sh": build.encode()}
    reply = host.start("one", "true", files, follow=1, build_timeout=0.3, grace=0)
    assert reply.last.startswith("result build-failed 125 ")
    assert not (host.run("one") / "env.sh").exists()


def test_on_a_terminal_they_are_gone_as_soon_too(dash: Host) -> None:
    looks = LOOKS % (dash.run("one") / "env.sh")
    reply = dash.start("one", looks, {"run/env.sh": SECRETS}, follow=1, tty=1)
    assert reply.body == b"tops3cret with spaces\r\n"


def test_what_is_kept_of_them_says_only_where_docker_is(host: Host) -> None:
    given = (
        b"export TOKEN=tops3cret\nexport DOCKER_HOST='unix:///a b'\nexport DOCKER_AUTH_CONFIG=x\n"
    )
    host.start("one", "true", {"run/env.sh": given}, follow=1)
    kept = dict(
        line.split("=", 1) for line in (host.run("one") / "engine").read_text().splitlines()
    )
    assert kept.pop("DOCKER_HOST") == "unix:///a b"
    assert kept.keys() <= {"PATH", "HOME"}
    host.start("two", "true", {"run/env.sh": b"export TOKEN=tops3cret\n"}, follow=1)
    assert not (host.run("two") / "engine").exists()


def test_folders_are_ours_alone_and_the_job_has_its_own_umask(host: Host) -> None:
    run = host.run("one")
    job = f"umask; exec stat -c %a . ../work .. {run} {run}/job.sh\n"
    reply = host.start("one", job, follow=1)
    assert reply.body.split()[0] == f"{_umask():04o}".encode()
    assert reply.body.split()[-3:] == [b"700", b"700", b"600"]


def test_signals_reach_the_job_as_they_were(host: Host) -> None:
    """No INT or QUIT ignored, as everything behind `&` would have it; HUP, PIPE as usual."""
    reply = host.start("one", "grep SigIgn /proc/self/status\n", follow=1)
    assert int(reply.body.split()[1], 16) & 0x7FFFFFFF == 0  # the standard ones, 1 to 31


def test_the_job_is_a_session_of_its_own_without_our_descriptors(host: Host) -> None:
    reply = host.start("one", "cut -d' ' -f1,6 /proc/$$/stat; exec ls /proc/self/fd\n", follow=1)
    pid, session, *descriptors = reply.body.split()
    assert pid == session
    assert descriptors == [b"0", b"1", b"2", b"3"]  # the last is the listing's own


def test_standard_input_is_empty(host: Host) -> None:
    assert host.start("one", "cat; echo end\n", follow=1).body == b"end\n"


def test_output_comes_as_it_is_made(host: Host) -> None:
    gate = host.base / "gate"
    job = f"printf 1; while [ ! -e {gate} ]; do sleep 0.02; done; printf 2\n"
    process = host.open("start", {"id": "one", "follow": 1}, script(job))
    read_until(process, b"\n1")
    gate.touch()
    assert finish(process).last == "result exited 0 2"
    assert host.output("one") == b"12"


def test_the_follower_notices_the_end_soon(dash: Host) -> None:
    job = "read -r now _ </proc/uptime; echo $now\n"
    reply = dash.start("one", job, follow=1)
    passed = time.clock_gettime(time.CLOCK_BOOTTIME) - float(reply.body)
    assert passed < 1.0  # 0.1 on a machine that does nothing else


def test_binary_output_long_lines_and_none_at_the_end_are_exact(host: Host, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3_000_000) + b"x" * 1_000_000 + b"\r\0\xff no newline"
    (tmp_path / "data").write_bytes(data)
    reply = host.start("one", f"cat {tmp_path}/data; sleep 0.1; cat {tmp_path}/data\n", follow=1)
    assert reply.body == data * 2
    assert reply.last == f"result exited 0 {2 * len(data)}"


@pytest.mark.parametrize("offset", [0, 1, 5, 9, 10, 11, 999])
def test_follow_goes_on_at_any_byte(host: Host, offset: int) -> None:
    host.start("one", "printf 0123456789\n", follow=1)
    reply = host.ask("follow", id="one", offset=offset)
    assert reply.body == b"0123456789"[offset:]
    assert reply.answers == ["result exited 0 10"]


def test_follow_of_a_living_run_from_the_middle(host: Host) -> None:
    gate = host.base / "gate"
    host.start("one", f"printf abc; while [ ! -e {gate} ]; do sleep 0.02; done; printf def\n")
    wait_for(lambda: host.output("one") == b"abc")
    process = host.open("follow", {"id": "one", "offset": 2})
    read_until(process, b"\nc")
    gate.touch()
    reply = finish(process)
    assert reply.answers == ["result exited 0 6"]


def test_what_outlives_the_result_is_not_part_of_it(dash: Host) -> None:
    dash.start("one", "printf 0123\n", follow=1)
    with (dash.run("one") / "output").open("ab") as file:
        file.write(b"late")
    assert dash.ask("follow", id="one", offset=1).body == b"123"


def test_a_follower_ends_when_nobody_reads_it(host: Host) -> None:
    job = "printf x; exec sleep 1000\n"
    with host.open("start", {"id": "one", "follow": 1}, script(job)) as process:
        assert process.stdout
        read_until(process, b"\nx")
        process.stdout.close()
        process.wait(10)
    assert host.ask("status", id="one").last == "running"
    wait_for(lambda: _followers(host) == [])


def test_a_killed_connection_changes_nothing(host: Host) -> None:
    process = host.open("start", {"id": "one", "follow": 1}, script("sleep 0.5; echo on\n"))
    read_until(process, b"\n")
    os.killpg(process.pid, 1)
    os.killpg(process.pid, 9)
    process.communicate()
    assert host.result("one") == ["exited", "0", "3"]
    wait_for(lambda: _followers(host) == [])


def test_a_second_start_only_follows(host: Host) -> None:
    first = host.start("one", "echo once\n", follow=1)
    second = host.start("one", "echo twice\n", follow=1)
    assert second == first
    assert host.start("one", "echo thrice\n").answers == ["started"]


def test_two_starts_at_once_are_one_run(dash: Host) -> None:
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(dash.start, "one", "sleep 0.2; echo $$\n", follow=1) for _ in range(8)]
        bodies = {job.result().body for job in jobs}
    assert len(bodies) == 1
    assert not any((dash.base / "new").iterdir())
    assert not (dash.run("one") / "run").exists()


@pytest.mark.slow
def test_twenty_runs_at_once_do_not_disturb_each_other(dash: Host) -> None:
    def one(number: int) -> None:
        job = f"i=0; while [ $i -lt 50 ]; do echo {number}; i=$((i + 1)); done; exit {number}\n"
        files = {"tree/f": b"x"}
        reply = dash.start(f"r-{number}", job, files, follow=1, cache="c", tree="t")
        assert reply.body == f"{number}\n".encode() * 50
        assert reply.last.startswith(f"result exited {number} ")

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(one, range(20)))


def test_what_is_not_there_is_asked_for(dash: Host) -> None:
    reply = finish(dash.open("status", {"id": "x"}, lib="other"))
    assert (reply.code, reply.answers) == (1, ["need lib other"])
    assert dash.start("one", "true", lib_="nope").answers == ["need lib nope"]
    assert dash.ask("status", id="x").answers == ["unknown"]
    assert dash.ask("follow", id="x").answers == ["unknown"]
    assert dash.ask("stop", id="x").answers == ["unknown"]


@pytest.mark.parametrize(
    "headers",
    [
        {"id": "../x"},
        {"id": ""},
        {"id": "-x"},
        {"id": "a b"},
        {"id": "x", "timeout": "-1"},
        {"id": "x", "timeout": "1.2.3"},
        {"id": "x", "grace": "$(id)"},
        {"id": "x", "cache": "../y"},
    ],
)
def test_bad_headers_are_refused(dash: Host, headers: dict[str, object]) -> None:
    reply = finish(dash.open("start", headers, script("true")))
    assert reply.last.startswith("fail usage ")
    assert reply.code == 1
    assert not (dash.base / "runs").exists()


def test_a_stream_that_broke_off_starts_nothing(host: Host) -> None:
    whole = script("touch ran\n")
    for data in (whole[:700], payload({"run/job.sh": b"true"}, end=False), b""):
        reply = host.ask("start", data, id="one")
        assert reply.last.startswith("fail internal ")
        assert not any((host.base / "new").iterdir())
    assert host.ask("status", id="one").last == "unknown"


def test_the_job_works_in_its_place(host: Host) -> None:
    place = "dir/a b'\"\n*\n"
    files = {f"tree/{place}/f": b"1", "run/place": place.encode(), "job/work/in put": b"2"}
    reply = host.start(
        "one", 'cat f "$CVL_WORK_DIR/in put"; pwd\n', files, follow=1, cache="c", tree="t"
    )
    assert reply.body.decode() == f"12{host.job('one')}/ws/{place}\n"


def test_in_place_there_is_no_workspace(host: Host, tmp_path: Path) -> None:
    place = tmp_path / "my folder"
    place.mkdir()
    files = {"run/place": os.fsencode(place), "run/inplace": b""}
    assert host.start("one", "pwd >here\n", files, follow=1).last == "result exited 0 0"
    assert (place / "here").read_text() == f"{place}\n"
    assert not (host.job("one") / "ws").exists()


def test_a_place_that_is_not_there(host: Host) -> None:
    reply = host.start("one", "echo no\n", {"run/place": b"nowhere"}, follow=1)
    assert reply.last.startswith("result not-started 125 ")
    assert b"nowhere" in reply.body


def test_the_build_comes_first_and_its_failure_is_told(host: Host) -> None:
    files = {"run/build.sh": b"echo build\n"}
    assert host.start("one", "echo job\n", files, follow=1).body == b"build\njob\n"
    files = {"run/build.sh": b"echo bad; exit 3\n"}
    reply = host.start("two", "echo job\n", files, follow=1)
    assert reply.answers == ["started", "result build-failed 125 4"]


def test_a_build_that_takes_too_long(host: Host) -> None:
    files = {"run/build.sh": b"sleep 1000\n"}
    reply = host.start("one", "echo job\n", files, follow=1, build_timeout=0.2, grace=1)
    assert reply.last == "result build-failed 125 0"


def test_a_terminal_if_asked_for(dash: Host) -> None:
    odd = Host(base=dash.base, env={**dash.env, "SHELL": "/bin/nothing"}, sh=dash.sh)
    job = 'test -t 0 && test -t 1 && stty size; echo "$SHELL $CVL_RUN_ID $S"; exit 5\n'
    reply = odd.start("one", job, {"run/env.sh": b"export S=s\n"}, follow=1, tty=1)
    assert reply.body == b"24 80\r\n/bin/nothing one s\r\n"
    assert reply.last.startswith("result exited 5 ")


def test_no_terminal_without_script(tmp_path: Path) -> None:
    host = farside.make_host(tmp_path, "busybox")
    assert host.start("one", "true", tty=1).last.startswith("fail tool ")
    assert not any((host.base / "new").iterdir())


def test_a_login_shells_noise_is_not_ours(dash: Host) -> None:
    reply = dash.start("one", "echo ours\n", follow=1)
    assert reply.body == b"ours\n"


def test_the_base_may_have_an_odd_name_and_be_missing(tmp_path: Path) -> None:
    host = farside.make_host(tmp_path)
    odd = Host(base=tmp_path / "a 'b\"$c;*", env=host.env, sh=host.sh)
    farside.install(odd.base)
    reply = odd.start("one", "echo $CVL_WORK_DIR\n", {"tree/f": b""}, follow=1, cache="c", tree="t")
    assert reply.last.startswith("result exited 0 ")


def test_a_run_of_another_machine_is_not_called_dead(dash: Host) -> None:
    run = dash.base / "runs" / "far"
    run.mkdir(parents=True)
    (run / "supervisor").write_text("1 2 another-boot another-host\n")
    assert dash.ask("status", id="far").last == "running"
    for verb in ("follow", "stop"):
        assert dash.ask(verb, id="far").last.startswith("fail unknown this run is on another-host")


def test_git_takes_the_workspace_for_a_repository(host: Host) -> None:
    files = {"tree/a/f": b"1"}
    for run in ("one", "two"):
        host.start(run, "true\n", files, follow=1, cache="c", tree="t")
        found = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"],
            cwd=host.job(run) / "ws" / "a",
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout == f"{host.job(run)}/ws\n"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _followers(host: Host) -> list[bytes]:
    """Everything that still has the output open for reading."""
    output, found = str(host.run("one") / "output"), []
    for entry in map(Path, glob("/proc/[0-9]*/fd/*")):  # noqa: PTH207 - it bears what goes away
        try:
            if str(entry.readlink()) == output:
                info = (entry.parents[1] / "fdinfo" / entry.name).read_text()
                flags = int(info.split("flags:")[1].split()[0], 8)
                found += [entry.name.encode()] if flags & os.O_ACCMODE == os.O_RDONLY else []
        except OSError:
            continue
    return found
