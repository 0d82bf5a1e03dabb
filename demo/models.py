"""What the jet ski rental keeps (web and daemon)."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal

from sqlalchemy import DateTime, ForeignKey, MetaData, Numeric, String, Text, TypeDecorator
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


def utcnow() -> datetime:
    """Now, aware."""
    return datetime.now(timezone.utc)


class Instant(TypeDecorator[datetime]):
    """An aware time, kept as naive UTC: the one form that every database keeps faithfully."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(timezone.utc).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=timezone.utc)


class Base(DeclarativeBase):
    """Root of the demo's tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        datetime: Instant,
        Decimal: Numeric(10, 2),
        str: String(80),
    }


class Customer(Base):
    """Somebody who rents."""

    __tablename__ = "demo_customer"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    card_declined: Mapped[bool] = mapped_column(default=False)
    charges: Mapped[list[Charge]] = relationship(back_populates="customer")


class Ski(Base):
    """A jet ski."""

    __tablename__ = "demo_ski"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    out_for_rent: Mapped[bool] = mapped_column(default=False)
    needs_parts: Mapped[bool] = mapped_column(default=False)


class Rental(Base):
    """A ski out with a customer, until it is returned. ``fee_job_id`` is the late fee's job."""

    __tablename__ = "demo_rental"

    id: Mapped[int] = mapped_column(primary_key=True)
    ski_id: Mapped[int] = mapped_column(ForeignKey(Ski.id), index=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id))
    rented_at: Mapped[datetime] = mapped_column(default=utcnow)
    returned_at: Mapped[datetime | None]
    fee_job_id: Mapped[str | None]

    ski: Mapped[Ski] = relationship(lazy="joined", innerjoin=True)
    customer: Mapped[Customer] = relationship(lazy="joined", innerjoin=True)
    charges: Mapped[list[Charge]] = relationship(back_populates="rental")


class Charge(Base):
    """Money taken from a customer."""

    __tablename__ = "demo_charge"

    id: Mapped[int] = mapped_column(primary_key=True)
    rental_id: Mapped[int] = mapped_column(ForeignKey(Rental.id), index=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id), index=True)
    amount: Mapped[Decimal]
    reason: Mapped[str]
    charged_at: Mapped[datetime] = mapped_column(default=utcnow)

    rental: Mapped[Rental] = relationship(back_populates="charges")
    customer: Mapped[Customer] = relationship(back_populates="charges")


class Report(Base):
    """What the nightly report found."""

    __tablename__ = "demo_report"

    id: Mapped[int] = mapped_column(primary_key=True)
    made_at: Mapped[datetime] = mapped_column(default=utcnow)
    body: Mapped[str] = mapped_column(Text)
