"""The order of reading is the order of dependence, every definition is shown and tested, lines
stay readable, and nothing unsafe or local slips in."""

import ast
import importlib
import inspect
import re
import statistics
import subprocess
import sys

import pytest
from house import (
    COMPREHENSIONS,
    MODULES,
    NOTEBOOKS,
    NUMBER,
    PATHS,
    ROOT,
    branches,
    code_lines,
    definitions,
    exports,
    functions,
    imported_modules,
    module_path,
    nested,
    source,
    statements,
)

ASSERTION = re.compile(r"\bassert\b|\btest_\w+\(|\bexits_with\(")
FORBIDDEN = re.compile(
    r"pickle\.loads?\(|allow_pickle\s*=\s*True|weights_only\s*=\s*False|(?<![\w.])(?:eval|exec)\("
)
SET_UP = re.compile(r"(shutil\.rmtree|def )[\s\S]*")
NOTEBOOK_NAME = re.compile(r"(?<![\w./-])\d\d_[a-z][a-z_]+")
WRONG_WORDS = re.compile(
    r"\b(persons?|strangers?|whoever|nobody|voices?|clues?|strain|told|blur(?:red|ring|s)?)\b", re.I
)


def test_every_module_comes_from_a_notebook_in_the_folder_of_its_package():
    found = {path.relative_to(ROOT / "ramer") for path in (ROOT / "ramer").rglob("*.py")}
    ours = {path for path in found if path.name not in ("__init__.py", "_modidx.py")}
    assert {module_path(name).relative_to(ROOT / "ramer") for name in NUMBER} == ours
    for path in PATHS:
        name = next(name for name, number in NUMBER.items() if number == int(path.name[:2]))
        assert path.parent == ROOT / "nbs" / "/".join(name.split(".")[:-1])
    assert sorted(NUMBER.values()) == list(range(len(NUMBER)))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_modules_of_earlier_notebooks(module):
    for imported in imported_modules(module):
        assert NUMBER[imported] < NUMBER[module], f"{module} imports {imported}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_opens_with_a_title_and_one_sentence(name):
    lines = source(NOTEBOOKS[name][0]).splitlines()
    assert lines[0].startswith("# ") and lines[1].startswith("> ")
    assert source(NOTEBOOKS[name][-1]).startswith("**Handed on:**")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_section_that_exports_also_asserts(name):
    untested = None
    for cell in [*NOTEBOOKS[name], {"cell_type": "markdown", "source": ["# end"]}]:
        text = source(cell)
        if exports(cell) and re.search(r"^(def|class) ", text, re.M):
            untested = text.splitlines()[1]
        elif cell["cell_type"] == "code" and ASSERTION.search(text):
            untested = None
        elif cell["cell_type"] == "markdown" and re.match(r"## |# end", text):
            assert not untested, f"nothing tests the section of {untested}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_cell_that_shows_nothing_and_exports_nothing_asserts_something(name):
    for cell in NOTEBOOKS[name]:
        text = source(cell)
        if cell["cell_type"] != "code" or cell["outputs"]:
            continue
        if re.search(r"#\| (export|hide|default_exp)", text):
            continue
        assert ASSERTION.search(text) or SET_UP.fullmatch(text) or "= " in text, text


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_shows_a_figure_or_a_table(name):
    outputs = [output for cell in NOTEBOOKS[name] for output in cell.get("outputs", ())]
    assert any({"image/png", "text/html"} & set(o.get("data", ())) for o in outputs) or any(
        o.get("output_type") == "stream" for o in outputs
    )


def inner_functions():
    "Names of functions inside functions: they are part of the outer one's story."
    return {
        inner.name
        for _, outer in functions()
        for inner in ast.walk(outer)
        if isinstance(inner, ast.FunctionDef) and inner is not outer
    }


def test_public_definitions_have_docstrings():
    inner = inner_functions()
    public = [(name, node) for name, node in definitions() if not node.name.startswith("_")]
    bare = [n for n, node in public if not ast.get_docstring(node) and node.name not in inner]
    assert not bare, bare


def test_a_function_does_one_thing_in_few_statements_and_branches():
    counted = {name: (statements(node), branches(node)) for name, node in functions()}
    assert statistics.median(count for count, _ in counted.values()) < 10
    assert not {name: n for name, n in counted.items() if n[0] > 20 or n[1] > 10}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_exported_cell_has_more_than_sixty_lines(name):
    lengths = [len(source(cell).splitlines()) for cell in NOTEBOOKS[name] if exports(cell)]
    assert max(lengths, default=0) <= 60, lengths


def test_an_expression_holds_one_thought():
    lines = sum(len(code_lines(name)) for name in MODULES)
    comprehensions = [n for tree in MODULES.values() for n in nested(tree, COMPREHENSIONS)]
    assert 1000 * len(comprehensions) <= lines, len(comprehensions)
    choices = {name: nested(tree, ast.IfExp) for name, tree in MODULES.items()}
    assert not any(choices.values()), {name: found for name, found in choices.items() if found}


def test_a_line_holds_what_a_line_of_our_models_holds():
    nodes = sum(1 for tree in MODULES.values() for _ in ast.walk(tree))
    lines = sum(len(code_lines(name)) for name in MODULES)
    assert nodes / lines < 9, nodes / lines


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_prose_uses_the_words_of_the_field(name):
    prose = [source(cell) for cell in NOTEBOOKS[name] if cell["cell_type"] == "markdown"]
    found = [match[0] for text in prose for match in WRONG_WORDS.finditer(text)]
    assert not found, found


def test_a_notebook_that_is_named_exists():
    files = [*PATHS, *ROOT.glob("*.md"), *(ROOT / "nbs" / "experiments").glob("*.ipynb")]
    for path in files:
        for name in NOTEBOOK_NAME.findall(path.read_text()):
            assert name in NOTEBOOKS, f"{path.name} names {name}"


def public_functions():
    "(public name, function) of every function that a public name is or holds."
    import ramer

    for name in ramer.__all__:
        held = getattr(ramer, name)
        if inspect.isfunction(held):
            yield name, held
        if inspect.isclass(held):
            yield from ((name, member) for member in vars(held).values())


def test_the_public_names_are_there_and_typed():
    for name, function in public_functions():
        ours = inspect.isfunction(function) and function.__module__.startswith("ramer.")
        if not ours or function.__name__.startswith("_"):
            continue
        named = set(inspect.signature(function).parameters) - {"self", "cls"}
        missing = {*named, "return"} - set(function.__annotations__)
        assert not missing, f"{name}: {function.__qualname__} lacks types for {missing}"


def test_importing_ramer_takes_no_library_until_a_name_is_asked_for():
    code = "import ramer, sys; print('torch' in sys.modules, 'pandas' in sys.modules); ramer.Clips"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    import ramer

    with pytest.raises(AttributeError, match="did you mean 'RetrievalStore'"):
        ramer.RetrivalStore  # noqa: B018
    assert set(ramer.__all__) <= set(dir(ramer))


@pytest.mark.parametrize("module", MODULES)
def test_no_unsafe_reading_and_no_printing(module):
    text = module_path(module).read_text()
    assert not FORBIDDEN.search(text) and not re.search(r"(?<![\w.])print\(", text)


def test_importing_everything_needs_no_development_tool():
    names = [f"ramer.{name}" for name in MODULES if name != "__main__"]
    tools = ("nbdev", "fastcore", "execnb", "IPython", "papermill", "jupyterlab")
    code = (
        f"import importlib, sys; [importlib.import_module(name) for name in {names}]; "
        f"print([tool for tool in {tools} if tool in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert all(importlib.util.find_spec(name) for name in names)


def test_no_tracked_file_names_a_machine_or_a_registry():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a clone")
    folders = ["/" + name for name in ("work/", "root/", "tmp/[a-z]")]
    hosts = ["files.python" + "hosted", "//py" + "pi.org"]
    local = re.compile("|".join([*folders, *hosts]))
    kinds = {".py", ".ipynb", ".md", ".toml", ".ini", ".lock", ".csv", ".jsonl", ".cff", ".txt", ""}
    paths = [ROOT / name for name in tracked.stdout.split()]
    texts = [path for path in paths if path.suffix in kinds and path.is_file()]
    assert not [path.name for path in texts if local.search(path.read_text(errors="ignore"))]
