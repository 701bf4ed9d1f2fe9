# SPDX-License-Identifier: MIT
"""redialctl in a terminal: width, colours, top and its keys."""

import pytest

import fakeadmin
from ctl import Terminal
from fakeadmin import FakeAdmin

RED, GREEN, YELLOW = "\x1b[31m", "\x1b[32m", "\x1b[33m"


@pytest.fixture
def address(tmp_path):
    return f"unix:{tmp_path}/admin.sock"


@pytest.fixture
def fake(address):
    with FakeAdmin(address, {"/status": [fakeadmin.example()],
                             "/sessions": [fakeadmin.sessions([fakeadmin.session("127.0.0.1:4")])]}) as f:
        yield f


@pytest.fixture
def shell(tmp_path, address):
    """shell(width, height): a Terminal whose $redialctl finds the daemon."""
    terminals = []

    def start(width=80, height=24, **env):
        terminals.append(Terminal(tmp_path, width, height, {"REDIAL_ADMIN": address, **env}))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 200])
def test_status_fits_the_width(fake, shell, width):
    terminal = shell(width, 40)
    terminal.run("clear; $redialctl status -d 0; echo $?")
    screen = terminal.wait("the configuration was not reloaded"[:width - 10])
    text = [line for line in screen if line]
    # Had a line been too long, the terminal would have broken it.
    assert text[0].startswith("● rediald 0.1.0  serving")
    assert screen[screen.index("") + 1].startswith("PROXY     LISTENS ON")
    servers = [line for line in screen if "● " in line][1:]
    assert len(servers) == 4
    assert all("5432" in line or "8000" in line for line in servers), "the end of an address is kept"
    assert any(line.strip() == "unix:/r…dial/pg.sock" for line in screen) == (width == 40)
    assert ("STANDBY" in "".join(screen)) == (width >= 100)
    assert ("self-connections" in "".join(servers)) == (width >= 200)
    assert ("down: refused" in "".join(screen)) == (width >= 60)


def test_columns_variable_sets_the_width(fake, shell):
    terminal = shell(140, 40)
    terminal.run("clear; COLUMNS=80 $redialctl status -d 0")
    assert "STANDBY" not in "".join(terminal.wait("not reloaded"))


def test_states_have_colours(fake, shell):
    terminal = shell(140, 40)
    terminal.run("clear; $redialctl status -d 0")
    screen = terminal.wait("not reloaded", colours=True)

    def line(text):
        return next(line for line in screen if text in line)
    assert f"{GREEN}●" in line("127.0.0.1:8000")
    assert f"{RED}●" in line("db1.internal:5432  ")
    assert f"{YELLOW}●" in line("db2.internal:5432  ")
    assert f"{YELLOW}127.0.0.1:40000" in line("127.0.0.1:40000")
    assert f"{RED}the configuration" in line("not reloaded")


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_declined(fake, shell, env):
    terminal = shell(140, 40)
    words = " ".join(f"{name}={value}" for name, value in env.items())
    terminal.run(f"clear; {words} $redialctl status -d 0")
    screen = terminal.wait("not reloaded", colours=True)
    assert "\x1b" not in "".join(screen)


@pytest.mark.parametrize("key, status", [("q", 0), ("C-c", 0)])
def test_top_is_drawn_over_the_screen_and_leaves_it_as_it_was(fake, shell, key, status):
    terminal = shell(100, 30)
    terminal.run("clear; stty -a >before; echo what was there; $redialctl top -d 100ms; "
                 "echo ended with $?; stty -a >after; cmp before after && echo the same")
    screen = terminal.wait("every 100ms, q ends")
    assert screen[0].startswith("● rediald 0.1.0")
    assert screen[-1] == "every 100ms, q ends"
    assert any("db1.internal:5432" in line for line in screen)
    assert not any("what was there" in line for line in screen)
    seen = len(fake.requests)
    terminal.type(key)
    screen = terminal.wait("the same")
    assert "what was there" in screen
    assert f"ended with {status}" in screen
    assert seen >= 1


def test_top_goes_on_and_ends_after_its_count(fake, shell):
    terminal = shell()
    terminal.run("clear; $redialctl top -n 3 -d 100ms; echo ended with $?")
    terminal.wait("ended with 0")
    assert len(fake.requests) == 4, "one before the first that has rates"


def test_top_follows_the_size_of_the_terminal(fake, shell):
    terminal = shell(80, 24)
    terminal.run("$redialctl top -d 1h")
    assert "STANDBY" not in "".join(terminal.wait("q ends"))
    terminal.resize(140, 30)
    screen = terminal.wait("STANDBY")
    terminal.wait("self-conn")
    assert len(fake.requests) == 1, "nothing was asked for that"
    assert terminal.screen()[-1] == "every 1h 0m, q ends"
    assert screen[0].startswith("● rediald")


def test_what_does_not_fit_is_counted(fake, shell):
    terminal = shell(80, 8)
    terminal.run("$redialctl top -d 100ms")
    screen = terminal.wait("more lines than fit")
    assert screen[0].startswith("● rediald")
    assert len(screen) == 8
    assert int(screen[-1].split()[0]) >= 7


def test_newest_events_fill_the_room(fake, shell):
    terminal = shell(100, 20)
    terminal.run("$redialctl top -d 100ms")
    screen = terminal.wait("the configuration was not reloaded")
    assert any("was disabled by hand" in line for line in screen)
    assert not any("db1.internal:5432 is down: refused" in line for line in screen)


def test_top_outlives_the_daemon(fake, shell, address):
    terminal = shell(100, 24)
    terminal.run("$redialctl top -d 100ms")
    terminal.wait("q ends")
    fake.close()
    screen = terminal.wait("cannot reach rediald at")
    assert any("db1.internal:5432" in line for line in screen), "the last picture stays"
    with FakeAdmin(address, {"/status": [{**fakeadmin.example(), "version": "0.1.1"}]}):
        terminal.wait("rediald 0.1.1")
        terminal.wait_gone("cannot reach")


def test_stopped_top_gives_the_terminal_back_and_goes_on(fake, shell):
    terminal = shell(100, 24)
    terminal.run("clear; echo what was there; $redialctl top -d 100ms; echo ended")
    terminal.wait("q ends")
    terminal.type("C-z")
    screen = terminal.wait("Stopped")
    assert "what was there" in screen
    terminal.run("stty -a | grep -o ' icanon'; fg")
    terminal.wait("q ends")
    terminal.type("q")
    screen = terminal.wait_gone("q ends")
    assert " icanon" in screen


def test_dumb_terminal_gets_plain_pictures(fake, shell):
    terminal = shell(100, 40)
    terminal.run("clear; TERM=dumb $redialctl top -n 2 -d 100ms | cat -v; echo $?; TERM=dumb $redialctl top -n 1 -d 100ms")
    screen = terminal.wait("not reloaded")
    assert not any("^[" in line for line in screen)


def test_sessions_fit_the_width(fake, shell):
    terminal = shell(60, 20)
    terminal.run("clear; $redialctl sessions -d 0")
    screen = terminal.wait("1 session, 0 waiting")
    assert "IDLE" not in "".join(screen) and "RATE" not in "".join(screen)
