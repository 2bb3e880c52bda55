"""The container recipe and Binder's configuration: they name files, versions and commands that there are.

No image is built here. What a build would read is parsed and compared with what the checkout says of its environment.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from saliency_lib import paths

CONTAINER, BINDER = paths.ROOT / "container", paths.ROOT / ".binder"
CONDA = yaml.safe_load((paths.ROOT / "environment.yml").read_text())
PROJECT = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
CPU = "https://download.pytorch.org/whl/cpu"


def instructions():
    """The instructions of the Dockerfile: pairs of a word and its arguments, with continued lines joined."""
    lines = [line for line in (CONTAINER / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in joined if line.strip()]


def arguments(word):
    return [rest for name, rest in instructions() if name == word]


def environment():
    """The variables that the Dockerfile sets."""
    return dict(pair.split("=", 1) for rest in arguments("ENV") for pair in shlex.split(rest))


def pins(text):
    return dict(re.findall(r"(?<![\w-])([A-Za-z][\w.-]*)==([\w.]+)", text))


def required(file):
    """The requirements that pip reads from a file and from those that it names, and the options of index."""
    found, options = [], []
    for line in (one.split("#")[0].strip() for one in file.read_text().splitlines()):
        if line.startswith("-r "):
            more = required((file.parent / line.removeprefix("-r ")).resolve())
            found, options = found + more[0], options + more[1]
        elif line.startswith("-"):
            options.append(line)
        elif line:
            found.append(Requirement(line))
    return found, options


def left_out(name, patterns):
    """Whether a pattern leaves out a path or a folder above it; the last pattern that fits decides, `!` takes it back."""
    parts, result = name.split("/"), False
    for pattern in patterns:
        plain = pattern.removeprefix("!")
        anywhere, plain = plain.startswith("**/"), plain.removeprefix("**/")
        wanted = plain.split("/")
        starts = range(len(parts)) if anywhere else (0,)
        fits = any(
            len(parts) - start >= len(wanted)
            and all(fnmatchcase(part, one) for part, one in zip(parts[start:], wanted, strict=False))
            for start in starts
        )
        result = not pattern.startswith("!") if fits else result
    return result


def ignored_by_docker():
    lines = (CONTAINER / "Dockerfile.dockerignore").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def tracked():
    words = ["git", "ls-files", "-z"]
    listed = subprocess.run(words, cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in listed if name]


def test_the_dockerfile_has_instructions_that_docker_knows_in_an_order_that_builds():
    words = [word for word, _ in instructions()]
    assert words[0] == "FROM" and words.count("FROM") == words.count("CMD") == 1 and words[-1] == "CMD"
    assert set(words) <= {"FROM", "RUN", "USER", "WORKDIR", "ENV", "COPY", "EXPOSE", "CMD"}
    assert words.index("USER") < words.index("COPY")  # pip and the checkout belong to the reader
    for script in arguments("RUN"):
        assert subprocess.run(["sh", "-n", "-c", script]).returncode == 0


def test_every_file_that_the_dockerfile_copies_exists_and_reaches_the_build():
    copies = [[word for word in shlex.split(rest) if not word.startswith("--")] for rest in arguments("COPY")]
    assert copies == [["requirements.txt", "./"], [".", "./"]]
    for *sources, _ in copies:
        for source in sources:
            assert (paths.ROOT / source).exists() and not left_out(source, ignored_by_docker())
    assert all("--chown=reader:reader" in rest for rest in arguments("COPY"))


def test_the_build_gets_every_file_that_git_tracks():
    names = tracked()
    assert len(names) > 300 and not [name for name in (*names, ".git/HEAD") if left_out(name, ignored_by_docker())]


IGNORED = """
.venv/bin/python saliency_lib/core/__pycache__/x.pyc out.ipynb data/cifar10/x data/weights/x.safetensors
outputs/runs/a/b.ipynb outputs/training/a/b.json plugins/mine.py .snakemake/log/x build/lib/x.py
notebooks/.ipynb_checkpoints/x.ipynb a.egg-info/PKG-INFO .mypy_cache/x tests/.hypothesis/x .pytest_cache/x .ruff_cache/x
dist/x.whl
"""


@pytest.mark.parametrize("name", IGNORED.split())
def test_the_build_does_not_get_what_git_ignores(name, tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy(paths.ROOT / ".gitignore", tmp_path)
    assert subprocess.run(["git", "check-ignore", "-q", name], cwd=tmp_path).returncode == 0
    assert left_out(name, ignored_by_docker())


def test_the_last_fitting_pattern_decides():
    rules = ["data/*", "!data/README.md", "**/cache", "*.txt"]
    assert [left_out(name, rules) for name in ("data/a", "data/a/b", "data/README.md", "data")] == [True, True, False, False]
    assert [left_out(name, rules) for name in ("cache", "a/cache/b", "a.txt", "b/a.txt")] == [True, True, True, False]


def test_python_is_the_one_of_the_conda_environment_and_of_the_project():
    (image,) = arguments("FROM")
    (conda,) = [part for part in CONDA["dependencies"] if isinstance(part, str) and part.startswith("python=")]
    version = conda.removeprefix("python=")
    assert re.fullmatch(rf"python:{re.escape(version)}-slim-\w+", image)
    assert (BINDER / "runtime.txt").read_text().strip() == f"python-{version}"
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]


@pytest.mark.parametrize(
    "file", [CONTAINER / "Dockerfile", BINDER / "postBuild", BINDER / "requirements.txt"], ids=lambda f: f.name
)
def test_its_pins_are_those_of_the_environment(file):
    known = pins((paths.ROOT / "requirements.txt").read_text()) | pins(str(CONDA["dependencies"]))
    makefile = pins((paths.ROOT / "Makefile").read_text())
    assert pins((paths.ROOT / file).read_text()).items() <= known.items()
    assert makefile.items() <= known.items() and "quantus" in makefile


def test_both_install_the_pinned_packages_with_torch_for_cpus():
    pinned, _ = required(paths.ROOT / "requirements.txt")
    found, options = required(BINDER / "requirements.txt")
    assert [*map(str, found)] == [*map(str, pinned)] and len(pinned) > 200
    assert all(len(one.specifier) == 1 and str(one.specifier).startswith("==") for one in pinned)
    assert {"torch", "torchvision"} <= {one.name for one in pinned} and not [one for one in pinned if "nvidia" in one.name]
    assert options == [f"--extra-index-url {CPU}"]
    (install,) = [script for script in arguments("RUN") if "requirements.txt" in script]
    assert f"pip install --extra-index-url {CPU} -r requirements.txt" in install


def test_a_wheel_without_cuda_satisfies_its_pin():
    for one in required(paths.ROOT / "requirements.txt")[0]:
        if one.name in ("torch", "torchvision"):
            assert one.specifier.contains(str(one.specifier).removeprefix("==") + "+cpu")


def test_the_container_does_not_run_as_root_and_its_folders_belong_to_the_user():
    (user,) = arguments("USER")
    made = arguments("RUN")[0]
    assert user == "reader" and f"useradd --create-home --uid 1000 {user}" in made
    assert f"install --directory --owner {user} --group {user} {arguments('WORKDIR')[0]} /opt/environment" in made


def test_the_command_that_it_starts_exists_and_knows_its_options():
    (text,) = arguments("CMD")
    program, sub, folder, *options = yaml.safe_load(text)
    where = Path(sys.executable).parent
    assert shutil.which(program, path=str(where)) and shutil.which(f"{program}-{sub}", path=str(where))
    assert (paths.ROOT / folder).is_dir()
    from jupyterlab.labapp import LabApp

    known = {f"--{name}" for name in (*LabApp.aliases, *LabApp.flags)}
    assert {option.split("=")[0] for option in options} == {"--ip", "--no-browser"} <= known


def test_make_installs_nothing_in_it_and_finds_its_programs():
    variables = environment()
    makefile = (paths.ROOT / "Makefile").read_text()
    assert f"env: $(if $(filter {variables['CONDA_DEFAULT_ENV']},$(CONDA_DEFAULT_ENV)),,.venv/installed)" in makefile
    assert variables["CONDA_DEFAULT_ENV"] == CONDA["name"] and variables["PATH"] == "/opt/environment/bin:$PATH"
    assert "python -m venv /opt/environment" in arguments("RUN")[1]
    assert {"git", "make"} <= set(arguments("RUN")[0].split()) & {part for part in CONDA["dependencies"] if isinstance(part, str)}


def test_binder_gets_what_repo2docker_reads_and_a_script_that_can_start():
    assert {file.name for file in BINDER.iterdir()} == {"requirements.txt", "runtime.txt", "apt.txt", "postBuild"}
    script = BINDER / "postBuild"
    assert os.access(script, os.X_OK) and script.read_text().startswith("#!/usr/bin/env bash\n")
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert (BINDER / "apt.txt").read_text().split() == ["git", "make"]


def test_binders_last_check_passes_here():
    (code,) = re.findall(r"^python -c '(.*)'$", (BINDER / "postBuild").read_text(), re.MULTILINE)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=paths.ROOT)


def test_the_commands_of_its_head_and_of_the_guide_agree():
    head = (CONTAINER / "Dockerfile").read_text().split("FROM")[0]
    guide = (paths.ROOT / "docs" / "guide" / "cluster.md").read_text()
    for command in ("docker build -f container/Dockerfile -t saliency-compendium .", "make reproduce"):
        assert command in head and command in guide
    for source in re.findall(r"docker-daemon://([\w:.-]+)", head + guide):
        assert source == "saliency-compendium:latest"
    assert "has not been built" in guide
