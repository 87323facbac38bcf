"""The command line: each command is a dataclass of options and a function over the Python API.

Slow libraries are imported when a command runs.
"""
