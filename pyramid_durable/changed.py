"""What a job or schedule is after a change: changed copies of what is stored (web and daemon)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from .behaviors import KEY_OPTION, keys_of, stored_key
from .change_requests import JOB_CHANGES, SCHEDULE_CHANGES
from .exceptions import BrokenJob, InvalidJob, InvalidSetting
from .job_options import JOB_READERS, SCHEDULE_READERS, check_names, read_options
from .job_specs import STORED_OPTIONS
from .records import ASYNC, CRON, DATE, INTERVAL, JobSpec, ScheduleSpec
from .serializers import JSONSerializer, Serializer, stored_serializer
from .settings import Settings
from .times import get_zone, parse_date, zone_name
from .triggers import Trigger, cron_trigger, from_json, interval_trigger

COLUMNS: Final[Mapping[str, Any]] = {"name": None, "priority": 5, "max_attempts": 1, "group": None}
"""Options with a field of their own, and what they are when they are taken away."""

COMPARED: Final = ("args", "kwargs", "group", "behavior")
"""What decides which other jobs a job is equal to, and whether that matters."""

NEVER: Final = "it would never fire again; cancel_job(id) ends it"


class Changer:
    """Applies the changes of a Change to a JobSpec or ScheduleSpec as it is in the store.

    Values are read once more here, by the rules of adding: they may come from another version.
    """

    def __init__(self, settings: Settings, serializer: Serializer) -> None:
        self._zone = settings.zone
        self._largest = settings.max_args_size
        self._secrets = settings.secrets
        self._own = serializer

    def modified_job(self, job: JobSpec, changes: Mapping[str, Any], codec: str | None) -> JobSpec:
        """The job with other options; its uniqueness follows its arguments and group.

        Raises TypeError for an option that a job does not have, InvalidJob for a bad value.
        """
        check_names("modify_job", changes, JOB_CHANGES)
        return self._modified(job, changes, codec)

    def _bound(self, job: JobSpec) -> JobSpec:
        """The job with the keys that it would have been added with."""
        behavior = job.options.get("behavior")
        key, waiting_key = keys_of(behavior, job.group, lambda: self._key(job))
        options = {name: one for name, one in job.options.items() if name != KEY_OPTION}
        if key is not None:
            options[KEY_OPTION] = key
        return job._replace(options=options, waiting_key=waiting_key)

    def _key(self, job: JobSpec) -> str:
        try:
            serializer = self._serializer(job, job.codec)
            return stored_key(job.func, job.payload, serializer, job.group)
        except BrokenJob as error:
            raise InvalidJob(f"job {job.id!r} cannot be compared with others: {error}") from error

    def modified_schedule(
        self,
        schedule: ScheduleSpec,
        changes: Mapping[str, Any],
        codec: str | None,
        now: datetime,
    ) -> ScheduleSpec:
        """The schedule with other options; one that has ended stays as it is.

        Raises InvalidJob for a bad value, and for an end before the next fire time.
        """
        check_names("modify_job", changes, SCHEDULE_CHANGES)
        if schedule.next_run_at is None:
            return schedule
        read = read_options(
            {name: changes[name] for name in changes if name in SCHEDULE_READERS},
            SCHEDULE_READERS,
            self._zone,
        )
        fields: dict[str, Any] = {"job": self._modified(schedule.job, changes, codec)}
        if "iterations" in changes:
            fields["iterations"] = read.get("iterations")
        if "coalesce" in changes:
            fields["coalesce"] = read.get("coalesce", True)
        if "max_instances" in changes or "allow_overlap" in changes:
            # Without overlap there is one at a time, unless a number was, or is, given.
            kept = None if "max_instances" in changes else schedule.max_instances
            number = read.get("max_instances", kept or 1)
            fields["max_instances"] = None if read.get("allow_overlap") else number
        if not changes.keys().isdisjoint(("end_date", "jitter", "timezone")):
            fields |= self._moved(schedule, changes, read, now)
        return replace(schedule, **fields)

    def rescheduled_job(self, job: JobSpec, changes: Mapping[str, Any]) -> JobSpec:
        """The job at another time. Raises InvalidJob for what is meant for a schedule."""
        if "kind" in changes:
            raise InvalidJob(
                f"job {job.id!r} takes a date; fields of a trigger are for schedules: "
                "reschedule_job(id, date)"
            )
        kind = DATE if job.kind == ASYNC else job.kind
        if "delay" in changes:
            return job._replace(kind=kind, run_at=None, delay=float(changes["delay"]))
        run_at = datetime.fromisoformat(changes["run_at"])
        return job._replace(kind=kind, run_at=run_at)

    def rescheduled_schedule(
        self, schedule: ScheduleSpec, changes: Mapping[str, Any], now: datetime
    ) -> ScheduleSpec:
        """The schedule with another trigger, from ``now`` on, also where it had ended.

        What is left of its iterations stays, and so do its end, timezone and jitter where no others
        are given. Raises InvalidJob for what is meant for a job, and where it would never fire.
        """
        if "kind" not in changes:
            raise InvalidJob(
                f"schedule {schedule.id!r} takes fields of a trigger, such as minutes=10 or "
                "crontab='0 3 * * *'; a date is for jobs"
            )
        if schedule.iterations is not None and schedule.iterations <= 0:
            raise InvalidJob(
                f"schedule {schedule.id!r} has used up its iterations; add another one"
            )
        kind = changes["kind"]
        make: Any = {CRON: cron_trigger, INTERVAL: interval_trigger}[kind]
        trigger: Trigger = make(
            **changes["fields"],
            start_date=changes.get("start_date"),
            end_date=changes.get("end_date", schedule.end_date),
            timezone=changes.get("timezone", schedule.timezone),
            jitter=changes.get("jitter", schedule.trigger.get("jitter")),
            now=now,
            zone=self._zone,
        )
        return replace(
            schedule,
            kind=kind,
            job=schedule.job._replace(kind=kind),
            trigger=trigger.to_json(),
            next_run_at=_fires(trigger, trigger.first(now)),
            timezone=trigger.timezone,
            start_date=trigger.start_date if "start_date" in changes else None,
            end_date=trigger.end_date,
        )

    def _modified(self, job: JobSpec, changes: Mapping[str, Any], codec: str | None) -> JobSpec:
        """The job, or the pattern of a schedule's jobs, with other options and the keys they make."""
        plain = {
            name: changes[name] for name in changes if name in JOB_READERS and name != "userdata"
        }
        read = read_options(plain, JOB_READERS, self._zone)
        fields = {name: read.get(name, COLUMNS[name]) for name in COLUMNS if name in changes}
        options = {name: one for name, one in job.options.items() if name not in changes}
        options |= {name: read[name] for name in STORED_OPTIONS if name in read}
        if "queue" in changes:
            fields["queue"] = changes["queue"]
        if "userdata" in changes:
            fields["userdata"] = self._recoded(job, changes["userdata"], codec)
        if "args" in changes or "kwargs" in changes:
            fields["payload"] = self._payload(job, changes, codec)
        changed = job._replace(options=options, **fields)
        return changed if changes.keys().isdisjoint(COMPARED) else self._bound(changed)

    def _payload(self, job: JobSpec, changes: Mapping[str, Any], codec: str | None) -> str:
        """The arguments, of which one half may stay as it is."""
        serializer = self._serializer(job, job.codec)
        empty = {"args": serializer.dumps([]), "kwargs": serializer.dumps({})}
        parts = {
            name: self._recoded(job, changes[name], codec) or empty[name]
            for name in empty
            if name in changes
        }
        try:
            payload = merged_call(serializer, job.payload, **parts)
        except (BrokenJob, ValueError, LookupError) as error:
            raise InvalidJob(
                f"{job.id!r}: its stored arguments cannot be read ({error}); give both args and "
                "kwargs"
            ) from error
        size = len(payload.encode())
        if size > self._largest:
            raise InvalidJob(
                f"the arguments take {size:,} bytes, more than scheduler.max_args_size "
                f"({self._largest:,}); store what is large elsewhere and pass its key"
            )
        return payload

    def _recoded(self, job: JobSpec, text: str | None, codec: str | None) -> str | None:
        """A text in the form of those that the job has: another serializer may be set by now."""
        if text is None or codec is None or codec == job.codec:
            return text
        value = self._serializer(job, codec).loads(text)
        return self._serializer(job, job.codec).dumps(value)

    def _serializer(self, job: JobSpec, codec: str) -> Serializer:
        try:
            return stored_serializer(codec, self._own, self._secrets)
        except InvalidSetting as error:
            raise InvalidJob(f"the arguments of {job.id!r} cannot be changed: {error}") from error

    def _moved(
        self,
        schedule: ScheduleSpec,
        changes: Mapping[str, Any],
        read: Mapping[str, Any],
        now: datetime,
    ) -> dict[str, Any]:
        """The fields that follow from another end, jitter or timezone."""
        trigger = from_json(schedule.trigger)
        turned = dict(trigger.to_json())
        if "timezone" in changes:
            turned["timezone"] = read.get("timezone") or zone_name(self._zone)
        if "jitter" in changes:
            turned["jitter"] = read.get("jitter")
        if "end_date" in changes:
            zone, end = get_zone(turned["timezone"]), read.get("end_date")
            turned["end_date"] = (
                None if end is None else parse_date(end, now=now, zone=zone).isoformat()
            )
        changed = from_json({name: one for name, one in turned.items() if one is not None})
        at = schedule.next_run_at
        if changed.timezone != trigger.timezone and schedule.kind == CRON:
            at = changed.first(now)
        return {
            "trigger": changed.to_json(),
            "timezone": changed.timezone,
            "end_date": changed.end_date,
            "next_run_at": _fires(changed, at),
        }


def _fires(trigger: Trigger, at: datetime | None) -> datetime:
    if at is None or (trigger.end_date is not None and at > trigger.end_date):
        raise InvalidJob(NEVER)
    return at


def merged_call(
    serializer: Serializer, payload: str, *, args: str | None = None, kwargs: str | None = None
) -> str:
    """The text of a call with one half, or both, replaced by these texts.

    JSON is put together as it is: reading it would import the classes that it names.
    """
    if isinstance(serializer, JSONSerializer):
        if args is None or kwargs is None:
            old = [json.dumps(half, separators=(",", ":")) for half in json.loads(payload)]
            args, kwargs = args or old[0], kwargs or old[1]
        return f"[{args},{kwargs}]"
    before: tuple[Any, Any] = ((), {})
    if args is None or kwargs is None:
        before = serializer.load_call(payload)
    return serializer.dump_call(
        before[0] if args is None else serializer.loads(args),
        before[1] if kwargs is None else serializer.loads(kwargs),
    )
