"""What is stored, compared with what this code can run: ``pscheduler --check`` (scripts)."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from .definitions import Definition
from .exceptions import BrokenJob, InvalidJob, InvalidSetting, UnknownFunction
from .serializers import Serializer, stored_serializer
from .triggers import from_json

JOB: Final = "job"
SCHEDULE: Final = "schedule"

KEPT: Final = 20
"""Problems told apart for each function. A message may quote what it is about, so that each of a
million jobs has one of its own; beyond this many they are counted together."""

OTHERS: Final = "cannot be read for other reasons"


@dataclass(kw_only=True)
class Problem:
    """Something that keeps jobs, or schedules, of one function from running."""

    kind: str
    func: str
    text: str
    count: int
    example: str

    def __str__(self) -> str:
        things = f"{self.count} {self.kind}" + ("s" if self.count != 1 else "")
        # One line, whatever a message quotes.
        return " ".join(f"{self.func}: {self.text}: {things}, such as {self.example}".split())


class Check:
    """Goes through the store once; ``problems`` is what was found, ``looked_at`` how many.

    Mapped objects among arguments are not loaded, only their classes; nothing is run or changed.
    Raises StoreUnavailable, and SchemaMismatch where the store needs ``--migrate`` first.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._settings = scheduler.settings
        self._serializers: dict[str, Serializer | InvalidSetting] = {}
        self._definitions: dict[str, Definition | UnknownFunction] = {}
        self._signatures: dict[str, inspect.Signature | None] = {}
        self._found: dict[tuple[str, str, str], Problem] = {}
        self._told_apart: dict[tuple[str, str], int] = {}
        self.looked_at = {JOB: 0, SCHEDULE: 0}
        survey = scheduler.store.survey
        with scheduler.store.read() as connection:
            self._check_groups(JOB, survey.job_groups(connection))
            self._check_groups(SCHEDULE, survey.schedule_groups(connection))
            self._check_triggers(survey.triggers(connection))
            self._check_texts(JOB, survey.job_texts(connection))
            self._check_texts(SCHEDULE, survey.schedule_texts(connection))

    @property
    def problems(self) -> list[Problem]:
        """The distinct problems, by function."""
        return sorted(self._found.values(), key=lambda problem: (problem.func, problem.text))

    def _check_groups(self, kind: str, groups: Iterable[Any]) -> None:
        for group in groups:
            self.looked_at[kind] += group.number
            for text in self._wrong_with(group):
                self._add(kind, group.func, text, group.example, group.number)

    def _wrong_with(self, group: Any) -> Iterator[str]:
        definition = self._definition(group.func)
        if isinstance(definition, UnknownFunction):
            yield str(definition)
        serializer = self._serializer(group.codec)
        if isinstance(serializer, InvalidSetting):
            yield f"its arguments cannot be read: {serializer}"
        queues = self._settings.queues
        if group.queue not in queues:
            yield (
                f"queue {group.queue!r} is not among the configured ones, "
                f"scheduler.queues = {' '.join(queues)}"
            )

    def _check_triggers(self, triggers: Iterable[Any]) -> None:
        for stored in triggers:
            try:
                from_json(json.loads(stored.trigger_json))
            except (InvalidJob, ValueError) as error:
                self._add(SCHEDULE, stored.func, f"its trigger: {error}", stored.id)

    def _check_texts(self, kind: str, texts: Iterable[Any]) -> None:
        for stored in texts:
            serializer = self._serializer(stored.codec)
            if isinstance(serializer, InvalidSetting):
                continue  # of the whole group, and said there
            try:
                args, kwargs = serializer.load_call(stored.payload)
                if stored.userdata is not None:
                    serializer.loads(stored.userdata)
            except BrokenJob as error:
                self._add(kind, stored.func, f"its arguments: {error}", stored.id)
                continue
            self._check_call(kind, stored, args, kwargs)

    def _check_call(self, kind: str, stored: Any, args: Any, kwargs: Any) -> None:
        definition = self._definition(stored.func)
        if isinstance(definition, UnknownFunction):
            return
        signature = self._signature(definition)
        if signature is None:
            return
        passed = definition.pass_request + definition.pass_job
        try:
            signature.bind(*[None] * passed, *args, **kwargs)
        except TypeError as error:
            text = f"it cannot be called with its arguments: {error}"
            self._add(kind, stored.func, text, stored.id)

    def _definition(self, ref: str) -> Definition | UnknownFunction:
        return _once(self._definitions, ref, self._scheduler.allowed.load, UnknownFunction)

    def _serializer(self, codec: str) -> Serializer | InvalidSetting:
        return _once(self._serializers, codec, self._resolve, InvalidSetting)

    def _resolve(self, codec: str) -> Serializer:
        return stored_serializer(codec, self._scheduler.serializer, self._settings.secrets)

    def _signature(self, definition: Definition) -> inspect.Signature | None:
        """What a call has to fit; None where that is not known for sure, or a delegator's matter.

        Of the callable itself: what a decorator wraps may take arguments that it adds.
        """
        if definition.ref not in self._signatures:
            try:
                found = inspect.signature(definition.func, follow_wrapped=False)
            except (TypeError, ValueError):
                found = None
            if self._settings.delegator is not None:
                found = None
            self._signatures[definition.ref] = found
        return self._signatures[definition.ref]

    def _add(self, kind: str, ref: str, text: str, example: str, count: int = 1) -> None:
        found = self._found.get((kind, ref, text))
        if found is None:
            apart = self._told_apart[kind, ref] = self._told_apart.get((kind, ref), 0) + 1
            if apart > KEPT:
                text = OTHERS
                found = self._found.get((kind, ref, text))
        if found is None:
            found = Problem(kind=kind, func=ref, text=text, count=0, example=example)
            self._found[kind, ref, text] = found
        found.count += count


def _once(known: dict[str, Any], name: str, find: Callable[[str], Any], error: type) -> Any:
    """What a name leads to, or the error it leads to; asked once."""
    if name not in known:
        try:
            known[name] = find(name)
        except error as problem:  # type: ignore[misc]
            known[name] = problem
    return known[name]
