# SPDX-License-Identifier: MIT
"""The proxies that are compared: how each is started, and what it cannot do."""

import dataclasses
import os
import shutil

import build

HAPROXY = """global
    maxconn {sessions}
    maxpipes 64
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    retries 1000
    @splice@
frontend f
    bind {listen} backlog 65535
    maxconn {sessions}
    default_backend b
backend b
    server s {server}
"""
NGINX = """@module@
worker_processes 1;
worker_rlimit_nofile {descriptors};
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log crit;
events {{ worker_connections {descriptors}; multi_accept on; }}
stream {{
    access_log off;
    upstream u {{ server {server}; }}
    server {{
        listen {listen} backlog=65535;
        proxy_pass u;
        proxy_timeout 1h;
        proxy_connect_timeout 5s;
        proxy_buffer_size @buffer@;
        tcp_nodelay on;
    }}
}}
"""
REDIALD = """[daemon]
@daemon@
[proxy bench]
listen = {listen}
server = {server}
"""
NGINX_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"  # where it is not built in


@dataclasses.dataclass
class Peer:
    """Command and configuration are templates; see proxy.Proxy for the fields."""

    name: str
    command: list = None  # None: no proxy at all
    config: str = ""
    package: str = ""
    is_ours: bool = False
    is_rival: bool = True  # its best figures are what ours are compared with
    idle_limit: int = 1 << 30  # sessions in the idle workload
    at_once: int = 128  # sessions opened side by side there
    cannot: dict = dataclasses.field(default_factory=dict)  # workload: reason

    def missing(self):
        """Why it cannot run on this machine, or None."""
        if self.command and not shutil.which(self.command[0]):
            return f"{self.command[0]} is not installed" + (
                f" (Debian: {self.package})" if self.package else ""
            )
        return None


def rediald(name, path, daemon_lines):
    return Peer(
        name,
        [path, "-c", "{config}"],
        is_ours=True,
        config=REDIALD.replace("@daemon@", "\n".join(daemon_lines)),
    )


def ours(words, daemon_lines, directory):
    """The peers that are rediald: each of words is [NAME=]PATH; without one it is built in directory."""
    found = []
    for word in words or [build.rediald(directory)]:
        name, _, path = word.rpartition("=")
        found.append(rediald("rediald" + (f"-{name}" if name else ""), os.path.abspath(path), daemon_lines))
    return found


def bare(path):
    return Peer(
        "bare",
        [path, "{listen_port}", "{server_port}"],
        is_rival=False,
        cannot=_refuses("it tries nothing again"),
    )


def _haproxy(name, splice):
    return Peer(
        name,
        ["/usr/sbin/haproxy", "-db", "-q", "-f", "{config}"],
        package="haproxy",
        config=HAPROXY.replace("@splice@", splice),
    )


def _nginx(name, size):
    module = f"load_module {NGINX_MODULE};" if os.path.exists(NGINX_MODULE) else ""
    return Peer(
        name,
        ["/usr/sbin/nginx", "-p", "{directory}", "-c", "{config}"],
        package="nginx libnginx-mod-stream",
        config=NGINX.replace("@module@", module).replace("@buffer@", size),
        cannot=_refuses("it closes the client when its only server refuses"),
    )


def _refuses(why):
    return {"recover1": why, "recover500": why}


def others():
    """No proxy, and everybody else's."""
    return [
        Peer("none", cannot=_refuses("nobody holds the client")),
        _haproxy("haproxy", ""),
        _haproxy("haproxy-splice", "option splice-request\n    option splice-response"),
        _nginx("nginx-16k", "16k"),
        _nginx("nginx-64k", "64k"),
        Peer(
            "systemd",
            [
                "systemd-socket-activate",
                "-l",
                "{listen}",
                "/usr/lib/systemd/systemd-socket-proxyd",
                "-c",
                "{sessions}",
                "{server}",
            ],
            package="systemd",
            idle_limit=3000,
            cannot=_refuses("it closes the client when its server refuses"),
        ),
        Peer(
            "rinetd",
            ["rinetd", "-f", "-c", "{config}"],
            package="rinetd",
            config="127.0.0.1 {listen_port} 127.0.0.1 {server_port}\n",
            cannot=_refuses("it closes the client when its server refuses"),
        ),
        Peer(
            "socat",
            [
                "socat",
                "-b",
                "65536",
                "TCP4-LISTEN:{listen_port},bind=127.0.0.1,reuseaddr,fork,nodelay,backlog=4096",
                "TCP4:{server},nodelay,retry=100000,interval=0.1",
            ],
            package="socat",
            idle_limit=1000,
        ),
    ]
