"""Who is in a group of this host."""

import grp
import pwd


def list_members(gid: int) -> list[str]:
    """All but root: by the group's list, or as their own first group. Debian's `staff` has none."""
    try:
        listed = grp.getgrgid(gid).gr_mem
    except KeyError:
        listed = []
    primary = [entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == gid and entry.pw_uid != 0]
    return sorted({*listed, *primary} - {"root"})
