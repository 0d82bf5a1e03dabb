"""The names under which the parts find each other in Pyramid's registry (web and daemon).

Callables stand as attributes: zope's way of writing methods, without ``self``, is not Python's, and
type checkers refuse it.
"""

from __future__ import annotations

from zope.interface import Attribute, Interface


class IScheduler(Interface):
    """The scheduler of an application: ``registry.scheduler``."""

    settings = Attribute("The application's Settings; InvalidSetting where they cannot be read.")
    store = Attribute("The Store of this process, its schema looked at; opened at the first use.")
    broker = Attribute("The Broker of this process.")
    serializer = Attribute("What turns arguments, results and userdata into text and back.")
    declared = Attribute("The ScheduleSpecs the application declares, read from its configuration.")
    declared_at = Attribute("declared_at(now): the same, first fire times counted from ``now``.")
    aliases = Attribute("Mapping of the old names of functions to their new ones.")
    changer = Attribute("What applies Changes to what is stored; see changed.Changer.")
    allowed = Attribute("What may run as a job, and how it is found; see allowing.Allowed.")
    aps = Attribute("The running APScheduler instance of this process, or None.")
    start = Attribute("start(): run the daemon in this process; a second call does nothing.")
    shutdown = Attribute("shutdown(): stop this process's daemon; running jobs may finish.")


class IDaemonFactory(Interface):
    """Registered by includeme, so that the web floor need not import the daemon.

    Called as ``factory(registry)`` it makes a daemon that is not started.
    """


class IRunInline(Interface):
    """Runs jobs of the calling process after its commit; registered by includeme.

    Called as ``run_inline(registry, ids)`` it returns when they have ended, and never raises.
    """


class IRunDue(Interface):
    """Runs what is due in the calling thread; registered by includeme, like IDaemonFactory.

    Called as ``run_due(registry, now=, delete_completed=, ignore_errors=)`` it returns a list of
    JobInfo.
    """
