"""Where a run may lie, as far as its options alone can tell; imports nothing heavy, for `--help`."""

import os

from pmlm_core.addresses import SCHEMES, absolute, is_remote
from pmlm_core.errors import ConfigError


def check_run_place(output_dir: str, run_name: str | None, upload_dir: str | None = None) -> None:
    """Refuse a place that a run cannot have; nothing is looked at.

    Raises:
        ConfigError: output_dir is no folder, run_name not the name of one, or upload_dir no place besides.
    """
    if "://" in output_dir:
        raise ConfigError(
            f"output_dir {output_dir} must be a folder (on several machines a shared one, such as NFS): "
            "checkpoints are renamed into place, which object stores cannot do. For copies in an object store give "
            "upload_dir as well"
        )
    if run_name is not None and (not run_name or run_name != run_name.strip(". ") or "/" in run_name):
        raise ConfigError(f"run_name '{run_name}' must be a plain folder name, without '/'")
    if upload_dir is None:
        return
    if is_remote(upload_dir):
        scheme, _, rest = upload_dir.partition("://")
        if scheme not in SCHEMES:
            raise ConfigError(
                f"upload_dir {upload_dir}: storage '{scheme}://' is not supported; use a local path, s3:// or gs://"
            )
        if not rest.split("?")[0].strip("/"):
            raise ConfigError(f"upload_dir {upload_dir} names no bucket: give one, as {scheme}://bucket/runs")
        return
    above, place = absolute(output_dir), absolute(upload_dir)
    if os.path.commonpath([above, place]) == above:
        what = "output_dir" if above == place else f"inside output_dir {output_dir}, and would be lost with it"
        raise ConfigError(f"upload_dir is {what}: give another place, or leave it out")
