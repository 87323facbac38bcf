"""Standard output and error that never end a command: what cannot be written is dropped."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer


class _Output(io.RawIOBase):
    """A raw stream that keeps the first error of writing, and drops what is written after it."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self.raw = raw
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.raw.fileno()

    def isatty(self) -> bool:
        return self.raw.isatty()

    def write(self, data: "Buffer") -> int:
        size = memoryview(data).nbytes
        if self.error is not None:
            return size
        try:
            written = self.raw.write(data)
        except OSError as error:
            self.error = error
            return size
        return size if written is None else int(written)


@contextmanager
def lasting_streams() -> Iterator[list[OSError]]:
    """Let the command go on when nobody reads its output any more, or the disk is full.

    Characters that a terminal lacks are replaced. Yields the errors of writing, known when the
    block ends; a reader of a pipe that has ended, such as `head`, is none.
    """
    streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    outputs: list[_Output] = []
    errors: list[OSError] = []
    for name, stream in streams.items():
        setattr(sys, name, _lasting(stream, outputs))
    try:
        yield errors
    finally:
        for name, stream in streams.items():
            with suppress(OSError, ValueError):
                getattr(sys, name).flush()
            setattr(sys, name, stream)
        ended = (errno.EPIPE, errno.EIO, errno.ESHUTDOWN)  # EIO: of a terminal that was closed
        errors += [each.error for each in outputs if each.error and each.error.errno not in ended]


def _lasting(stream: TextIO | None, outputs: list[_Output]) -> TextIO:
    if stream is None:  # closed by the shell, as in `>&-`
        return Path(os.devnull).open("w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if not isinstance(raw, io.RawIOBase):  # in memory
        stream.reconfigure(errors="replace")
        return stream
    stream.flush()
    outputs.append(_Output(raw))
    return io.TextIOWrapper(
        io.BufferedWriter(outputs[-1]),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
