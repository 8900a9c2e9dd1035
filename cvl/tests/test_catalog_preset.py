import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvl.catalog import Example, PathArg, Preset, build_of, find_preset, needs_of, resolve
from cvl.catalog.example import read_example
from cvl.catalog.preset import read_presets
from cvl.core.errors import NotFound, UsageError
from cvl.core.spec import Build
from cvl.core.yaml_document import parse


def example(text: str, root: Path = Path("/nowhere"), *scripts: str) -> Example:
    """Read an example of which nothing is wrong."""
    folder = root / "examples/a/b"
    for script in scripts:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / script).touch()
    found, said = heard(text, root)
    assert said == []
    return found


def heard(text: str, root: Path = Path("/nowhere")) -> tuple[Example, list[tuple[str, str]]]:
    document = parse(text.encode())
    said = [("", text) for _, text in document.notes]
    data = document.data or {}
    found = read_example(
        root, "examples/a/b", data, lambda keys, text: said.append((".".join(keys), text))
    )
    return found, said


def command(
    found: Example, preset: str, args: Sequence[str] = (), *, check: bool = False
) -> tuple[str, ...]:
    return resolve(found, find_preset(found, preset), args, check=check)


def image_made(found: Example, preset: str) -> Build | None:
    return build_of(found, find_preset(found, preset))


def ignore(*said: object) -> None:
    """Do not listen to what is odd."""


def only(text: str, root: Path = Path("/nowhere"), *scripts: str) -> Preset:
    (preset,) = example(f"presets: {text}", root, *scripts).presets.values()
    return preset


@pytest.mark.parametrize(
    ("text", "argv", "env"),
    [
        ("{train: {script: train.sh}}", "bash train.sh", ""),
        ("{train: train.sh}", "bash train.sh", ""),
        ("{train: [train.sh]}", "bash train.sh", ""),
        ("{train: [train.sh, --epochs, 5]}", "bash train.sh --epochs 5", ""),
        ("{train: [{script: x.sh}]}", "bash x.sh", ""),
        ("[train]", "bash train.sh", ""),
        ("train", "bash train.sh", ""),
        ("{train: }", "bash train.sh", ""),
        ("{train: {}}", "bash train.sh", ""),
        ("{train: {description: x}}", "bash train.sh", ""),
        ("[{name: train, script: x.sh}]", "bash x.sh", ""),
        ("[{train: x.sh}]", "bash x.sh", ""),
        ("{train: {script: [x.sh, --a, b]}}", "bash x.sh --a b", ""),
        ("{train: {script: ./sub/x.sh}}", "bash sub/x.sh", ""),
        ("{train: {script: x.py}}", "python3 x.py", ""),
        ("{train: {script: anything}}", "bash anything", ""),
        ("{train: {script: -x.sh}}", "bash ./-x.sh", ""),
        ("{train: {script: train.sh -- --stage discovery}}", "bash train.sh --stage discovery", ""),
        ("{build: {script: adapters/q.sh build}}", "bash adapters/q.sh build", ""),
        ("{demo: {script: PORT=8050 serve.sh}}", "bash serve.sh", "PORT=8050"),
        ("{train: {script: x.sh, args: --a 1 -b}}", "bash x.sh --a 1 -b", ""),
        ("{train: {script: x.sh, args: [full, 1e-5, yes]}}", "bash x.sh full 1e-5 yes", ""),
        ("{train: {script: x.sh -q, args: [z]}}", "bash x.sh -q z", ""),
        ("{train: {script: x.sh, env: {P: hlb, D: on, N: }}}", "bash x.sh", "P=hlb D=on N="),
        ("{train: {script: A=1 x.sh, env: {A: 2}}}", "bash x.sh", "A=2"),
        ("{train: {script: x.sh, env: [A=1, B=2=3]}}", "bash x.sh", "A=1 B=2=3"),
        ("{build: {command: ./build.sh}}", "bash build.sh", ""),
        ("{train: {script: x.sh, command: python3 x.py}}", "bash x.sh", ""),
        ("{train: {script: , command: ./y.sh}}", "bash y.sh", ""),
    ],
)
def test_every_form_of_a_preset(text: str, argv: str, env: str) -> None:
    found = example(f"presets: {text}")
    (name,) = found.presets
    assert command(found, name) == tuple(argv.split())
    assert [f"{key}={value}" for key, value in found.presets[name].env.items()] == env.split()


def test_arguments_of_a_line_are_split_as_a_shell_would() -> None:
    preset = only("""{x: {script: 'x.sh --prompt "a b" c\\ d', args: "-p 'e f'"}}""")
    assert preset.args == ("--prompt", "a b", "c d", "-p", "e f")


def test_by_convention_a_python_script_if_there_is_no_other(tmp_path: Path) -> None:
    assert only("[predict]", tmp_path, "predict.py").script == "predict.py"
    assert only("[predict]", tmp_path, "predict.sh").script == "predict.sh"


def test_a_script_with_a_space_in_its_name(tmp_path: Path) -> None:
    preset = only("{x: {script: my train.sh}}", tmp_path, "my train.sh")
    assert (preset.script, preset.args) == ("my train.sh", ())


@pytest.mark.parametrize(
    ("text", "key", "part"),
    [
        ("presets: {x: [[a, b], [c]]}", "presets.x", "neither a script nor a mapping"),
        ("presets: [[a]]", "presets", "without a name"),
        (
            """presets: {x: {script: x.sh, args: "it's"}}""",
            "presets.x.args",
            "quotation",
        ),
        ("presets: {x: {script: x.sh, args: {a: b}}}", "presets.x.args", "left out"),
        ("presets: {x: {script: x.sh, args: [a, [b]]}}", "presets.x.args", "left out"),
        ("presets: {x: {script: x.sh, env: word}}", "presets.x.env", "left out"),
        ("presets: {x: {script: x.sh, env: {A: [1]}}}", "presets.x.env", "left out"),
    ],
)
def test_what_is_odd_is_said_and_the_rest_is_used(text: str, key: str, part: str) -> None:
    _, said = heard(text)
    assert [place for place, _ in said] == [key]
    assert part in said[0][1]


def test_an_example_of_which_every_field_is_wrong_is_still_one() -> None:
    text = "".join(
        f"{key}: {value}\n"
        for key, value in {
            "name": "[1]", "capability": "{}", "tags": "null", "presets": "null",
            "resources": "5", "docker": "[]", "image": "[x]", "description": "~",
            "stability": "{a: b}",
        }.items()
    )  # fmt: skip
    found = example(text)
    assert (found.name, found.tags, dict(found.presets), found.image) == ("b", (), {}, "")
    assert (found.capability, found.description, found.stability) == ("", "", "")


PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["x.sh", "a 'b"])
)  # fmt: skip
JSON = st.recursive(
    PLAIN | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(
    "name presets tags resources docker hardware image archived script args env command".split()  # noqa: SIM905
    + "path_args gpu vram_gb flag count positional description".split()  # noqa: SIM905
)
FILES = st.recursive(
    JSON,
    lambda inner: st.dictionaries(KEYS, inner, max_size=5) | st.lists(inner, max_size=3),
    max_leaves=20,
)


@given(st.dictionaries(KEYS, FILES, max_size=8))
def test_no_data_raises_and_every_preset_has_a_command(data: dict[str, object]) -> None:
    found = read_example(Path("/nowhere"), "examples/a/b", data, ignore)
    hash(found.needs)
    for name in found.presets:
        argv = command(found, name, ["x"])
        assert argv[0] in {"bash", "python3"}
        assert argv[-1] == "x"
        assert all(isinstance(word, str) for word in argv)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=4))
def test_arguments_of_the_user_are_handed_on_as_they_are(args: list[str]) -> None:
    for text in ("{x: {script: x.sh -- a}}", "{x: {command: python x.py | tee log}}"):
        argv = command(example(f"presets: {text}"), "x", args)
        assert list(argv[len(argv) - len(args) :]) == args


def run(found: Example, preset: str, *args: str) -> list[str]:
    done = subprocess.run(
        command(found, preset, args, check=True), cwd=found.folder,
        env={**os.environ, **found.presets[preset].env},
        capture_output=True, check=True, timeout=20,
    )  # fmt: skip
    return os.fsdecode(done.stdout).split("\0")[:-1]


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("{x: {command: ./show.sh one}}", ["one"]),
        ("{x: {command: bash show.sh 'a b'}}", ["a b"]),
        ("""{x: {command: "bash show.sh one;\\n"}}""", ["one"]),
        ("{x: {command: 'true && bash show.sh one'}}", ["one"]),
        ("{x: {command: 'bash show.sh \"$@\" # then'}}", []),
        ("{x: {command: 'bash show.sh ${HOME:+h}', args: [z]}}", ["h", "z"]),
        ("{x: {script: 'show.sh $((1 + 1))'}}", ["2"]),
        ("{x: {script: 'A=1 show.sh -- $(echo q)'}}", ["q"]),
        ("{x: {script: 'true; bash show.sh'}}", []),
        ("{x: {script: show.sh -- one}}", ["one"]),
    ],
)
def test_a_line_for_the_shell_runs_and_gets_the_arguments(
    text: str, before: list[str], tmp_path: Path
) -> None:
    found = example(f"presets: {text}", tmp_path, "show.sh")
    (found.folder / "show.sh").write_text("""[ $# = 0 ] || printf '%s\\0' "$@"\n""")
    args = ["", "a b", "$(id)", "`id`", "; exit 1", "-n", "'\"\\", "é→\n", "*"]
    assert run(found, "x", *args) == [*before, *args]
    assert run(found, "x") == before


def test_environment_and_python(tmp_path: Path) -> None:
    found = example("presets: {x: {script: PORT=8050 x.py}}", tmp_path, "x.py")
    (found.folder / "x.py").write_text("import os, sys\nprint(os.environ['PORT'], *sys.argv[1:])")
    env = {**os.environ, **found.presets["x"].env, "PYTHONUTF8": "1"}
    out = subprocess.run(
        command(found, "x", ["é"]), cwd=found.folder, env=env,
        capture_output=True, check=True, timeout=20,
    ).stdout  # fmt: skip
    assert out.decode() == "8050 é\n"


def test_a_missing_script_is_an_error_for_those_who_run_it_only(tmp_path: Path) -> None:
    found = example("presets: {train: x.sh}", tmp_path, "other.sh")
    assert command(found, "train") == ("bash", "x.sh")
    with pytest.raises(UsageError, match=r"x\.sh") as caught:
        command(found, "train", check=True)
    assert "other.sh" in caught.value.hint


def test_a_missing_preset_names_those_there_are() -> None:
    found = example("presets: [train_sft, build]")
    assert find_preset(found, "train-SFT").name == "train_sft"
    with pytest.raises(NotFound) as caught:
        find_preset(found, "trian")
    assert "train_sft, build" in caught.value.hint
    with pytest.raises(NotFound, match="no preset"):
        find_preset(example("name: x"), "train")
    with pytest.raises(NotFound):
        find_preset(example("presets: [a-b, a_b]"), "A-B")


@pytest.mark.parametrize(
    ("text", "gpus", "vram"),
    [
        ("{}", 0, 0),
        ("{gpu: 2}", 2, 0),
        ("{gpu: 0, vram_gb: 12}", 0, 12),
        ("{gpu: {count: 1, vram_gb: 80}}", 1, 80),
        ("{gpu: required, vram_gb: 24}", 1, 24),
        ("{gpu: optional}", 0, 0),
        ("{gpu: true}", 1, 0),
        ("{gpu: no}", 0, 0),
        ("{gpu: none}", 0, 0),
        ("{gpu_count: 4, vram_gb: 40}", 4, 40),
        ("{vram_gb: 16 GB}", 1, 16),
        ("{gpu: -1}", 0, 0),
        ("{gpu: '2'}", 2, 0),
        ("{gpu: .nan}", 0, 0),
        ("}\ndocker: {gpu: required, vram_gb: 16", 1, 16),
        ("}\nhardware: {gpu_required: true, min_vram_gb: 48", 1, 48),
    ],
)
def test_gpus_in_every_form(text: str, gpus: int, vram: float) -> None:
    text = text if text.startswith("{") else "{" + text
    needs = example(f"resources: {text}" + ("}" if text.count("{") > text.count("}") else "")).needs
    assert (needs.gpus, needs.vram_gb) == (gpus, vram)


def test_the_other_needs() -> None:
    found = example("resources: {cpu_cores: 8, ram_gb: 32.5, disk_gb: 20, x: [a], vram_gb: 2e1}")
    needs = found.needs
    assert (needs.cpus, needs.ram_gb, needs.disk_gb, needs.vram_gb) == (8, 32.5, 20, 20)
    assert found.resources == {
        "cpu_cores": 8, "ram_gb": 32.5, "disk_gb": 20, "x": ["a"], "vram_gb": "2e1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "script", "docker"),
    [
        ("name: x", "train.sh", False),
        ("name: x", "Dockerfile", True),
        ("presets: [build]", "train.sh", True),
        ("docker: x:latest", "train.sh", True),
        ("docker: {gpu: optional}", "train.sh", True),
        ("docker: false", "Dockerfile", False),
        ("{docker: no, presets: [build]}", "Dockerfile", False),
        ("presets: {build: {script: b.sh, docker: false}}", "train.sh", False),
    ],
)
def test_who_needs_docker(text: str, script: str, docker: bool, tmp_path: Path) -> None:
    assert example(text, tmp_path, script).needs.docker is docker


def test_a_preset_may_do_without_docker(tmp_path: Path) -> None:
    found = example("presets: {build: b.sh, run: {script: r.sh, docker: false}}", tmp_path)
    assert needs_of(found, found.presets["build"]).docker
    assert not needs_of(found, found.presets["run"]).docker


@pytest.mark.parametrize(
    ("text", "script", "image"),
    [
        ("image: named:1", "docker build -t other .", "named:1"),
        ("docker: by_docker", "docker build -t other .", "by_docker"),
        ("docker: {image: 'in:docker'}", "", "in:docker"),
        ("{}", "docker build -t plain .", "plain"),
        ("{}", "docker build --pull --tag=org/x:latest .", "org/x:latest"),
        ("{}", "docker build \\\n  -f Dockerfile \\\n  -t x-y \\\n  .", "x-y"),
        ("{}", 'IMG="${CVL_IMAGE:-opencode}"\ndocker build -t "$IMG" "$DIR"', "opencode"),
        ("{}", 'N=${N:-"krea"}\nT=v1\ndocker buildx build -t "${N}:${T}" .', "krea:v1"),
        ("{}", 'N="$(basename "$SCRIPT_DIR")"\ndocker build -t "${N}" .', "b"),
        ("{}", "docker build -t one .\ndocker build -t two .", ""),
        ("{}", 'docker build -t "$1" .', ""),
        ("{}", 'docker build -t "$(date)" .', ""),
        ("{}", 'A="$B"; B="$A"\ndocker build -t "$A" .', ""),
        ("{}", "echo nothing to build", ""),
    ],
)
def test_the_image_is_what_the_file_says_else_what_the_script_says(
    text: str, script: str, image: str, tmp_path: Path
) -> None:
    presets = "presets: {build: build.sh, predict: p.sh, on_host: {script: h.sh, docker: false}}"
    found = example(f"{presets}\n{text if text != '{}' else ''}", tmp_path, "build.sh")
    (found.folder / "build.sh").write_text(script)
    build = image_made(found, "predict")
    assert build is not None
    assert (build.argv, build.image) == (("bash", "build.sh"), image)
    assert image_made(found, "build") is None
    assert image_made(found, "on_host") is None


@pytest.mark.parametrize(
    "script",
    [
        "".join(f'{a}="{f"${b}" * 80_000}"\n' for a, b in ("AB", "BC", "CD"))
        + f"docker build -t {'$A' * 200_000} .\n",
        'A="'
        + "$B" * 120
        + '"\nB="'
        + "$C" * 120
        + '"\n'
        + f"docker build -t {'$A' * 120}\n" * 3000,
        "${CVL_IMAGE:-$A}" * 60_000,
    ],
    ids=["long", "many", "defaults"],
)
def test_a_script_of_variables_of_variables_takes_no_longer_than_another(
    script: str, tmp_path: Path
) -> None:
    found = example("presets: {build: build.sh, predict: p.sh}", tmp_path, "build.sh", "p.sh")
    for name in ("build.sh", "p.sh"):
        (found.folder / name).write_text(script)
    started = time.process_time()
    build = image_made(found, "predict")
    assert build is not None
    assert build.image == ""
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "line", ["python a.py 'x' " + "w" * 800_000, "a.s" * 200_000 + " 'x'", "A='" * 300_000]
)
def test_a_line_without_end_is_left_to_the_shell(line: str) -> None:
    started = time.process_time()
    preset, said = (
        read_presets({"a": {"script": line}, "b": {"args": line}}, "/nowhere", ignore),
        [],
    )
    assert preset["a"].command == line
    read_presets({"b": {"args": line}}, "/nowhere", lambda _, text: said.append(text))
    assert said == ["args are left out: more than 16384 characters in one line"]
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("script", "image"),
    [
        ('IMG="${CVL_IMAGE:-other}"\ndocker run "$IMG"', "other"),
        ("docker run \\\n  ${CVL_IMAGE:-org/other:v1} x", "org/other:v1"),
        ('NAME=other\nIMG="${CVL_IMAGE:-$NAME}"', "other"),
        ('IMG="${CVL_IMAGE:-$(basename "$SCRIPT_DIR")}"', "b"),
        ('A="${CVL_IMAGE:-one}"\nB="${CVL_IMAGE:-two}"', "named"),
        ("IMAGE=photo.jpg", "named"),
        ('IMG="${CVL_IMAGE:-$1}"', "named"),
    ],
)
def test_the_image_that_is_missing_is_the_one_that_the_preset_takes(
    script: str, image: str, tmp_path: Path
) -> None:
    text = "image: named\npresets: {build: build.sh, predict: p.sh}"
    found = example(text, tmp_path, "build.sh", "p.sh")
    (found.folder / "build.sh").write_text("docker build -t built .")
    (found.folder / "p.sh").write_text(script)
    build = image_made(found, "predict")
    assert build is not None
    assert build.image == image


def test_a_build_keeps_its_environment_and_may_lack_its_script() -> None:
    found = example("presets: {build: A=1 gone.sh, x: x.sh}")
    build = image_made(found, "x")
    assert build is not None
    assert (build.argv, build.image) == (("env", "A=1", "bash", "gone.sh"), "")
    assert image_made(example("presets: [x]"), "x") is None


def test_path_args_in_every_form() -> None:
    text = (
        "[{flag: --a, aliases: [-a], type: file},"
        " {flag: in, positional: true, type: directory}, -o, x]"
    )
    assert only(f"{{x: {{script: x.sh, path_args: {text}}}}}").path_args == (
        PathArg(flags=("--a", "-a")),
        PathArg(flags=("in",), positional=True),
        PathArg(flags=("-o",)),
        PathArg(flags=("x",), positional=True),
    )
    assert read_presets({"x": {"path_args": {"flag": "--z"}}}, "", ignore)["x"].path_args == (
        PathArg(flags=("--z",)),
    )
