"""What a run's example is called where its folder is the root of everything: never nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from cvl.testing.cli_harness import FOLDER, Desk

CLUSTER = """\
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {}}]
"""


def alone(folder: Path) -> Desk:
    """Return somebody whose whole repository is one example, which asks for a GPU."""
    (folder / "kubeconfig").write_text(CLUSTER)
    env = {"KUBECONFIG": str(folder / "kubeconfig")}
    desk = Desk(folder=folder, options=("--local",), env=env)
    shutil.copytree(desk.repo / FOLDER, desk.repo, dirs_exist_ok=True)
    shutil.rmtree(desk.repo / "examples")
    with (desk.repo / "example.yaml").open("a") as file:
        file.write("resources: {gpu: 1}\n")
    return desk


def test_a_run_of_it_is_listed_with_its_name(tmp_path: Path) -> None:
    desk = alone(tmp_path)
    assert desk.cvl("run", "--local", ".", "sh", "true").code == 0
    assert desk.ps()[0]["example"] == "one"
    assert desk.cvl("ps").out.decode().splitlines()[1].split()[1:3] == ["one", "sh"]


def test_what_is_said_of_it_says_of_what(tmp_path: Path) -> None:
    done = alone(tmp_path).cvl("run", "--k8s", "--image", "image", "--dry-run", ".", "sh", "true")
    assert "cvl: one asks for a GPU: give --gpu 1\n" in done.err, done
