"""The request a job runs with: made like Pyramid's own, at a fraction of the cost (daemon)."""

from __future__ import annotations

import io
from typing import Any

import transaction
from pyramid.interfaces import IRequestExtensions, IRequestFactory
from pyramid.request import Request, apply_request_extensions
from pyramid.threadlocal import manager as threadlocals

from .sessions import session_of


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
        self._extended: dict[type, tuple[int, type]] = {}

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
        threadlocals.push({"registry": self._registry, "request": request})
        try:
            self._extend(request)
            if not hasattr(type(request), "tm"):
                request.tm = manager
        except BaseException:
            threadlocals.pop()
            raise
        environ["pyramid_durable.thread_manager"] = transaction.manager.manager
        transaction.manager.manager = manager
        return request

    def close(self, request: Any) -> None:
        """End the request as Pyramid does, close its session, and give the thread back as it was."""
        try:
            if request.finished_callbacks:
                request._process_finished_callbacks()  # as pyramid.scripting does
            session = session_of(request, self._dbsession)
            if session is not None:
                session.close()
        finally:
            transaction.manager.manager = request.environ["pyramid_durable.thread_manager"]
            threadlocals.pop()

    def _extend(self, request: Any) -> None:
        extensions = self._extensions
        if extensions is None:
            return
        plain = type(request)
        properties = len(extensions.descriptors)
        known = self._extended.get(plain)
        if known is None or known[0] != properties:
            # A property that is added while the application runs makes the class anew.
            apply_request_extensions(request)
            self._extended[plain] = (properties, type(request))
            return
        for name, function in extensions.methods.items():
            setattr(request, name, function.__get__(request, plain))
        request.__class__ = known[1]
