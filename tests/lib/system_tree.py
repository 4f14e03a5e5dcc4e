# SPDX-License-Identifier: Apache-2.0
"""system_tree.py - a root file system of hand-picked files of this machine, with the libraries that they need"""
import os
import re
import shutil
import stat
import subprocess


def libraries(program):
    out = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+)", out)


class Tree:
    """The guest's root, below a directory; merged /usr as Debian has it."""

    def __init__(self, path):
        self.path = path
        shutil.rmtree(path, ignore_errors=True)
        for d in "usr/bin usr/sbin usr/lib usr/lib64 etc root run tmp proc sys dev var/tmp var/log aviary home opt srv mnt".split():
            (path / d).mkdir(parents=True)
        for link in ("bin", "sbin", "lib", "lib64"):
            (path / link).symlink_to(f"usr/{link}")

    def add(self, source):
        """Copies one file to where it lies here, with what its symbolic links lead through."""
        source = str(source)
        for top in ("/bin/", "/sbin/", "/lib/", "/lib64/"):
            if source.startswith(top):
                source = "/usr" + source
        target = self.path / source.lstrip("/")
        if target.is_symlink() or target.exists() or not os.path.lexists(source):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.islink(source):
            link = os.readlink(source)
            target.symlink_to(link)
            self.add(os.path.normpath(os.path.join(os.path.dirname(source), link)))
        elif stat.S_ISREG(os.stat(source).st_mode):
            shutil.copy2(source, target)
            os.chown(target, os.stat(source).st_uid, os.stat(source).st_gid)
            os.chmod(target, stat.S_IMODE(os.stat(source).st_mode))

    def add_program(self, path):
        self.add(path)
        for lib in libraries(path):
            self.add(lib)

    def add_tree(self, top):
        for base, dirs, files in os.walk(top):
            dirs[:] = [d for d in dirs if d not in ("test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "__pycache__", "dist-packages")]
            for name in files:
                path = os.path.join(base, name)
                self.add(path)
                if path.endswith(".so"):
                    for lib in libraries(path):
                        self.add(lib)
