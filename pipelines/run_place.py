"""Where a run may lie, as far as its options alone can tell; imports nothing heavy, for `--help`."""

from pmlm_core.errors import ConfigError


def check_run_place(output_dir: str, run_name: str | None, more: str = "") -> None:
    """Refuse a place that a run cannot have; nothing is looked at.

    Args:
        more: another way out, for the message.

    Raises:
        ConfigError: output_dir is no folder, or run_name not the name of one.
    """
    if "://" in output_dir:
        raise ConfigError(
            f"output_dir {output_dir} must be a folder (on several machines a shared one, such as NFS): "
            f"checkpoints are renamed into place, which object stores cannot do{more}"
        )
    if run_name is not None and (not run_name or run_name != run_name.strip(". ") or "/" in run_name):
        raise ConfigError(f"run_name '{run_name}' must be a plain folder name, without '/'")
