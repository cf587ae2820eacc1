"""Build the documentation site of pages, notebooks, docstrings and results, without a network."""

import argparse
import importlib
import inspect
import json
import os
import re
import shutil
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)]*)?\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)\s]+)\)")
NAME = re.compile(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)")
NOTEBOOK = re.compile(r"(?<![\w./\[`-])\d\d_[a-z]\w*(?![\w.`\]])")
DIRECTIVE = re.compile(r"^#\|\s*(\w+).*\n?", re.M)
ORPHAN = "---\norphan: true\n---\n\n"
UNSEEN = {"hide", "default_exp"}
CONTEST = "each method, mean over the conditions with something missing, with 95 % intervals"
KINDS = {
    "heat": "WA of each method under each condition",
    "confidence": "how far probabilities can be trusted",
}


def page_paths():
    "The Markdown pages of the repository, below its root."
    found = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    found += [*(ROOT / "docs").glob("*.md"), ROOT / "examples" / "README.md"]
    return sorted([*found, *(ROOT / "results").rglob("*.md")])


def notebook_paths():
    found = (ROOT / "nbs").rglob("*.ipynb")
    return sorted(path for path in found if ".ipynb_checkpoints" not in path.parts)


def exported_names():
    "{module: full names} of what each module exports, by nbdev's index."
    return importlib.import_module("ramer._modidx").d["syms"]


def known_names():
    "{name: full name} of what modules export; a name that two modules have is not known."
    homes = defaultdict(list)
    for module, names in exported_names().items():
        for full in names:
            homes[full.removeprefix(f"{module}.")].append(full)
    return {name: full[0] for name, full in homes.items() if len(full) == 1 and "__" not in name}


def linked_names(text, names):
    "The text with a link to the reference from each name in backticks that is known."

    def link(match):
        full = names.get(match[1].removeprefix("ramer."))
        return f"{{py:obj}}`{match[1]} <{full}>`" if full else match[0]

    return NAME.sub(link, text)


def linked_notebooks(text, places):
    "The text with a link to each notebook that it names, as in (03_clips)."

    def link(match):
        place = places.get(match[0])
        return f"{{doc}}`{match[0]} <{place}>`" if place else match[0]

    return NOTEBOOK.sub(link, text)


def without_folders(text, page):
    "The text whose links to folders lead to the README there, or are plain words."

    def lead(match):
        target = (page.parent / match[2]).resolve()
        if not target.is_dir():
            return match[0]
        if (target / "README.md").exists() and target != page.parent:
            return f"[{match[1]}]({match[2].rstrip('/')}/README.md)"
        return match[1]

    return LINK.sub(lead, text)


def shown_cell(cell, names, places):
    "A notebook's cell as a reader sees it, or None: without directives, with links."
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return cell | {"source": linked_notebooks(linked_names(source, names), places)}
    if UNSEEN & set(DIRECTIVE.findall(source)):
        return None
    source = DIRECTIVE.sub("", source)
    return cell | {"source": source} if source.strip() else None


def copy_notebook(path, target, names, places):
    notebook = json.loads(path.read_text())
    cells = [shown_cell(cell, names, places) for cell in notebook["cells"]]
    notebook["cells"] = [cell for cell in cells if cell is not None]
    notebook["metadata"]["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(notebook))


def copy_page(path, target):
    "Copy a page; those of one study or one table are reached from others, not from the menu."
    inner = len(path.relative_to(ROOT).parts) > 3 or path.parent.name == "tables"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(inner * ORPHAN + without_folders(path.read_text(), path))


def copy_linked_files(page, source):
    "Copy the files that a page shows or links to, where they are no pages themselves."
    text = page.read_text()
    targets = [match[2] for match in [*LINK.finditer(text), *IMAGE.finditer(text)]]
    for target in targets:
        path = (page.parent / target).resolve()
        copy = source / path.relative_to(ROOT)
        if path.is_file() and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def summary(thing):
    "The first line of a definition's docstring."
    return (inspect.getdoc(thing) or "").split("\n")[0]


def public_names():
    "A table of the names at the top of the package, with what each is."
    ramer = importlib.import_module("ramer")
    rows = []
    for name in sorted(ramer.__all__, key=str.lower):
        thing = getattr(ramer, name)
        module = getattr(thing, "__module__", None)
        link = f"{{py:obj}}`{name} <{module}.{name}>`" if inspect.getmodule(thing) else f"`{name}`"
        line = summary(thing) if callable(thing) else "The methods by their names."
        rows.append(f"| {link} | {line.replace('|', chr(92) + '|')} |")
    return "\n".join(["| `ramer.` | is |", "|---|---|", *rows])


def write_modules(folder):
    "A page for each module, of its docstrings."
    for name in sorted(exported_names()):
        rst = f".. automodule:: {name}\n   :members:\n   :undoc-members:\n   :ignore-module-all:"
        (folder / f"{name}.md").write_text(f"# {name}\n\n```{{eval-rst}}\n{rst}\n```\n")


def command_help(words):
    "What a command says of itself, at 80 columns."
    from typer.testing import CliRunner

    from ramer.cli import app

    width = {"COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [*words, "--help"], env=width, prog_name="ramer").output


def commands():
    "The words of every command: ['train'], ['data', 'inspect'], …"
    from typer.main import get_command

    from ramer.cli import app

    found = []
    for name, command in sorted(get_command(app).commands.items()):
        inner = getattr(command, "commands", {})
        found += [[name, sub] for sub in sorted(inner)] or [[name]]
    return found


def write_commands(page):
    parts = ["# Commands", "What `ramer COMMAND --help` says."]
    for words in commands():
        parts.append(f"## ramer {' '.join(words)}")
        parts.append(f"```text\n{command_help(words).strip()}\n```")
    page.write_text("\n\n".join(parts) + "\n")


def write_reference(folder):
    folder.mkdir(parents=True)
    write_modules(folder)
    write_commands(folder / "commands.md")
    intro = "# Names at the top\n\nWhat `import ramer` gives; each is described where it is made."
    (folder / "names.md").write_text(f"{intro}\n\n{public_names()}\n")


def caption_of(name):
    "What a figure that no page shows is, by its name, as in mosi-heat."
    dataset, _, kind = name.rpartition("-")
    if kind in KINDS:
        return f"{dataset}: {KINDS[kind]}"
    if (ROOT / "results" / "runs" / name).is_dir():
        return f"{name}: {CONTEST}"
    return name.replace("-", " ")


def captioned_figures():
    "(path below results/, caption, page or None) of every figure, those of pages first."
    results = ROOT / "results"
    seen = {}
    for page in page_paths():
        for alt, target in IMAGE.findall(page.read_text()):
            path = (page.parent / target).resolve()
            if results in path.parents:
                seen.setdefault(path.relative_to(results), (alt, page.relative_to(ROOT)))
    for path in sorted((results / "figures").glob("*.png")):
        seen.setdefault(path.relative_to(results), (caption_of(path.stem), None))
    return [(path, *rest) for path, rest in seen.items()]


def write_gallery(page, source):
    "A page of every figure of results/, with what it shows and where it is discussed."
    explored = '<a href="../explore/index.html">All numbers, on one page with filters</a>.'
    drawn = "Each figure is drawn from lines in `results/runs/` by `ramer report`."
    parts = ["# Gallery", f"{drawn} {explored}"]
    for path, caption, discussed in captioned_figures():
        copy = source / "results" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "results" / path, copy)
        page_name = f"/{discussed.with_suffix('')}" if discussed else ""
        more = f"; {{doc}}`discussed here <{page_name}>`" if discussed else ""
        parts.append(f"## {caption}\n\n![{caption}]({path})\n\n`results/{path}`{more}")
    page.write_text("\n\n".join(parts) + "\n")


def gather(source):
    "Put everything that Sphinx reads into a new folder, laid out as the repository is."
    names = known_names()
    for path in page_paths():
        copy_page(path, source / path.relative_to(ROOT))
    places = {path.stem: f"/{path.relative_to(ROOT).with_suffix('')}" for path in notebook_paths()}
    for path in notebook_paths():
        copy_notebook(path, source / path.relative_to(ROOT), names, places)
    write_reference(source / "reference")
    write_gallery(source / "results" / "gallery.md", source)
    for path in [*page_paths(), *notebook_paths()]:
        copy_linked_files(path, source)


def build(source, html):
    "Run Sphinx, for which a warning is an error; returns its exit status."
    from sphinx.cmd.build import build_main

    options = ["-q", "-W", "--keep-going", "-c", str(ROOT / "docs")]
    doctrees = ["-d", str(html.parent / "doctrees")]
    status = build_main([*options, *doctrees, str(source), str(html)])
    if status == 0:
        to = "docs/index.html"
        (html / "index.html").write_text(
            f'<!doctype html><meta charset="utf-8"><title>ramer</title>'
            f'<meta http-equiv="refresh" content="0; url={to}"><a href="{to}">ramer</a>\n'
        )
    return status


def main(arguments=None):
    from ramer.report.explorer import write_page

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="a folder, made anew")
    out = parser.parse_args(arguments).out.resolve()
    if out.exists() and not (out / "html").is_dir():
        parser.error(f"{out} is there and holds no site; name another folder")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    shutil.rmtree(out, ignore_errors=True)
    (out / "html").mkdir(parents=True)
    gather(out / "source")
    status = build(out / "source", out / "html")
    if status == 0:
        write_page(ROOT / "results", out / "html" / "explore")
        print(f"{out / 'html' / 'index.html'}: open it in a browser")
    return status


if __name__ == "__main__":
    sys.exit(main())
