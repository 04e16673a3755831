"""What callers get to see of a VM: summaries, details, logs, SSH targets. Reads only."""

from pathlib import Path

from banger.api.vm import DiskUse, LogText, Posture, SshTarget, VmDetails, VmSummary
from banger.base.files import allocated_bytes
from banger.base.problem import Problem, not_found
from banger.model.moment import Moment
from banger.model.vm import LIVE, NetworkMode, VmRecord, VmRuntime
from banger.services.vms.capabilities.ssh import host_key_alias
from banger.services.vms.layout import Layout
from banger.services.vms.plan import locate_root
from banger.storage.contract import RootDriver

_MAX_LOG_BYTES = 512 * 1024


def summarize(vm: VmRecord) -> VmSummary:
    runtime = vm.runtime if vm.state in LIVE else None
    return VmSummary(
        id=vm.id,
        name=vm.name,
        state=vm.state,
        image=vm.spec.image,
        vcpus=vm.spec.vcpus,
        memory_mib=vm.spec.memory_mib,
        address=_render_address(runtime) if runtime else "",
        backend=runtime.backend if runtime else "",
        created_at=vm.created_at,
    )


def _render_address(runtime: VmRuntime) -> str:
    if runtime.network_mode is NetworkMode.BRIDGE:
        return runtime.address
    return f"{runtime.address}:{runtime.ssh_port}"


def describe(
    vm: VmRecord, layout: Layout, driver: RootDriver, posture: Posture, owner_key: Path, now: Moment
) -> VmDetails:
    return VmDetails(
        vm=vm,
        posture=posture,
        disk_use=DiskUse(
            root_bytes=driver.measure_bytes(locate_root(vm, layout)),
            work_bytes=allocated_bytes(layout.work_disk),
        ),
        directory=str(layout.state),
        ssh=ssh_target(vm, layout, owner_key) if vm.state in LIVE and vm.runtime else None,
        ttl_left_s=vm.ttl.left_s(now) if vm.ttl and vm.state in LIVE else None,
    )


def ssh_target(vm: VmRecord, layout: Layout, owner_key: Path) -> SshTarget:
    assert vm.runtime is not None
    return SshTarget(
        host=vm.runtime.address,
        port=vm.runtime.ssh_port,
        user="root",
        identity_file=str(owner_key),
        known_hosts_file=str(layout.known_hosts),
        host_key_alias=host_key_alias(vm.id),
    )


def read_log(vm: VmRecord, layout: Layout, source: str, tail_lines: int | None) -> LogText:
    """At most the last 512 KiB, so that the reply fits a line of the protocol."""
    path = layout.log(source)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(size - _MAX_LOG_BYTES, 0))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError as error:
        raise _no_log(vm, source) from error
    if tail_lines is not None:
        text = "".join(text.splitlines(keepends=True)[-tail_lines:]) if tail_lines else ""
    return LogText(source=source, text=text, truncated=size > _MAX_LOG_BYTES)


def _no_log(vm: VmRecord, source: str) -> Problem:
    if source == "tooling":
        return not_found(
            f"no tools have been installed in {vm.name} yet", hint=f"banger tooling install {vm.name}"
        )
    if vm.state in LIVE and vm.runtime and vm.runtime.jail:
        return not_found(
            f"the {source} log of {vm.name} is in its jail, and kept when the VM has ended",
            hint=f"banger vm stop {vm.name}",
        )
    return not_found(f"{vm.name} has no {source} log yet", hint=f"banger vm start {vm.name}")
