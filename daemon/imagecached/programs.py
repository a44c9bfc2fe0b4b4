"""Programs that know credentials: asked once, with a bound on time and answer, and gone afterwards.

Knows neither docker's helpers nor Kubernetes' plugins. Invariant: no process and no pipe is left when a call
ends, cancelled or not; of a child that the program left behind nothing is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from imagecached.errors import AccessDenied

_MOST_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 1 << 16
_END_SECONDS: Final = 1.0


async def ask(
    *argv: str,
    seconds: float,
    request: bytes | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Exit status and output of ``argv``; ``request`` is its standard input, ``environment`` all it has.

    AccessDenied, without a word of its output: it cannot be run, is silent for ``seconds``, answers without
    end.
    """
    program, pipe, null = argv[0], asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=null if request is None else pipe, stdout=pipe, stderr=null, env=environment
        )
    except OSError as error:
        raise AccessDenied(f"{program} cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(seconds):
            await _tell(process, request)
            output = await _output(process, program)
            return await process.wait(), output
    except TimeoutError as error:
        raise AccessDenied(f"{program} did not answer within {seconds:g} s") from error
    finally:
        await _end(process)


async def _tell(process: asyncio.subprocess.Process, request: bytes | None) -> None:
    if request is None:
        return
    assert process.stdin is not None
    with suppress(ConnectionError):  # it need not read its input
        process.stdin.write(request)
        await process.stdin.drain()
        process.stdin.close()


async def _output(process: asyncio.subprocess.Process, program: str) -> bytes:
    assert process.stdout is not None
    output = b""
    while data := await process.stdout.read(_PIECE_BYTES):
        output += data
        if len(output) > _MOST_BYTES:
            raise AccessDenied(f"{program} answers without end")
    return output


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.kill()
    assert process.stdout is not None
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            while await process.stdout.read(_PIECE_BYTES):
                pass  # what is left in the pipe would keep asyncio from seeing the end
            await process.wait()
