"""The order of reading is the order of dependence, every definition is shown and tested, and nothing unsafe or local slips in."""
import ast, json, re, statistics, subprocess, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {p.stem: json.loads(p.read_text())["cells"] for p in sorted((ROOT/"nbs").glob("*.ipynb"))}
MODULES = {p.stem: ast.parse(p.read_text()) for p in sorted((ROOT/"ramer").glob("*.py")) if p.stem not in ("__init__", "_modidx")}
ASSERTION = re.compile(r"\bassert\b|\btest_\w+\(|\bexits_with\(")
FORBIDDEN = re.compile(r"pickle\.loads?\(|allow_pickle\s*=\s*True|weights_only\s*=\s*False|(?<![\w.])(?:eval|exec)\(")


def source(cell): return "".join(cell["source"])


def exported_module(cells):
    "The module that a notebook exports."
    return re.search(r"#\| default_exp (\S+)", "\n".join(map(source, cells)))[1]


NUMBER = {exported_module(cells): int(name[:2]) for name, cells in NOTEBOOKS.items()}


def functions():
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)): yield f"{name}.{node.name}", node


def test_every_module_comes_from_a_notebook(): assert set(MODULES) == set(NUMBER)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_modules_of_earlier_notebooks(module):
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("ramer.")):
            imported = (node.module or "").removeprefix("ramer.")
            assert NUMBER[imported] < NUMBER[module], f"{module} imports {imported}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_opens_with_a_title_and_one_sentence(name):
    lines = source(NOTEBOOKS[name][0]).splitlines()
    assert lines[0].startswith("# ") and lines[1].startswith("> ")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_section_that_exports_also_asserts(name):
    untested = None
    for cell in [*NOTEBOOKS[name], {"cell_type": "markdown", "source": ["# end"]}]:
        text = source(cell)
        if cell["cell_type"] == "code" and "#| export" in text and re.search(r"^(def|class) ", text, re.M): untested = text.splitlines()[1]
        elif cell["cell_type"] == "code" and ASSERTION.search(text): untested = None
        elif cell["cell_type"] == "markdown" and re.match(r"## |# end", text): assert not untested, f"nothing tests the section of {untested}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_cell_that_shows_nothing_and_exports_nothing_asserts_something(name):
    for cell in NOTEBOOKS[name]:
        text = source(cell)
        if cell["cell_type"] != "code" or cell["outputs"] or re.search(r"#\| (export|hide|default_exp)", text): continue
        assert ASSERTION.search(text) or re.fullmatch(r"(shutil\.rmtree|def )[\s\S]*", text) or "= " in text, text


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_shows_its_outputs(name): assert any(cell.get("outputs") for cell in NOTEBOOKS[name])


def test_public_definitions_have_docstrings():
    bare = [name for name, node in functions() if not node.name.startswith("_") and not ast.get_docstring(node) and name.split(".")[-1] not in inner()]
    assert not bare, bare


def inner():
    "Names of functions that are defined inside functions: they are part of their outer one's story."
    return {n.name for _, outer in functions() if isinstance(outer, ast.FunctionDef) for n in ast.walk(outer) if isinstance(n, ast.FunctionDef) and n is not outer}


def test_functions_are_short():
    lengths = [node.end_lineno - node.body[bool(ast.get_docstring(node)) and len(node.body) > 1].lineno + 1 for _, node in functions() if isinstance(node, ast.FunctionDef)]
    assert statistics.median(lengths) < 10 and max(lengths) <= 30, sorted(lengths)[-5:]


@pytest.mark.parametrize("module", MODULES)
def test_no_unsafe_reading_and_no_printing(module):
    text = (ROOT/"ramer"/f"{module}.py").read_text()
    assert not FORBIDDEN.search(text) and not re.search(r"(?<![\w.])print\(", text)


def test_importing_everything_needs_no_development_tool():
    code = (f"import importlib, sys; [importlib.import_module('ramer.' + m) for m in {[m for m in MODULES if m != '__main__']}]; "
            "print([m for m in ('nbdev', 'fastcore', 'execnb', 'IPython', 'papermill', 'jupyterlab') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_no_tracked_file_names_a_machine_or_a_registry():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode: pytest.skip("not a clone")
    local = re.compile(r"/" + r"work/|/" + r"root/|/" + r"tmp/[a-z]|files\.python" + r"hosted|//py" + r"pi\.org")
    texts = [p for p in map(ROOT.joinpath, tracked.stdout.split()) if p.suffix in (".py", ".ipynb", ".md", ".toml", ".ini", ".lock", ".csv", ".jsonl", ".cff", ".txt", "")]
    assert not [p.name for p in texts if p.is_file() and local.search(p.read_text(errors="ignore"))]
