"""VMs: their life cycle and what runs in them.

`service` holds the use cases, `live` the running ones, `boot` the steps of a start, `plan` what a record
means for VMM and guest, `execute` commands in the guest.
"""
