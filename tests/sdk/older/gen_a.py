# SPDX-License-Identifier: Apache-2.0
"""A client of the older shape: /v1/sandboxes; key and session both sent with every request."""

from wire import AUTH, CREDENTIALS, HOST, KEY, REGISTRATION, SANDBOX, TEMPLATE, Box, Wire, each, STR


class Sandbox(Box):
    prefix = "/v1/sandboxes"


class Part:
    def __init__(self, wire):
        self.wire = wire


class Auth(Part):
    def signup(self, email, password):
        return self.wire.call("POST", "/v1/auth/signup", {"email": email, "password": password}, model=AUTH)

    def login(self, email, password):
        return self.wire.call("POST", "/v1/auth/login", {"email": email, "password": password}, model=AUTH)


class ApiKeys(Part):
    def create(self, name=None):
        return self.wire.call("POST", "/v1/api-keys", {"name": name}, model=KEY)

    def list(self):
        return self.wire.call("GET", "/v1/api-keys", rows=KEY)

    def delete(self, key_id):
        self.wire.call("DELETE", f"/v1/api-keys/{key_id}")


class Sandboxes(Part):
    def create(self, **given):
        return Sandbox(self.wire, self.wire.call("POST", "/v1/sandboxes", given, model=SANDBOX))

    def list(self):
        return self.wire.call("GET", "/v1/sandboxes", rows=SANDBOX)

    def get(self, sandbox_id):
        return self.wire.call("GET", f"/v1/sandboxes/{sandbox_id}", model=SANDBOX)

    def destroy(self, sandbox_id):
        self.wire.call("DELETE", f"/v1/sandboxes/{sandbox_id}")


class Snapshots(Part):
    def create(self, sandbox_id, name=None, overwrite=False):
        return self.wire.call("POST", "/v1/snapshots", {"sandbox_id": sandbox_id, "name": name}, model=TEMPLATE,
                              overwrite="true" if overwrite else None)

    def list(self, type=None):
        return self.wire.call("GET", "/v1/snapshots", rows=TEMPLATE, type=type)

    def delete(self, name):
        self.wire.call("DELETE", f"/v1/snapshots/{name}")


class Hosts(Part):
    def create(self, type, **given):
        return self.wire.call("POST", "/v1/hosts", {"type": type, **given}, model=REGISTRATION)

    def list(self):
        return self.wire.call("GET", "/v1/hosts", rows=HOST)

    def get(self, host_id):
        return self.wire.call("GET", f"/v1/hosts/{host_id}", model=HOST)

    def delete(self, host_id):
        self.wire.call("DELETE", f"/v1/hosts/{host_id}")

    def regenerate_token(self, host_id):
        return self.wire.call("POST", f"/v1/hosts/{host_id}/token", model=REGISTRATION)

    def list_tags(self, host_id):
        tags = self.wire.call("GET", f"/v1/hosts/{host_id}/tags") or []
        each(STR)(tags)
        return tags

    def add_tag(self, host_id, tag):
        self.wire.call("POST", f"/v1/hosts/{host_id}/tags", {"tag": tag})

    def remove_tag(self, host_id, tag):
        self.wire.call("DELETE", f"/v1/hosts/{host_id}/tags/{tag}")

    def register(self, token, address, **facts):
        return self.wire.call("POST", "/v1/hosts/register", {"token": token, "address": address, **facts}, model=CREDENTIALS)

    def refresh(self, token):
        return self.wire.call("POST", "/v1/hosts/auth/refresh", {"refresh_token": token}, model=CREDENTIALS)

    def heartbeat(self, host_id, token):
        self.wire.call("POST", f"/v1/hosts/{host_id}/heartbeat", headers={"X-Host-Token": token})


class WrennClient:
    def __init__(self, api_key=None, token=None, base_url=None):
        wire = Wire(base_url, api_key, token)
        self.auth, self.api_keys, self.sandboxes = Auth(wire), ApiKeys(wire), Sandboxes(wire)
        self.snapshots, self.hosts = Snapshots(wire), Hosts(wire)
