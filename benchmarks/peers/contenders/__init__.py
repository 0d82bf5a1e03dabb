"""One folder for each library: what is installed, what it says of itself, and its own side.

Nothing is imported here: app.py is imported in environments that have one of the libraries only.
"""
