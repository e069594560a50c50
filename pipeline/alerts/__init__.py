"""Alerts: whoever has to know is told once, whenever health changes, in both directions."""

from pipeline.alerts.dispatch import Alerts
from pipeline.alerts.message import AlertMessage

__all__ = ["AlertMessage", "Alerts"]
