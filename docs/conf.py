"""How the book is built:  sphinx-build -c docs . build/book

The source folder is the whole repository, so that a link between docs/ and notebooks/ is the same in the book, on a
code host and in an editor. Nothing is executed: notebooks are committed as they ran. Pages load nothing from a network.
"""

import sys
from pathlib import Path

import minillama

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "minillama"
author = copyright = "The minillama authors"
version = release = minillama.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "docstrings", "formulas"]
root_doc = "docs/index"
include_patterns = ["docs/**", "notebooks/*.ipynb"]
exclude_patterns = [".*", "**/.*", "**/__pycache__", "build", "dist", "tests"]

suppress_warnings = ["ref.python"]  # two rooms have a class of the same name, and annotations name them in short
highlight_language = "none"

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "dollarmath", "attrs_block"]
myst_heading_anchors = 3
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "minillama"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_extra_path = ["root"]
html_copy_source = False
html_math_renderer = "drawings"
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "monokai"
