"""How a global batch is cut: micro-batch i goes to worker i mod W, so its content never depends on W."""

from pmlm_core.errors import ConfigError


def micro_batch_size(batch_size: int, num_workers: int, asked: int | None, limit: int) -> int:
    """Rows of one forward pass.

    Args:
        batch_size: rows of the global batch.
        num_workers: workers that share it evenly.
        asked: the size the user asked for, or None to choose the largest that divides evenly and is at most `limit`.

    Raises:
        ConfigError: the batch cannot be cut evenly; the message names values that work.

    >>> micro_batch_size(64, 2, None, limit=24)
    16
    >>> micro_batch_size(96, 2, 12, limit=1)
    12
    """
    if batch_size % num_workers:
        workers = [w for w in divisors(batch_size) if w <= 2 * num_workers]
        raise ConfigError(
            f"batch_size {batch_size} cannot be shared evenly by num_workers {num_workers}; with this batch_size "
            f"num_workers may be {_listed(workers)}, with these workers batch_size may be "
            f"{_multiples(batch_size, num_workers)}"
        )
    share = batch_size // num_workers
    fitting = divisors(share)
    if asked is None:
        return max(size for size in fitting if size <= max(1, limit))
    if asked not in fitting:
        raise ConfigError(
            f"batch_size {batch_size} is not divisible by num_workers x micro_batch_size = {num_workers} x {asked}; "
            f"micro_batch_size may be {_listed(fitting)} (or left out), or batch_size "
            f"{_multiples(batch_size, num_workers * asked)}"
        )
    return asked


def fitting_rows(tokens_per_row: int, *, use_gpu: bool) -> int:
    """Rows of a forward pass that suit the device where nothing else is asked for, at least 1.

    Their activations stay near the caches of a CPU, and fill a GPU without filling its memory at the sizes of base.

    >>> fitting_rows(688, use_gpu=True), fitting_rows(688, use_gpu=False), fitting_rows(10_000, use_gpu=False)
    (35, 5, 1)
    """
    return max(1, (24576 if use_gpu else 4096) // max(1, tokens_per_row))


def divisors(n: int) -> list[int]:
    """Divisors of `n`, ascending."""
    small = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


def _multiples(near: int, of: int) -> str:
    below = near // of * of
    return _listed([size for size in (below, below + of) if size > 0])


def _listed(values: list[int]) -> str:
    shown = [str(value) for value in values[-8:]]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
