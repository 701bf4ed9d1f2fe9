# SPDX-License-Identifier: MIT
"""A client of the admin interface, and what hostile ones send."""

import http.client

from sockets import connected


class Answer:
    """What was answered: status, headers and body."""

    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self):
        return self.body.decode()


class Connection(http.client.HTTPConnection):
    """To any address, one request after another."""

    def __init__(self, address, **kwargs):
        super().__init__("localhost")
        self._address, self._kwargs = address, kwargs

    def connect(self):
        self.sock = connected(self._address, **self._kwargs)

    def ask(self, path, method="GET", **kwargs):
        self.request(method, path, **kwargs)
        return Answer(self.getresponse())


def ask(address, path, method="GET", **kwargs):
    """One request on a connection of its own."""
    connection = Connection(address)
    try:
        return connection.ask(path, method, **kwargs)
    finally:
        connection.close()
