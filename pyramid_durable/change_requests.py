"""What callers ask to be changed, checked and made JSON-ready at the call (web and daemon)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any, Final

from .calls import TRIGGER_FIELDS
from .changes import MODIFY, RESCHEDULE, Change
from .exceptions import InvalidJob
from .job_options import JOB_READERS, SCHEDULE_READERS, check_names, read_options
from .job_specs import SpecMaker
from .serializers import Serializer
from .settings import Settings
from .times import get_zone, parse_date, relative_date, zone_name

BIRTH_OPTIONS: Final = ("id", "replace_existing", "content_object", "run_immediately")
"""Options that only make sense for something new."""

CALL_OPTIONS: Final = ("args", "kwargs", "queue")

JOB_CHANGES: Final = (*CALL_OPTIONS, *(name for name in JOB_READERS if name not in BIRTH_OPTIONS))
SCHEDULE_CHANGES: Final = (
    *CALL_OPTIONS,
    *(name for name in SCHEDULE_READERS if name not in BIRTH_OPTIONS),
)
"""What modify_job takes for a job, and for a schedule."""

TEXTS: Final = ("args", "kwargs", "userdata")
"""What travels as texts of the serializer."""

TRIGGER_OPTIONS: Final = ("start_date", "end_date", "timezone", "jitter")


class ChangeMaker:
    """Makes Changes that everybody can read who gets them, whatever their zone and serializer.

    What can be checked without a look at the job or schedule is checked here; ``changed`` does the
    rest where that is at hand.
    """

    def __init__(self, settings: Settings, serializer: Serializer, specs: SpecMaker) -> None:
        self._settings = settings
        self._serializer = serializer
        self._specs = specs

    def modify(self, id: str, changes: Mapping[str, Any], *, now: datetime) -> Change:
        """Ask for other options; one that is None is taken away.

        Raises TypeError for an unknown option and for none at all, InvalidJob for a bad value.
        """
        check_names("modify_job", changes, SCHEDULE_CHANGES)
        if not changes:
            raise TypeError(
                "modify_job() was given nothing to change; there are: "
                f"{', '.join(sorted(SCHEDULE_CHANGES))}"
            )
        zone = self._settings.zone
        ready: dict[str, Any] = dict.fromkeys(changes)
        plain = {name: changes[name] for name in changes if name not in CALL_OPTIONS}
        ready.update(read_options(plain, SCHEDULE_READERS, zone))
        self._specs.check_executor(ready)
        self._check_call(changes)
        if "queue" in changes:
            ready["queue"] = self._specs.queue(changes["queue"])
        for name, kind in (("args", list), ("kwargs", dict), ("userdata", dict)):
            if changes.get(name) is not None:
                ready[name] = self._text(name, kind(changes[name]))
        if changes.get("end_date") is not None:
            ready["end_date"] = _portable(changes["end_date"], now, zone)
        if changes.get("timezone") is not None:
            ready["timezone"] = zone_name(get_zone(changes["timezone"]))
        return self._change(MODIFY, id, ready)

    def reschedule(
        self, id: str, date: Any, trigger: Mapping[str, Any], *, now: datetime
    ) -> Change:
        """Ask for another date, or other fields of a trigger.

        Raises TypeError for an unknown field, InvalidJob for a value that cannot be used, and
        where it is not either a date or fields of one kind.
        """
        known = (*TRIGGER_FIELDS["interval"], *TRIGGER_FIELDS["cron"], *TRIGGER_OPTIONS)
        check_names("reschedule_job", trigger, known)
        given = {name: value for name, value in trigger.items() if value is not None}
        kinds = [
            kind for kind, names in TRIGGER_FIELDS.items() if not given.keys().isdisjoint(names)
        ]
        if date is not None and not given:
            return self._change(RESCHEDULE, id, _time(date, now, self._settings.zone))
        if date is not None or len(kinds) != 1:
            raise InvalidJob(
                "reschedule_job(): expected either a date, for a job, or fields of an interval or "
                f"of cron, for a schedule; found {', '.join(given) or 'nothing'}"
                f"{' and a date' if date is not None else ''}"
            )
        fields = {name: given.pop(name) for name in TRIGGER_FIELDS[kinds[0]] if name in given}
        made = self._specs.trigger(kinds[0], fields, now=now, **given)
        ready: dict[str, Any] = {"kind": kinds[0], "fields": fields}
        for name in ("start_date", "end_date"):
            if name in given:
                ready[name] = _portable(given[name], now, get_zone(made.timezone))
        for name in ("timezone", "jitter"):
            if name in given:
                ready[name] = getattr(made, name)
        return self._change(RESCHEDULE, id, ready)

    def _change(self, verb: str, id: str, ready: Mapping[str, Any]) -> Change:
        written = any(ready.get(name) is not None for name in TEXTS)
        return Change(
            verb=verb, id=id, changes=ready, codec=self._serializer.name if written else None
        )

    def _check_call(self, changes: Mapping[str, Any]) -> None:
        args, kwargs = changes.get("args"), changes.get("kwargs")
        if args is not None and (
            isinstance(args, (str, bytes, Mapping)) or not isinstance(args, Sequence)
        ):
            raise InvalidJob(f"args: {type(args).__name__} found, expected a list or a tuple")
        if kwargs is not None and not (
            isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs)
        ):
            raise InvalidJob("kwargs: expected a dict whose keys are names of arguments")
        # Written for its errors alone, which name the argument.
        largest = self._settings.max_args_size
        self._serializer.dump_call(args or (), kwargs or {}, max_size=largest)

    def _text(self, name: str, value: Any) -> str:
        try:
            return self._serializer.dumps(value)
        except InvalidJob as error:
            raise InvalidJob(f"option {name!r}{error}") from error


def _time(date: Any, now: datetime, zone: tzinfo) -> dict[str, Any]:
    """A job's new time; a relative one counts from the store's clock, where it can be reached."""
    run_at = parse_date(date, now=now, zone=zone)
    delay = relative_date(date)
    return {"run_at": run_at.isoformat()} if delay is None else {"delay": delay}


def _portable(date: Any, now: datetime, zone: tzinfo) -> str:
    """A date as text. A naive one stays naive: only the schedule knows its timezone."""
    parse_date(date, now=now, zone=zone)
    here, elsewhere = (
        parse_date(date, now=now, zone=timezone(timedelta(hours=hours))) for hours in (0, 1)
    )
    return (here if here == elsewhere else here.replace(tzinfo=None)).isoformat()
