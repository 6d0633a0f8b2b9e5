import importlib.metadata
import importlib.resources
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

pytestmark = pytest.mark.installed


def loaded_by(statement: str, folder: Path) -> set[str]:
    """Names of the top-level modules in memory after one statement in a new Python process."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["ray", "torch", "jax", "flax", "optax", "sklearn", "scipy"])
def test_import_is_light(module: str, tmp_path: Path) -> None:
    """`import evolion` loads no heavy library: the command line answers at once."""
    assert module not in loaded_by("import evolion", tmp_path)


def test_search_and_the_language_need_no_jax(tmp_path: Path) -> None:
    """The import contracts hold at run time too, imports through libraries included."""
    statement = "import evolion.primitives.keys, evolion.primitives.parser, evolion.search.regularized_evolution"
    assert not loaded_by(statement, tmp_path) & {"jax", "jaxlib", "flax", "optax", "ray", "torch"}


def test_installed_version_is_the_declared_one() -> None:
    """`evolion.__version__`, the installed metadata and pyproject.toml agree."""
    import evolion

    assert evolion.__version__ == importlib.metadata.version("evolion") == PROJECT["version"]


def test_changelog_describes_the_version() -> None:
    """No version is released without its section."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in changelog
    assert f"## [{PROJECT['version']}]" in changelog


def test_package_is_marked_as_typed() -> None:
    """A type checker of a user reads our annotations."""
    assert importlib.resources.files("evolion").joinpath("py.typed").is_file()


def test_nothing_is_installed_beside_the_package() -> None:
    """No top-level module named search, tests or primitives lands in a user's environment."""
    files = importlib.metadata.distribution("evolion").files or []
    tops = {file.parts[0] for file in files if file.parts[0] != ".." and not file.parts[0].startswith("__editable__")}
    assert {top for top in tops if not top.endswith(".dist-info") and top != "__pycache__"} <= {"evolion"}
