"""The request a job runs with: made like Pyramid's own, at a fraction of the cost (daemon)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import transaction
from pyramid.interfaces import IRequestExtensions, IRequestFactory
from pyramid.request import Request, apply_request_extensions
from pyramid.threadlocal import manager as threadlocals

from .sessions import is_evaluated, session_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class JobRequests:
    """Opens and closes the requests of one application's jobs.

    The request comes from the registry's request factory and has the application's request
    methods and properties. Pyramid makes a new class for every request that has properties, which
    costs more than a small job; here the class of the first request is used for those that follow.
    """

    def __init__(self, registry: Any, dbsession: str) -> None:
        self._registry = registry
        self._dbsession = dbsession
        self._factory = registry.queryUtility(IRequestFactory, default=Request)
        self._extensions = registry.queryUtility(IRequestExtensions)
        self._environ = Request.blank("/").environ
        self._kinds: dict[type, _Kind] = {}

    def open(self, manager: transaction.TransactionManager) -> Any:
        """Make a request whose ``tm`` is ``manager``, and make it the thread's current one.

        pyramid_tm takes the manager from the environ; where it is not included, ``request.tm`` is
        set. The thread-local manager stands for the same one as long as the request is open: what
        an application registered with ``transaction.manager`` takes part in the job's transaction.
        """
        environ = self._environ.copy()
        environ["wsgi.input"] = io.BytesIO()
        environ["tm.manager"] = manager
        environ["tm.active"] = True
        request = self._factory(environ)
        request.registry = self._registry
        self.enter(request)
        try:
            if not self._extend(request).has_tm:
                request.tm = manager
        except BaseException:
            self.leave(request)
            raise
        return request

    def enter(self, request: Any) -> None:
        """Make an open request the thread's current one."""
        threadlocals.push({"registry": self._registry, "request": request})
        request.environ["pyramid_durable.thread_manager"] = transaction.manager.manager
        transaction.manager.manager = request.environ["tm.manager"]

    def leave(self, request: Any) -> None:
        """Give the thread back as it was."""
        transaction.manager.manager = request.environ["pyramid_durable.thread_manager"]
        threadlocals.pop()

    def session(self, request: Any) -> Session | None:
        """The session the request has by now, None where nobody asked for it."""
        name = self._dbsession
        if name not in request.__dict__ and not self._kinds[type(request)].evaluates_session:
            return None
        return session_of(request, name)

    def close(self, request: Any) -> None:
        """End the request as Pyramid does, close its session, and give the thread back as it was."""
        try:
            if request.finished_callbacks:
                request._process_finished_callbacks()  # as pyramid.scripting does
            session = self.session(request)
            if session is not None:
                session.close()
        finally:
            self.leave(request)

    def _extend(self, request: Any) -> _Kind:
        """Give a request the application's methods and properties."""
        plain = type(request)
        kind = self._kinds.get(plain)
        extensions = self._extensions
        if kind is None or (extensions and kind.size != _size(extensions)):
            # The first one; or something was added while the application runs.
            apply_request_extensions(request, extensions)
            kind = _Kind(request, self._dbsession, extensions)
            self._kinds[plain] = self._kinds[type(request)] = self._kinds[kind.extended] = kind
        elif extensions:
            request.__class__ = kind.extended
        return kind


class _Kind:
    """What requests of one class have in common, once they are extended."""

    __slots__ = ("evaluates_session", "extended", "has_tm", "size")

    def __init__(self, request: Any, dbsession: str, extensions: Any) -> None:
        self.extended = extended = type(request)
        if extensions:
            self.size = _size(extensions)
            # Pyramid binds the methods to each request, which from then on holds itself.
            methods = {"__module__": extended.__module__, **extensions.methods}
            self.extended = type(extended.__name__, (extended,), methods)
        self.has_tm = hasattr(self.extended, "tm")
        self.evaluates_session = is_evaluated(self.extended, dbsession)


def _size(extensions: Any) -> tuple[int, int]:
    return len(extensions.methods), len(extensions.descriptors)
