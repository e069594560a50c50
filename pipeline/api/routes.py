"""All routes, in one table: they are served from it, and the OpenAPI document is made of it."""

from __future__ import annotations

from pipeline.api import handlers, metrics, schema, sse
from pipeline.api.guard import Spec
from pipeline.control.views import DaemonView, JobView, MachineView

_KNOWN = (401, 403, 503)  # whatever needs a role
_CHANGE = (*_KNOWN, 404, 408, 409, 413, 415, 422)

SPECS: tuple[Spec, ...] = (
    Spec(
        "GET", "/v1/daemon", "daemon", "The daemon as a whole",
        "viewer", DaemonView, handlers.daemon, errors=_KNOWN,
    ),
    Spec(
        "POST", "/v1/daemon/reload", "reload", "Read the configuration again",
        "operator", schema.Reloaded, handlers.reload, schema.NoBody, errors=_CHANGE,
    ),
    Spec(
        "GET", "/v1/machines", "machines", "All machines",
        "viewer", schema.Machines, handlers.machines, errors=_KNOWN,
    ),
    Spec(
        "GET", "/v1/machines/{name}", "machine", "One machine",
        "viewer", MachineView, handlers.machine, errors=(*_KNOWN, 404),
    ),
    Spec(
        "POST", "/v1/machines/{name}/operations/{operation}", "operate",
        "Begin an operation, or with dry_run say what it would do",
        "operator", schema.OperationAnswer, handlers.operate, schema.OperationRequest,
        errors=_CHANGE, statuses=(200, 202),
    ),
    Spec(
        "GET", "/v1/jobs", "jobs", "Jobs, newest first",
        "viewer", schema.Jobs, handlers.jobs, query=schema.JobsQuery, errors=(*_KNOWN, 422),
    ),
    Spec(
        "GET", "/v1/jobs/{number}", "job", "One job",
        "viewer", JobView, handlers.job, errors=(*_KNOWN, 404),
    ),
    Spec(
        "POST", "/v1/jobs/{number}/{action}", "act", "Cancel, restart or resume a job",
        "operator", JobView, handlers.act, schema.ActionRequest, errors=_CHANGE,
    ),
    Spec(
        "GET", "/v1/events", "events", "Events, oldest first",
        "viewer", schema.Events, handlers.events, query=schema.EventsQuery, errors=(*_KNOWN, 422),
    ),
    Spec(
        "GET", "/v1/events/stream", "follow", "Events as they happen, as server-sent events",
        "viewer", str, handlers.follow, query=schema.FollowQuery, errors=(*_KNOWN, 422),
        media=sse.MEDIA_TYPE,
    ),
    Spec(
        "GET", "/v1/audit", "audit", "The audit chain, newest first",
        "operator", schema.AuditPage, handlers.audit, query=schema.AuditQuery,
        errors=(*_KNOWN, 422),
    ),
    Spec(
        "GET", "/v1/health", "health", "How all is, and why",
        "viewer", schema.HealthAnswer, handlers.health, errors=_KNOWN,
    ),
    Spec(
        "GET", "/metrics", "metrics", "Metrics for Prometheus",
        "viewer", str, handlers.metrics, errors=_KNOWN, media=metrics.MEDIA_TYPE,
    ),
    Spec("GET", "/healthz", "alive", "It answers", None, schema.Alive, handlers.alive),
    Spec("GET", "/readyz", "ready", "It serves", None, schema.Alive, handlers.ready, errors=(503,)),
)  # fmt: skip
