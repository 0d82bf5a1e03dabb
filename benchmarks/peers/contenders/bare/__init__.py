"""Bare SQL: no library at all."""
