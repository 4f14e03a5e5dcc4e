# SPDX-License-Identifier: Apache-2.0
# core.py - the kernel driver: messages, output, the life of one execution
#
# Runs inside the sandbox as the user, in the interpreter that executes the user's code. The agent
# hands the source over on descriptor 0 and talks on descriptor 3 (src/proto/kernel.h); both are
# out of reach of programs that the user's code starts. What costs time to compile or import waits
# until it is needed: the other parts (error, rich, ipython) come as source in PARTS and become
# modules on first use, and nothing here imports what the interpreter has not loaded anyway.
import builtins
import os
import sys
from _ast import Expression as EvalTree
from _io import BufferedWriter, FileIO, TextIOWrapper
from _signal import SIG_IGN, getsignal, signal
from _thread import allocate_lock, get_ident
from time import monotonic

CHANNEL = 3
MESSAGE_MAX = 8 * 1024 * 1024  # of proto/kernel.h
TEXT_MAX = 1024 * 1024  # characters of one textual representation
SOURCES_MAX = 4 * 1024 * 1024  # characters of cells kept for tracebacks
PROMPT_S = 0.1  # text without a line's end waits at most so long for more
SIGINT = 2
ONLY_AST, AWAIT, ANNOTATIONS, IS_COROUTINE = 0x400, 0x2000, 0x1000000, 0x80
STORE, SILENT, SVG, JSON, PNG = 1, 2, 4, 8, 16  # flags of an execution
TEXT, BYTES, DOCUMENT, DISPLAY_ID = 0, 1, 2, 3  # kinds of an item
MAIN, UPDATE, ANSWER = 1, 2, 4  # flags of a display
SIMPLE = {int, float, bool, str, bytes, complex, list, dict, tuple, set, frozenset, type(None)}


class State:
    running = False  # the user's code runs: SIGINT is for it
    begun = False  # it is about to
    guarded = 0  # a message is being written: SIGINT waits
    interrupted = False  # one that waited
    child = False  # this process was forked off by the user's code
    count = 0
    flags = 0


MAIN_THREAD = get_ident()
lock = allocate_lock()
sources = {}
sources_size = 0


# --- messages ---


def write_all(data):
    view = memoryview(data)
    while view:
        view = view[os.write(CHANNEL, view) :]


def answered():
    """ANSWER where the agent can be waited for: what is printed next then comes after what is shown now."""
    return ANSWER if State.running and get_ident() == MAIN_THREAD else 0


def send(kind, *parts, answer=0):
    """One message; whole, whatever interrupts."""
    if State.child:
        return
    body = b"".join(parts)
    State.guarded += 1
    try:
        with lock:
            write_all(len(body).to_bytes(4, "big") + kind + body)
            if answer:
                receive()
    finally:
        State.guarded -= 1
        if State.interrupted and State.running and not State.guarded:
            State.interrupted = False
            raise KeyboardInterrupt


def receive():
    head = read_exactly(5)
    return head[4:], read_exactly(int.from_bytes(head[:4], "big"))


def read_exactly(n):
    pieces = []
    while n:
        piece = os.read(CHANNEL, min(n, 1 << 20))
        if not piece:
            os._exit(0)  # the agent has closed it
        pieces.append(piece)
        n -= len(piece)
    return b"".join(pieces)


def encode(text):
    return text.encode("utf-8", "backslashreplace")


def long_field(data):
    return len(data).to_bytes(4, "big") + data


def pack_item(kind, name, data):
    name = encode(name)[:255]
    return bytes((kind, len(name))) + name + long_field(data)


def short_text(text):
    if len(text) <= TEXT_MAX:
        return text
    return text[:TEXT_MAX] + f"... ({len(text) - TEXT_MAX} more characters left out)"


def send_display(items, main=False, update=False):
    """items: (kind, name, bytes). What does not fit is left out, and standard error says so."""
    flush()
    total = 1
    packed = []
    for kind, name, data in sorted(items, key=lambda item: len(item[2])):
        total += len(data) + len(name) + 16
        if total > MESSAGE_MAX or len(packed) >= 64:
            sys.stderr.write(f"[{name} with {len(data)} bytes left out: a result has at most {MESSAGE_MAX} bytes]\n")
            total -= len(data)
        else:
            packed.append(pack_item(kind, name, data))
    flush()
    answer = 0 if main else answered()
    send(b"D", bytes((MAIN * main | UPDATE * update | answer,)), *packed, answer=answer)


def send_error(name, value, lines):
    flush()
    total, fields = 0, []
    for line in [name, value, *lines][:1000]:
        data = encode(line)[:65536]
        total += len(data)
        if total > 1024 * 1024:
            break
        fields.append(long_field(data))
    send(b"E", *fields)


# --- output ---


class Output(TextIOWrapper):
    """Lines leave as they end; what has no end leaves when nothing has left for PROMPT_S."""

    def __init__(self, fd):
        buffer = BufferedWriter(FileIO(fd, "w", closefd=False), 65536)
        super().__init__(buffer, encoding="utf-8", errors="backslashreplace", newline="\n", line_buffering=True)
        self.left = 0.0
        self.mode = "w"

    def write(self, text):
        n = super().write(text)
        now = monotonic()
        if now - self.left > PROMPT_S:
            self.left = now
            self.flush()
        return n


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # replaced, closed or broken by the user
            pass
    if "ctypes" in sys.modules:  # C code may have printed through stdio
        try:
            sys.modules["ctypes"].CDLL(None).fflush(None)
        except Exception:
            pass


# --- parts that are compiled when they are needed ---


def part(name):
    module = loaded.get(name)
    if module is None:
        module = {"core": CORE, "__name__": "_kernel_" + name}
        exec(compile(PARTS[name], f"<kernel {name}>", "exec"), module)
        loaded[name] = module
    return module


loaded = {}


class Watcher:
    """Sees two modules being imported: pyplot, to show figures, and linecache, to know the cells."""

    def find_spec(self, name, path=None, target=None):
        if name != "matplotlib.pyplot" and name != "linecache":
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None and spec.loader is not None:
                spec.loader = WatchedLoader(spec.loader)
                return spec
        return None


class WatchedLoader:
    def __init__(self, loader):
        self.loader = loader

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        if module.__name__ == "linecache":
            for name, text in sources.items():
                show_source(module, name, text)
        else:
            module.show = show_figures


def show_figures(*args, **kwargs):
    """What matplotlib.pyplot.show() does here: figures become results and are closed."""
    part("rich")["show_figures"]()


def show_source(linecache, name, text):
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)


def remember(name, text):
    global sources_size
    sources[name] = text
    sources_size += len(text)
    while sources_size > SOURCES_MAX or len(sources) > 1000:
        oldest = next(iter(sources))
        sources_size -= len(sources.pop(oldest))
    if "linecache" in sys.modules:
        show_source(sys.modules["linecache"], name, text)


# --- the plain interpreter ---


class Plain:
    def __init__(self):
        import __main__

        self.space = __main__.__dict__
        for name in list(self.space):
            if not name.startswith("__"):
                del self.space[name]
        self.space["__builtins__"] = builtins
        self.future = 0
        self.loop = None
        builtins.display = display

    def banner(self):
        return "python " + sys.version.split()[0]

    def run(self, code):
        name = f"<cell {State.count}>"
        text = dedent(code)
        tree = compile(text, name, "exec", ONLY_AST | AWAIT | self.future, True)
        remember(name, text)
        last = tree.body.pop() if tree.body and type(tree.body[-1]).__name__ == "Expr" else None
        if tree.body or last is None:
            self.evaluate(compile(tree, name, "exec", AWAIT | self.future, True))
        if last is None:
            return
        value = self.evaluate(compile(EvalTree(last.value), name, "eval", AWAIT | self.future, True))
        if value is not None and not text.rstrip().endswith(";"):
            builtins._ = value
            if not State.flags & SILENT:
                present(value, True)

    def evaluate(self, code):
        self.future |= code.co_flags & ANNOTATIONS
        value = eval(code, self.space)
        return self.wait(value) if code.co_flags & IS_COROUTINE else value

    def wait(self, coroutine):
        import asyncio

        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        task = self.loop.create_task(coroutine)
        try:
            return self.loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            try:
                self.loop.run_until_complete(task)
            except (asyncio.CancelledError, Exception):
                pass
            raise


def dedent(code):
    """A cell that is indented as a whole loses that."""
    for line in code.splitlines():
        bare = line.lstrip(" \t")
        if not bare or bare.startswith("#"):
            continue
        margin = line[: len(line) - len(bare)]
        if not margin:
            return code
        return "\n".join(s[len(margin) :] if s.startswith(margin) else s for s in code.split("\n"))
    return code


def present(value, main):
    if type(value) in SIMPLE and not (State.flags & JSON and isinstance(value, (list, dict))):
        send_display([(TEXT, "text/plain", encode(short_text(repr(value))))], main)
    else:
        part("rich")["present"](value, main)


def display(*objects, **ignored):
    """Shows objects as rich as they can be, as IPython's display() does."""
    for value in objects:
        present(value, False)


# --- one execution ---


def on_interrupt(number, frame):
    if State.running and not State.guarded:
        raise KeyboardInterrupt
    State.interrupted = State.begun


def refuse_input(prompt=""):
    raise EOFError("input() is not available here: nobody can answer while code runs in a kernel")


def after_fork():
    State.child = True
    os.close(CHANNEL)


def changed_environment(pairs):
    """Sets the variables; what they were before."""
    before = [(k, os.environ.get(k)) for k, _ in pairs]
    for key, value in pairs:
        os.environ[key] = value
    return before


def restore_environment(before):
    for key, value in before:
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


def pairs_of(data):
    """"key NUL value NUL ..." as a list of pairs."""
    fields = data.decode("utf-8", "surrogateescape").split("\0")
    return list(zip(fields[::2], fields[1::2]))


def report(error):
    if State.child:
        sys.excepthook(type(error), error, error.__traceback__)
    else:
        part("error")["report"](error)


def run_guarded(code):
    """Runs one cell; True when it went well. Never raises."""
    try:
        try:
            State.running = True
            if State.interrupted:
                raise KeyboardInterrupt
            ok = shell.run(code) is not False
            if "matplotlib.pyplot" in sys.modules and not State.child:
                show_figures()
            return ok
        finally:
            State.running = State.begun = State.interrupted = False
    except BaseException as error:
        try:
            report(error)
            if "matplotlib.pyplot" in sys.modules and not State.child:
                show_figures()
        except BaseException as second:
            send_error(type(second).__name__, "while an error was reported", [])
        return False


def execute(body):
    size = int.from_bytes(body[1:5], "big")
    code = body[5 : 5 + size].decode("utf-8", "replace")
    State.flags = body[0]
    if State.flags & STORE:
        State.count += 1
    State.begun = True
    send(b"A", State.count.to_bytes(4, "big"))
    before = changed_environment(pairs_of(body[5 + size :]))
    if getsignal(SIGINT) is not on_interrupt:
        signal(SIGINT, on_interrupt)
    ok = run_guarded(code)
    flush()
    if State.child:
        os._exit(0 if ok else 1)
    restore_environment(before)
    send(b"F", bytes((0 if ok else 1,)) + State.count.to_bytes(4, "big"))


def setup(body):
    """The working directory and, from now on, these variables."""
    directory, _, rest = body.partition(b"\0")
    try:
        if directory:
            os.chdir(directory)
    except OSError as error:
        sys.stderr.write(f"[{error}]\n")
    changed_environment(pairs_of(rest))
    flush()


def make_shell():
    """IPython where it is, unless the plain interpreter was asked for."""
    wanted = os.environ.pop("AVIARY_KERNEL_SHELL", "auto")
    if wanted != "plain":
        try:
            return part("ipython")["make"]()
        except ImportError:
            if wanted == "ipython":
                sys.stderr.write("[IPython is not installed here: the plain interpreter runs instead]\n")
    return Plain()


def main():
    global shell
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.set_inheritable(CHANNEL, False)
    os.environ.setdefault("MPLBACKEND", "Agg")
    sys.stdout = sys.__stdout__ = Output(1)
    sys.stderr = sys.__stderr__ = Output(2)
    sys.argv = [""]
    signal(SIGINT, on_interrupt)
    builtins.input = refuse_input
    sys.meta_path.insert(0, Watcher())
    os.register_at_fork(after_in_child=after_fork)
    shell = make_shell()
    flush()
    send(b"R", encode(shell.banner()))
    while True:
        kind, body = receive()
        if kind == b"X":
            execute(body)
        elif kind == b"S":
            setup(body)


CORE = globals()
main()
