"""Procrastinate."""
