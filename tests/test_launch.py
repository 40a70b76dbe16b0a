"""What starts a run on many devices: stubs stand for the run, for gcloud and for SLURM; no cloud is
reached.
"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from frame import slow_but

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "launch"
GATE = [ROOT / ".ci" / name for name in ("run", "full", "lib")]
RESULTS = sorted((ROOT / "docs" / "results").glob("*.sh"))
SCRIPTS = [*sorted(LAUNCH.glob("*.sh")), LAUNCH / "slurm.sbatch", *GATE, *RESULTS]

RUN = """#!/usr/bin/env bash
if [ "$1" = -c ]; then exec python3 "$@"; fi
number=${JAX_PROCESS_ID:-0}
devices="[${CUDA_VISIBLE_DEVICES:-}] [${XLA_FLAGS:-}]"
echo "$JAX_COORDINATOR_ADDRESS $JAX_NUM_PROCESSES $number $devices $*" >"$SEEN/$number"
for name in TERM INT; do trap "echo $name >>$SEEN/$number; kill \\$! 2>/dev/null; exit ${ON_SIGNAL:-0}" "$name"; done
if [ "${FAILS:-}" = "$number" ]; then echo "out of memory"; exit "${STATUS:-3}"; fi
for file in ${FINISHES:-}; do touch "$SEEN/$file"; done
sleep "${SECONDS_EACH:-0}" & wait
"""
RECORD = """#!/usr/bin/env bash
printf '%s' "$(basename "$0")" >>"$SEEN/calls"
printf '|%s' "$@" >>"$SEEN/calls"
echo >>"$SEEN/calls"
"""


@pytest.fixture
def place(tmp_path):
    """A folder for what the stubs see, and a PATH on which they come first."""
    (tmp_path / "bin").mkdir()
    for name, text in {
        "python": RUN, "gcloud": RECORD, "scontrol": RECORD, "tar": RECORD,
        "srun": RECORD + '[[ $1 = --* ]] && shift\n"$@"\n',
    }.items():  # fmt: skip
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def environment(place, **more):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_", "XLA_", "CUDA_", "SLURM"))
    }
    path = f"{place / 'bin'}:{os.environ['PATH']}"
    return (
        kept | {"PATH": path, "SEEN": str(place), "LOGS": str(place / "logs"), "GRACE": "1"} | more
    )


def start(place, script, *words, **more):
    command, space = [LAUNCH / script, *words], environment(place, **more)
    return subprocess.run(
        command, env=space, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60
    )


def calls(place):
    return [line.split("|") for line in (place / "calls").read_text().splitlines()]


def test_shell_scripts_are_sound():
    assert {path.name for path in SCRIPTS} >= {
        "local.sh",
        "tpu_pod.sh",
        "attempt.sh",
        "slurm.sbatch",
        "run",
        "full",
    }
    beside = Path(sys.executable).parent / "shellcheck"  # where no environment is activated
    shellcheck = beside if beside.exists() else "shellcheck"
    done = subprocess.run([shellcheck, "-x", *SCRIPTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    # which is sourced
    assert all(os.access(path, os.X_OK) for path in SCRIPTS if path.name != "lib")


def test_local_processes_are_told_who_they_are_and_share_the_gpus(place):
    done = start(place, "local.sh", "2", "--config=a b.py", CUDA_VISIBLE_DEVICES="4,5,6,7")
    assert done.returncode == 0, done.stderr
    seen = [(place / str(n)).read_text().split() for n in range(2)]
    host, port = seen[0][0].split(":")
    assert host == "127.0.0.1"
    assert 1024 <= int(port) < 65536
    assert [words[:4] for words in seen] == [
        [f"127.0.0.1:{port}", "2", "0", "[4,5]"], [f"127.0.0.1:{port}", "2", "1", "[6,7]"],
    ]  # fmt: skip
    assert all(words[5:] == ["-m", "ldl_jax.main", "--config=a", "b.py"] for words in seen)
    assert (place / "logs" / "process-1.log").exists()


def test_local_processes_may_have_cpu_devices(place):
    assert (
        start(place, "local.sh", "1", LOCAL_DEVICES="4", CUDA_VISIBLE_DEVICES="0,1,2").returncode
        == 0
    )
    assert "[ --xla_force_host_platform_device_count=4]" in (place / "0").read_text()


@pytest.mark.parametrize(
    ("words", "gpus", "sentence"),
    [((), "", "got ''"), (("0",), "", "got '0'"), (("--config=a",), "", "got '--config=a'"),
     (("2",), "0,1,2", "2 processes cannot share 3 GPUs evenly")],
)  # fmt: skip
def test_what_local_cannot_do_is_one_sentence(place, words, gpus, sentence):
    done = start(place, "local.sh", *words, CUDA_VISIBLE_DEVICES=gpus)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("who", slow_but([], [0, 1]))
def test_where_a_local_process_fails_the_others_are_ended_and_its_status_is_told(place, who):
    began = time.monotonic()
    done = start(place, "local.sh", "3", FAILS=str(who), STATUS="7", SECONDS_EACH="50")
    assert time.monotonic() - began < 20
    assert done.returncode == 7
    log = f"; see {place}/logs/process-1.log" if who else ""
    assert (
        f"error: process {who} of 3 exited with status 7{log}; the others have 1 seconds to finish"
        in done.stderr
    )
    assert ("out of memory" in done.stdout) == (who == 0)
    if who:
        assert (place / "logs" / "process-1.log").read_text() == "out of memory\n"


@pytest.mark.parametrize(("sent", "name"), [(signal.SIGTERM, "TERM"), (signal.SIGINT, "INT")])
@pytest.mark.parametrize("status", slow_but(["5"], ["0", "5"]))
def test_signals_go_to_all_local_processes(place, sent, name, status):
    more = {"SECONDS_EACH": "50", "ON_SIGNAL": status}
    # what is ignored here, as below `nohup` or `&`, no shell could trap
    before = signal.signal(sent, lambda *_: None)
    running = subprocess.Popen(
        [LAUNCH / "local.sh", "2"], env=environment(place, **more), stderr=subprocess.DEVNULL
    )
    signal.signal(sent, before)
    until = time.monotonic() + 20
    while not all((place / str(n)).exists() for n in range(2)) and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)  # its traps come after what it writes
    running.send_signal(sent)
    assert running.wait(20) == int(status)
    assert all((place / str(n)).read_text().endswith(f"{name}\n") for n in range(2))


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"FINISHES": "model.npz summary.json"}, 0),
        ({"FINISHES": "model.npz"}, 75),  # stopped while the results were written
        ({}, 75),
        ({"FAILS": "0"}, 3),
        ({"FAILS": "0", "STATUS": "2"}, 2),
    ],
)
def test_an_attempt_tells_whether_the_run_is_finished(place, more, status):
    done = start(place, "attempt.sh", "--config=a", f"--workdir={place}", PATIENCE="1", **more)
    assert done.returncode == status
    assert "--config=a" in (place / "0").read_text()


@pytest.mark.parametrize("status", slow_but(["143"], ["0", "143"]))
def test_an_attempt_hands_on_the_signal_and_needs_a_folder(place, status):
    words = [LAUNCH / "attempt.sh", f"--workdir={place}"]
    space = environment(place, SECONDS_EACH="50", ON_SIGNAL=status)
    running = subprocess.Popen(words, env=space)
    until = time.monotonic() + 20
    while not (place / "0").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.3)
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 75  # saved and left: another attempt goes on
    assert (place / "0").read_text().endswith("TERM\n")
    done = start(place, "attempt.sh", "--config=a")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(("more", "status", "again"), [({}, 0, True), ({"FAILS": "0"}, 3, False)])
def test_a_slurm_job_is_queued_again_where_it_was_stopped_and_not_where_it_failed(
    place, more, status, again
):
    more = {"SLURM_JOB_ID": "12", "SLURM_SUBMIT_DIR": str(ROOT), "PATIENCE": "1"} | more
    done = start(place, "slurm.sbatch", "--config=a", f"--workdir={place}", **more)
    assert done.returncode == status
    ran = ["srun", "--wait=300", "launch/attempt.sh", "--config=a", f"--workdir={place}"]
    assert calls(place) == [ran, *([["scontrol", "requeue", "12"]] if again else [])]


@pytest.mark.parametrize(
    ("given", "folder"),
    [({}, "submitted/.venv"), ({"VENV": "own"}, "submitted/own"), ({"VENV": ""}, None)],
)
def test_a_slurm_job_activates_its_environment(place, given, folder):
    submitted = place / "submitted"
    for name in (".venv", "own"):
        (submitted / name / "bin").mkdir(parents=True)
        told = f'echo "{submitted / name}" >>"$SEEN/activated"\n'
        (submitted / name / "bin" / "activate").write_text(told)
    (submitted / "launch").symlink_to(LAUNCH)
    more = {"SLURM_JOB_ID": "12", "SLURM_SUBMIT_DIR": str(submitted), "PATIENCE": "1", **given}
    done = start(
        place, "slurm.sbatch", f"--workdir={place}", FINISHES="model.npz summary.json", **more
    )
    assert done.returncode == 0, done.stderr
    seen = place / "activated"
    assert (seen.read_text() if folder else seen.exists()) == (
        f"{place / folder}\n" if folder else False
    )


def test_a_slurm_job_refuses_an_environment_that_is_not_there(place):
    done = start(place, "slurm.sbatch", "--workdir=x", VENV="/no/where", SLURM_JOB_ID="12")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "VENV must be a virtual environment, but /no/where/bin/activate" in done.stderr
    assert not (place / "calls").exists()


INSTRUCTIONS = {
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "LABEL",
    "RUN",
    "USER",
    "WORKDIR",
}


def test_the_image_has_known_instructions_and_extras_that_exist():
    lines = (LAUNCH / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.partition(" ")[::2] for line in lines if line and not line.startswith("#")]
    assert {name for name, _ in steps} <= INSTRUCTIONS
    assert steps[0][0] == "FROM"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = steps[0][1].split(":")[1].removesuffix("-slim")
    least = project["requires-python"].removeprefix(">=")
    assert [int(n) for n in base.split(".")] >= [int(n) for n in least.split(".")]
    known = set(project["optional-dependencies"])
    (extras,) = (text.removeprefix("EXTRAS=") for name, text in steps if name == "ARG")
    build = [line for line in (LAUNCH / "Dockerfile").read_text().splitlines() if "EXTRAS=" in line]
    for said in (extras, *re.findall(r"EXTRAS=([\w,]+)", " ".join(build))):
        assert set(said.split(",")) <= known
    (install,) = (text for name, text in steps if name == "RUN")
    assert install == 'pip install -e ".[${EXTRAS}]"'
    settings = dict(steps)
    (script,) = json.loads(settings["ENTRYPOINT"])
    assert os.access(ROOT / script, os.X_OK)
    for kind in ("gpu", "tpu"):
        text = (LAUNCH / "k8s" / f"{kind}.yaml").read_text()
        assert f"workingDir: {settings['WORKDIR']}\n" in text
        assert "image: ldl-jax\n" in text
    assert "-t ldl-jax" in (LAUNCH / "Dockerfile").read_text()


def test_slurm_is_asked_for_a_task_a_gpu_and_a_warning():
    asked = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in (LAUNCH / "slurm.sbatch").read_text().splitlines()
        if line.startswith("#SBATCH")
    )
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    assert asked["signal"] == "TERM@120"
    assert "requeue" in asked


TPU = {"NAME": "slice", "ZONE": "here-a", "TYPE": "v4-32", "VERSION": "some"}


def test_a_pod_is_made_used_and_deleted_step_by_step(place):
    for words in (["create"], ["install"], ["run", "--config=a", "--config.teachers=('x y',)"], ["log"], ["stop"],
                  ["fetch", "/shared/runs", "there"], ["delete"]):  # fmt: skip
        done = start(place, "tpu_pod.sh", *words, NFS="nas:/all", SPOT="1", **TPU)
        assert done.returncode == 0, done.stderr
        assert all(line.startswith("+ ") for line in done.stdout.splitlines())
    made = [
        call[4:] if call[:4] == ["gcloud", "compute", "tpus", "tpu-vm"] else call
        for call in calls(place)
    ]
    assert made[0] == [
        "create",
        "slice",
        "--accelerator-type=v4-32",
        "--version=some",
        "--spot",
        "--zone=here-a",
    ]
    assert made[1][0] == "tar"
    assert [call[:2] for call in made[2:-1]] == [
        ["scp", made[1][-2]],
        *[["ssh", "slice"]] * 7,
        ["scp", "slice:/shared/runs"],
    ]
    assert all("--worker=all" in call for call in made[2:7])
    assert "mount -t nfs nas:/all /shared" in made[6][3]
    (run,) = [call[3] for call in made if call[0] == "ssh" and "nohup" in call[3]]
    assert (
        r"-m ldl_jax.main --config=a --config.teachers=\(\'x\ y\'\,\) >~/run.log" in run
    )  # quoted for the other shell
    assert made[-1] == ["delete", "slice", "--quiet", "--zone=here-a"]


def test_a_dry_run_of_a_pod_shows_the_steps_and_takes_none(place):
    done = start(place, "tpu_pod.sh", "--dry-run", "install", **TPU)
    assert done.returncode == 0
    assert done.stdout.count("\n+ gcloud compute tpus tpu-vm ") == 4
    assert not (place / "calls").exists()
    without = {**TPU, "TYPE": ""}
    done = start(place, "tpu_pod.sh", "create", **without)
    assert (done.returncode, "variable TYPE is not set" in done.stderr) == (2, True)
    for words in ([], ["burn"], ["run"], ["fetch", "x"]):
        done = start(place, "tpu_pod.sh", *words, **TPU)
        assert done.returncode == 2
        assert "launch/tpu_pod.sh [--dry-run] create" in done.stderr


@pytest.mark.parametrize("kind", ["gpu", "tpu"])
def test_a_kubernetes_job_is_what_the_processes_expect(kind):
    parts = {
        part["kind"]: part
        for part in yaml.safe_load_all((LAUNCH / "k8s" / f"{kind}.yaml").read_text())
    }
    service, claim, job = parts["Service"], parts["PersistentVolumeClaim"], parts["Job"]
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert service["spec"]["clusterIP"] == "None"
    # they look for each other before they are ready
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"]
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 60
    rules = spec["podFailurePolicy"]["rules"]
    assert [(rule["action"], rule.get("onExitCodes", {}).get("values")) for rule in rules] == [
        ("FailJob", [2]), ("Ignore", [75]), ("Ignore", None),
    ]  # fmt: skip
    assert {rule["onExitCodes"]["containerName"] for rule in rules[:2]} == {container["name"]}
    assert rules[2]["onPodConditions"] == [{"type": "DisruptionTarget"}]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if "emptyDir" not in volume
    }
    assert claim["metadata"]["name"] in claims
    assert {m["name"] for m in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
    assert container["command"] == ["launch/attempt.sh"]
    config, _, workdir, patience = container["args"]
    assert patience.startswith("--join-seconds=")
    assert (ROOT / config.removeprefix("--config=")).is_file()
    assert workdir.startswith("--workdir=/runs/")
    {"gpu": check_gpus, "tpu": check_tpus}[kind](service, spec, pod, container)


def check_gpus(service, spec, pod, container):
    """Processes are told where the first one is, how many they are, and which one each is."""
    told = {entry["name"]: entry for entry in container["env"]}
    assert int(told["JAX_NUM_PROCESSES"]["value"]) == spec["completions"]
    host, port = told["JAX_COORDINATOR_ADDRESS"]["value"].split(":")
    assert host == f"{service['spec']['selector']['job-name']}-0.{pod['subdomain']}"
    assert (
        int(port) == service["spec"]["ports"][0]["port"] == container["ports"][0]["containerPort"]
    )
    index = told["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert index == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert container["resources"]["limits"]["nvidia.com/gpu"] > 0


def check_tpus(service, spec, pod, container):
    """All chips of the topology are asked for, and JAX is left to find out who is who."""
    chips = math.prod(map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")))
    assert container["resources"]["limits"]["google.com/tpu"] * spec["parallelism"] == chips
    assert "env" not in container
    assert service["spec"]["ports"][0]["port"] == container["ports"][0]["containerPort"] == 8476
