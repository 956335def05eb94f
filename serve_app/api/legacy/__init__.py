"""Paths that clients of older servers call."""
