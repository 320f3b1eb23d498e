"""Sphinx settings: `make docs` builds the pages with every warning an error."""

from importlib.metadata import version as version_of

project = "qzoo"
release = version = version_of("qzoo")
extensions = ["myst_parser", "sphinx_click", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"qzoo {version}"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
nitpicky = False
