"""Lanes: one connection between each ingress replica and each model replica, for all sessions."""
