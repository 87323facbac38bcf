"""The commands: each parses its arguments and calls the Python API. Slow libraries are imported when a command runs."""
