"""A call's arguments turned into the record that goes into the store (web and daemon)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from .behaviors import KEY_OPTION, keys_of, uniqueness_key
from .calls import Call
from .definitions import Definition, describe, is_allowed
from .exceptions import InvalidJob, InvalidQueue
from .job_options import JOB_READERS, SCHEDULE_READERS, check_names, read_options
from .patterns import Batch, Pattern
from .records import ASYNC, CRON, DATE, HAS_CONTENT, INTERVAL, JobSpec, ScheduleSpec
from .serializers import Serializer
from .settings import Settings
from .times import new_id, parse_date, relative_date, utcnow
from .triggers import Trigger, cron_trigger, interval_trigger

STORED_OPTIONS: Final = (
    "expires",
    "misfire_grace_time",
    "backoff",
    "timeout",
    "executor",
    "behavior",
    "working_dir",
    "delete_after",
)
"""Options that only a daemon looks at, when it has claimed the job: one column of JSON."""

SPEC_OPTIONS: Final = ("name", "priority", "max_attempts", "group", "replace_existing")
"""Options that are fields of a JobSpec, and stored as they are read."""

DECLARED_START: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
"""Where the steps of declared intervals are counted from: every process and every start finds the
same fire times, so that a restart neither delays a schedule nor counts as a change to it."""


class SpecMaker:
    """Makes JobSpecs and ScheduleSpecs under an application's settings.

    Options are merged: the settings' defaults, then those of the definition, then the call's. An
    option that is None in the call takes the definition's away.
    """

    def __init__(
        self, settings: Settings, serializer: Serializer, aliases: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self._serializer = serializer
        self._aliases = aliases
        self._queues = frozenset(settings.queues)
        self._defaults = read_options(
            {
                "misfire_grace_time": settings.misfire_grace_time,
                "backoff": settings.backoff,
                "max_attempts": settings.max_attempts,
            },
            JOB_READERS,
            settings.zone,
        )
        # What a definition's own options read as: a function is enqueued many times.
        self._read: dict[tuple[str, bool], tuple[Mapping[str, Any], dict[str, Any]]] = {}

    def async_job(self, call: Call, batch: Batch | None = None) -> JobSpec:
        """Make a job that is due at once, by the store's clock; ``batch`` has others like it."""
        return self._job(call, ASYNC, batch)

    def date_job(self, call: Call, date: Any, batch: Batch | None = None) -> JobSpec:
        """Make a job that is due at ``date``; one in the past is due at once."""
        run_at = parse_date(date, now=utcnow(), zone=self._settings.zone)
        delay = relative_date(date)
        if delay is not None:
            return self._job(call, DATE, batch, delay=delay)
        return self._job(call, DATE, batch, run_at=run_at)

    def schedule(
        self,
        call: Call,
        kind: str,
        start_date: Any,
        fields: Mapping[str, Any],
        *,
        now: datetime,
        declared: bool = False,
    ) -> ScheduleSpec:
        """Make a schedule of this kind from its trigger's ``fields``; ``now`` is the store's."""
        pattern = self._pattern(call, kind, SCHEDULE_READERS)
        options = pattern.options
        job = self._of_pattern(pattern, call, new_id())
        stepping = declared and kind == INTERVAL and start_date is None
        trigger = self.trigger(
            kind,
            fields,
            now=now,
            start_date=DECLARED_START if stepping else start_date,
            end_date=options.get("end_date"),
            jitter=options.get("jitter"),
            timezone=options.get("timezone"),
        )
        at_once = bool(options.get("run_immediately"))
        first = now if at_once else trigger.first(now)
        ended = first is None or (trigger.end_date is not None and first > trigger.end_date)
        if ended and declared and trigger.end_date is not None:
            # It has had its time; the application goes on declaring it, and has to start.
            first = None
        elif ended:
            raise InvalidJob(
                f"{call.verb}(): this schedule would never fire; its fire times are over"
            )
        return ScheduleSpec(
            id=job.id,
            job=job._replace(schedule_id=job.id, chosen_id=False, replace_existing=False),
            kind=kind,
            trigger=trigger.to_json(),
            next_run_at=first,
            timezone=trigger.timezone,
            start_date=None if start_date is None else trigger.start_date,
            end_date=trigger.end_date,
            iterations=options.get("iterations"),
            coalesce=options.get("coalesce", True),
            max_instances=None if options.get("allow_overlap") else options.get("max_instances", 1),
            declared=declared,
            times=_times(trigger, start_date, options, at_once) if declared else None,
            chosen_id=job.chosen_id,
            replace_existing=job.replace_existing,
        )

    def trigger(
        self, kind: str, fields: Mapping[str, Any], *, now: datetime, **rest: Any
    ) -> Trigger:
        """Make a trigger of this kind, in the scheduler's timezone unless another is named.

        Raises TypeError for a field that the kind does not have.
        """
        make = cron_trigger if kind == CRON else interval_trigger
        return make(**fields, **rest, now=now, zone=self._settings.zone)

    def _job(
        self,
        call: Call,
        kind: str,
        batch: Batch | None,
        run_at: datetime | None = None,
        delay: float = 0.0,
    ) -> JobSpec:
        if batch is None:
            return self._of_pattern(self._pattern(call, kind), call, new_id(), run_at, delay)
        pattern = batch.pattern(call, kind, self._pattern)
        return self._of_pattern(pattern, call, next(batch.ids), run_at, delay)

    def _of_pattern(
        self,
        pattern: Pattern,
        call: Call,
        id: str,
        run_at: datetime | None = None,
        delay: float = 0.0,
    ) -> JobSpec:
        args, kwargs = _arguments(call, pattern.bound)
        payload = self._serializer.dump_call(args, kwargs, max_size=self._settings.max_args_size)
        job = pattern.job(id, payload, run_at, delay)
        return self._bound(job, args, kwargs) if pattern.is_compared else job

    def _pattern(self, call: Call, kind: str, readers: Mapping[str, Any] = JOB_READERS) -> Pattern:
        check_names(call.verb, call.options, readers)
        definition, bound = self._describe(call)
        options = self._merged(definition, call.options, readers)
        self.check_executor(options)
        stored = {name: options[name] for name in STORED_OPTIONS if name in options}
        content = options.get(HAS_CONTENT)
        if content is not None and not (bound and bound[0] is content):
            bound = (*bound, content)
            stored[HAS_CONTENT] = True
        queue = definition.options.get("queue") if call.queue is None else call.queue
        fields = {name: options[name] for name in SPEC_OPTIONS if name in options}
        if "userdata" in options:
            fields["userdata"] = self._userdata(options["userdata"])
        spec = JobSpec(
            id=options.get("id", ""),
            chosen_id="id" in options,
            payload="",
            func=definition.ref,
            codec=self._serializer.name,
            queue=self.queue(queue),
            kind=kind,
            options=stored,
            **fields,
        )
        return Pattern(spec, bound, options)

    def check_executor(self, options: Mapping[str, Any]) -> None:
        """Raise InvalidJob for an executor that this application's daemons cannot have."""
        settings = self._settings
        if options.get("executor") == "process" and settings.combined and not settings.config_uri:
            raise InvalidJob(
                "option 'executor': 'process' starts processes that load the application from its "
                "ini, which the daemon in this process does not know; expected "
                "scheduler.config_uri = %(__file__)s in the ini"
            )

    def reference(self, func: Any) -> str:
        """The name under which jobs of ``func`` are stored; one nobody can import stands for itself.

        It is for looking jobs up, also those of a function that is gone.
        """
        try:
            return self._describe(Call("get_jobs", func, None, None, None, {}))[0].ref
        except InvalidJob:
            if isinstance(func, str):
                return func
            raise

    def _describe(self, call: Call) -> tuple[Definition, tuple[Any, ...]]:
        func = call.func
        if isinstance(func, str):
            func = self._aliases.get(func, func)
            content = call.options.get(HAS_CONTENT)
            if content is not None and func.isidentifier():
                func = getattr(content, func, func)
        return describe(func)

    def _merged(
        self, definition: Definition, options: Mapping[str, Any], readers: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        key = definition.ref, readers is SCHEDULE_READERS
        kept = self._read.get(key)
        if kept is None or kept[0] is not definition.options:
            self._check_allowed(definition.ref)
            own = {name: definition.options[name] for name in definition.options if name in readers}
            read = {**self._defaults, **read_options(own, readers, self._settings.zone)}
            kept = self._read[key] = (definition.options, read)
        if not options:
            return kept[1]
        merged = {name: value for name, value in kept[1].items() if name not in options}
        merged.update(read_options(options, readers, self._settings.zone))
        return merged

    def _check_allowed(self, ref: str) -> None:
        allow = self._settings.allow
        if allow is not None and not is_allowed(ref, allow):
            raise InvalidJob(
                f"{ref} may not run: it is not below one of scheduler.allow ({', '.join(allow)})"
            )

    def _userdata(self, userdata: Mapping[str, Any]) -> str:
        try:
            return self._serializer.dumps(dict(userdata))
        except InvalidJob as error:
            raise InvalidJob(f"option 'userdata'{error}") from error

    def queue(self, name: Any) -> str:
        """The queue of that name, the default one for None. Raises InvalidQueue."""
        return self._settings.default_queue if name is None else self.named_queue(name)

    def named_queue(self, name: Any) -> str:
        """The queue of that name. Raises InvalidQueue, also for None."""
        if not isinstance(name, str) or name not in self._queues:
            raise InvalidQueue(
                f"queue {name!r} is not one of scheduler.queues: {', '.join(self._settings.queues)}"
            )
        return name

    def _bound(self, job: JobSpec, args: Sequence[Any], kwargs: Mapping[str, Any]) -> JobSpec:
        """The job, which is compared with others, with the key that is equal for equal ones.

        The jobs of a group have one whatever their behavior: another's may look for them.
        """
        key, waiting_key = keys_of(
            job.options.get("behavior"),
            job.group,
            lambda: uniqueness_key(job.func, args, kwargs, self._serializer, job.group),
        )
        if key is None:
            return job
        return job._replace(options={**job.options, KEY_OPTION: key}, waiting_key=waiting_key)


def _times(trigger: Trigger, start_date: Any, options: Mapping[str, Any], at_once: bool) -> str:
    """When a declared schedule fires, in words that every start of the same code repeats.

    "In five days" means another day at every start; that is no change to the declaration.
    """
    said = trigger.to_json()
    for name, date in (("start_date", start_date), ("end_date", options.get("end_date"))):
        seconds = relative_date(date)
        if seconds is not None:
            said[name] = f"{seconds:g} s from the first start on"
    return json.dumps([said, at_once], sort_keys=True)


def _arguments(call: Call, bound: tuple[Any, ...]) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    args: Any = call.args
    kwargs: Any = call.kwargs
    if args is None:
        args = ()
    elif not isinstance(args, (list, tuple)) and (
        isinstance(args, (str, bytes, Mapping)) or not isinstance(args, Sequence)
    ):
        raise InvalidJob(f"args: {type(args).__name__} found, expected a list or a tuple")
    if kwargs is None:
        kwargs = {}
    elif not isinstance(kwargs, (dict, Mapping)) or not all(
        isinstance(name, str) for name in kwargs
    ):
        raise InvalidJob("kwargs: expected a dict whose keys are names of arguments")
    return (*bound, *args), kwargs
