"""What lies outside of the tree, and what is secret in it, stays on this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
from base64 import b64encode
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from cvl.catalog.script import script_text
from cvl.container.contents import Contents, contents_of, tar
from cvl.core.errors import CvlError, UsageError
from cvl.core.safe_dir import HELD, Folders, SafeDir
from cvl.core.spec import Source
from cvl.host.upload import hashes as hashes_module
from cvl.host.upload.hashes import Hashes
from cvl.host.upload.payload import payload
from cvl.host.upload.secret_files import inside, named
from cvl.host.upload.selection import Selection, select
from cvl.host.upload.tree import delta

E = "examples/a"
VICTIM = "a diary that is nobody's business"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n"


def fill(root: Path, files: Mapping[str, str | bytes]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True)


@pytest.fixture(params=["git", "plain"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    if request.param == "git":
        git(root, "init", "-q")
    fill(root, {f"{E}/example.yaml": "name: a\n"})
    return root


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    git(root, "init", "-q")
    fill(root, {f"{E}/example.yaml": "name: a\n", f"{E}/x/id_rsa": "x", f"{E}/y.txt": "y"})
    git(root, "add", ".")
    return root


def choose(root: Path, *include: str) -> Selection:
    return select(Source(root=root, folder=E, include=include), root.parent / "state")


def names(found: Selection) -> set[str]:
    return {os.fsdecode(path) for path in found.tree.entries}


def sent(found: Selection) -> bytes:
    return b"".join(payload({}, delta(None, found.tree)))


def moved_away(root: Path, folder: str, text: str | None = None) -> None:
    """Put a link in place of a folder: to what was in it, or to a file of the same name."""
    elsewhere = root.parent / "elsewhere"
    (root / folder).rename(elsewhere)
    if text is not None:
        for file in elsewhere.iterdir():
            file.write_text(text)
    (root / folder).symlink_to(elsewhere)


@pytest.mark.parametrize("text", [VICTIM, None], ids=["other", "the same file"])
def test_nothing_is_read_through_a_folder_that_is_a_link_now(
    checkout: Path, text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes_module, "TICK_NS", 0)
    before = choose(checkout)
    assert f"{E}/x/id_rsa" in names(before)
    moved_away(checkout, f"{E}/x", text)
    found = choose(checkout)
    assert names(found) == {f"{E}/example.yaml", f"{E}/y.txt", f"{E}/x"}
    assert found.tree.entries[f"{E}/x".encode()].kind == "l"
    first, second = found.warnings
    assert first == f"what git tracks in {E}/x is left out: {E}/x is a link"
    assert second.startswith(f"only the links travel, not what they lead to: {E}/x -> ")
    assert VICTIM.encode() not in sent(found)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("way", ["stream", "container"])
def test_nothing_is_sent_through_a_folder_that_became_a_link(
    checkout: Path, way: str, *, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not held:
        monkeypatch.setattr(hashes_module, "HELD_LIMIT", 0)
    tree = choose(checkout).tree
    moved_away(checkout, f"{E}/x", "y")
    placed = Contents(folder=E, tree=tree).placed()
    pieces = payload({}, delta(None, tree)) if way == "stream" else tar(tree, placed, {})
    try:
        assert b"".join(pieces)
    except CvlError as error:
        assert "id_rsa changed while it was sent" in str(error)  # noqa: PT017
        assert not held
    else:
        assert held


def test_a_container_gets_exactly_what_was_chosen(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes_module, "HELD_LIMIT", 0)
    tree = choose(checkout).tree
    (checkout / E / "y.txt").write_text(VICTIM)
    with pytest.raises(CvlError, match=r"y\.txt changed while it was sent"):
        list(tar(tree, Contents(folder=E, tree=tree).placed(), {}))


def test_an_index_that_names_what_lies_outside_names_nothing(checkout: Path) -> None:
    """Git itself refuses to track such a path, but reads an index that says so."""
    fill(checkout.parent, {"vic": VICTIM})
    for place in ("aaa/vic", "aaaa/vic", "aaabb"):
        fill(checkout, {place: "x"})
    git(checkout, "add", ".")
    index = checkout / ".git/index"
    data = index.read_bytes()[:-20]
    absolute = b"/etc/host"[: len(b"aaaa/vic")]
    for old, new in ((b"aaa/vic", b"../%b" % b"vic."), (b"aaaa/vic", absolute)):
        data = data.replace(old, new.ljust(len(old), b"x"))
    data = data.replace(b"../vic.", b"./../vi")
    index.write_bytes(data + hashlib.sha1(data).digest())
    found = select(Source(root=checkout, folder=""), checkout.parent / "state")
    assert not any(".." in name or name.startswith("/") for name in names(found))


@pytest.mark.parametrize("path", [b"../x", b"a/../../x", b"a/./x", b"a//x", b"/x"])
def test_no_path_climbs_out_of_a_root(path: bytes, tmp_path: Path) -> None:
    fill(tmp_path, {"x": VICTIM, "root/a/y": ""})
    with Folders(os.fsencode(tmp_path / "root")) as folders, pytest.raises(OSError, match=r"."):
        folders.open(path)


def test_folders_are_found_in_any_order(tmp_path: Path) -> None:
    paths = [b"a/b/c/1", b"a/b/2", b"ab/3", b"a/b/c/4", b"5", b"a/bb/6", b"a/b/c/1"]
    fill(tmp_path, {os.fsdecode(path): path for path in paths})
    with Folders(os.fsencode(tmp_path)) as folders:
        assert [folders.read(path, 100) for path in paths] == paths
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        with pytest.raises(FileNotFoundError):
            folders.lstat(b"a/b/nowhere/x")
        with pytest.raises(NotADirectoryError):
            folders.lstat(b"a/b/2/x")
        assert folders.read(b"a/b/c/4", 100) == b"a/b/c/4"
        assert len(os.listdir("/proc/self/fd")) <= before + 3  # noqa: PTH208


def test_what_lies_deeper_than_folders_are_held_open_travels(root: Path) -> None:
    deep, less = "d/" * (HELD + 20), "d/" * (HELD - 2)
    fill(root, {f"{E}/{deep}x": "x", f"{E}/{less}e/y": "y", f"{E}/{deep}z": "z"})
    found = choose(root, E)
    assert {f"{E}/{deep}x", f"{E}/{less}e/y", f"{E}/{deep}z"} <= set(names(found))
    assert found.warnings == ()


def test_a_path_that_is_too_long_is_left_out_and_named(tmp_path: Path) -> None:
    fill(tmp_path / "repo", {f"{E}/example.yaml": "name: a\n", f"{E}/x": "x"})
    with SafeDir(tmp_path / "repo") as folders:
        longest = folders.at(b"/".join([os.fsencode(E), *[b"d" * 200] * 20]))
        os.mkdir(b"e" * 100, dir_fd=longest)
    found = choose(tmp_path / "repo", E)
    assert names(found) == {f"{E}/example.yaml", f"{E}/x"}
    assert {text.rpartition(": ")[2] for text in found.warnings} == {"File name too long"}


def test_no_pipe_or_socket_is_waited_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / E / "pipe")
    (root / E / ".cvlignored").write_text("")
    with socket.socket(socket.AF_UNIX) as listener:
        with monkeypatch.context() as patch:  # for a socket's whole path may be too long
            patch.chdir(root / E)
            listener.bind("socket")
        found = choose(root, f"{E}/pipe", f"{E}/socket", E)
    assert names(found) == {f"{E}/example.yaml", f"{E}/.cvlignored"}
    assert f"{E}/pipe is left out: neither file nor folder" in found.warnings
    assert f"{E}/socket is left out: neither file nor folder" in found.warnings


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "long"])
def test_an_ignore_file_that_cannot_be_read_ends_the_sending(root: Path, kind: str) -> None:
    place = root / ".cvlignore"
    match kind:
        case "link":
            fill(root.parent, {"rules": "*"})
            place.symlink_to("../rules")
        case "pipe":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
        case _:
            place.write_bytes(b"#" * (2 << 20))
    with pytest.raises(UsageError, match=r"cannot read \.cvlignore"):
        choose(root)


SECRETS = [
    *(".env", ".ENV", ".env.local", ".env.production", ".env-dev", ".env_x", ".envrc"),
    *(".env.example.local", ".netrc", "_netrc", ".git-credentials", ".pgpass", ".pypirc"),
    *(".aws/credentials", ".AWS/config", ".ssh/config", ".ssh/known_hosts", ".gnupg/x"),
    *(".kube/config", ".docker/config.json", ".config/gcloud/x.db", ".config/gh/hosts.yml"),
    *(".kaggle/kaggle.json", "kaggle.json", ".azure/x", ".vault-token", "sub/.env/x"),
]
PLAIN = [
    *(".env.example", ".env.sample", ".env.template", ".env.dist", ".env.local.example"),
    *("env", "my.env.py", "environment.yml", "envrc", "aws/credentials", "ssh/config", "x.netrc"),
    *(".docker/Dockerfile", ".config/app.toml", ".github/x.yml", ".gitignore", "kube/config"),
]


@pytest.mark.parametrize("tracked", [True, False])
def test_secrets_stay_here_by_name_and_are_named(root: Path, *, tracked: bool) -> None:
    fill(root, {f"{E}/s{n}/{name}": VICTIM for n, name in enumerate(SECRETS)})
    fill(root, {f"{E}/p/{name}": "x" for name in PLAIN})
    if tracked and (root / ".git").exists():
        git(root, "add", "-f", ".")
    found = choose(root)
    assert names(found) == {f"{E}/example.yaml", *(f"{E}/p/{name}" for name in PLAIN)}
    (warning,) = found.warnings
    assert warning.startswith("stay here: examples/a/s0/.env, ")
    assert f" and {len(SECRETS) - 20} more; --include NAME sends one" in warning
    assert VICTIM.encode() not in sent(found)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_travels_if_it_is_included_by_name(root: Path, name: str) -> None:
    fill(root, {f"{E}/{name}": "x"})
    assert f"{E}/{name}" not in names(choose(root, E))
    assert f"{E}/{name}" in names(choose(root, f"{E}/{name}"))


def test_a_folder_of_secrets_may_be_included_by_its_name_with_its_keys(root: Path) -> None:
    fill(root, {f"{E}/.ssh/config": "x", f"{E}/.ssh/id": KEY, f"{E}/.env": "x"})
    found = names(choose(root, f"{E}/.ssh"))
    assert {f"{E}/.ssh/config", f"{E}/.ssh/id"} <= found
    assert f"{E}/.env" not in found


LINE = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
LOCKED = f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: X,00\n\n{LINE}\n"
KEYS: dict[str, str | bytes] = {
    "openssh": KEY,
    "pem": "some words\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n",
    "pkcs8": "-----BEGIN PRIVATE KEY-----\r\nx",
    "ec": "-----BEGIN EC PRIVATE KEY-----",
    "pgp": "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ",
    "ssh2": "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n",
    "putty": "PuTTY-User-Key-File-3: ssh-ed25519\n",
    "json": '{"private_key": "-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkqhkiG9w0B"}',
    "yaml": "key: |\n  -----BEGIN PRIVATE KEY-----\n  MII\n",
    "wide": ("\ufeff" + KEY).encode("utf-16-le"),
    "behind": "x" * 100_000 + "\n" + KEY,
    "locked_marked": "\ufeff" + LOCKED,
    "locked_wide": ("\ufeff" + LOCKED).encode("utf-16-be"),
    "locked_wide_unmarked": LOCKED.encode("utf-16-le"),
    "locked_wider": LOCKED.encode("utf-32"),
    "locked_listed": "- " + LOCKED.replace("\n", "\n  "),
    "locked_quoted": f"KEY='{LOCKED}'",
    "python": f"KEY = (\n    '-----BEGIN PRIVATE KEY-----\\n'\n    '{LINE}\\n'\n)",
    "c": f'"-----BEGIN EC PRIVATE KEY-----\\n"\n"{LINE}\\n"',
    "json_in_json": f'{{"a": "{{\\"key\\": \\"-----BEGIN PRIVATE KEY-----\\\\n{LINE}"}}',
    "remark": f"# -----BEGIN PRIVATE KEY-----\n# {LINE}\n",
    "one_line": f"KEY=-----BEGIN PRIVATE KEY-----{LINE}",
    "cluster": f"users:\n- user: {{client-key-data: {b64encode(LOCKED.encode()).decode()}}}\n",
    "putty_marked": "\ufeffPuTTY-User-Key-File-3: ssh-ed25519\r\n",
}
NO_KEYS: dict[str, str | bytes] = {
    "code": 'if b"-----BEGIN RSA PRIVATE KEY-----" in data: pass\n',
    "public": "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQ\n",
    "cert": "-----BEGIN CERTIFICATE-----\nMIIBIjANBgkqhkiG9w0BAQ\n",
    "prose": "Paste what begins with `-----BEGIN PRIVATE KEY-----` here.\n",
    "words": "PRIVATE KEY\n",
    "search": 'grep -q "-----BEGIN PRIVATE KEY-----" some_name_that_is_long_for_once_and_goes_on\n',
    "names": 'X = (\n    "-----BEGIN PRIVATE KEY-----",\n    some_name_that_is_long_once,\n)\n',
    "cert_encoded": b64encode(b"-----BEGIN CERTIFICATE-----\nMIIBIjANBgkqhkiG9w0BAQ"),
}


@pytest.mark.parametrize("name", KEYS)
def test_private_keys_stay_here_by_content(root: Path, name: str) -> None:
    fill(root, {f"{E}/{name}.txt": KEYS[name]})
    for _ in range(2):  # also when all else is known from the first time
        found = choose(root)
        assert names(found) == {f"{E}/example.yaml"}
        said = f"stay here: {E}/{name}.txt (a private key); --include NAME sends one"
        assert found.warnings == (said,)
    assert f"{E}/{name}.txt" not in names(choose(root, E))
    assert f"{E}/{name}.txt" in names(choose(root, f"{E}/{name}.txt"))
    out = sent(choose(root, f"./{E}//{name}.txt"))
    text = KEYS[name]
    assert (text if isinstance(text, bytes) else text.encode()) in out


@pytest.mark.parametrize("name", NO_KEYS)
def test_what_only_speaks_of_keys_travels(root: Path, name: str) -> None:
    fill(root, {f"{E}/{name}": NO_KEYS[name]})
    assert f"{E}/{name}" in names(choose(root))


def test_a_token_for_npm_stays_here_unless_it_is_a_variable() -> None:
    assert inside(b"a/.npmrc", b"//registry.test/:_authToken=npm_abc\n") == "a token"
    assert inside(b"a/.npmrc", b"//registry.test/:_authToken=${NPM_TOKEN}\n") == ""
    assert inside(b"a/notes", b"//registry.test/:_authToken=npm_abc\n") == ""


def test_what_an_older_version_noted_of_a_key_is_not_believed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes_module, "TICK_NS", 0)
    fill(root, {f"{E}/key": KEY})
    monkeypatch.setattr(hashes_module, "inside", lambda *_: "")
    assert f"{E}/key" in names(choose(root))
    (kept,) = (root.parent / "state").glob("files-*")
    fields = kept.read_bytes().split(b"\0")
    assert f"{E}/key".encode() in fields
    kept.write_bytes(b"\0".join(fields[1:]))
    monkeypatch.setattr(hashes_module, "inside", inside)
    assert f"{E}/key" not in names(choose(root))


def test_the_same_holds_for_what_goes_into_a_container(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CVL_STATE_DIR", str(root.parent / "state"))
    fill(root, {f"{E}/.env": VICTIM, f"{E}/key.pem": KEY})
    found = contents_of(Source(root=root, folder=E))
    assert [name for name, _, _ in found.placed()] == ["workspace/example.yaml"]
    (warning,) = found.warnings
    assert f"{E}/.env, {E}/key.pem (a private key)" in warning


def test_a_secret_that_is_not_there_or_that_the_user_ignores_is_not_named(checkout: Path) -> None:
    fill(checkout, {f"{E}/.env": "x", f"{E}/.netrc": "x", ".cvlignore": ".netrc\n"})
    git(checkout, "add", "-f", ".")
    (checkout / E / ".env").unlink()
    assert choose(checkout).warnings == ()


def test_a_mention_or_a_link_does_not_bring_a_secret(root: Path) -> None:
    fill(root, {f"{E}/run.sh": "cat ../shared/.env ../shared/key\n"})
    fill(root, {"examples/shared/example.yaml": "", "examples/shared/.env": "x"})
    fill(root, {"examples/shared/key": KEY})
    (root / E / "link").symlink_to("../shared/key")
    found = names(choose(root))
    assert "examples/shared/example.yaml" in found
    assert not {"examples/shared/.env", "examples/shared/key"} & found


def test_many_mentions_of_one_place_are_looked_up_once(root: Path) -> None:
    fill(root, {f"{E}/run.sh": "".join(f"../b/none{n} " for n in range(15_000))})
    fill(root, {f"examples/b/f{n}": "" for n in range(300)} | {"examples/b/example.yaml": ""})
    assert len(names(choose(root))) == 303


def test_names_of_secrets_are_whole_components() -> None:
    assert named(b"a/.aws/b/.env") == b"a/.aws"
    assert named(b".env") == b".env"
    assert named(b"a.env") == b""
    assert named(b".awsome/x") == b""


def test_a_root_may_be_a_link(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    found = choose(root.parent / "link")
    assert names(found) == {f"{E}/example.yaml"}
    assert b"name: a" in sent(found)


def test_what_is_held_open_is_let_go(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    fill(root, {f"{E}/{n}/x": "x" for n in range(20)})
    sent(choose(root))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_entries_can_be_asked_for_one_by_one(tmp_path: Path) -> None:
    fill(tmp_path, {"a/b": "x"})
    with closing(Hashes(tmp_path)) as hashes:
        entry = hashes.entry(b"a/b")
    assert entry is not None
    assert (entry.kind, entry.size) == ("f", 1)
    shutil.rmtree(tmp_path / "a")
    with closing(Hashes(tmp_path)) as hashes:
        assert hashes.entry(b"a/b") is None


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "nowhere", "text"])
def test_a_script_that_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "run.sh"
    match kind:
        case "pipe":
            os.mkfifo(place)
        case "device":
            place.symlink_to("/dev/zero")
        case "folder":
            place.mkdir()
        case "text":
            place.write_bytes(b"a\xff" * (1 << 20))
    text = script_text(place)
    assert (text is not None) == (kind == "text")
    assert len(text or "") <= 1 << 20
