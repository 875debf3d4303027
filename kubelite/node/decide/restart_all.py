"""Restarts all containers of a pod in its existing sandbox when one of them ends with an exit code for which its
restartPolicyRules have the action RestartAllContainers."""

from __future__ import annotations

import signal

from kubelite.kube.durations import go_duration
from kubelite.node.decide.back_off import crash_back_off, restart_all_of
from kubelite.node.decide.pod_rules import rule_for
from kubelite.node.decide.stopping import Stopping
from kubelite.node.model.actions import RemoveContainer, StopContainer, Waiting
from kubelite.node.model.cri import ContainerState, ObservedContainer
from kubelite.node.model.pod_view import pod_ref


class RestartingAll(Stopping):
    """The part of a decision that restarts all containers."""

    def _restarts_all(self) -> ObservedContainer | None:
        """The instance that ended with the action RestartAllContainers (KEP-5532); None if there is none."""
        for container in [*self.inits, *self.mains]:
            newest = self.views[container.name].current
            if newest is None or newest.state is not ContainerState.EXITED:
                continue
            if newest.stop_deadline and not newest.killed_for:  # kubelite stopped it for another reason
                continue
            if rule_for(container, newest.exit_code) == "RestartAllContainers":
                return newest
        return None

    def _restart_all(self, trigger: ObservedContainer) -> None:
        """Kill all containers at once, without hooks or grace period, and remove their records. The sandbox stays. Then
        the containers, which the status shows as waiting, start again, init containers first. The delay grows as after
        any crash."""
        name = trigger.name
        restart = restart_all_of(crash_back_off(self.pod, self.config.crash_back_off), trigger, self.now)
        for container in [*self.inits, *self.mains]:
            if self.now >= restart.at or container.name == name:
                self._default_waiting(container)
        if self.now < restart.at:
            wait = f"back-off {go_duration(restart.delay)} restarting all containers"
            self._wait(name, Waiting("CrashLoopBackOff", f"{wait} of pod={pod_ref(self.pod)}"), restart.at)
            return
        self.reasons.append(
            f"container {name} ended with exit code {trigger.exit_code}: its rule restarts all containers"
        )
        alive = self._alive()
        for one in alive:
            if not one.stop_deadline or one.stop_deadline > self.now:
                message = f"Container {one.name} is killed because the pod restarts all of its containers"
                self.stop.append(StopContainer(one.id, one.name, int(signal.SIGKILL), 0.0, message))
        if alive:
            self.wakes.append(self.now + 1.0)
            return
        ephemeral = {c.name for c in self.ephemerals}
        for one in self.observed.containers:
            if one.name not in ephemeral:
                newest = one.attempt == self.views[one.name].attempts - 1 if one.name in self.views else False
                self.remove.append(RemoveContainer(one.id, one.name, one.attempt, keep_log=newest))
