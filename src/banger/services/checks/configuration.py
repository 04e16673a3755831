"""Does the next start understand the configuration file, is it the one that this daemon runs by, and is it alone?"""

from pathlib import Path

from banger.api.system import Finding
from banger.base.problem import unavailable
from banger.model.config import Config, parse_config
from banger.services.checks.contract import CheckSurroundings, passed, warned

_NAME = "configuration"


async def check(around: CheckSurroundings) -> Finding:
    """A file with a bad key raises Problem, which names file, line and key."""
    file = Path(around.paths.config_file)
    config = _read(file)
    if around.serving_since is not None and (config or Config()) != around.config:
        return warned(_NAME, f"{file} has changed since the daemon read it", around.start_anew)
    for other in around.other_config_files:
        if other != file and other.exists():
            return warned(
                _NAME, f"{other} is not read: the daemon reads {file}", f"mv {other} {other}.unused"
            )
    if config is None:
        return passed(_NAME, f"all defaults: there is no {file}")
    changed = [key for key in Config.__struct_fields__ if getattr(config, key) != getattr(Config(), key)]
    return passed(_NAME, f"{file}: {', '.join(changed) or 'all defaults'}")


def _read(file: Path) -> Config | None:
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise unavailable(f"{file} cannot be read: {error}", hint=f"ls -l {file}") from error
    return parse_config(text, file=str(file))
