"""The house itself: what the wheel holds, what imports what, what installs, what configures."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import pytest
from imports import circles, import_graph, second_hand

import sonomime

RunPython = Callable[..., tuple[int, str, str]]

ROOMS = ("training", "export", "runtime", "benchmarks")


@pytest.fixture(scope="module")
def project(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built without asking any index."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder)]
    done = subprocess.run([*command, str(repository)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    assert path.name.endswith("-py3-none-any.whl"), "a pure wheel, the same for every platform"
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_package_and_nothing_else(
    repository: Path, wheel: zipfile.ZipFile
) -> None:
    held = {name for name in wheel.namelist() if not name.split("/")[0].endswith(".dist-info")}
    modules = {
        f"sonomime/{path.relative_to(repository).as_posix()}"
        for room in ROOMS
        for path in (repository / room).rglob("*.py")
    }
    presets = {
        f"sonomime/{path.relative_to(repository).as_posix()}"
        for path in (repository / "training" / "presets").glob("*.toml")
    }
    top = {f"sonomime/{name}" for name in ("__init__.py", "py.typed", "cli.py")}
    assert modules | presets | top <= held
    # Beside code, only data that the runtime or training reads.
    data = ("sonomime/runtime/default_bundle/", "sonomime/runtime/samples/")
    others = {name for name in held - modules - presets - top if not name.startswith(data)}
    assert others == set()
    assert not [name for name in held if re.search(r"(^|/)(tests?|demo|runs|\.[^/]*)/", name)]


@pytest.mark.parametrize("folder", ["default_bundle", "samples"])
def test_the_wheel_holds_all_the_data_of_the_runtime(
    repository: Path, wheel: zipfile.ZipFile, folder: str
) -> None:
    source = repository / "runtime" / folder
    files = [path for path in source.rglob("*") if path.is_file()]
    assert files, f"runtime/{folder} is part of the product"
    for path in files:
        name = f"sonomime/{path.relative_to(repository).as_posix()}"
        assert wheel.read(name) == path.read_bytes()


def test_the_wheels_metadata(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Version"] == sonomime.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("License-File", [])) == {"LICENSE", "NOTICE"}
    base = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert {re.split(r"[<>=!~ ]", text)[0] for text in base} == {
        "numpy",
        "opencv-python-headless",
        "av",
        "pillow",
        "tqdm",
    }
    (scripts,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "sonomime = sonomime.cli:main" in wheel.read(scripts).decode()


def test_rooms_import_only_to_their_right(repository: Path) -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


HEAVY = (
    "torch", "onnx", "onnxscript", "onnxruntime", "cv2", "av", "PIL", "tqdm", "yaml",
    "tensorrt_rtx_bindings",
)  # fmt: skip


@pytest.mark.parametrize("module", ["sonomime", "sonomime.runtime"])
def test_importing_it_imports_nothing_heavy(run_python: RunPython, module: str) -> None:
    code = f"import sys, {module}; print([n for n in {HEAVY!r} if n in sys.modules])"
    assert run_python(code) == (0, "[]\n", "")


def test_the_command_line_starts_without_torch_and_onnx(run_python: RunPython) -> None:
    code = (
        "import sys\n"
        "from sonomime.cli import main\n"
        "try:\n    status = main(['--help'])\nexcept SystemExit as end:\n    status = end.code\n"
        f"print([n for n in {HEAVY!r} if n in sys.modules], status or 0)"
    )
    status, output, errors = run_python(code)
    assert status == 0, errors
    assert output.splitlines()[-1] == "[] 0"


def test_new_modules_need_no_new_installation(repository: Path, run_python: RunPython) -> None:
    code = "import sonomime, pathlib; print(pathlib.Path(sonomime.__path__[0]).resolve())"
    assert run_python(code) == (0, f"{repository}\n", "")


def test_constraints_pin_everything_that_make_test_installs(
    repository: Path, project: dict
) -> None:
    text = (repository / "constraints.txt").read_text()
    assert "://" not in text, "which index serves a package is the installer's business"
    pins = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)$", text, re.MULTILINE))
    extras = project["project"]["optional-dependencies"]
    asked = list(project["project"]["dependencies"])
    for extra in ("cpu", "train", "dev", "rtx"):
        asked += extras[extra]
    assert {re.split(r"[<>=!~ ]", requirement)[0] for requirement in asked} <= set(pins)
    assert pins["torch"] == "2.13.0"
    assert "torchvision" not in pins


def test_the_two_onnx_runtimes_never_meet(project: dict) -> None:
    extras = project["project"]["optional-dependencies"]
    assert any(text.startswith("onnxruntime>") for text in extras["cpu"])
    assert any(text.startswith("onnxruntime-gpu") for text in extras["gpu"])
    for name in set(extras) - {"cpu", "gpu"}:
        assert not any(text.startswith("onnxruntime") for text in extras[name]), name


@pytest.fixture
def configure(repository: Path, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not installed")

    def run(*options: str) -> tuple[int, str]:
        # As on a machine without CUDA and TensorRT, whatever this one has.
        absent = ["-DCMAKE_CUDA_COMPILER=NOTFOUND", "-DNVINFER_INCLUDE_DIR=NOTFOUND"]
        build = tmp_path / "build"
        command = [cmake, "-S", str(repository), "-B", str(build), *absent, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    return run


def test_cmake_says_what_it_skips_and_succeeds(
    configure: Callable[..., tuple[int, str]],
) -> None:
    status, output = configure()
    assert status == 0, output
    assert "The TensorRT plugin is skipped" in output
    assert "a CUDA compiler" in output


def test_cmake_stops_with_the_cure_when_the_plugin_is_wanted(
    configure: Callable[..., tuple[int, str]],
) -> None:
    status, output = configure("-DSONOMIME_BUILD_PLUGIN=ON")
    assert status != 0
    assert "cannot be built" in output
    assert "put nvcc on the PATH" in output


def test_cmake_can_be_told_to_build_nothing(configure: Callable[..., tuple[int, str]]) -> None:
    status, output = configure("-DSONOMIME_BUILD_PLUGIN=OFF")
    assert status == 0, output
    assert "as asked" in output
    status, output = configure("-DSONOMIME_BUILD_PLUGIN=perhaps")
    assert status != 0 and "AUTO, ON or OFF" in output


def tracked(repository: Path) -> list[str]:
    git = shutil.which("git")
    if git is None or not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    command = [git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (repository / name).exists()]


def test_the_default_bundles_manifest_is_the_only_one(repository: Path) -> None:
    manifests = [name for name in tracked(repository) if Path(name).name == "manifest.json"]
    assert manifests in ([], ["runtime/default_bundle/manifest.json"])


def test_no_environment_result_or_half_written_file_is_kept(repository: Path) -> None:
    names = tracked(repository)
    bad = re.compile(
        r"^(\.venv|demo|runs|build|dist)/|__pycache__|\.part\.|\.egg-info/|^runtime/lib/"
    )
    assert [name for name in names if bad.search(name)] == []


def test_no_file_leads_back_to_itself(repository: Path) -> None:
    """Lazy imports and those for types alone count too."""
    graph = import_graph(repository)
    assert len(graph) > 150 and graph["runtime.animator"] >= {"runtime.session"}
    assert circles(graph) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_nothing_is_imported_from_where_it_is_not_defined(repository: Path) -> None:
    """But from a public face: a reader finds a name in the file that it is imported from."""
    assert second_hand(repository) == []


def test_the_files_that_the_docs_name_are_there(repository: Path) -> None:
    pages = [*repository.glob("*.md"), *(repository / "docs").glob("*.md")]
    path = re.compile(r"`((?:runtime|training|export|benchmarks)/[\w/]+\.py)`")
    named = {name for page in pages for name in path.findall(page.read_text())}
    assert {"runtime/session.py", "training/trainer.py"} <= named
    assert sorted(name for name in named if not (repository / name).exists()) == []
