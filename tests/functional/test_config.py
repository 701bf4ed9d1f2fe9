# SPDX-License-Identifier: MIT
"""The configuration: what rediald says of bad files, and that good ones mean what they say.

Every fault must give exit status 78 and exactly the lines given here, nothing less and no more.
"""

import os
import re
import shlex
import shutil
import subprocess

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REDIALD = os.environ.get("REDIALD") or os.path.join(
    os.environ.get("REDIAL_BUILDDIR") or TOP, "src", "rediald")
WRAP = shlex.split(os.environ.get("WRAP", ""))
EX_CONFIG = 78

PROXY = "[proxy web]\nlisten = 127.0.0.1:7000\nserver = 127.0.0.1:8000\n"


def run(tmp_path, *args, env=None, wrap=()):
    """Run rediald in the directory of the files, so that messages name them as given."""
    base = {k: os.environ[k] for k in ("PATH", "LD_LIBRARY_PATH", "ASAN_OPTIONS") if k in os.environ}
    return subprocess.run([*wrap, *WRAP, REDIALD, *args], cwd=tmp_path, env={**base, **(env or {})},
                          capture_output=True, timeout=60, check=False)


def write(tmp_path, files):
    if isinstance(files, (str, bytes)):
        files = {"a.conf": files}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)


def refused(tmp_path, *args, env=None, wrap=()):
    """The lines that it prints as it refuses."""
    done = run(tmp_path, *args, env=env, wrap=wrap)
    assert done.returncode == EX_CONFIG, done.stderr.decode()
    assert done.stdout == b""
    return done.stderr.decode().splitlines()


def dump(tmp_path, *args, env=None):
    done = run(tmp_path, *args, "--dump", env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def in_proxy(line):
    """A proxy that is fine but for ${line}, its fourth."""
    return PROXY + line + "\n"


def address(text):
    return f"[proxy web]\nlisten = {text}\nserver = 127.0.0.1:8000\n"


def at4(what):
    return [f"a.conf:4: [proxy web] {what}"]


def at2(what):
    return [f"a.conf:2: [proxy web] listen: {what}"]


def keys_of(section):
    """The keys of a section, from the reference, which the unit tests hold to the daemon's own."""
    with open(os.path.join(TOP, "conf", "rediald.conf"), encoding="utf-8") as f:
        text = re.split(r"^\[(?=\w)", f.read(), flags=re.MULTILINE)
    return [key for part in text if part.startswith(section)
            for key in re.findall(r"^;(\w+) = ", part, re.MULTILINE)]


DURATION = "allowed are a whole number with its unit (ms, s, m, h or d) and off"
SERVER_WORDS = "allowed after the address are weight=N, backup, name=S and max_sessions=N"
LOOP = "a server outside of it is allowed"
LONG = 108 * "p"

BAD = {
    # Lines
    "colon": ("[proxy web]\nlisten: 127.0.0.1:7000\nlisten = 127.0.0.1:7000\n"
              "server = 127.0.0.1:8000\n",
              ["a.conf:2: [proxy web]: cannot read 'listen: 127.0.0.1:7000'; expected key = value"]),
    "colon before equals": (in_proxy("listen:x = 127.0.0.1:7001"),
                            ["a.conf:4: [proxy web]: cannot read 'listen:x = 127.0.0.1:7001'; "
                             "expected key = value"]),
    "no equals": (in_proxy("server 127.0.0.1:8001"),
                  ["a.conf:4: [proxy web]: cannot read 'server 127.0.0.1:8001'; "
                   "expected key = value"]),
    "equals in a comment": (in_proxy("server ; = 127.0.0.1:8001"),
                            ["a.conf:4: [proxy web]: cannot read 'server ; = 127.0.0.1:8001'; "
                             "expected key = value"]),
    "no key": (in_proxy("= 127.0.0.1:8001"),
               ["a.conf:4: [proxy web]: cannot read '= 127.0.0.1:8001'; expected key = value"]),
    "no continuation": (in_proxy("    127.0.0.1:8001"),
                        ["a.conf:4: [proxy web]: cannot read '127.0.0.1:8001'; "
                         "expected key = value"]),
    "every malformed line": (PROXY + "foo\n\n; fine\nbar\n[\n",
                             ["a.conf:4: [proxy web]: cannot read 'foo'; expected key = value",
                              "a.conf:7: [proxy web]: cannot read 'bar'; expected key = value",
                              "a.conf:8: cannot read '['; expected [section] with its ']'"]),
    "overlong line": (in_proxy("server = 127.0.0.1:8001" + 180 * " " + "backup"),
                      ["a.conf:4: [proxy web]: the line is too long; allowed are 198 bytes"]),
    "overlong line by one": (in_proxy("server = 127.0.0.1:8001 name=" + 170 * "n"),
                             ["a.conf:4: [proxy web]: the line is too long; allowed are 198 bytes"]),
    "overlong key": (in_proxy(50 * "k" + " = 1"),
                     [f"a.conf:4: [proxy web]: the key '{50 * 'k'}' is too long; "
                      "allowed are 49 bytes"]),
    "overlong section": (f"[proxy {44 * 'n'}]\n" + PROXY,
                         [f"a.conf:1: the section's name 'proxy {44 * 'n'}' is too long; "
                          "allowed are 49 bytes"]),
    "NUL byte": (b"[proxy web]\nlisten = 127.0.0.1:7000\nserver = 127.0.0.1:80\00000\n",
                 ["a.conf:3: [proxy web]: a NUL byte in the line; only text is allowed",
                  "a.conf:1: [proxy web] server: missing; a proxy needs a server, or upstream = NAME"]),
    "NUL byte in a comment": (PROXY.encode() + b"; \0\n",
                              ["a.conf:4: [proxy web]: a NUL byte in the line; only text is allowed"]),
    "control character": (in_proxy("backlog = 1\x1b[7m0"),
                          ["a.conf:4: [proxy web]: the control character 0x1b in the line; "
                           "only text is allowed"]),
    "DEL": (in_proxy("backlog = 1\x7f0"),
            ["a.conf:4: [proxy web]: the control character 0x7f in the line; only text is allowed"]),
    "CR inside a line": (in_proxy("backlog = 10\rbalance = first"),
                         ["a.conf:4: [proxy web]: the control character 0x0d in the line; "
                          "only text is allowed"]),
    "CR LF": ((PROXY + "baklog = 1\nfoo\n[upstream]\n").replace("\n", "\r\n"),
              at4("baklog: unknown key; did you mean 'backlog'?") +
              ["a.conf:5: [proxy web]: cannot read 'foo'; expected key = value",
               "a.conf:6: the section has no name; write [upstream NAME]"]),
    "last line without an end": (PROXY + "backlog = 0",
                                 at4("backlog: '0' is out of range; allowed are 1 to 65535")),
    "last line malformed and without an end": (PROXY + "foo",
                                               ["a.conf:4: [proxy web]: cannot read 'foo'; "
                                                "expected key = value"]),
    "last line cut within its end": ((PROXY + "backlog = 0\n").replace("\n", "\r\n")[:-1],
                                     at4("backlog: '0' is out of range; allowed are 1 to 65535")),
    "last line a heading without an end": (PROXY + "[proxy web", [
        "a.conf:4: cannot read '[proxy web'; expected [section] with its ']'"]),
    "BOM further down": (PROXY + "\ufeffbacklog = 10\n",
                         ["a.conf:4: [proxy web] \ufeffbacklog: unknown key; "
                          "did you mean 'backlog'?"]),
    # Sections
    "unknown section": ("[prxoy web]\nlisten = 1\n" + PROXY,
                        ["a.conf:1: unknown section 'prxoy'; did you mean 'proxy'?"]),
    "unknown section, nothing near": ("[frontend web]\nbind = 1\n" + PROXY,
                                      ["a.conf:1: unknown section 'frontend'; allowed are [daemon], "
                                       "[defaults], [proxy NAME] and [upstream NAME]"]),
    "text after the bracket": ("[proxy web] x\nlisten = 127.0.0.1:7000\n" + PROXY,
                               ["a.conf:1: text after ']': 'x'; allowed is a comment that begins "
                                "with ';'"]),
    "hash after the bracket": ("[proxy web] # x\n" + PROXY,
                               ["a.conf:1: text after ']': '# x'; allowed is a comment that begins "
                                "with ';'"]),
    "no closing bracket": ("[proxy web\nlisten = 127.0.0.1:7000\n" + PROXY,
                           ["a.conf:1: cannot read '[proxy web'; expected [section] with its ']'"]),
    "key before any section": ("backlog = 1\nx\n" + PROXY,
                               ["a.conf:1: backlog: the key stands before any section; begin with a "
                                "line such as [proxy NAME]",
                                "a.conf:2: cannot read 'x'; expected key = value"]),
    "no name": ("[proxy]\n" + PROXY, ["a.conf:1: the section has no name; write [proxy NAME]"]),
    "empty heading": ("[ ]\n" + PROXY, ["a.conf:1: unknown section ''; allowed are [daemon], "
                                       "[defaults], [proxy NAME] and [upstream NAME]"]),
    "a name too many": ("[daemon main]\n" + PROXY,
                        ["a.conf:1: the section takes no name; write [daemon]"]),
    "bad name": ("[proxy my web]\n" + PROXY,
                 ["a.conf:1: 'my web' is not a section's name; allowed are letters, digits, "
                  "'_', '.' and '-'"]),
    "section twice": (PROXY + "[proxy web]\nlisten = 127.0.0.1:7001\nbaklog = 1\n",
                      ["a.conf:4: [proxy web]: the section is given twice, first at a.conf:1; "
                       "once is allowed",
                       "a.conf:6: [proxy web] baklog: unknown key; did you mean 'backlog'?"]),
    "section twice, in two files": ({"a.conf": "[daemon]\ninclude = b.conf\n" + PROXY,
                                     "b.conf": "\n[daemon]\n"},
                                    ["b.conf:2: [daemon]: the section is given twice, first at "
                                     "a.conf:1; once is allowed"]),
    "defaults twice": ("[defaults]\n[defaults]\n" + PROXY,
                       ["a.conf:2: [defaults]: the section is given twice, first at a.conf:1; "
                        "once is allowed"]),
    # Keys
    "unknown key": (in_proxy("lisen = 127.0.0.1:7001"),
                    at4("lisen: unknown key; did you mean 'listen'?")),
    "no workers": ("[daemon]\nworkers = 0\n" + PROXY,
                   ["a.conf:2: [daemon] workers: '0' is out of range; allowed are 1 to "
                    "256, and auto"]),
    "key of a later version": ("[daemon]\nquotas = off\n" + PROXY,
                               ["a.conf:2: [daemon] quotas: unknown key; allowed are "
                                + ", ".join(keys_of("daemon"))]),
    "admin in a proxy": (in_proxy("admin = off"),
                         at4("admin: not a key of [proxy]; allowed in [daemon]")),
    "admin is no address": ("[daemon]\nadmin = on\nadmin = ,\n" + PROXY,
                            ["a.conf:2: [daemon] admin: 'on': the port is missing; write ADDRESS:PORT",
                             "a.conf:3: [daemon] admin: ',' holds no address; at least one is "
                             "needed, or off"]),
    "admin on a socket that is passed": (
        "[daemon]\nadmin = systemd:admin\n" + PROXY,
        ["a.conf:2: [daemon] admin: 'systemd:admin': sockets that are passed are for proxies; "
         "allowed are HOST:PORT, [V6]:PORT, *:PORT, unix:/path, unix:@name and off"]),
    "mapped admin": ("[daemon]\nadmin = [::ffff:127.0.0.1]:9100\n" + PROXY,
                     ["a.conf:2: [daemon] admin: '[::ffff:127.0.0.1]:9100': an IPv4-mapped address "
                      "cannot be listened on; write the IPv4 address alone"]),
    "admin off and on": ("[daemon]\nadmin = off\nadmin = *:9100\n" + PROXY,
                         ["a.conf:3: [daemon] admin: 'off' and addresses exclude each other"]),
    "admin on and off": ("[daemon]\nadmin = *:9100, off\n" + PROXY,
                         ["a.conf:2: [daemon] admin: 'off' and addresses exclude each other"]),
    "admin overlaps a proxy": ("[daemon]\nadmin = *:9100, *:7000\n" + PROXY,
                               ["a.conf:2: [daemon] admin: '*:7000' overlaps '127.0.0.1:7000' at "
                                "a.conf:4; each address is allowed once"]),
    "admin overlaps another": ("[daemon]\nadmin = unix:/tmp/a\nadmin = unix:@a, unix:/tmp/a\n"
                               + PROXY,
                               ["a.conf:3: [daemon] admin: 'unix:/tmp/a' overlaps 'unix:/tmp/a' at "
                                "a.conf:2; each address is allowed once"]),
    "key of another section": (in_proxy("log_level = info"),
                               at4("log_level: not a key of [proxy]; allowed in [daemon]")),
    "key of three other sections": ("[daemon]\nnodelay = on\n" + PROXY,
                                    ["a.conf:2: [daemon] nodelay: not a key of [daemon]; allowed in "
                                     "[defaults], [proxy], [upstream]"]),
    "listen in defaults": ("[defaults]\nlisten = 127.0.0.1:7001\n" + PROXY,
                           ["a.conf:2: [defaults] listen: not a key of [defaults]; allowed in "
                            "[proxy]"]),
    "keys are lower case": (in_proxy("Backlog = 1"),
                            at4("Backlog: unknown key; did you mean 'backlog'?")),
    "key twice": (in_proxy("backlog = 10\nbacklog = 10"),
                  ["a.conf:5: [proxy web] backlog: the key is given twice, first at a.conf:4; "
                   "once is allowed"]),
    "key twice, wrong before": (in_proxy("nodelay = maybe\nnodelay = on"),
                                at4("nodelay: 'maybe' is not a switch; allowed are on, off, yes, no, "
                                    "true and false") +
                                ["a.conf:5: [proxy web] nodelay: the key is given twice, first at "
                                 "a.conf:4; once is allowed"]),
    "empty value": (in_proxy("backlog ="),
                    at4("backlog: the value is empty; leave the key out for its default")),
    "nothing but a comment": (in_proxy("backlog = ; 10"),
                              at4("backlog: the value is empty; leave the key out for its default")),
    # Values
    "missing unit": (in_proxy("connect_timeout = 10"),
                     at4("connect_timeout: '10' is not a duration; a number needs its unit: "
                         "ms, s, m, h or d")),
    "unknown unit": (in_proxy("connect_timeout = 10w"),
                     at4(f"connect_timeout: '10w' is not a duration; {DURATION}")),
    "fraction": (in_proxy("idle_timeout = 1.5s"),
                 at4(f"idle_timeout: '1.5s' is not a duration; {DURATION}")),
    "duration too long": (in_proxy("idle_timeout = 366d"),
                          at4("idle_timeout: '366d' is not a duration; allowed are at most 365d")),
    "duration overflows": (in_proxy("idle_timeout = 18446744073709551616ms"),
                           at4("idle_timeout: '18446744073709551616ms' is not a duration; allowed "
                               "are at most 365d")),
    "duration of none": (in_proxy("connect_timeout = off"),
                         at4("connect_timeout: 'off' is out of range; allowed are 1ms to 1h")),
    "duration out of range": (in_proxy("keepalive = 10h"),
                              at4("keepalive: '10h' is out of range; allowed are off to 9h")),
    "count out of range": (in_proxy("backlog = 0"),
                           at4("backlog: '0' is out of range; allowed are 1 to 65535")),
    "count too large": (in_proxy("backlog = 65536"),
                        at4("backlog: '65536' is out of range; allowed are 1 to 65535")),
    "no off for this count": (in_proxy("backlog = off"),
                              at4("backlog: 'off' is not a number; allowed are decimal digits alone")),
    "not a count": (in_proxy("max_sessions = -1"),
                    at4("max_sessions: '-1' is not a number; allowed are decimal digits alone, "
                        "and off")),
    "count overflows": (in_proxy("max_sessions = 4294967296"),
                        at4("max_sessions: '4294967296' is not a number; allowed are at most "
                            "4294967295, and off")),
    "unknown word": (in_proxy("balance = least_con"),
                     at4("balance: 'least_con' is not allowed; allowed are round_robin, "
                         "least_conn, source_hash and first")),
    "unknown format": ("[daemon]\nlog_format = journal\n" + PROXY,
                       ["a.conf:2: [daemon] log_format: 'journal' is not allowed; allowed are "
                        "auto, text and json"]),
    "three words": (in_proxy("when_down = stop"),
                    at4("when_down: 'stop' is not allowed; allowed are wait, reset and unlisten")),
    "version of a header": (in_proxy("send_proxy = on"),
                            at4("send_proxy: 'on' is not allowed; allowed are off, v1 and v2")),
    "header accepted of a version": (in_proxy("accept_proxy = v2"),
                                     at4("accept_proxy: 'v2' is not a switch; allowed are on, off, "
                                         "yes, no, true and false")),
    "header accepted by an upstream": (
        "[proxy web]\nlisten = 127.0.0.1:7000\nupstream = db\nsend_proxy = v1\n"
        "[upstream db]\nserver = 127.0.0.1:8000\naccept_proxy = on\n",
        ["a.conf:7: [upstream db] accept_proxy: not a key of [upstream]; allowed in [defaults], "
         "[proxy]",
         "a.conf:4: [proxy web] send_proxy: not allowed beside 'upstream = db'; allowed in "
         "[upstream db]"]),
    "mode": ("[proxy web]\nlisten = unix:/tmp/x\nserver = 127.0.0.1:8000\nunix_mode = 0680\n",
             at4("unix_mode: '0680' is not a file mode; allowed are octal digits, 0 to 0777")),
    "source of the other family": (
        in_proxy("source = ::1"),
        ["a.conf:3: [proxy web] server: '127.0.0.1:8000' cannot be dialled from the source "
         "address; allowed are IPv6 servers"]),
    "mapped listener": (in_proxy("listen = [::ffff:127.0.0.1]:7001"),
                        at4("listen: '[::ffff:127.0.0.1]:7001': an IPv4-mapped address cannot be "
                            "listened on; write the IPv4 address alone")),
    "source with a port": (in_proxy("source = 127.0.0.1:0"),
                           at4("source: '127.0.0.1:0': not an IPv6 address; eight groups of hex "
                               "digits, or :: for zeros")),
    "no such user": ("[daemon]\nuser = no-such-user\n" + PROXY,
                     ["a.conf:2: [daemon] user: no such user 'no-such-user'; allowed are a name or "
                      "number, and none"]),
    "no such group": ("[daemon]\ngroup = no-such-group\n" + PROXY,
                      ["a.conf:2: [daemon] group: no such group 'no-such-group'; allowed are a name "
                       "or number, and none"]),
    "no such owner": ("[proxy web]\nlisten = unix:/tmp/x\nserver = 127.0.0.1:8000\n"
                      "unix_user = no-such-user\n",
                      at4("unix_user: no such user 'no-such-user'; allowed are a name or number, "
                          "and none")),
    # Access lists
    "host bits": (in_proxy("allow = 192.0.2.1, 10.0.0.1/8"),
                  at4("allow: '10.0.0.1/8': the address has bits set behind the first 8; write "
                      "10.0.0.0/8 for the range, or 10.0.0.1 for the address alone")),
    "host bits of IPv6": (in_proxy("deny = 2001:db8::1/32"),
                          at4("deny: '2001:db8::1/32': the address has bits set behind the first "
                              "32; write 2001:db8::/32 for the range, or 2001:db8::1 for the "
                              "address alone")),
    "prefix too long": (in_proxy("deny = 10.0.0.0/33"),
                        at4("deny: '10.0.0.0/33': not a prefix length of IPv4 behind the slash; "
                            "0-32")),
    "name of a client": (in_proxy("allow = localhost"),
                         at4("allow: 'localhost': not an address; host names are not looked up, "
                             "literal addresses are needed")),
    "mapped range": (in_proxy("allow = ::ffff:10.0.0.0/104"),
                     at4("allow: '::ffff:10.0.0.0/104': an IPv4-mapped client counts as IPv4; "
                         "write the IPv4 address")),
    "zone of a client": (in_proxy("allow = fe80::1%lo"),
                         at4("allow: 'fe80::1%lo': a range has no zone; leave out % and what "
                             "follows")),
    "each line of a list": (in_proxy("allow = x\ndeny = ,\nallow = 192.0.2.1"),
                            at4("allow: 'x': not an address; host names are not looked up, literal "
                                "addresses are needed") +
                            ["a.conf:5: [proxy web] deny: ',' holds no address; at least one is "
                             "needed"]),
    "allow nobody": (in_proxy("allow = none"),
                     at4("allow: 'none' is not allowed here; to serve nobody, write deny = all")),
    "none and others": (in_proxy("deny = none\ndeny = 192.0.2.1\ndeny = 192.0.2.2"),
                        ["a.conf:5: [proxy web] deny: 'none' is given beside other values; it is "
                         "allowed alone"]),
    "allowed and denied": (in_proxy("allow = 192.0.2.0/24\ndeny = all 10.0.0.0/8\n"
                                    "allow = 10.0.0.0/8,192.0.2.1/32\ndeny = 10.0.0.0/8\n"
                                    "deny = 192.0.2.1"),
                           ["a.conf:5: [proxy web] deny: '10.0.0.0/8' is given to allow as well, by "
                            "[proxy web] at a.conf:6; choose one of them",
                            "a.conf:8: [proxy web] deny: '192.0.2.1' is given to allow as well, by "
                            "[proxy web] at a.conf:6; choose one of them"]),
    "all allowed and denied": (in_proxy("deny = all\nallow = all"),
                               at4("deny: 'all' is given to allow as well, by [proxy web] at "
                                   "a.conf:5; choose one of them")),
    "denied by defaults": ("[defaults]\ndeny = ::1\n" + in_proxy("allow = 0:0::1"),
                           ["a.conf:2: [defaults] deny: '::1' is given to allow as well, by [proxy "
                            "web] at a.conf:6; choose one of them"]),
    "allowed and denied by defaults": (
        "[defaults]\ndeny = ::1\nallow = ::1\n" + PROXY,
        ["a.conf:2: [defaults] deny: '::1' is given to allow as well, by [defaults] at a.conf:3; "
         "choose one of them"]),
    "access list of UNIX clients": (
        "[proxy web]\nlisten = unix:/tmp/x\nserver = 127.0.0.1:8000\ndeny = all\nallow = ::1\n",
        ["a.conf:5: [proxy web] allow: the proxy has UNIX listeners alone, and unix_mode says who "
         "may use them; allowed beside TCP listeners",
         "a.conf:4: [proxy web] deny: the proxy has UNIX listeners alone, and unix_mode says who "
         "may use them; allowed beside TCP listeners"]),
    "access list of an upstream": ("[upstream db]\nserver = 127.0.0.1:8001\nallow = ::1\n" + PROXY,
                                   ["a.conf:3: [upstream db] allow: not a key of [upstream]; "
                                    "allowed in [defaults], [proxy]"]),
    # The environment
    "unset variable": (in_proxy("backlog = ${NOPE}"),
                       at4("backlog: '${NOPE}' is not set in the environment; set it, or write "
                           "${NAME:-default}")),
    "unset address": ("[proxy web]\nlisten = ${NOPE}\nserver = 127.0.0.1:${NOPE}\n",
                      ["a.conf:2: [proxy web] listen: '${NOPE}' is not set in the environment; set "
                       "it, or write ${NAME:-default}",
                       "a.conf:3: [proxy web] server: '${NOPE}' is not set in the environment; set "
                       "it, or write ${NAME:-default}"]),
    "lone dollar": (in_proxy("source = $HOME"),
                    at4("source: '$HOME' is no variable; allowed are ${NAME}, ${NAME:-default}, and "
                        "$$ for a dollar sign")),
    "open brace": (in_proxy("source = ${HOME ; }"),
                   at4("source: '${HOME' has no closing '}'; allowed are ${NAME}, ${NAME:-default} "
                       "and $$")),
    "empty after expansion": (in_proxy("source = ${NOPE:-}"),
                              at4("source: the value is empty; leave the key out for its default")),
    # Addresses
    "port 0": (address("127.0.0.1:0"),
               at2("'127.0.0.1:0': the port is out of range; 1-65535")),
    "port 65536": (address("127.0.0.1:65536"),
                   at2("'127.0.0.1:65536': the port is out of range; 1-65535")),
    "no port": (address("127.0.0.1"),
                at2("'127.0.0.1': the port is missing; write ADDRESS:PORT")),
    "open bracket": (address("[::1:7000"),
                     at2("'[::1:7000': the bracket is not closed; write [IPv6]:PORT")),
    "no brackets": (address("::1:7000"),
                    at2("'::1:7000': an IPv6 address needs brackets; write [IPv6]:PORT")),
    "IPv4 in brackets": (address("[127.0.0.1]:7000"),
                         at2("'[127.0.0.1]:7000': not an IPv6 address; eight groups of hex digits, "
                             "or :: for zeros")),
    "UNIX path too long": (address("unix:/" + LONG),
                           at2(f"'unix:/{LONG}': the UNIX path is too long; at most 107 bytes")),
    "relative UNIX path": (address("unix:x"),
                           at2("'unix:x': the UNIX path is relative; it must begin with /")),
    "no socket name": (address("systemd:"),
                       at2("'systemd:' names no socket; write systemd:NAME, the "
                           "FileDescriptorName= of a socket unit")),
    "socket name with a colon": (address("systemd:a:b"),
                                 at2("'systemd:a:b' names no socket; write systemd:NAME, the "
                                     "FileDescriptorName= of a socket unit")),
    "nothing but commas": (address(", ,"),
                           at2("', ,' holds no address; at least one is needed")),
    "second of two": (address("127.0.0.1:7000,127.0.0.1:x"),
                      at2("'127.0.0.1:x': the port is not a plain decimal number; 1-65535")),
    "too many dollars": (address("unix:/" + 45 * "$$" + "${D}"),
                         at2(f"'unix:/{105 * '$'}' is too long with each '$' written twice; allowed "
                             "are 198 bytes in a line")),
    # Servers
    "empty label": (in_proxy("server = db..internal:5432"),
                    at4("server: 'db..internal:5432': an empty label in the name; one dot between "
                        "two labels is allowed")),
    "hyphen at the end": (in_proxy("server = db-.internal:5432"),
                          at4("server: 'db-.internal:5432': a label of the name begins or ends with "
                              "'-'; letters, digits and '_' may")),
    "not a host name": (in_proxy("server = postgres//db:5432"),
                        at4("server: 'postgres//db:5432': not an address, nor a name; a name has "
                            "letters, digits, '-', '_' and dots")),
    "long label": (in_proxy(f"server = {64 * 'x'}:5432"),
                   at4(f"server: '{64 * 'x'}:5432': a label of the name is too long; at most 63 "
                       "bytes between dots")),
    "name without a port": (in_proxy("server = db.internal"),
                            at4("server: 'db.internal': the port is missing; write ADDRESS:PORT")),
    "name with a bad port": (in_proxy("server = db.internal:0"),
                             at4("server: 'db.internal:0': the port is out of range; 1-65535")),
    "name twice": (in_proxy("server = db.internal:80\nserver = db.internal:81\n"
                            "server = DB.internal:80"),
                   ["a.conf:6: [proxy web] server: 'DB.internal:80' is given twice, first at "
                    "a.conf:4; once is allowed"]),
    "name to listen on": (address("localhost:7000"),
                          at2("'localhost:7000': not an address; host names are not looked up, "
                              "literal addresses are needed")),
    "dual-stack server": (in_proxy("server = *:5432"),
                          at4("server: '*:5432' is no server; allowed are one address and its port")),
    "server word": (in_proxy("server = 127.0.0.1:8001 weigth=2"),
                    at4(f"server: 'weigth=2' is unknown; {SERVER_WORDS}")),
    "server word with too much": (in_proxy("server = 127.0.0.1:8001 backup=yes"),
                                  at4(f"server: 'backup=yes' is unknown; {SERVER_WORDS}")),
    "server word twice": (in_proxy("server = 127.0.0.1:8001 backup backup"),
                          at4("server: 'backup' is given twice; once is allowed")),
    "weight out of range": (in_proxy("server = 127.0.0.1:8001 weight=257"),
                            at4("server: '257' is out of range; allowed are 1 to 256")),
    "server's name": (in_proxy("server = 127.0.0.1:8001 name=a,b"),
                      at4("server: 'a,b' is not a server's name; allowed are letters, digits and "
                          "_.-:[]/@%, at most 49")),
    "server's name twice": (in_proxy("server = 127.0.0.1:8001 name=x\n"
                                     "server = 127.0.0.1:8002 name=x"),
                            ["a.conf:5: [proxy web] server: the name 'x' is taken at a.conf:4; "
                             "choose another"]),
    "server's address as a name": (in_proxy("server = 127.0.0.1:8001 name=127.0.0.1:8000"),
                                   at4("server: the name '127.0.0.1:8000' is taken at a.conf:3; "
                                       "choose another")),
    "server twice": (in_proxy("server = [::ffff:127.0.0.1]:8000"),
                     at4("server: '[::ffff:127.0.0.1]:8000' is given twice, first at a.conf:3; once "
                         "is allowed")),
    "server's line too long to be dumped": (
        in_proxy(f"server = unix:/{90 * 'p'} name={49 * 'n'} ${{W}}"),
        at4("server: the line is too long once written out; allowed are 198 bytes")),
    # What must fit together
    "listen missing": ("[proxy web]\nserver = 127.0.0.1:8000\n",
                       ["a.conf:1: [proxy web] listen: missing; a proxy needs at least one"]),
    "server missing": ("[proxy web]\nlisten = 127.0.0.1:7000\n",
                       ["a.conf:1: [proxy web] server: missing; a proxy needs a server, or "
                        "upstream = NAME"]),
    "server of upstream missing": (PROXY + "[upstream db]\n",
                                   ["a.conf:4: [upstream db] server: missing; an upstream needs at "
                                    "least one"]),
    "upstream missing": ("[proxy web]\nlisten = 127.0.0.1:7000\nupstream = bd\n"
                         "[upstream db]\nserver = 127.0.0.1:8000\n",
                         ["a.conf:3: [proxy web] upstream: there is no [upstream bd]; did you mean "
                          "'db'?"]),
    "upstream missing, nothing near": ("[proxy web]\nlisten = 127.0.0.1:7000\nupstream = db\n",
                                       ["a.conf:3: [proxy web] upstream: there is no [upstream db]; "
                                        "allowed is the name of an upstream section"]),
    "a proxy is no upstream": (PROXY + "[proxy b]\nlisten = 127.0.0.1:7001\nupstream = web\n",
                               ["a.conf:6: [proxy b] upstream: there is no [upstream web]; allowed "
                                "is the name of an upstream section"]),
    "upstream's keys": ("[proxy web]\nlisten = 127.0.0.1:7000\nserver = 127.0.0.1:8000\n"
                        "upstream = db\nbalance = first\nnodelay = on\n"
                        "[upstream db]\nserver = 127.0.0.1:8000\n",
                        ["a.conf:3: [proxy web] server: not allowed beside 'upstream = db'; allowed "
                         "in [upstream db]",
                         "a.conf:5: [proxy web] balance: not allowed beside 'upstream = db'; allowed "
                         "in [upstream db]"]),
    "shared name": (PROXY + "[upstream web]\nserver = 127.0.0.1:8000\n",
                    ["a.conf:1: [proxy web]: a proxy with servers of its own has the name of "
                     "[upstream web] at a.conf:4; choose another"]),
    "backoff": (in_proxy("backoff_min = 10s"),
                at4("backoff_min: backoff_min (10s) is more than backoff_max (5s); allowed are 5s "
                    "at most")),
    "backoff of defaults": ("[defaults]\nbackoff_min = 2s\n[upstream db]\nserver = 127.0.0.1:8000\n"
                            "backoff_max = 1s\n" + PROXY,
                            ["a.conf:5: [upstream db] backoff_max: backoff_min (2s) is more than "
                             "backoff_max (1s); allowed are 1s at most"]),
    "resolve_min": (in_proxy("resolve_min = 1m"),
                    at4("resolve_min: resolve_min (1m) is more than resolve_max (30s); allowed are "
                        "30s at most")),
    "resolve_min too short": (in_proxy("resolve_min = 999ms"),
                              at4("resolve_min: '999ms' is out of range; allowed are 1s to 1d")),
    "resolve_max of none": (in_proxy("resolve_max = off"),
                            at4("resolve_max: 'off' is out of range; allowed are 1s to 1d")),
    "unlisten with UNIX": ("[proxy web]\nlisten = 127.0.0.1:7000 unix:/tmp/x\n"
                           "server = 127.0.0.1:8000\nwhen_down = unlisten\n",
                           ["a.conf:2: [proxy web] listen: 'unix:/tmp/x' cannot be closed and opened "
                            "again; allowed with when_down = unlisten are TCP addresses"]),
    "unlisten with systemd": ("[proxy web]\nlisten = 127.0.0.1:7000 systemd:web\n"
                              "server = 127.0.0.1:8000\nwhen_down = unlisten\n",
                              ["a.conf:2: [proxy web] listen: 'systemd:web' cannot be closed and "
                               "opened again; allowed with when_down = unlisten are TCP addresses"]),
    "UNIX keys with systemd": ("[proxy web]\nlisten = systemd:web\nserver = 127.0.0.1:8000\n"
                               "unix_mode = 0600\n",
                               at4("unix_mode: the proxy has no UNIX listener; allowed beside "
                                   "listen = unix:/path")),
    "socket name twice": ("[proxy a]\nlisten = systemd:web\nserver = 127.0.0.1:8000\n"
                          "[proxy b]\nlisten = systemd:web\nserver = 127.0.0.1:8001\n",
                          ["a.conf:5: [proxy b] listen: 'systemd:web' overlaps 'systemd:web' of "
                           "[proxy a] at a.conf:2; each address is allowed once"]),
    "UNIX keys without UNIX": (in_proxy("unix_mode = 0600"),
                               at4("unix_mode: the proxy has no UNIX listener; allowed beside "
                                   "listen = unix:/path")),
    "two proxies on one address": (PROXY + "[proxy b]\nlisten = 127.0.0.1:7000\n"
                                   "server = 127.0.0.1:8001\n",
                                   ["a.conf:5: [proxy b] listen: '127.0.0.1:7000' overlaps "
                                    "'127.0.0.1:7000' of [proxy web] at a.conf:2; each address is "
                                    "allowed once"]),
    "one proxy, twice one address": (in_proxy("listen = *:7000"),
                                     at4("listen: '*:7000' overlaps '127.0.0.1:7000' of [proxy web] "
                                         "at a.conf:2; each address is allowed once")),
    "two proxies on one path": ("[proxy a]\nlisten = unix:/tmp/x\nserver = 127.0.0.1:8000\n"
                                "[proxy b]\nlisten = unix:/tmp/x\nserver = 127.0.0.1:8000\n",
                                ["a.conf:5: [proxy b] listen: 'unix:/tmp/x' overlaps 'unix:/tmp/x' "
                                 "of [proxy a] at a.conf:2; each address is allowed once"]),
    # Loops
    "direct cycle": ("[proxy a]\nlisten = 127.0.0.1:7000\nserver = 127.0.0.1:7000\n",
                     ["a.conf:3: [proxy a] server: '127.0.0.1:7000' leads back to this daemon in a "
                      f"loop: proxy a -> proxy a; {LOOP}"]),
    "cycle through a wildcard": ("[proxy a]\nlisten = *:7000\nupstream = b\n"
                                 "[upstream b]\nserver = 127.0.0.3:7000\n",
                                 ["a.conf:5: [upstream b] server: '127.0.0.3:7000' leads back to "
                                  "this daemon in a loop: proxy a -> upstream b -> proxy a; "
                                  f"{LOOP}"]),
    "cycle through 0.0.0.0": ("[proxy a]\nlisten = 127.0.0.1:7000\nserver = 0.0.0.0:7000\n",
                              ["a.conf:3: [proxy a] server: '0.0.0.0:7000' leads back to this daemon "
                               f"in a loop: proxy a -> proxy a; {LOOP}"]),
    "cycle through UNIX": ("[proxy a]\nlisten = unix:@r\nserver = unix:@r\n",
                           ["a.conf:3: [proxy a] server: 'unix:@r' leads back to this daemon in a "
                            f"loop: proxy a -> proxy a; {LOOP}"]),
    "cycle of two": ("[proxy a]\nlisten = 127.0.0.1:7000\nserver = 127.0.0.1:7001\n"
                     "[proxy c]\nlisten = 127.0.0.1:7001\nupstream = d\n"
                     "[upstream d]\nserver = 127.0.0.1:8000\nserver = 127.0.0.1:7000 backup\n",
                     ["a.conf:9: [upstream d] server: '127.0.0.1:7000' leads back to this daemon in "
                      f"a loop: proxy a -> proxy c -> upstream d -> proxy a; {LOOP}"]),
    # Files
    "empty file": ("", ["a.conf: the file is empty; expected a section"]),
    "nothing but a BOM": (b"\xef\xbb\xbf", ["a.conf: the file is empty; expected a section"]),
    "no proxy": ("; nothing\n[upstream db]\nserver = 127.0.0.1:8000\n",
                 ["a.conf: there is no proxy; at least one [proxy NAME] is needed"]),
    "include of nothing": ("[daemon]\ninclude = b.conf\n" + PROXY,
                           ["a.conf:2: [daemon] include: 'b.conf' cannot be opened: No such file or "
                            "directory"]),
    "include loop": ({"a.conf": "[daemon]\ninclude = b.conf\n" + PROXY,
                      "b.conf": "[daemon]\ninclude = ./a.conf\n"},
                     ["b.conf:1: [daemon]: the section is given twice, first at a.conf:1; once is "
                      "allowed",
                      "b.conf:2: [daemon] include: './a.conf' was read already, as a.conf"]),
    "include of itself": ("[daemon]\ninclude = *.conf\n" + PROXY,
                          ["a.conf:2: [daemon] include: 'a.conf' was read already, as a.conf"]),
    "faults of all files": ({"a.conf": "[daemon]\ninclude = d/*.conf\nuser = no-such-user\n" + PROXY,
                             "d/2.conf": "[proxy web]\n", "d/1.conf": "x\n"},
                            ["a.conf:3: [daemon] user: no such user 'no-such-user'; allowed are a "
                             "name or number, and none",
                             "d/1.conf:1: cannot read 'x'; expected key = value",
                             "d/2.conf:1: [proxy web]: the section is given twice, first at "
                             "a.conf:4; once is allowed"]),
}


@pytest.mark.parametrize("files, lines", BAD.values(), ids=BAD.keys())
def test_bad_file_is_refused_with_the_place_and_the_remedy(tmp_path, files, lines):
    write(tmp_path, files)
    env = {"D": 60 * "$", "W": "weight=256 backup max_sessions=1000000"}
    assert refused(tmp_path, "--check", "-c", "a.conf", env=env) == lines


def test_nothing_starts_on_a_bad_file(tmp_path):
    write(tmp_path, in_proxy("baklog = 1"))
    assert refused(tmp_path, "-c", "a.conf") == at4("baklog: unknown key; did you mean 'backlog'?")
    assert refused(tmp_path, "--dump", "-c", "a.conf") == at4(
        "baklog: unknown key; did you mean 'backlog'?")


def test_missing_file(tmp_path):
    assert refused(tmp_path, "--check", "-c", "none.conf") == [
        "none.conf: cannot be opened: No such file or directory"]


def test_unreadable_file(tmp_path):
    write(tmp_path, PROXY)
    os.chmod(tmp_path / "a.conf", 0)
    wrap = []
    if os.access(tmp_path / "a.conf", os.R_OK):
        wrap = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if not shutil.which("setpriv") or subprocess.run(
                [*wrap, "test", "-r", tmp_path / "a.conf"], check=False).returncode == 0:
            pytest.skip("this user may read every file, whatever its mode, and has no setpriv(1)")
    assert refused(tmp_path, "--check", "-c", "a.conf", wrap=wrap) == [
        "a.conf: cannot be opened: Permission denied"]


def test_fifo_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "a.conf")
    assert refused(tmp_path, "--check", "-c", "a.conf") == [
        "a.conf: is not a regular file; allowed are files and directories"]


def test_device_is_refused(tmp_path):
    assert refused(tmp_path, "--check", "-c", "/dev/zero") == [
        "/dev/zero: is not a regular file; allowed are files and directories"]


def test_directory_among_the_files(tmp_path):
    write(tmp_path, {"d/1.conf": PROXY, "d/2.conf/x": ""})
    assert refused(tmp_path, "--check", "-c", "d") == ["d/2.conf: is a directory; allowed are files"]


def test_directory_without_files(tmp_path):
    (tmp_path / "d").mkdir()
    assert refused(tmp_path, "--check", "-c", "d") == [
        "d: there is no proxy; at least one [proxy NAME] is needed"]


def test_file_given_twice(tmp_path):
    write(tmp_path, PROXY)
    os.symlink("a.conf", tmp_path / "b.conf")
    os.link(tmp_path / "a.conf", tmp_path / "c.conf")
    assert refused(tmp_path, "--check", "-c", "a.conf", "-c", "b.conf", "-c", "c.conf") == [
        "b.conf: was read already, as a.conf", "c.conf: was read already, as a.conf"]


@pytest.mark.parametrize("value", ["127.0.0.1\nbacklog = 1", "127.0.0.1\x7f", "\r", "\x01"])
def test_control_character_from_the_environment(tmp_path, value):
    write(tmp_path, in_proxy("source = ${X}"))
    assert refused(tmp_path, "--check", "-c", "a.conf", env={"X": value}) == at4(
        "source: the value holds a control character; only text is allowed")


def test_bad_command_line(tmp_path):
    assert refused(tmp_path, "--check", "--listen", "localhost:7000", "--server", "127.0.0.1:x",
                   "--server", " ") == [
        "command line: [proxy default] listen: 'localhost:7000': not an address; host names are not "
        "looked up, literal addresses are needed",
        "command line: [proxy default] server: '127.0.0.1:x': the port is not a plain decimal "
        "number; 1-65535",
        "command line: [proxy default] server: the value is empty; leave the key out for its "
        "default"]


def test_check_of_a_good_file(tmp_path):
    write(tmp_path, PROXY)
    done = run(tmp_path, "--check", "-c", "a.conf")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"the configuration is valid\n", b"")


RICH = """\
; every kind of value
[daemon]
log_level=debug ; as text
log_format = json
access_log = all
user = root
include = more/*.conf
[defaults]
connect_timeout = 3s
nodelay = no
unix_mode = 600
[proxy web]
listen = 127.0.0.1:7000, [::1]:7000\tunix:@abstract
  listen = unix:/run/a$$b;c
server = unix:/run/web.sock
server = ${DB:-[2001:db8::1]:5432} weight=3 backup name=db max_sessions=7
server = [0:0::1]:8000
idle_timeout = 90s
accept_proxy = yes
source = ::1
unix_group = 0
[proxy api]
listen = *:7001
listen = systemd:api.socket
allow = 192.0.2.0/24
upstream = db
keepalive = off
"""
MORE = {"more/1.conf": "[upstream db] ; used\nserver = unix:/run/${DIR}/s name=$$\n".replace("$$", "s"),
        "more/2.conf": "[upstream unused]\nserver = 192.0.2.9:1\nwhen_down = reset\n"
                       "send_proxy = v2\nserver = db1.Internal.:5432 weight=2\n"
                       "server = my_db:5432 name=x\nresolve_min = 2s\nresolve_max = 1m\n"}


def test_dump_is_a_fixed_point(tmp_path):
    write(tmp_path, {"a.conf": RICH, **MORE})
    first = dump(tmp_path, "-c", "a.conf", env={"DIR": "$$x"})
    write(tmp_path, {"dump.conf": first})
    assert dump(tmp_path, "-c", "dump.conf") == first
    for line in ("log_level = debug", "log_format = json", "user = root", "group = none",
                 "listen = unix:@abstract", "listen = unix:/run/a$$b;c",
                 "server = unix:/run/web.sock weight=1", "listen = systemd:api.socket",
                 "server = [2001:db8::1]:5432 weight=3 backup name=db max_sessions=7",
                 "server = [0:0::1]:8000 weight=1", "idle_timeout = 90s", "source = ::1",
                 "unix_mode = 0600", "unix_group = 0", "upstream = db", "keepalive = off",
                 "server = unix:/run/$$$$x/s weight=1 name=s", "when_down = reset",
                 "accept_proxy = on", "send_proxy = v2",
                 "server = db1.Internal.:5432 weight=2", "server = my_db:5432 weight=1 name=x",
                 "resolve_min = 2s", "resolve_max = 1m"):
        assert line in first.splitlines(), line
    assert first.count("nodelay = off") == 4
    assert first.count("connect_timeout = 3s") == 3


def access_of(text, proxy):
    """What the dump says of the proxy's clients."""
    section = text.split(f"[proxy {proxy}]\n")[1].split("\n\n")[0]
    return [line for line in section.splitlines() if line.startswith(("allow", "deny"))]


def test_dump_of_access_lists(tmp_path):
    write(tmp_path, "[proxy before]\nlisten = 127.0.0.1:7000\nserver = 127.0.0.1:8000\n"
                    "[defaults]\nallow = 10.0.0.0/8\ndeny = 10.1.0.0/16\n"
                    "[proxy both]\nlisten = 127.0.0.1:7001\nserver = 127.0.0.1:8000\n"
                    "allow = ::1/128 192.0.2.0/24,192.0.2.7/32\tall\nallow = 192.0.2.7\n"
                    "deny = ::/0, 0.0.0.0/0\nallow = 2001:DB8:0:0::/32\n"
                    "[proxy one]\nlisten = 127.0.0.1:7002\nserver = 127.0.0.1:8000\n"
                    "deny = 192.0.2.1\n"
                    "[proxy none]\nlisten = 127.0.0.1:7003\nserver = 127.0.0.1:8000\n"
                    "deny = none\n"
                    "[proxy unix]\nlisten = unix:@x\nserver = 127.0.0.1:8000\n")
    text = dump(tmp_path, "-c", "a.conf")
    assert access_of(text, "before") == []
    assert access_of(text, "both") == [
        "allow = all", "allow = 192.0.2.0/24", "allow = 192.0.2.7", "allow = ::1",
        "allow = 2001:db8::/32", "deny = 0.0.0.0/0", "deny = ::/0"]
    assert access_of(text, "one") == ["allow = 10.0.0.0/8", "deny = 192.0.2.1"]
    assert access_of(text, "none") == ["allow = 10.0.0.0/8"]
    assert access_of(text, "unix") == []
    write(tmp_path, text)
    assert dump(tmp_path, "-c", "a.conf") == text


def test_dump_of_the_command_line(tmp_path):
    text = dump(tmp_path, "--listen", "127.0.0.1:7000,unix:@a", "--server", "127.0.0.1:8000",
                "--server", "127.0.0.1:8001 backup")
    write(tmp_path, text)
    assert dump(tmp_path, "-c", "a.conf") == text
    assert "[proxy default]\nlisten = 127.0.0.1:7000\nlisten = unix:@a\n" in text
    assert "server = 127.0.0.1:8001 weight=1 backup\n" in text


@pytest.mark.parametrize("change", [
    pytest.param(lambda text: text.replace("\n", "\r\n"), id="CR LF"),
    pytest.param(lambda text: text.rstrip("\n"), id="no newline at the end"),
    pytest.param(lambda text: text.replace("\n", "\r\n").rstrip("\n"), id="CR at the end"),
    pytest.param(lambda text: "\ufeff" + text, id="BOM"),
    pytest.param(lambda text: "\ufeff" + text.replace("\n", "\r\n"), id="BOM and CR LF"),
    pytest.param(lambda text: text.replace("\n", " \t\n\n\t # x\n"), id="blanks and comments"),
    pytest.param(lambda text: text.replace(" = ", "="), id="no blanks"),
    pytest.param(lambda text: text.replace(" = ", "\t=\t"), id="tabs"),
    pytest.param(lambda text: text.replace("]\n", "];x\n").replace("[", "[ ", 1), id="headings"),
    pytest.param(lambda text: ";" + 1000 * "x" + "\n" + text, id="long comment"),
    pytest.param(lambda text: text + 300 * " " + "\n" + 300 * "\t", id="long blank line"),
    pytest.param(lambda text: text.replace("8000", "8000" + 300 * " "), id="long blanks behind"),
])
def test_the_same_in_another_form(tmp_path, change):
    write(tmp_path, {"a.conf": PROXY, "b.conf": change(PROXY)})
    assert dump(tmp_path, "-c", "b.conf") == dump(tmp_path, "-c", "a.conf")


def test_longest_line_is_whole(tmp_path):
    line = f"server = unix:/{90 * 's'} name={40 * 'n'} max_sessions=7"
    line += (198 - len(line) - len(" backup")) * " " + " backup"
    assert len(line) == 198
    write(tmp_path, in_proxy(line))
    assert f"server = unix:/{90 * 's'} weight=1 backup name={40 * 'n'} max_sessions=7\n" in dump(
        tmp_path, "-c", "a.conf")


def test_directory_is_read_in_the_order_of_names(tmp_path):
    write(tmp_path, {
        "d/10.conf": "[defaults]\nbacklog = 10\n",
        "d/9.conf": "[proxy c]\nlisten = 127.0.0.1:7003\nserver = 127.0.0.1:8000\n",
        "d/1.conf": "[proxy a]\nlisten = 127.0.0.1:7001\nserver = 127.0.0.1:8000\n",
        "d/B.conf": "[proxy d]\nlisten = 127.0.0.1:7004\nserver = 127.0.0.1:8000\n",
        "d/a.conf": "[proxy e]\nlisten = 127.0.0.1:7005\nserver = 127.0.0.1:8000\n",
        "d/.hidden.conf": "bad", "d/x.conf~": "bad", "d/x.txt": "bad", "d/.conf": "bad",
    })
    for path in ("d", "d/"):
        text = dump(tmp_path, "-c", path)
        proxies = [line for line in text.splitlines() if line.startswith(("[proxy", "backlog"))]
        assert proxies == ["[proxy a]", "backlog = 4096", "[proxy c]", "backlog = 10",
                           "[proxy d]", "backlog = 10", "[proxy e]", "backlog = 10"]


def test_several_paths_are_read_in_their_order(tmp_path):
    write(tmp_path, {"a.conf": PROXY, "b.conf": "[defaults]\nbacklog = 10\n"})
    assert "backlog = 4096" in dump(tmp_path, "-c", "a.conf", "-c", "b.conf")
    assert "backlog = 10" in dump(tmp_path, "-c", "b.conf", "-c", "a.conf")


def test_include_is_relative_to_its_file_and_comes_after_it(tmp_path):
    write(tmp_path, {
        "etc [x]/main.conf": "[daemon]\ninclude = conf.d/*.conf\ninclude = none/*.conf\n"
                             f"include = one\ninclude = {tmp_path}/abs?lute.conf\n"
                             "[defaults]\nbacklog = 10\n",
        "etc [x]/conf.d/b.conf": "[proxy b]\nlisten = 127.0.0.1:7001\nserver = 127.0.0.1:8000\n",
        "etc [x]/conf.d/a.conf": PROXY,
        "etc [x]/one/z.conf": "[proxy z]\nlisten = 127.0.0.1:7002\nserver = 127.0.0.1:8000\n",
        "absolute.conf": "[proxy abs]\nlisten = 127.0.0.1:7003\nserver = 127.0.0.1:8000\n",
        "after.conf": "[proxy after]\nlisten = 127.0.0.1:7004\nserver = 127.0.0.1:8000\n",
    })
    text = dump(tmp_path, "-c", "etc [x]/main.conf", "-c", "after.conf")
    assert [line for line in text.splitlines() if line.startswith("[proxy")] == [
        "[proxy web]", "[proxy b]", "[proxy z]", "[proxy abs]", "[proxy after]"]
    assert text.count("backlog = 10") == 5


def test_directory_matched_by_an_include(tmp_path):
    write(tmp_path, {"a.conf": "[daemon]\ninclude = d/*\n" + PROXY, "d/sub/x.conf": ""})
    assert refused(tmp_path, "--check", "-c", "a.conf") == [
        "a.conf:2: [daemon] include: 'd/sub' is a directory; allowed are files"]


def test_environment(tmp_path):
    write(tmp_path, "[proxy web]\nlisten = ${HOSTS}\nserver = ${SERVER:-127.0.0.1:8000 weight=2}\n"
                    "backlog = ${N}\n")
    text = dump(tmp_path, "-c", "a.conf", env={"HOSTS": "127.0.0.1:7000, 127.0.0.1:7001", "N": "5"})
    assert "listen = 127.0.0.1:7000\nlisten = 127.0.0.1:7001\n" in text
    assert "server = 127.0.0.1:8000 weight=2\n" in text
    assert "backlog = 5\n" in text
    assert "server = 127.0.0.1:9 weight=1\n" in dump(
        tmp_path, "-c", "a.conf", env={"HOSTS": "127.0.0.1:7000", "N": "5", "SERVER": "127.0.0.1:9"})


def test_a_server_elsewhere_on_a_port_of_ours_is_no_loop(tmp_path):
    write(tmp_path, "[proxy a]\nlisten = *:7000\nserver = 192.0.2.1:7000\n")
    assert run(tmp_path, "--check", "-c", "a.conf").returncode == 0


def test_a_chain_of_proxies_is_no_loop(tmp_path):
    write(tmp_path, "[proxy a]\nlisten = 127.0.0.1:7000\nserver = 127.0.0.1:7001\n"
                    "[proxy b]\nlisten = 127.0.0.1:7001\nserver = 127.0.0.1:7002\n")
    assert run(tmp_path, "--check", "-c", "a.conf").returncode == 0


@pytest.mark.parametrize("name", ["rediald.conf", "quickstart.conf"])
def test_files_that_come_with_it(tmp_path, name):
    text = dump(tmp_path, "-c", os.path.join(TOP, "conf", name))
    write(tmp_path, text)
    assert dump(tmp_path, "-c", "a.conf") == text


def test_quickstart_by_environment(tmp_path):
    text = dump(tmp_path, "-c", os.path.join(TOP, "conf", "quickstart.conf"),
                env={"REDIAL_LISTEN": "*:9000", "REDIAL_SERVER": "192.0.2.1:80"})
    assert "listen = *:9000\n" in text and "server = 192.0.2.1:80 weight=1\n" in text
