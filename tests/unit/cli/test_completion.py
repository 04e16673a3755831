import shutil
import subprocess

import pytest

from banger.cli.commands.completion import SCRIPTS


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["vm", "sto"], ["stop"]),
        (["op"], ["operation"]),
        (["vm", "stop", "w"], ["web", "worker"]),
        (["vm", "stop", "web", "w"], ["web", "worker"]),
        (["vm", "exec", "web", "w"], []),
        (["vm", "create", "--image", ""], ["web", "worker"]),
        (["vm", "create", "--mem"], ["--memory"]),
        (["vm", "logs", "web", "--source", "v"], ["vmm"]),
        (["vm", "run", "--", "w"], []),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["nonsense", "x"], []),
    ],
)
def test_candidates_fit_the_place(daemon, banger, words, expected):
    daemon.answers["complete"] = {"words": ["web", "worker"]}
    status, out, err = banger("__complete", "--", *words)
    assert (status, err) == (0, "")
    assert [line.partition("\t")[0] for line in out.splitlines()] == expected


def test_names_are_asked_for_by_kind(daemon, banger):
    banger("__complete", "--", "vm", "create", "--kernel", "")
    assert daemon.requests[0]["params"] == {"what": "kernel"}


def test_completion_never_starts_a_daemon(runtime, banger):
    assert banger("__complete", "--", "vm", "stop", "w") == (0, "", "")
    assert list(runtime.iterdir()) == []


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_is_valid(banger, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = banger("completion", shell)[1]
    subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_bash_completes_with_it(banger, tmp_path):
    (tmp_path / "banger").write_text('#!/bin/sh\nprintf "web\\tthe web\\nworker\\n"\n')
    (tmp_path / "banger").chmod(0o755)
    script = banger("completion", "bash")[1]
    probe = f'PATH={tmp_path}:$PATH; COMP_WORDS=(banger vm stop w); COMP_CWORD=3; _banger; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{probe}"], capture_output=True, text=True, check=True)
    assert done.stdout == "web worker\n"
