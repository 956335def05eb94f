"""The `voxray` command."""

DONE, FAILED, NO_SERVER = 0, 1, 3
"""Exit codes; 2 is wrong usage, said by the option parser."""
