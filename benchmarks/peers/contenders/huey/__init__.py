"""Huey."""
