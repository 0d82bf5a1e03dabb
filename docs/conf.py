"""Sphinx: ``python -m sphinx docs docs/_build``."""

project = "pyramid_durable"
author = "pyramid_durable contributors"
root_doc = "index"
exclude_patterns = ["_build"]
html_theme = "alabaster"
