"""What holds for the project as a whole, whichever room a file is in."""

import re
import shutil
import subprocess
import sys
import zipfile
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

HOME = re.compile(r"(?<![\w.])/(?:home|root|Users|work)/\w")
REGISTRY = re.compile(r"\b(?:pypi\.(?:org|io)|pythonhosted\.org|pytorch\.org/whl|anaconda\.org)")


def relative(path: Path) -> str:
    """The path as an assertion should show it."""
    return path.relative_to(ROOT).as_posix()


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
    report = {f"hwsearch/report/{name}" for name in ("front.schema.json", "report.md.j2")}
    assert {"hwsearch/py.typed", *report} <= set(names)
    assert not any("tests" in Path(name).parts for name in names)
