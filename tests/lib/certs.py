# SPDX-License-Identifier: Apache-2.0
"""certs - certificates for tests, made by openssl(1): a root, an authority below it, and servers

Keys are P-256, as they are made and used in no time. Files of a server: NAME.crt (its own certificate and the
authority's) and NAME.key (mode 0600).
"""

import os
import subprocess
import tempfile


def openssl(*args, stdin=None):
    return subprocess.run(["openssl", *args], check=True, capture_output=True, input=stdin, timeout=60).stdout


class Authority:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="aviary-certs-")
        os.chmod(self.dir, 0o700)  # as /etc/letsencrypt/live
        self.root = self.path("root.crt")
        self._key("root.key")
        openssl("req", "-x509", "-new", "-key", self.path("root.key"), "-out", self.root, "-days", "3650", "-subj",
                "/CN=Test Root", "-addext", "basicConstraints=critical,CA:TRUE")
        self._key("authority.key")
        self._sign("authority", "/CN=Test Authority", "basicConstraints=critical,CA:TRUE\n", "root", 3650)

    def path(self, name):
        return os.path.join(self.dir, name)

    def _key(self, name):
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", self.path(name))
        os.chmod(self.path(name), 0o600)

    def _sign(self, name, subject, extensions, by, days):
        request = openssl("req", "-new", "-key", self.path(name + ".key"), "-subj", subject)
        with open(self.path(name + ".ext"), "w", encoding="ascii") as f:
            f.write(extensions)
        openssl("x509", "-req", "-CA", self.path(by + ".crt"), "-CAkey", self.path(by + ".key"), "-CAcreateserial",
                "-days", str(days), "-extfile", self.path(name + ".ext"), "-out", self.path(name + ".crt"), stdin=request)

    def server(self, name, alt="DNS:localhost,DNS:*.sb.test,IP:127.0.0.1", days=90, key=None):
        """Makes NAME.crt and NAME.key; returns both paths. key: an openssl command line for another kind."""
        if key:
            openssl(*key, "-out", self.path(name + ".key"))
            os.chmod(self.path(name + ".key"), 0o600)
        else:
            self._key(name + ".key")
        self._sign(name, "/CN=" + name, f"subjectAltName={alt}\n", "authority", days)
        with open(self.path(name + ".crt"), "ab") as f, open(self.path("authority.crt"), "rb") as chain:
            f.write(chain.read())
        return self.path(name + ".crt"), self.path(name + ".key")

    def serial(self, name):
        return int(openssl("x509", "-in", self.path(name + ".crt"), "-noout", "-serial").decode().split("=")[1], 16)
