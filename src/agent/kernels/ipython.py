# SPDX-License-Identifier: Apache-2.0
# ipython.py - IPython as the interpreter of a kernel
import sys

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type
from traitlets.config import Config

State = core["State"]


def bundle(data, **how):
    core["part"]("rich")["send_bundle"](data, **how)


class Publisher(DisplayPublisher):
    def publish(self, data, metadata=None, source=None, *, transient=None, update=False, **ignored):
        bundle(data, update=update, display_id=(transient or {}).get("display_id"))

    def clear_output(self, wait=False):
        core["flush"]()
        answer = core["answered"]()
        core["send"](b"C", bytes((bool(wait) | answer,)), answer=answer)


class Hook(DisplayHook):
    def write_output_prompt(self):
        pass

    def write_format_data(self, format_dict, md_dict=None):
        if State.flags & core["JSON"] and "application/json" not in format_dict:
            value = self.shell.user_ns.get("_")
            if isinstance(value, (dict, list)):
                try:
                    document = core["part"]("rich")["plain_document"](value)
                    format_dict = {**format_dict, "application/json": document}
                except (TypeError, ValueError, RecursionError):
                    pass
        bundle(format_dict, main=True)

    def finish_displayhook(self):
        pass


class Shell(InteractiveShell):
    displayhook_class = Type(Hook)
    display_pub_class = Type(Publisher)

    def _showtraceback(self, etype, evalue, stb):
        try:
            value = str(evalue)
        except Exception:
            value = "<its text cannot be made>"
        lines = [line for entry in stb for line in str(entry).split("\n")]
        core["send_error"](etype.__name__, value, lines)

    def system(self, cmd):
        """!cmd writes to the cell's output as it goes."""
        core["flush"]()
        return self.system_raw(cmd)

    def enable_gui(self, gui=None):
        pass

    def ask_exit(self):
        print("A kernel is ended by restarting or deleting it.", file=sys.stderr)


class Kernel:
    def __init__(self, shell):
        self.shell = shell

    def banner(self):
        import IPython

        return f"python {sys.version.split()[0]}, ipython {IPython.__version__}"

    def run(self, code):
        store, silent = bool(State.flags & core["STORE"]), bool(State.flags & core["SILENT"])
        self.shell.execution_count = max(State.count, 1)
        result = self.shell.run_cell(code, store_history=store, silent=silent)
        if result.error_before_exec is not None and not isinstance(result.error_before_exec, SyntaxError):
            return False
        return bool(result.success)


def figure_formats(shell):
    """Figures as values are pictures, without %matplotlib inline too."""
    pictures = core["part"]("rich")["pictures"]
    for mime in ("image/png", "image/svg+xml"):
        shell.display_formatter.formatters[mime].for_type_by_name(
            "matplotlib.figure", "Figure", lambda figure, mime=mime: pictures(figure).get(mime)
        )


def make():
    config = Config()
    config.HistoryManager.enabled = False  # no file and no thread; %history has this session
    config.InteractiveShell.colors = "NoColor"
    config.InteractiveShell.xmode = "Context"
    shell = Shell.instance(config=config)
    core["builtins"].input = core["refuse_input"]
    figure_formats(shell)
    return Kernel(shell)
