"""batch/v1: Job and CronJob (Kubernetes 1.36), with Kubernetes' defaults (pkg/apis/batch/v1/defaults.go).

Selector and labels that contain the Job's uid are generated when the Job is created, not here.
"""

from typing import Literal

from pydantic import Field

from manifests.types.defaults import default_template
from manifests.types.meta import (
    Bool,
    Int32,
    Int64,
    LabelSelector,
    Model,
    Object,
    ObjectMeta,
    ObjectReference,
    StatusCondition,
    Str,
    Time,
    empty_list,
)
from manifests.types.pod import PodTemplateSpec

MAX_INT32 = 2**31 - 1


class PodFailurePolicyOnExitCodesRequirement(Model):
    operator: Str
    values: list[Int32]
    container_name: Str | None = None


class PodFailurePolicyOnPodConditionsPattern(Model):
    type: Str
    status: Str | None = None


class PodFailurePolicyRule(Model):
    action: Str
    on_exit_codes: PodFailurePolicyOnExitCodesRequirement | None = None
    on_pod_conditions: list[PodFailurePolicyOnPodConditionsPattern] = Field(default_factory=empty_list)


class PodFailurePolicy(Model):
    rules: list[PodFailurePolicyRule]


class SuccessPolicyRule(Model):
    succeeded_count: Int32 | None = None
    succeeded_indexes: Str | None = None


class SuccessPolicy(Model):
    rules: list[SuccessPolicyRule]


class JobSpec(Model):
    template: PodTemplateSpec
    active_deadline_seconds: Int64 | None = None
    backoff_limit: Int32 | None = None
    backoff_limit_per_index: Int32 | None = None
    completion_mode: Str | None = None
    completions: Int32 | None = None
    managed_by: Str | None = None
    manual_selector: Bool | None = None
    max_failed_indexes: Int32 | None = None
    parallelism: Int32 | None = None
    pod_failure_policy: PodFailurePolicy | None = None
    pod_replacement_policy: Str | None = None
    selector: LabelSelector | None = None
    success_policy: SuccessPolicy | None = None
    suspend: Bool | None = None
    ttl_seconds_after_finished: Int32 | None = None


class UncountedTerminatedPods(Model):
    failed: list[Str] = Field(default_factory=empty_list)
    succeeded: list[Str] = Field(default_factory=empty_list)


class JobCondition(StatusCondition):
    last_probe_time: Time | None = None


class JobStatus(Model):
    active: Int32 | None = None
    completed_indexes: Str | None = None
    completion_time: Time | None = None
    conditions: list[JobCondition] = Field(default_factory=empty_list)
    failed: Int32 | None = None
    failed_indexes: Str | None = None
    ready: Int32 | None = None
    start_time: Time | None = None
    succeeded: Int32 | None = None
    terminating: Int32 | None = None
    uncounted_terminated_pods: UncountedTerminatedPods | None = None


class Job(Object):
    api_version: Literal["batch/v1"] = "batch/v1"
    kind: Literal["Job"] = "Job"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: JobSpec
    status: JobStatus = Field(default_factory=JobStatus)

    def set_defaults(self) -> None:
        """Kubernetes: SetDefaults_Job. Labels default to the template's."""
        spec = self.spec
        if spec.completions is None and spec.parallelism is None:
            spec.completions = 1
        if spec.parallelism is None:
            spec.parallelism = 1
        if spec.backoff_limit is None:
            spec.backoff_limit = 6 if spec.backoff_limit_per_index is None else MAX_INT32
        self.metadata.labels = self.metadata.labels or dict(spec.template.metadata.labels)
        if spec.completion_mode is None:
            spec.completion_mode = "NonIndexed"
        if spec.suspend is None:
            spec.suspend = False
        if spec.pod_replacement_policy is None:
            spec.pod_replacement_policy = "Failed" if spec.pod_failure_policy else "TerminatingOrFailed"
        if spec.manual_selector is None:
            spec.manual_selector = False
        default_job_parts(spec)


def default_job_parts(spec: JobSpec) -> None:
    """Fill in the defaults that a JobSpec has in a CronJob, too: those of its pod template and of its failure policy.

    The others are filled in when the Job is created (SetObjectDefaults_CronJob does not call SetDefaults_Job).
    """
    for rule in spec.pod_failure_policy.rules if spec.pod_failure_policy else ():
        for pattern in rule.on_pod_conditions:
            pattern.status = pattern.status or "True"
    default_template(spec.template.spec)


class JobTemplateSpec(Model):
    spec: JobSpec
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)


class CronJobSpec(Model):
    job_template: JobTemplateSpec
    schedule: Str
    concurrency_policy: Str | None = None
    failed_jobs_history_limit: Int32 | None = None
    starting_deadline_seconds: Int64 | None = None
    successful_jobs_history_limit: Int32 | None = None
    suspend: Bool | None = None
    time_zone: Str | None = None


class CronJobStatus(Model):
    active: list[ObjectReference] = Field(default_factory=empty_list)
    last_schedule_time: Time | None = None
    last_successful_time: Time | None = None


class CronJob(Object):
    api_version: Literal["batch/v1"] = "batch/v1"
    kind: Literal["CronJob"] = "CronJob"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: CronJobSpec
    status: CronJobStatus = Field(default_factory=CronJobStatus)

    def set_defaults(self) -> None:
        """Kubernetes: SetDefaults_CronJob."""
        spec = self.spec
        spec.concurrency_policy = spec.concurrency_policy or "Allow"
        if spec.suspend is None:
            spec.suspend = False
        if spec.successful_jobs_history_limit is None:
            spec.successful_jobs_history_limit = 3
        if spec.failed_jobs_history_limit is None:
            spec.failed_jobs_history_limit = 1
        default_job_parts(spec.job_template.spec)
