"""The library as its files show it: notebooks, the modules they export, what is counted in them."""

import ast
import json
import re
import runpy
import shutil
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = [Requirement(text).name for text in PROJECT["project"]["dependencies"]]
OPTIONAL = PROJECT["project"]["optional-dependencies"]
PATHS = sorted((ROOT / "nbs").rglob("[0-9][0-9]_*.ipynb"), key=lambda path: path.name)
NOTEBOOKS = {path.stem: json.loads(path.read_text())["cells"] for path in PATHS}
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
BRANCHES = (ast.If, ast.For, ast.While, ast.IfExp, ast.BoolOp, ast.Try, ast.comprehension)


def source(cell):
    return "".join(cell["source"])


def exports(cell):
    return cell["cell_type"] == "code" and bool(re.search(r"^#\| export", source(cell), re.M))


def exported_module(cells):
    "The module that a notebook exports, such as data.clips."
    return re.search(r"#\| default_exp (\S+)", "\n".join(map(source, cells)))[1]


def module_path(name):
    return ROOT / "ramer" / f"{name.replace('.', '/')}.py"


NUMBER = {exported_module(cells): int(stem[:2]) for stem, cells in NOTEBOOKS.items()}
MODULES = {name: ast.parse(module_path(name).read_text()) for name in NUMBER}


def definitions():
    "(module.name, node) of every class and function, inner ones included."
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                yield f"{name}.{node.name}", node


def functions():
    return [(name, node) for name, node in definitions() if isinstance(node, ast.FunctionDef)]


def body(function):
    "What a function does, its docstring aside."
    described = ast.get_docstring(function) is not None
    return function.body[1:] if described else function.body


def walked(nodes):
    return [inner for node in nodes for inner in ast.walk(node)]


def statements(function):
    return sum(isinstance(node, ast.stmt) for node in walked(body(function)))


def branches(function):
    return sum(isinstance(node, BRANCHES) for node in walked(body(function)))


def nested(tree, kinds):
    "The nodes of some kinds that hold another one."
    found = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    return [n for n in found if any(isinstance(k, kinds) for k in ast.walk(n) if k is not n)]


def imported_modules(name):
    "The project's modules that a module imports, wherever it does."
    package = name.split(".")[:-1]
    for node in ast.walk(MODULES[name]):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = package[: len(package) - (node.level - 1)]
            yield ".".join([*base, *([node.module] if node.module else [])])
        elif (node.module or "").startswith("ramer."):
            yield node.module.removeprefix("ramer.")


def code_lines(name):
    "A module's lines of code, without blank ones and nbdev's own."
    text = module_path(name).read_text()
    text = re.sub(r"^__all__ = \[.*?\]$", "", text, flags=re.M | re.S)
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def left_out(folder, names):
    "What a copy of the repository leaves out: hidden and built files, and runs at its top."
    built = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")(folder, names)
    return built | ({"build", "dist", "runs"} & set(names) if Path(folder) == ROOT else set())


def needed(names):
    "{name: distribution} of packages and of all that they need, extras aside, as installed here."
    found = {}
    asked = list(names)
    while asked:
        package = distribution(asked.pop())
        if package.name not in found:
            found[package.name] = package
            needs = map(Requirement, package.requires or [])
            asked += [r.name for r in needs if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def built_wheel(home):
    "A wheel of a copy of the repository, built below a folder."
    shutil.copytree(ROOT, home / "tree", ignore=left_out)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
    command = [*build, str(home / "dist"), str(home / "tree")]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = (home / "dist").glob("*.whl")
    return wheel


def installed_wheel(home, names):
    """Where the programs are of an environment below a folder, with the wheel and nothing else.

    names: the packages it needs, which are linked from here with all that they need.
    """
    wheel = built_wheel(home)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / "env")], check=True)
    [site] = (home / "env" / "lib").glob("python*/site-packages")
    pip = [sys.executable, "-m", "pip"]
    target = [*pip, "--python", str(home / "env/bin/python"), "install", "-q", "--no-index"]
    subprocess.run([*target, "--no-deps", str(wheel)], check=True, capture_output=True)
    for package in needed(names).values():
        for name in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(package.locate_file(name))
    return home / "env" / "bin"


def page_blocks(page, language=None):
    "(language, text) of each block of code of a page below the root; or texts of one language."
    text = (ROOT / page).read_text()
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    return found if language is None else [block for kind, block in found if kind == language]


def imported(script):
    "The names that a script below the root, of tools or benchmarks, defines."
    return runpy.run_path(str(ROOT / script), run_name="imported")


def as_sent(clips, **more):
    "Clips as they are sent to a service. more: what each has beside its id and features."
    rows = range(len(clips))
    features = [{m: x[row].tolist() for m, x in clips.features.items()} for row in rows]
    return [{"id": str(clips.ids[row]), "features": features[row]} | more for row in rows]


def free_port():
    "A port of this machine that no program listens on."
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
