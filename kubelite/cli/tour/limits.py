"""Station 8: limits hit on purpose (CPU throttling, memory, processes), and signals to process 1."""

from __future__ import annotations

import os
import time
from typing import Any

from kubelite.cli.tour import kernel
from kubelite.cli.tour.guide import NAMESPACE, Guide, Missing, container, pod

INTRODUCTION = """
A container that reaches its CPU limit is paused until the next period, one that reaches its memory limit is killed,
and one that reaches its process limit cannot fork. The kernel counts each of these in a file of the cgroup. Process 1
of a pid namespace gets only the signals that it has a handler for, so many a shell script ignores docker stop and
kubectl delete.
"""


def visit(guide: Guide) -> None:
    guide.image()
    _throttling(guide)
    _memory(guide)
    with guide.optional("the limit of processes"):
        _processes(guide)
    _signals(guide)
    _exit_codes(guide)


def _pid(guide: Guide, name: str) -> int:
    pid: int = guide.inspect(name)["containers"][0]["pid"]
    return pid


def _throttling(guide: Guide) -> None:
    guide.step("CPU: throttled, not killed")
    busy = container("busy", "while :; do :; done", resources={"limits": {"cpu": "100m"}})
    guide.apply(pod("throttled", busy))
    directory, _ = kernel.cgroup_directory(_pid(guide, "throttled"), "cpu")
    guide.until(lambda: _throttled(directory) >= 5, "the loop to be throttled")
    guide.run(f"grep -E 'nr_|throttled' {directory}/cpu.stat")
    before, began = _throttled(directory), time.monotonic()
    guide.until(lambda: _throttled(directory) >= before + 5, "the loop to be throttled again")
    took = time.monotonic() - began
    guide.run(f"grep -E 'nr_|throttled' {directory}/cpu.stat")
    guide.say(
        "nr_throttled counts the periods of 100 ms in which the quota of 10 ms was used up, here five more within "
        f"{took:.1f} s. The program runs on, at a tenth of a CPU."
    )
    guide.check("nr_throttled grows while the loop runs", _throttled(directory) > before)
    guide.check("the container still runs", guide.phase("throttled") == "Running")
    guide.run(f"kubelite top pod throttled -n {NAMESPACE}", fails=True)
    guide.delete()


def _throttled(directory: str) -> int:
    words = kernel.read(f"{directory}/cpu.stat").split()
    return int(words[words.index("nr_throttled") + 1])


def _memory(guide: Guide) -> None:
    guide.step("Memory: killed by the kernel")
    script = "exec awk 'BEGIN { s = \"x\"; while (1) s = s s }'"
    eater = container("eater", script, resources={"limits": {"memory": "16Mi"}})
    guide.apply(pod("oom", eater, restartPolicy="Never"))
    state = guide.until(lambda: _terminated(guide, "oom"), "the container to be killed")
    guide.run(f"kubelite get pod oom -n {NAMESPACE}")
    guide.run(
        f"kubelite get pod oom -n {NAMESPACE} -o jsonpath='{{.status.containerStatuses[0].state.terminated}}'"
    )
    guide.say(
        "137 = 128 + 9: SIGKILL. That it was the OOM killer is known only from the counter of the cgroup."
    )
    guide.check(
        "the reason is OOMKilled and the exit code 137",
        (state["reason"], state["exitCode"]) == ("OOMKilled", 137),
    )
    guide.run(f"kubelite why oom -n {NAMESPACE} | head -n 6")
    guide.delete()


def _terminated(guide: Guide, name: str) -> Any:
    statuses = guide.pod(name).get("status", {}).get("containerStatuses") or [{}]
    return statuses[0].get("state", {}).get("terminated")


def _processes(guide: Guide) -> None:
    guide.step("Processes: fork fails")
    guide.apply(pod("pids", container("app", "trap : CHLD; while :; do sleep 0.2; done")))
    pid = _pid(guide, "pids")
    directory, _ = kernel.cgroup_directory(pid, "pids")
    if not os.path.isfile(f"{directory}/pids.max"):
        raise Missing("needs the pids controller")
    guide.say(
        "A pod has no field for this limit, only the node has one for all pods; so write it into the cgroup."
    )
    guide.run(f"echo 8 > {directory}/pids.max && cat {directory}/pids.max")
    many = "i=0; while [ $i -lt 20 ]; do sleep 5 & i=$((i+1)); done; wait"
    guide.run(f"kubelite exec pids -n {NAMESPACE} -- sh -c '{many}'", fails=True, lines=4)
    guide.run(f"cat {directory}/pids.events")
    events = kernel.read(f"{directory}/pids.events").split()
    guide.check("pids.events counts the forks that failed", int(events[events.index("max") + 1]) > 0)
    guide.check("the container itself still runs", kernel.alive(pid))
    guide.delete()


def _signals(guide: Guide) -> None:
    guide.step("Signals to process 1")
    deaf = container("deaf", "while :; do sleep 0.2; done")
    ready = container("ready", "trap 'echo got TERM; exit 3' TERM; while :; do sleep 0.1; done")
    guide.apply(pod("signals", deaf, ready, restartPolicy="Never"))
    pids = {c["name"]: c["pid"] for c in guide.inspect("signals")["containers"]}
    guide.until(
        lambda: int(kernel.status(pids["ready"], "SigCgt"), 16) >> 14 & 1, "the handler to be installed"
    )
    for name, pid in pids.items():
        guide.run(f"grep SigCgt /proc/{pid}/status   # of {name}: bit 14 is SIGTERM, 15")
    guide.run(f"kubelite exec signals -c deaf -n {NAMESPACE} -- kill -TERM 1")
    guide.run(f"kubelite exec signals -c ready -n {NAMESPACE} -- kill -TERM 1")
    guide.until(lambda: not kernel.alive(pids["ready"]), "the container with a handler to end")
    guide.run(f"kubelite logs signals -c ready -n {NAMESPACE}")
    guide.say(
        "The kernel drops a signal for process 1 of a pid namespace that has no handler for it, even SIGKILL from "
        "inside (pid_namespaces(7)). From outside SIGKILL works: this is what the end of the grace period is for."
    )
    guide.check("without a handler SIGTERM did nothing", kernel.alive(pids["deaf"]))
    code = guide.until(lambda: _code(guide, "ready"), "the exit code")
    guide.check("with a handler the program chose its exit code, 3", code == 3)
    guide.run(f"kubelite exec signals -c deaf -n {NAMESPACE} -- kill -KILL 1")
    guide.check("even SIGKILL from inside did nothing", kernel.alive(pids["deaf"]))
    guide.run(f"kill -KILL {pids['deaf']}")
    code = guide.until(lambda: _code(guide, "deaf"), "the exit code")
    guide.check("SIGKILL from the host ended it: 128 + 9 = 137", code == 137)
    guide.delete()


def _exit_codes(guide: Guide) -> None:
    guide.step("Who knows the exit code")
    guide.apply(pod("codes", container("app", "trap : CHLD; while :; do sleep 0.2; done")))
    shown = guide.run(f"kubelite exec codes -n {NAMESPACE} -- sh -c 'exit 7'; echo $?")
    guide.check("exec passes the command's exit code on", shown.split()[-1] == "7")
    seen = guide.inspect("codes")
    guide.run(f"kill -9 {seen['containers'][0]['pid']}")
    guide.until(lambda: _restarted(guide), "the container to be restarted")
    run = os.path.dirname(guide.environment["KUBELITE_SOCKET"])
    state = f"{run}/shims/{seen['pod']['metadata']['uid']}/state.json"
    words = "name|attempt|status|exit_code|signal|oom_killed"
    shown = guide.run(f"python3 -m json.tool {state} | grep -E '\"({words})\"'", lines=20)
    guide.say(
        "The shim is the parent: it reaps the process, so it learns the exit code and the signal, and writes both into "
        "state.json before it tells the daemon, which starts the next instance."
    )
    guide.check(
        "the shim recorded signal 9 and exit code 137",
        '"signal": 9,' in shown and '"exit_code": 137,' in shown,
    )
    guide.run(f"kubelite get pod codes -n {NAMESPACE}")
    guide.delete()


def _restarted(guide: Guide) -> bool:
    [status] = guide.pod("codes")["status"]["containerStatuses"]
    return int(status["restartCount"]) == 1 and "running" in status["state"]


def _code(guide: Guide, name: str) -> int:
    """The exit code of the container; 0 while it runs, because no container here exits with 0."""
    for status in guide.pod("signals")["status"].get("containerStatuses", ()):
        if status["name"] == name:
            return int(status.get("state", {}).get("terminated", {}).get("exitCode", 0))
    return 0
