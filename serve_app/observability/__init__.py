"""Metrics, and their reports."""
