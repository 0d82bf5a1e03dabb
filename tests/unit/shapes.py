"""What the unit tests of serializers and definitions name: kept here, to be imported by name."""

from __future__ import annotations

import asyncio
import enum
import functools
from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import InitVar, dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, registry


class Color(enum.Enum):
    RED = 1
    GREEN = "green"
    CRIMSON = 1  # noqa: PIE796 - an alias of RED


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(str, enum.Enum):
    HELLO = "hello"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Bits(enum.IntFlag):
    A = 1
    B = 2


@dataclass
class Point:
    x: int
    y: Any = 0
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Price:
    amount: Decimal
    currency: str = "EUR"


@dataclass
class Doubled:
    """Computes what is no field, and remembers what it need not."""

    made = 0

    value: int
    factor: InitVar[int] = 2

    def __post_init__(self, factor: int) -> None:
        type(self).made += 1
        self.product = self.value * factor

    @functools.cached_property
    def square(self) -> Any:
        return lambda: self.value**2


@dataclass
class Named(OrderedDict[str, int]):
    name: str = ""


class Shape(ABC):
    @abstractmethod
    def area(self) -> int: ...


@dataclass
class Square(Shape):
    side: int

    def area(self) -> int:
        return self.side**2


class Text(str):
    __slots__ = ()


class Outer:
    class Kind(enum.Enum):
        ONE = 1

    @dataclass(frozen=True)
    class Inner:
        a: int


class Base(DeclarativeBase):
    pass


class Rental(Base):
    __tablename__ = "unit_rental"

    id: Mapped[int] = mapped_column(primary_key=True)
    ski: Mapped[str] = mapped_column(String(50))

    def remind(self, days: int = 0) -> tuple[str, int]:
        return self.ski, days

    @classmethod
    def count(cls) -> str:
        return cls.__name__

    @staticmethod
    def report() -> str:
        return "report"


class LongRental(Rental):
    pass


class Part(Base):
    __tablename__ = "unit_part"

    shop: Mapped[str] = mapped_column(String(10), primary_key=True)
    number: Mapped[Decimal] = mapped_column(primary_key=True)


class DataBase(MappedAsDataclass, DeclarativeBase):
    pass


class Ski(DataBase):
    __tablename__ = "unit_ski"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))


class Plain:
    """Mapped from outside."""


registry(metadata=MetaData()).map_imperatively(
    Plain, Table("unit_plain", MetaData(), Column("id", Integer, primary_key=True))
)


def send(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


async def send_later(number: int) -> int:
    await asyncio.sleep(0)
    return number


def counting() -> Any:
    yield 1


async def counting_later() -> Any:
    yield 1


shortened = functools.partial(send, 1)
anonymous = lambda: 1  # noqa: E731 - a lambda with a name in its module
cached = functools.lru_cache(send_later)
NUMBER = 7


class Sender:
    def __call__(self, *args: Any) -> Any:
        return args

    def send(self) -> str:
        return "sent"

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__

    @staticmethod
    def static(*args: Any) -> Any:
        return args


class SpecialSender(Sender):
    pass


sender = Sender()


def replaced() -> None: ...


was_replaced = replaced


def replaced() -> None:  # type: ignore[no-redef]
    ...


def bare(func: Any) -> Any:
    """Decorate without functools.wraps."""

    def call(*args: Any) -> Any:
        return func(*args)

    return call


@bare
def decorated_badly() -> None: ...


def wrapping(func: Any) -> Any:
    @functools.wraps(func)
    def call(*args: Any, **kwargs: Any) -> Any:
        return "wrapped", func(*args, **kwargs)

    return call


@wrapping
def decorated_well() -> str:
    return "well"


class Desk:
    def serve(self) -> None: ...

    def __private(self) -> None: ...
