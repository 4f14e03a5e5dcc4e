# SPDX-License-Identifier: Apache-2.0
# rich.py - rich representations of values, and figures of matplotlib
import sys

METHODS = (
    ("_repr_html_", "text/html"),
    ("_repr_markdown_", "text/markdown"),
    ("_repr_svg_", "image/svg+xml"),
    ("_repr_png_", "image/png"),
    ("_repr_jpeg_", "image/jpeg"),
    ("_repr_pdf_", "application/pdf"),
    ("_repr_latex_", "text/latex"),
    ("_repr_json_", "application/json"),
    ("_repr_javascript_", "application/javascript"),
)
encode = core["encode"]
TEXT, BYTES, DOCUMENT, DISPLAY_ID = core["TEXT"], core["BYTES"], core["DOCUMENT"], core["DISPLAY_ID"]


def is_document(mime):
    return mime == "application/json" or mime.endswith("+json")


def item(mime, data):
    """(kind, MIME type, bytes), or None for what cannot be sent."""
    if isinstance(data, tuple):  # with metadata
        data = data[0]
    if data is None or not isinstance(mime, str):
        return None
    if isinstance(data, (bytes, bytearray, memoryview)):
        return BYTES, mime, bytes(data)
    if is_document(mime) or not isinstance(data, str):
        import json

        return DOCUMENT, mime, json.dumps(data, allow_nan=False, default=str).encode()
    if mime == "text/plain":
        data = core["short_text"](data)
    return TEXT, mime, encode(data)


def send_bundle(data, main=False, update=False, display_id=None):
    items = [i for i in (item(mime, value) for mime, value in data.items()) if i]
    if display_id is not None:
        items.append((DISPLAY_ID, "display_id", encode(str(display_id))[:256]))
    core["send_display"](items, main, update)


def method(value, name):
    """The bound method, or None. Classes have methods for their instances, not for themselves; and
    what claims to have every attribute has none."""
    if isinstance(value, type):
        return None
    try:
        if getattr(value, "_ipython_canary_method_should_not_exist_", None) is not None:
            return None
        found = getattr(value, name, None)
    except Exception:
        return None
    return found if callable(found) else None


def call(found, *args, **kwargs):
    """A representation that fails is left out, and standard error says why."""
    try:
        return found(*args, **kwargs)
    except NotImplementedError:
        return None
    except Exception as error:
        name = getattr(found, "__name__", "a representation")
        sys.stderr.write(f"[{name} failed: {type(error).__name__}: {error}]\n")
        return None


def bundle_of(value):
    bundle = {}
    whole = method(value, "_repr_mimebundle_")
    if whole:
        got = call(whole, include=None, exclude=None)
        got = got[0] if isinstance(got, tuple) else got
        if isinstance(got, dict):
            bundle.update(got)
    for name, mime in METHODS:
        found = None if mime in bundle else method(value, name)
        if found:
            bundle[mime] = call(found)
    figure = sys.modules.get("matplotlib.figure")
    if figure and isinstance(value, figure.Figure):
        bundle.update(pictures(value))
    if "text/plain" not in bundle:
        bundle["text/plain"] = repr(value)
    if core["State"].flags & core["JSON"] and isinstance(value, (dict, list)) and "application/json" not in bundle:
        try:
            bundle["application/json"] = plain_document(value)
        except (TypeError, ValueError, RecursionError):
            pass
    return {k: v for k, v in bundle.items() if v is not None}


def plain_document(value):
    import json

    return json.loads(json.dumps(value, allow_nan=False))


def present(value, main):
    by_itself = method(value, "_ipython_display_")
    if by_itself:
        call(by_itself)
    else:
        send_bundle(bundle_of(value), main)


# --- figures ---


def wanted_formats():
    flags = core["State"].flags
    formats = [f for f, bit in (("png", core["PNG"]), ("svg", core["SVG"])) if flags & bit]
    if formats:
        return formats
    inline = sys.modules.get("matplotlib_inline.config")
    if inline and inline.InlineBackend.initialized():
        return [f for f in sorted(inline.InlineBackend.instance().figure_formats) if f in ("png", "svg", "jpeg", "pdf")]
    return ["png"]


def pictures(figure):
    from io import BytesIO

    bundle = {}
    for fmt in wanted_formats():
        out = BytesIO()
        figure.canvas.print_figure(
            out,
            format=fmt,
            bbox_inches="tight",
            dpi=figure.dpi,
            facecolor=figure.get_facecolor(),
            edgecolor=figure.get_edgecolor(),
        )
        if fmt == "svg":
            bundle["image/svg+xml"] = out.getvalue().decode("utf-8", "replace")
        else:
            bundle["application/pdf" if fmt == "pdf" else "image/" + fmt] = out.getvalue()
    return bundle


def show_figures():
    from matplotlib._pylab_helpers import Gcf

    managers = Gcf.get_all_fig_managers()
    try:
        for manager in managers:
            figure = manager.canvas.figure
            if figure.get_axes() or figure.lines or figure.images or figure.texts or figure.patches:
                send_bundle({**pictures(figure), "text/plain": repr(figure)})
    finally:
        if managers:
            sys.modules["matplotlib.pyplot"].close("all")
