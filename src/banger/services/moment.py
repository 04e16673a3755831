"""The present moment, which the domain is told and never asks for."""

from banger.base.clock import host_now
from banger.model.moment import Moment


def read_moment() -> Moment:
    return Moment(**host_now()._asdict())
