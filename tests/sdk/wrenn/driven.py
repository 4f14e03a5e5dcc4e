# SPDX-License-Identifier: Apache-2.0
"""Which public methods of a package were called: what no test drives is found, also in a version that is newer than the tests."""
import enum
import functools
import importlib
import inspect
import pkgutil

PROTOCOL = {"__iter__", "__next__", "__enter__", "__exit__", "__aiter__", "__anext__", "__aenter__", "__aexit__"}
known, called = set(), set()


def counted(name, function):
    known.add(name)

    @functools.wraps(function)
    def call(*args, **more):
        called.add(name)
        return function(*args, **more)
    return call


def watch_member(cls, name, value):
    what = f"{cls.__module__}.{cls.__qualname__}.{name}"
    if type(value).__name__ == "_DualMethod":  # one name, two methods: on an object and on the class
        for inner in (value._ifn, value._sfn):
            function = vars(cls).get(inner)
            if isinstance(function, classmethod):
                setattr(cls, inner, classmethod(counted(f"{what} (by id)", function.__func__)))
            elif function:
                setattr(cls, inner, counted(f"{what} (of an object)", function))
    elif name.startswith("_") and name not in PROTOCOL:
        return
    elif isinstance(value, classmethod):
        setattr(cls, name, classmethod(counted(what, value.__func__)))
    elif isinstance(value, staticmethod):
        setattr(cls, name, staticmethod(counted(what, value.__func__)))
    elif isinstance(value, property):
        setattr(cls, name, property(counted(what, value.fget)))
    elif inspect.isfunction(value):
        setattr(cls, name, counted(what, value))


def watch(package):
    """From now on calls are seen. The package must not have handed out its methods yet."""
    done = set()
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        for cls in list(vars(importlib.import_module(found.name)).values()):
            if (not inspect.isclass(cls) or not cls.__module__.startswith(package.__name__) or cls in done
                    or cls.__name__.startswith("_")):
                continue
            # Values without behaviour of their own, and errors: met through what returns and raises them.
            if issubclass(cls, (enum.Enum, BaseException)) or hasattr(cls, "model_fields"):
                continue
            done.add(cls)
            for name, value in list(vars(cls).items()):
                watch_member(cls, name, value)


def missing():
    return sorted(known - called)
