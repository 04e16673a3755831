"""The closed list of what the root helper does. Standard library only.

A request is a frozen dataclass of names, addresses and numbers, with `validate()`, which runs on both sides.
Descriptors travel beside it; `descriptors` says how many may come along. Nothing here is a path, an argument
vector or rule text.
"""

from typing import Any

from banger.privileged.contract.base import Request
from banger.privileged.contract.machines import (
    AttachSnapshot,
    DetachSnapshot,
    EnterJail,
    InspectMachines,
    LaunchVmm,
    ListJails,
    ListSnapshots,
    RemoveJail,
    SettleVmm,
)
from banger.privileged.contract.network import (
    AdmitGuest,
    ApplyGuests,
    CreateTaps,
    DeleteTaps,
    EnsureBridge,
    InspectHost,
    ListRoutes,
    ListTaps,
    OpenDns,
    PublishPorts,
    ReleaseGuest,
    RemoveBridge,
    RouteNames,
    UnpublishPorts,
    UnrouteNames,
)
from banger.privileged.contract.processes import Hello, MapIds, SignalVmm

REQUESTS: dict[str, type[Request[Any]]] = {
    kind.method: kind
    for kind in (
        Hello,
        SignalVmm,
        MapIds,
        ListRoutes,
        InspectHost,
        EnsureBridge,
        RemoveBridge,
        CreateTaps,
        DeleteTaps,
        ListTaps,
        ApplyGuests,
        AdmitGuest,
        ReleaseGuest,
        PublishPorts,
        UnpublishPorts,
        OpenDns,
        RouteNames,
        UnrouteNames,
        InspectMachines,
        AttachSnapshot,
        DetachSnapshot,
        ListSnapshots,
        LaunchVmm,
        SettleVmm,
        EnterJail,
        RemoveJail,
        ListJails,
    )
}
