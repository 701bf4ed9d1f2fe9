# SPDX-License-Identifier: MIT
"""The Dockerfile without an engine: what it names is there, what it says holds."""

import os
import re
import shutil
import subprocess

import pytest

import netns
from binary import BINARY_IS_SANITIZED
from conftest import COLLECT, TOP
from dockerfile import Copy, Ignore, stages

STAGES = {stage.name: stage for stage in stages(os.path.join(TOP, "Dockerfile"))}
IGNORE = Ignore(os.path.join(TOP, ".dockerignore"))
FINAL = ["slim", "minimal"]


def test_stages_are_what_the_manual_says():
    assert list(STAGES) == ["build", *FINAL], "the last one is what `docker build .' makes"
    assert STAGES["minimal"].base == "scratch"


def test_what_is_copied_from_the_tree_is_there_and_sent():
    copied = [Copy(rest) for rest in STAGES["build"].all("COPY")]
    sources = [source for copy in copied for source in copy.sources]
    assert sources
    for source in sources:
        assert os.path.exists(os.path.join(TOP, source)), source
        assert source == "." or IGNORE.is_sent(source), source
    for stage in STAGES.values():
        for copy in map(Copy, stage.all("COPY")):
            assert copy.stage is None or copy.stage in STAGES, copy.stage


def test_sections_of_packages_that_it_installs_are_there():
    with open(os.path.join(TOP, "tools", "packages"), encoding="utf-8") as f:
        sections = set(re.findall(r"^(\w+):", f.read(), re.M))
    named = [word for rest in STAGES["build"].all("RUN")
             for words in re.findall(r"tools/install-packages ([\w ]+)", rest)
             for word in words.split()]
    assert named and set(named) <= sections


def test_tests_and_products_of_a_build_are_not_sent():
    for path in ("src/main.c", "src/LAYERS", "configure.ac", "tools/packages", "containers/collect",
                 "man/rediald.8.in", "systemd/common.in", "systemd/rediald.service.in"):
        assert IGNORE.is_sent(path), path
    for path in ("src/main.o", "src/libredial.a", "src/.deps/x.Po", "src/rediald", "config.status",
                 "config.h", "Makefile", "man/rediald.8", "systemd/rediald.service", ".git/HEAD",
                 "build/dev/src/rediald", "tests/unit/test_conf.c", "Dockerfile"):
        assert not IGNORE.is_sent(path), path


@pytest.mark.parametrize("name", FINAL)
def test_image_runs_as_nobody_and_without_a_shell(name):
    stage = STAGES[name]
    assert stage.last("USER") == "65532:65532"
    assert stage.last("STOPSIGNAL") == "SIGTERM"
    assert "REDIAL_LOG_FORMAT=json" in " ".join(stage.all("ENV"))
    assert [os.path.basename(word) for word in stage.arguments("ENTRYPOINT")] == ["rediald"]
    assert [os.path.basename(word) for word in stage.arguments("HEALTHCHECK")] == ["redialctl", "ready"]
    owned = [copy for copy in map(Copy, stage.all("COPY")) if copy.target == "/run/"]
    assert [copy.owner for copy in owned] == ["65532:65532"]
    assert "RUNTIME_DIRECTORY=/run/redial" in " ".join(stage.all("ENV"))


def test_images_differ_in_their_files_alone():
    def settings(name):
        return [(word, rest) for word, rest in STAGES[name].instructions if word not in ("COPY", "RUN")]
    assert settings("slim") == settings("minimal")


def test_packages_of_the_slim_image_are_known(stage):
    if not shutil.which("dpkg-query"):
        pytest.skip("needs dpkg")
    names = subprocess.run([COLLECT, "--packages", stage], check=True, stdout=subprocess.PIPE,
                           text=True).stdout.split()
    assert "libc6" in names and any(name.startswith("libev") for name in names)
    assert names == sorted(set(names))
    assert not [name for name in names if name.endswith("-dev")]


# collect

@pytest.mark.parametrize("tool, does, args, said", [
    ("ldd", "echo '	libnone.so.1 => not found'", ["{stage}", "image"], "libnone.so.1 => not found"),
    ("ldd", "exit 1", ["{stage}", "image"], "ldd cannot tell"),
    ("ldd", "echo '	linux-vdso.so.1 (0x1)'", ["{stage}", "image"], "not linked with a libc"),
    ("dpkg-query", "exit 1", ["--packages", "{stage}"], "no package has /"),
], ids=["library", "ldd", "libc", "package"])
def test_collect_fails_when_something_is_missing(stage, tmp_path, tool, does, args, said):
    (tmp_path / tool).write_text(f"#!/bin/sh\n{does}\n")
    (tmp_path / tool).chmod(0o755)
    result = subprocess.run([COLLECT, *(arg.format(stage=stage) for arg in args)], cwd=tmp_path,
                            capture_output=True, text=True, check=False,
                            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert result.returncode == 1
    assert said in result.stderr


@pytest.mark.parametrize("args", [[], ["stage"], ["{empty}", "image"], ["a", "b", "c"]])
def test_collect_says_what_it_lacks(tmp_path, args):
    result = subprocess.run([COLLECT, *(arg.format(empty=tmp_path) for arg in args)], cwd=tmp_path,
                            capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("collect: ")


# The build

# Beside it: the directory with what is sent, over a root that is this system's, and is not changed.
BUILD_SH = """
set -eu
mkdir -p memory && mount -t tmpfs -o mode=755 redial-test memory && cd memory
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work redial-test root
mount --bind /dev root/dev
mount --bind /proc root/proc
rm -rf root/src root/stage root/image root/owned root/packages
mkdir root/src
cp -a "$1/." root/src
for step in "$2"/*; do
    chroot root sh -euc "cd /src && $(cat "$step")" </dev/null
done
cp -a root/image root/owned root/packages "$3"
"""


def test_steps_of_the_build_make_the_image(tmp_path, program):
    """Every RUN of the first stage, in a copy of what is sent. Nothing of it is written but in memory."""
    if BINARY_IS_SANITIZED:
        pytest.skip("it has nothing to do with how this build is made")
    if not netns.is_real_root():
        pytest.skip("needs real root, for an overlay of this system")
    for path in IGNORE.context(TOP):
        os.makedirs(os.path.dirname(tmp_path / "context" / path), exist_ok=True)
        shutil.copy2(os.path.join(TOP, path), tmp_path / "context" / path)
    steps = [rest for rest in STAGES["build"].all("RUN") if "install-packages" not in rest]
    (tmp_path / "steps").mkdir()
    (tmp_path / "made").mkdir()
    for number, rest in enumerate(steps):
        (tmp_path / "steps" / str(number)).write_text(rest)
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", BUILD_SH, "sh", *(str(tmp_path / name) for name in
                                                            ("context", "steps", "made"))],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:]
    made = tmp_path / "made"
    final = STAGES["minimal"]
    for word in ("ENTRYPOINT", "HEALTHCHECK"):
        path = final.arguments(word)[0]
        if program(os.path.basename(path)):
            assert os.access(f"{made}/image{path}", os.X_OK), path
    assert (made / "packages").read_text().split()
    assert os.listdir(made / "owned") == ["redial"]
    assert not os.listdir(made / "owned" / "redial")
