"""Which of libcurl's sockets are ready, told for many of them at once.

Owns the watching of descriptors. It must not know requests: `channels.transport` hears pairs
of a descriptor and libcurl's `CSELECT_` bits. libcurl calls `watch` from inside its own
functions, where an exception would break it off in the midst of others' requests, so there
is none: what cannot be watched is ended by its request's timeout.
"""

import asyncio
import select
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import pycurl

Heard = Callable[[Sequence[tuple[int, int]]], None]


class Readiness(Protocol):
    """Watches sockets and tells a `Heard` of those that are ready."""

    def watch(self, wanted: int, fd: int, multi: object, data: object, /) -> None:
        """Watch a descriptor for `POLL_IN`, `POLL_OUT` or `POLL_INOUT`, or forget it."""
        ...

    def close(self) -> None:
        """Forget all of them. The loop may be closed already."""
        ...


class EpollReadiness:
    """The sockets are in an epoll of our own, and the loop watches nothing but that.

    libcurl wants a socket watched and forgotten for each request, which is a system call
    here and a good deal more in a loop. Nothing is remembered of a descriptor, and the kernel
    drops one that is closed: a number that is given out again is never taken for another.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, heard: Heard) -> None:
        self._loop = loop
        self._heard = heard
        self._epoll = epoll = select.epoll()
        self._poll, self._register, self._forget = epoll.poll, epoll.register, epoll.unregister
        loop.add_reader(epoll.fileno(), self._on_ready)

    def watch(self, wanted: int, fd: int, _multi: object, _data: object, /) -> None:
        try:
            if wanted == pycurl.POLL_REMOVE:
                self._forget(fd)
            else:
                self._register(fd, WANTED[wanted])
        except FileExistsError:
            with suppress(OSError):
                self._epoll.modify(fd, WANTED[wanted])
        except (OSError, ValueError):
            pass  # it is not there any more, or the epoll is closed

    def close(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _on_ready(self) -> None:
        self._heard([(fd, SEEN.get(bits, EITHER)) for fd, bits in self._poll(0, AT_ONCE)])


AT_ONCE = 256
"""Sockets heard of in one turn of the loop; what is left is heard of in the next."""

WANTED: Mapping[int, int] = {
    pycurl.POLL_NONE: 0,
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}
SEEN: Mapping[int, int] = {
    select.EPOLLIN: pycurl.CSELECT_IN,
    select.EPOLLOUT: pycurl.CSELECT_OUT,
}
EITHER = pycurl.CSELECT_IN | pycurl.CSELECT_OUT
"""For an error or a hang-up too: libcurl tries the socket, which never blocks, and sees."""


class LoopReadiness:
    """The loop watches each socket itself: for systems without epoll."""

    def __init__(self, loop: asyncio.AbstractEventLoop, heard: Heard) -> None:
        self._loop = loop
        self._heard = heard
        self._watched: dict[int, int] = {}

    def watch(self, wanted: int, fd: int, _multi: object, _data: object, /) -> None:
        loop = self._loop
        if loop.is_closed():
            return
        wanted = 0 if wanted == pycurl.POLL_REMOVE else wanted
        changed = wanted ^ self._watched.get(fd, 0)
        if changed & pycurl.POLL_IN:
            if wanted & pycurl.POLL_IN:
                loop.add_reader(fd, self._heard, ((fd, pycurl.CSELECT_IN),))
            else:
                loop.remove_reader(fd)
        if changed & pycurl.POLL_OUT:
            if wanted & pycurl.POLL_OUT:
                loop.add_writer(fd, self._heard, ((fd, pycurl.CSELECT_OUT),))
            else:
                loop.remove_writer(fd)
        if wanted:
            self._watched[fd] = wanted
        else:
            self._watched.pop(fd, None)

    def close(self) -> None:
        for fd in list(self._watched):
            self.watch(pycurl.POLL_REMOVE, fd, None, None)


def readiness(loop: asyncio.AbstractEventLoop, heard: Heard) -> Readiness:
    """The cheapest that this system has."""
    return (EpollReadiness if hasattr(select, "epoll") else LoopReadiness)(loop, heard)
