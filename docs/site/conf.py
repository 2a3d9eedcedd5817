"""Sphinx's settings. ``build.py`` writes the folder of sources, and course.json with what it knows of the lessons."""

import json
import os
from pathlib import Path

_course = json.loads((Path(os.environ["COURSE_SITE_SOURCES"]).parent / "course.json").read_text(encoding="utf-8"))

project = "From RNN to LSTM"
author = "The authors of the course"
copyright = "the authors of the course, MIT licence"
extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx.ext.viewcode", "site_extension"]
language = "en"
smartquotes = False  # an apostrophe in dL/dh' is a prime
html_context = {"default_mode": "auto"}
html_favicon = str(Path(__file__).parent / "static/favicon.svg")
html_title = project
nitpicky = True
_pages = "|".join(_course["modules"])
nitpick_ignore_regex = [("py:.*", rf"(?!course_lib\.({_pages})\b).*")]  # types of Python, NumPy and torch have no pages here

# Lessons are shown as they were executed.
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}  # explorers show their picture; the scripts of widgets would come from a CDN
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

# MathJax and its fonts lie beside the pages. No menu: it would stop the tab key at every formula.
mathjax_path = "mathjax/tex-chtml-full.js"
mathjax3_config = {
    "tex": {"packages": {"[-]": ["noundefined"]}},  # an unknown command is an error, not red text
    "options": {"enableMenu": False},
}

python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"
modindex_common_prefix = ["course_lib."]
viewcode_line_numbers = True
viewcode_follow_imported_members = False  # a constant leads to no module of Python's

html_theme = "pydata_sphinx_theme"
html_static_path = [str(Path(__file__).parent / "static"), _course["mathjax"]]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_sidebars = {"index": [], "notation": []}
html_theme_options = {
    "logo": {"text": project},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 7,
    "navigation_depth": 2,
    "show_toc_level": 2,
    "show_prev_next": True,
    "use_edit_page_button": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
course_equations = _course["equations"]
course_lessons = _course["lessons"]
