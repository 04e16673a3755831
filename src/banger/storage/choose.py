"""Which driver the root disk of a new VM gets, and the driver of one that has been made."""

from collections.abc import Collection, Mapping

from banger.base.problem import Problem, unavailable
from banger.model.machine import DiskFormat
from banger.model.storage import StorageDriver
from banger.storage.contract import RootDriver

AUTO = "auto"
_PREFERENCE = (StorageDriver.SNAPSHOT, StorageDriver.QCOW2, StorageDriver.REFLINK, StorageDriver.COPY)


class Storage:
    """All drivers there are, and the configuration's word on which to take."""

    def __init__(self, wanted: str, drivers: Collection[RootDriver]) -> None:
        self._drivers: Mapping[StorageDriver, RootDriver] = {driver.name: driver for driver in drivers}
        self._wanted = None if wanted == AUTO else self.get(StorageDriver(wanted))

    def get(self, name: StorageDriver) -> RootDriver:
        return self._drivers[name]

    def find_wanted(self) -> RootDriver | None:
        """The one that the configuration names."""
        return self._wanted

    async def choose(self, formats: Collection[DiskFormat]) -> RootDriver:
        """For a VMM that reads these formats: the one that was named, or the best that works here. Raises
        `unavailable` with the reason where the named one does not."""
        if self._wanted is not None:
            if self._wanted.format not in formats:
                raise unavailable(
                    f"the VMM cannot read a root disk on {self._wanted.name.value}",
                    hint='set storage_driver = "auto" in config.toml',
                )
            await self._wanted.probe()
            return self._wanted
        refusals: list[Problem] = []
        for name in _PREFERENCE:
            driver = self._drivers.get(name)
            if driver is None or driver.format not in formats:
                continue
            try:
                await driver.probe()
            except Problem as problem:
                refusals.append(problem)
            else:
                return driver
        raise refusals[-1] if refusals else unavailable("no root disk suits the VMM", hint="banger doctor")

    async def find_full(self) -> dict[str, RootDriver]:
        """VMs whose root disk the host has given up while they run, each with its driver."""
        return {vm_id: driver for driver in self._drivers.values() for vm_id in await driver.find_full()}
