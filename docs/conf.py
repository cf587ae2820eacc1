"""How the documentation site looks; `tools/documentation.py` gathers its pages."""

import ramer
from docutils.nodes import SkipNode
from latex2mathml.converter import convert

project = html_title = "ramer"
author = "ramer authors"
version = release = ramer.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
root_doc = "docs/index"
nb_execution_mode = "off"  # outputs are committed
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
add_module_names = False
toc_object_entries = False  # a menu of modules, not of every function
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"exclude-members": "set_fit_request, set_score_request"}
default_role = "py:obj"  # a name in backticks is a link where it is known
html_theme = "furo"
html_show_sphinx = html_show_copyright = False
html_show_search_summary = False  # it fetches pages, which a browser refuses for files
html_math_renderer = "mathml"
SPECIAL = str.maketrans({"*": r"\*", "|": r"\|", "_": r"\_"})


def escaped(line):
    "A line of a docstring, whose signs mean nothing outside of backticks."
    parts = line.split("`")
    parts[::2] = [part.translate(SPECIAL) for part in parts[::2]]
    return "`".join(parts)


def as_paragraphs(app, what, name, obj, options, lines):
    """Docstrings are plain prose, and an indented block after a blank line is code.

    A line that goes on under another one, indented, belongs to its paragraph.
    """
    shown = []
    is_code = False
    for before, line in zip(["", *lines], list(lines)):
        indented = line.startswith(" ")
        if indented and not before.strip() and not is_code:
            shown += ["::", ""]
            is_code = True
        is_code = is_code and (indented or not line.strip())
        shown.append(line if is_code else escaped(line.lstrip()))
    lines[:] = shown


def is_field_of_a_tuple(app, what, name, obj, skip, options):
    "Fields of a NamedTuple are described with it."
    return skip or str(getattr(obj, "__doc__", "")).startswith("Alias for field number")


def write_mathml(display):
    "A visitor that writes a formula as MathML, which browsers show without a script."

    def visit(translator, node):
        translator.body.append(convert(node.astext(), display=display))
        raise SkipNode

    return visit


def setup(app):
    app.connect("autodoc-process-docstring", as_paragraphs)
    app.connect("autodoc-skip-member", is_field_of_a_tuple)
    inline, block = write_mathml("inline"), write_mathml("block")
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
