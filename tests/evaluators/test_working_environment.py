import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from evolion.evaluators.working_environment import ROOMS, package_folder, working_environment

ROOT = Path(__file__).resolve().parents[2]
IMPORT = """
import sys
sys.path.insert(0, sys.argv[1])
import evolion, evolion.evaluators.evaluate
from evolion.discovered.library import known
from evolion.proxies.registry import TASKS
from evolion.evaluators.score_keys import _code
print(evolion.__file__, evolion.evaluators.evaluate.__file__, len(known()), len(TASKS), _code())
"""


def test_every_room_is_shipped() -> None:
    """A new room that is not listed would be missing on every node of a cluster."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    assert set(ROOMS) == {name.split(".")[1] for name in packages if "." in name}


def test_the_folder_is_the_whole_package(tmp_path: Path) -> None:
    """Workers that have no Evolion, or another one, run the code of the driver, data files included."""
    folder = package_folder(tmp_path)
    assert folder.name == "evolion"
    # Without the site's .pth files, so that an editable installation cannot step in; other libraries are found by path.
    paths = os.pathsep.join(path for path in sys.path if "site-packages" in path)
    command = [sys.executable, "-S", "-c", IMPORT, str(folder.parent)]
    found = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    face, room, *numbers = found.stdout.split()
    assert Path(face).parent == folder
    assert Path(room).parent == folder / "evaluators"
    from evolion.discovered.library import known
    from evolion.evaluators.score_keys import _code
    from evolion.proxies.registry import TASKS

    assert numbers == [str(len(known())), str(len(TASKS)), _code()]
    assert not list(folder.rglob("*_cache"))


def test_a_submitted_job_brings_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray refuses a driver that names modules when its job has named some already."""
    assert list(working_environment(tmp_path / "a")) == ["py_modules"]
    submitted = {"runtime_env": {"py_modules": ["gcs://evolion.zip"]}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(submitted))
    assert working_environment(tmp_path / "b") == {}
    for number, other in enumerate(
        ["{}", '{"runtime_env": null}', '{"runtime_env": {"working_dir": "x"}}', "no json", "[]"]
    ):
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", other)
        assert list(working_environment(tmp_path / str(number))) == ["py_modules"]
