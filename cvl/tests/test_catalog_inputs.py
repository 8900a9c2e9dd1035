from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvl.catalog import Inputs, PathArg, Preset, find_inputs

PRESET = Preset(
    name="predict",
    path_args=(
        PathArg(flags=("--image", "-i")),
        PathArg(flags=("--refs",)),
        PathArg(flags=("--output", "-o")),
        PathArg(flags=("input_file",), positional=True),
    ),
)
FLAGS_ONLY = Preset(name="predict", path_args=PRESET.path_args[:3])


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name in ("here/x.jpg", "here/sub/y z.jpg", "here/refs/a/1.png", "here/refs/2.png",
                 "away/x.jpg", "away/two/x.jpg", "away/set/3.png", "here/out.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "here"


def found(here: Path, *args: str, preset: Preset = PRESET) -> tuple[Inputs, dict[str, str]]:
    inputs = find_inputs(preset, args, here)
    top = here.parent
    return inputs, {place: str(file.relative_to(top)) for place, file in inputs.files.items()}


@pytest.mark.parametrize(
    "args",
    [
        ["--image", "x.jpg"],
        ["--image=x.jpg"],
        ["-i", "x.jpg"],
        ["--image", "./x.jpg"],
        ["x.jpg"],
        ["--verbose", "x.jpg"],
        ["--output", "out.png", "x.jpg"],
        ["--output=out.png", "x.jpg"],
        ["--image", "missing.jpg", "--", "x.jpg"],
    ],
)
def test_a_file_is_found_and_its_argument_left_alone(args: list[str], here: Path) -> None:
    inputs, files = found(here, *args)
    assert files == {"x.jpg": "here/x.jpg"}
    assert inputs.args == tuple(args)


@pytest.mark.parametrize(
    "args",
    [
        ["--output", "out.png"],
        ["-o", "out.png"],
        ["-o=out.png"],
        ["--image", "missing.jpg"],
        ["--image="],
        ["--image"],
        ["--image", "https://example.com/x.jpg"],
        ["--refs", "."],
        ["--refs", ".."],
        ["--refs=/"],
        ["sub"],
        ["--image", "/dev/null"],
        ["--prompt=x.jpg"],
    ],
)
def test_outputs_and_what_is_no_file_are_left_alone(args: list[str], here: Path) -> None:
    inputs, files = found(here, *args)
    assert files == {}
    assert inputs.args == tuple(args)


def test_only_what_is_declared_is_looked_at(here: Path) -> None:
    assert found(here, "x.jpg", "--other", "x.jpg", preset=FLAGS_ONLY)[1] == {}
    assert found(here, "--image", "x.jpg", preset=Preset(name="x"))[1] == {}


def test_one_flag_may_take_several_and_folders_are_taken_whole(here: Path) -> None:
    inputs, files = found(here, "--image", "x.jpg", "sub/y z.jpg", "--refs", "refs/")
    assert files == {
        name: f"here/{name}" for name in ("x.jpg", "sub/y z.jpg", "refs/a/1.png", "refs/2.png")
    }
    assert inputs.args == ("--image", "x.jpg", "sub/y z.jpg", "--refs", "refs/")


def test_what_lies_elsewhere_moves_and_its_argument_with_it(here: Path) -> None:
    away = here.parent / "away"
    inputs, files = found(
        here, f"--image={away}/x.jpg", "-i", "../away/two/x.jpg", "--refs", f"{away}/set",
        f"{away}/x.jpg", f"{here}/x.jpg",
    )  # fmt: skip
    assert files == {
        "cvl-inputs/x.jpg": "away/x.jpg",
        "cvl-inputs/2/x.jpg": "away/two/x.jpg",
        "cvl-inputs/set/3.png": "away/set/3.png",
        "x.jpg": "here/x.jpg",
    }
    assert inputs.args == (
        "--image=cvl-inputs/x.jpg", "-i", "cvl-inputs/2/x.jpg", "--refs", "cvl-inputs/set",
        "cvl-inputs/x.jpg", "x.jpg",
    )  # fmt: skip


def test_what_moves_takes_no_place_that_is_taken_here(here: Path) -> None:
    (here / "cvl-inputs").mkdir()
    (here / "cvl-inputs/x.jpg").touch()
    _, files = found(here, "-i", "../away/x.jpg", "cvl-inputs/x.jpg")
    assert files == {
        "cvl-inputs/2/x.jpg": "away/x.jpg",
        "cvl-inputs/x.jpg": "here/cvl-inputs/x.jpg",
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(max_size=6)
        | st.sampled_from(["--image", "-i", "--", "-", "--output", "x.jpg", "../away/x.jpg"]),
        max_size=6,
    )
)  # fmt: skip
def test_arguments_keep_their_number_and_change_only_for_what_moved(
    here: Path, args: list[str]
) -> None:
    inputs = find_inputs(PRESET, args, here)
    assert len(inputs.args) == len(args)
    for before, after in zip(args, inputs.args, strict=True):
        if before != after:
            assert ".." in before or before.startswith("/")
    for place, file in inputs.files.items():
        assert file.is_file()
        assert not place.startswith("/")
        assert ".." not in place.split("/")
