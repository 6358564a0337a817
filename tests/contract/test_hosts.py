"""A trainer's host runs without the server's packages, and a server's without the trainer's."""

import subprocess
import sys

import pytest

# Packages are hidden from the finder, as if they had never been installed; then every module is imported.
IMPORT_ALL = """
import importlib, pkgutil, sys
from importlib.machinery import PathFinder

package, *hidden = sys.argv[1:]

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
root = importlib.import_module(package)
names = [module.name for module in pkgutil.walk_packages(root.__path__, package + ".")]
for name in names:
    importlib.import_module(name)
assert not set(hidden) & set(sys.modules)
print(*names)
"""

HOSTS = {
    "student_trainer": ["fastapi", "grpc_health", "grpc_reflection", "prometheus_client", "redis", "uvicorn"],
    # httpx is not among them: the Hugging Face hub's client, and so transformers, needs it.
    "teacher_server": ["accelerate", "datasets", "matplotlib", "sklearn", "tensorboard"],
}


def import_all(package: str, hidden: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", IMPORT_ALL, package, *hidden]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("package", HOSTS)
def test_every_module_is_imported_without_the_others_packages(package):
    done = import_all(package, HOSTS[package])
    assert done.returncode == 0, done.stderr
    assert {f"{package}.__main__"} <= set(done.stdout.split())


def test_a_package_that_is_hidden_is_missed():
    done = import_all("teacher_api", ["grpc"])
    assert done.returncode != 0
    assert "No module named 'grpc'" in done.stderr
