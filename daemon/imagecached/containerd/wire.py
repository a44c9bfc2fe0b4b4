"""One connection to containerd's socket, and every call over it: deadline, headers, errors.

Knows no service. grpclib wakes a call whose connection broke by cancelling its task, so each runs in a task
of its own: a cancellation of the caller would be lost in that. Invariants: every call ends by its deadline (a
stream: every message of it); what fails leaves as one of our errors; a connection that broke is made anew by
the next call, so containerd may restart at any time; a message beyond :data:`MESSAGE_BYTES` is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import DecodeError, Message
from grpclib import GRPCError
from grpclib.client import Channel, Stream, StreamStreamMethod, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import ProtocolError, StreamTerminatedError

from imagecached.aio import apart
from imagecached.containerd.failures import translated
from imagecached.containerd.methods import Method
from imagecached.errors import AccessDenied, Corrupt, Unavailable

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

MESSAGE_BYTES: Final = 16 << 20  # containerd's own bound
CALL_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose things a call is about: a namespace, and the lease that keeps what the call makes."""

    namespace: str = ""
    lease: str = ""

    @property
    def headers(self) -> dict[str, str]:
        given = {"containerd-namespace": self.namespace, "containerd-lease": self.lease}
        return {name: value for name, value in given.items() if value}


NOWHERE: Final = Scope()


class _Codec(ProtoCodec):
    """Refuses to parse what is too big."""

    def decode(self, data: bytes, message_type: Any) -> Any:
        if len(data) > MESSAGE_BYTES:
            raise DecodeError(f"{len(data)} bytes")
        return super().decode(data, message_type)


class Wire:
    """Calls over the unix socket at ``path``; connects when first needed. Close it in the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._channel = Channel(path=str(path), codec=_Codec())

    def close(self) -> None:
        """End the connection; calls under way fail."""
        self._channel.close()

    async def ask(
        self, method: Method[Q, A], request: Q, scope: Scope = NOWHERE, *, seconds: float = CALL_SECONDS
    ) -> A:
        """One message for one message."""
        call = UnaryUnaryMethod[Q, A](self._channel, method.path, method.request, method.answer)
        with self._translated(method):
            async with asyncio.timeout(seconds):
                return await apart(call(request, metadata=scope.headers))

    async def hear(
        self,
        method: Method[Q, A],
        request: Q,
        scope: Scope = NOWHERE,
        *,
        seconds: float | None = CALL_SECONDS,
    ) -> AsyncGenerator[A, None]:
        """A stream of messages for one. ``seconds``: between two of them, None for as long as it takes.

        Use it inside ``contextlib.aclosing``: closing ends the call.
        """
        call = UnaryStreamMethod[Q, A](self._channel, method.path, method.request, method.answer)
        with self._translated(method):
            async with call.open(metadata=scope.headers) as stream:
                async with asyncio.timeout(CALL_SECONDS):
                    await apart(stream.send_message(request, end=True))
                while True:
                    async with asyncio.timeout(seconds):
                        message = await apart(stream.recv_message())
                    if message is None:
                        await apart(stream.recv_trailing_metadata())
                        break
                    yield message

    @asynccontextmanager
    async def talk(self, method: Method[Q, A], scope: Scope = NOWHERE) -> AsyncIterator[Talk[Q, A]]:
        """A call where both sides send; given up at the end of the body unless it was ended there.

        The body must not let errors of the system escape: they would be told as containerd's.
        """
        call = StreamStreamMethod[Q, A](self._channel, method.path, method.request, method.answer)
        with self._translated(method):
            async with call.open(metadata=scope.headers) as stream:
                talk = Talk(stream)
                yield talk
                await apart(stream.recv_trailing_metadata() if talk.ended else stream.cancel())

    @contextmanager
    def _translated(self, method: Method[Any, Any]) -> Iterator[None]:
        try:
            yield
        except GRPCError as error:
            raise translated(error, method.name) from error
        except TimeoutError as error:
            raise Unavailable(f"containerd {method.name}: no answer in time") from error
        except PermissionError as error:
            raise AccessDenied(f"containerd at {self._path}: {error.strerror}") from error
        except DecodeError as error:
            raise Corrupt(f"containerd {method.name}: not a message of its contract") from error
        except (OSError, StreamTerminatedError, ProtocolError) as error:
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unavailable(f"containerd at {self._path}: {words}") from error


class Talk(Generic[Q, A]):
    """A message and its answer, again and again."""

    def __init__(self, stream: Stream[Q, A]) -> None:
        self._stream = stream
        self.ended = False

    async def say(self, message: Q, *, end: bool = False, seconds: float = CALL_SECONDS) -> A:
        """Send a message, the last one with ``end``, and hear the answer to it."""
        async with asyncio.timeout(seconds):
            await apart(self._stream.send_message(message, end=end))
            self.ended = end
            answer = await apart(self._stream.recv_message())
        if answer is None:
            raise StreamTerminatedError("the call ended early")  # the trailers, if any, say why
        return answer
