# SPDX-License-Identifier: Apache-2.0
"""The asynchronous half of an SDK as if it were the synchronous one, so that the same tests drive both.

All that is awaited is awaited by one task of a loop in a thread of its own, one after the other, as in the program of a
user: what is entered and left in several steps (WebSockets) wants to be left by the task that entered it.
"""
import asyncio
import concurrent.futures
import inspect
import threading

LIMIT_S = 80


class Loop:
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.jobs = asyncio.Queue()
        threading.Thread(target=self.loop.run_until_complete, args=(self.work(),), daemon=True).start()

    async def work(self):
        while True:
            awaitable, answer = await self.jobs.get()
            try:
                answer.set_result(await awaitable)
            except BaseException as e:  # pylint: disable=broad-except
                answer.set_exception(e)

    def wait(self, awaitable):
        answer = concurrent.futures.Future()
        self.loop.call_soon_threadsafe(self.jobs.put_nowait, (awaitable, answer))
        return answer.result(LIMIT_S)


async def each(values):
    for value in values:
        yield value


class Blocking:
    """A class or an object, its coroutines as functions, its asynchronous iterators and contexts as ordinary ones."""

    def __init__(self, loop, of):
        self._loop, self._of = loop, of

    def __getattr__(self, name):
        return self._take(getattr(self._of, name))

    def __call__(self, *args, **more):
        return self._take(self._of(*[each(a) if inspect.isgenerator(a) else a for a in args], **more))

    def __enter__(self):
        return self._take(self._loop.wait(self._of.__aenter__()))

    def __exit__(self, *why):
        return self._loop.wait(self._of.__aexit__(*why))

    def __iter__(self):
        steps = self._of.__aiter__()
        try:
            while True:
                try:
                    yield self._loop.wait(steps.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            if inspect.isasyncgen(steps):
                self._loop.wait(steps.aclose())

    def _take(self, value):
        if inspect.isawaitable(value):
            return self._take(self._loop.wait(value))
        asynchronous = inspect.isasyncgen(value) or hasattr(value, "__aenter__") or "Async" in type(value).__name__
        return Blocking(self._loop, value) if asynchronous or callable(value) else value


def all_of(*classes):
    loop = Loop()
    return [Blocking(loop, c) for c in classes]
