"""A run's place in upload_dir, taken for one command at the start: its record, its lease, and a store that is away."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.run_folder import RUN_FILE, RunDir
from pipelines.run_place import lies_in_store
from pipelines.tracking.redact import redact
from pipelines.upload import lease
from pipelines.upload.background import short
from pmlm_core import storage
from pmlm_core.errors import CheckpointError, ConfigError, DataError
from pmlm_core.stores import PATIENCE_VARIABLE, patience


def claim(
    run: RunDir, home: str, command: str, check: Callable[[dict[str, Any]], None], say: Callable[[str], None]
) -> None:
    """Make sure that what lies in `home` is this run and that no other command uses it.

    Args:
        check: raises if the record it is given is not that of this run.

    Raises:
        ConfigError: it is another's, or in use.
        OSError, DataError: the store cannot be reached, or refuses.
    """
    check_record(run, home, check)
    lease.take(run, home, command, say)


def check_record(run: RunDir, home: str, check: Callable[[dict[str, Any]], None]) -> None:
    """`check` the record in `home`; if there is none, this run's is put there: a store that refuses is met now."""
    where = storage.join(home, RUN_FILE)
    if RUN_FILE not in storage.names_in(home):
        storage.copy_file(run.record, where)
    try:
        check(json.loads(storage.read_bytes(where)))
    except ConfigError:
        raise
    except DataError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{redact(home)}/{RUN_FILE} is no record of a run ({error!r}): choose another run_name"
        ) from None


@contextlib.contextmanager
def may_be_away(home: str, upload_dir: str, *, can_do_without: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Leave the block where the store fails.

    Raises:
        CheckpointError: it has, and without it the run would begin anew, though it may have got further there.
    """
    if storage.is_remote(home):
        say(f"asking {redact(home)} what it has of this run; a store that is away is waited for {patience():g} s")
    try:
        yield
    except (OSError, DataError) as error:
        if not can_do_without:
            raise CheckpointError(
                f"{redact(upload_dir)}, where this run is to lie, cannot be used ({short(error)}); it may have got "
                "further there than here. See whether the bucket exists and takes what you write; if it was away, give "
                f"the same command again when the store is back ({PATIENCE_VARIABLE} says how long it is waited for)"
            ) from error
        say(f"warning: {redact(home)} has not answered ({short(error)}); going on with what is here")


def check_arrived(config: Any, all_there: bool) -> None:
    """Refuse to call a run done whose place is a store that has not all of it; elsewhere it has been warned of.

    Raises:
        CheckpointError: with the way out.
    """
    if lies_in_store(config) and not all_there:
        raise CheckpointError(
            f"what was made is not all in {redact(config.upload_dir)} yet; it is in {config.output_dir} on this "
            "machine. The same command here, when the store is back, sends it and computes nothing again; what else "
            "keeps it here is warned of above"
        )
