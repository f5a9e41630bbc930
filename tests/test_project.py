"""What holds for the project as a whole, whichever room a file is in."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "hwsearch").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))

#: Folders of the project; what else lies in a checkout is not ours (.venv, caches, run folders).
FOLDERS = (".ci", "benchmarks", "docs", "hw_profiles", "hwsearch", "search_spaces", "tests")
TEXT_SUFFIXES = {"", ".csv", ".json", ".md", ".py", ".toml", ".typed", ".yaml", ".yml"}

#: Modules that read or write pickle, or whose files hold one.
PICKLES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}

HOME = re.compile(r"(?<![\w.])/(?:home|root|Users|work)/\w")
REGISTRY = re.compile(r"\b(?:pypi\.(?:org|io)|pythonhosted\.org|pytorch\.org/whl|anaconda\.org)")


def relative(path: Path) -> str:
    """The path as an assertion should show it."""
    return path.relative_to(ROOT).as_posix()


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, object]]]:
    """Each call: the dotted name of what is called, and its constant keyword arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            constants: dict[str, object] = {
                keyword.arg: keyword.value.value
                for keyword in node.keywords
                if keyword.arg is not None and isinstance(keyword.value, ast.Constant)
            }
            yield ast.unparse(node.func), constants


def imported(tree: ast.AST) -> Iterator[str]:
    """The top-level package of each import, of those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def dangers(source: str) -> list[str]:
    """Ways in which a source could run code from a file that it reads."""
    tree = ast.parse(source)
    found = [f"imports {name}" for name in imported(tree) if name in PICKLES]
    for name, constants in calls(tree):
        if name in {"yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"}:
            found.append(f"calls {name}")
        if name == "torch.load" and constants.get("weights_only") is not True:
            found.append("torch.load without weights_only=True")
        if constants.get("weights_only") is False or constants.get("allow_pickle") is True:
            found.append(f"{name} may read a pickle")
    return found


def project_texts() -> list[Path]:
    """Every text file of the project, of its top level too."""
    inside = (path for name in FOLDERS for path in (ROOT / name).rglob("*"))
    results = ROOT / "results" / "README.md"
    return sorted(
        path
        for path in (*ROOT.iterdir(), *inside, results)
        if path.is_file()
        and path.suffix in TEXT_SUFFIXES
        # In a worktree .git is a file, which names the folder of the repository.
        and path.name != ".git"
        and "__pycache__" not in path.parts
    )


def in_files(paths: list[Path], pattern: re.Pattern[str]) -> list[str]:
    """Each line of the files that the pattern is found in, as "file:line"."""
    return [
        f"{relative(path)}:{number}"
        for path in paths
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]


def test_the_files_of_each_folder_are_found() -> None:
    assert len(SOURCES) > 30
    assert len(TESTS) > 20
    assert BENCHMARKS
    names = {relative(path) for path in project_texts()}
    assert {"pyproject.toml", "LICENSE", ".ci/run", "results/README.md"} <= names
    assert {"hwsearch/errors.py", "search_spaces/tiny.yaml", "tests/test_project.py"} <= names
    assert not any(name.startswith(".venv") for name in names)


def test_no_source_reads_what_could_run_code() -> None:
    found = {relative(path): dangers(path.read_text("utf-8")) for path in SOURCES}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
    ],
)
def test_danger_is_seen_when_it_is_there(source: str) -> None:
    assert len(dangers(source)) >= 1


def test_safe_readers_are_no_danger() -> None:
    source = "import yaml\nyaml.safe_load(text)\ntorch.load(path, weights_only=True)"
    assert dangers(source) == []


def test_no_file_names_a_folder_of_one_machine() -> None:
    assert in_files(project_texts(), HOME) == []
    assert HOME.search("cp x /" + "home/me") is not None


def test_no_file_names_a_package_registry() -> None:
    assert in_files(project_texts(), REGISTRY) == []
    assert REGISTRY.search("https://" + "pypi." + "org/simple") is not None


def test_imports_have_no_cycle() -> None:
    # Those inside functions count: a cycle that is put off is still a cycle.
    graph = grimp.build_graph("hwsearch", exclude_type_checking_imports=True, cache_dir=None)
    assert len(graph.modules) >= len(SOURCES)
    edges = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + " <- ".join(error.args[1]))


def test_no_name_of_a_test_file_is_used_twice() -> None:
    # Without __init__.py in the folders of tests, pytest imports them by that name.
    names = [path.name for path in TESTS if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))


@pytest.mark.slow
def test_the_wheel_holds_the_packaged_files_and_no_tests(tmp_path: Path) -> None:
    # Built from a copy, so that nothing is left in the checkout.
    checkout = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("hwsearch", "search_spaces", "hw_profiles", "tests"):
        shutil.copytree(ROOT / name, checkout / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout / name)
    # Without hatchling here, pip fetches it into a build environment of its own.
    isolation = ["--no-build-isolation"] if find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "wheel", "-q", ".", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*command, *isolation], cwd=checkout, check=True, timeout=300)
    [wheel] = tmp_path.glob("hwsearch-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for packaged in ("search_spaces", "hw_profiles"):
        shipped = {f"hwsearch/{packaged}/{path.name}" for path in (ROOT / packaged).glob("*.yaml")}
        assert shipped <= set(names)
    assert "hwsearch/search_spaces/tiny.yaml" in names
    assert "hwsearch/hw_profiles/jetson-orin-nano.yaml" in names
    assert {"hwsearch/py.typed", "hwsearch/report/front.schema.json"} <= set(names)
    assert not any("tests" in Path(name).parts for name in names)
