"""The house itself: what the wheel holds, what imports what, what the docs name."""

from __future__ import annotations

import graphlib
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
from imports import ROOMS, import_graph, second_hand

import sonomime

RunPython = Callable[..., tuple[int, str, str]]


def requirements(repository: Path) -> dict[str, list[str]]:
    """Names of distributions by extra; "" has those that every installation gets."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lists = {"": project["dependencies"]} | project["optional-dependencies"]
    return {
        extra: [re.split(r"[<>=!~ \[]", r)[0] for r in listed] for extra, listed in lists.items()
    }


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
    patterns = [f"{room}/**/*.py" for room in ROOMS]
    patterns += ["training/presets/*.toml", "training/study/page/*", "training/run_report/report.*"]
    patterns += ["runtime/live/web/page/*"]
    patterns += ["runtime/default_bundle/**/*", "runtime/samples/**/*", "runtime/templates/*"]
    patterns += ["__init__.py", "py.typed", "cli.py"]
    files = {file for pattern in patterns for file in repository.glob(pattern) if file.is_file()}
    contents = {f"sonomime/{file.relative_to(repository).as_posix()}": file for file in files}
    assert held == contents.keys()
    assert all(wheel.read(name) == file.read_bytes() for name, file in contents.items())


def test_the_wheels_metadata(repository: Path, wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Version"] == sonomime.__version__
    assert set(metadata.get_all("License-File", [])) == {"LICENSE", "NOTICE"}
    base = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert [re.split(r"[<>=!~ ]", text)[0] for text in base] == requirements(repository)[""]
    (scripts,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "sonomime = sonomime.cli:main" in wheel.read(scripts).decode()


def test_extras(repository: Path) -> None:
    asked = requirements(repository)
    pins = re.findall(r"^([a-z0-9.-]+)==", (repository / "constraints.txt").read_text(), re.M)
    for extra in ("", "cpu", "train", "dev", "rtx", "docs"):  # what make installs
        assert set(asked[extra]) <= set(pins)
    for names in asked.values():  # both provide the module `onnxruntime`
        assert not {"onnxruntime", "onnxruntime-gpu"} <= set(names)


def test_no_file_leads_back_to_itself() -> None:
    graph = import_graph()
    assert "sonomime.runtime.session" in graph["sonomime.runtime.animator"]
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_nothing_is_imported_from_where_it_is_not_defined(repository: Path) -> None:
    """Except from a public face: a reader finds a name in the file that it is imported from."""
    assert second_hand(repository) == []


HEAVY = (
    "torch", "onnx", "onnxscript", "onnxruntime", "cv2", "av", "PIL", "tqdm", "yaml",
    "tensorrt_rtx_bindings",
)  # fmt: skip


def test_the_runtime_and_the_command_line_start_with_nothing_heavy(run_python: RunPython) -> None:
    code = f"""
import sys, sonomime.runtime
from sonomime.cli import main
assert main(["--help"]) == 0
print([name for name in {HEAVY!r} if name in sys.modules])"""
    status, output, errors = run_python(code)
    assert status == 0, errors
    assert output.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("wanted", "works", "words"),
    [
        ("AUTO", True, ["The TensorRT plugin is skipped", "a CUDA compiler"]),
        ("ON", False, ["cannot be built", "put nvcc on the PATH"]),
        ("OFF", True, ["as asked"]),
        ("perhaps", False, ["AUTO, ON or OFF"]),
    ],
)
def test_cmake_on_a_machine_without_cuda_and_tensorrt(
    wanted: str, works: bool, words: list[str], repository: Path, tmp_path: Path
) -> None:
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not installed")
    absent = ["-DCMAKE_CUDA_COMPILER=NOTFOUND", "-DNVINFER_INCLUDE_DIR=NOTFOUND"]
    wish = f"-DSONOMIME_BUILD_PLUGIN={wanted}"
    command = [cmake, "-S", str(repository), "-B", str(tmp_path), *absent, wish]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    output = " ".join((done.stdout + done.stderr).split())
    assert (done.returncode == 0) is works, output
    assert all(word in output for word in words)


def test_no_environment_result_or_half_written_file_is_kept(repository: Path) -> None:
    git = shutil.which("git")
    if git is None or not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    command = [git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    names = [name for name in done.stdout.split("\0") if name and (repository / name).exists()]
    bad = re.compile(
        r"^(\.venv|demo|site|runs|build|dist)/|__pycache__|\.part\.|\.egg-info/|^runtime/lib/"
    )
    assert [name for name in names if bad.search(name)] == []
    manifests = [name for name in names if Path(name).name == "manifest.json"]
    assert manifests in ([], ["runtime/default_bundle/manifest.json"]), "the only one"


def test_the_files_and_modules_that_the_docs_name_are_there(repository: Path) -> None:
    pages = [*repository.glob("*.md"), *(repository / "docs").glob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    rooms = "|".join(ROOMS)
    files = set(re.findall(rf"(?<![\w/])((?:{rooms})/[\w/]+\.py)\b", text))
    modules = set(re.findall(rf"python -m sonomime\.((?:{rooms})\.[\w.]+)", text))
    assert {"runtime/session.py", "training/trainer.py"} <= files and modules
    files |= {module.replace(".", "/") + ".py" for module in modules}
    there = (repository / file for file in files)
    absent = [file for file in there if not (file.exists() or file.with_suffix("").is_dir())]
    assert absent == []
