"""All contenders, ours first: it is what ratios are taken of."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from . import contenders
from .contender import Contender


def every_contender() -> list[Contender]:
    """In the order of the tables."""
    libraries = sorted(module.name for module in iter_modules(contenders.__path__))
    libraries.sort(key=lambda name: name != "ours")
    return [
        contender
        for library in libraries
        for contender in import_module(f"{contenders.__name__}.{library}.contender").CONTENDERS
    ]
