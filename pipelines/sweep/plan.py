"""What a sweep would take, before anything is encoded: the text of `pmlm sweep --dry_run`."""

from collections.abc import Iterator, Sequence

from pipelines.console import counted, warn
from pipelines.finetune.speed import CPU_MFU, GPU_MFU, cpu_peak, gpu_peak
from pipelines.quantities import duration
from pipelines.run_place import named
from pipelines.sweep.config import KEEPING_STATES, SweepConfig
from pipelines.sweep.course import Course, in_plain
from pmlm_core.errors import ConfigError

START_S = 3.0
"""Assumed for a trial's process, its imports, and what is scored and saved at its end (docs/results.md has some)."""


def describe(all_courses: Sequence[Course]) -> Iterator[str]:
    """Trials, cost and resources, benchmark by benchmark; costs are upper bounds where trials may be stopped early."""
    config = all_courses[0].config
    yield f"sweep        {named(config, all_courses[0].run.path.parent)}, strategy {config.strategy}"
    if config.strategy in KEEPING_STATES:
        yield "             (on a cluster it needs an output_dir that all nodes share, for Tune's states of trials)"
    yield _resources(config)
    total = 0.0
    for course in all_courses:
        trials, seconds = trials_of(course), _seconds(course, _rate(course))
        total += trials * seconds
        yield f"{course.benchmark.name}: {_counts(course)}"
        for name, domain in course.searched.items():
            yield f"  {name:<28} {in_plain(domain)}"
        if course.at_a_time != config.max_concurrent_trials:
            yield (
                f"  {course.at_a_time} at a time, for {config.strategy} learns from what has ended; "
                "max_concurrent_trials changes that"
            )
        yield (
            f"  a trial takes up to {counted(course.max_epochs, 'epoch')}, about {duration(seconds)}; one after the "
            f"other all {trials} take {duration(seconds * trials)}{_early(course)}"
        )
    mfu, kind = (GPU_MFU, "an H100's") if config.gpus_per_trial else (CPU_MFU, "this machine's")
    yield (
        f"cost         {duration(total)} if trials ran one after the other, at an assumed {mfu:.0%} of {kind} "
        "peak for each trial's share; divide by the trials at a time; scoring and predictions come on top"
    )


def trials_of(course: Course) -> int:
    """Trials that will be trained at the most: finalists have been trained with one seed already."""
    if course.config.strategy == "paper_grid":
        return course.num_samples
    return course.num_samples + course.finalists * (len(course.seeds) - 1)


def check_fits(config: SweepConfig) -> None:
    """Say what would never start. Needs a connected Ray.

    Raises:
        ConfigError: Ray has too little for one trial, and no autoscaler could help.
    """
    from pipelines import cluster

    gpus_by = "" if config.gpus_per_trial else "--gpus_per_trial 1"
    cluster.require(config.num_workers, config.cpus_per_trial, False, named="cpus_per_trial", gpus_by=gpus_by)
    needed = config.num_workers * config.gpus_per_trial
    if not needed:
        return
    import ray

    have = ray.cluster_resources().get("GPU", 0)
    if have < needed:
        text = f"a trial needs {needed:g} GPUs, Ray has {have:g}"
        if not cluster.is_remote():
            raise ConfigError(f"{text}; lower gpus_per_trial, or give 0 for CPUs")
        warn(f"{text}; waiting for more nodes")


def _counts(course: Course) -> str:
    choose = course.job.choose
    chosen = choose.split.name if choose else ""
    finals = f", then {counted(course.finalists, 'finalist')} with {counted(len(course.seeds), 'seed')} each"
    if course.config.strategy == "paper_grid":
        configurations = counted(course.num_samples // len(course.seeds), "configuration")
        finals = f" ({configurations} with {counted(len(course.seeds), 'seed')} each)"
    elif not course.finalists:
        finals = ""
    return (
        f"{counted(course.num_samples, 'trial')}{finals}; {course.job.train.split.used:,} training examples; chosen by "
        f"{course.metric} on '{chosen}'"
    )


def _seconds(course: Course, rate: float) -> float:
    """Of the longest trial: its start, and its operations at `rate`."""
    from pipelines.finetune.plan import sized

    return START_S + sized(course.job).flops_per_epoch * course.max_epochs / rate


def _resources(config: SweepConfig) -> str:
    gpus = f" and {config.gpus_per_trial:g} GPU" if config.gpus_per_trial else ""
    each = f"{config.cpus_per_trial} CPU{gpus}"
    asked = each if config.num_workers == 1 else f"{config.num_workers} workers of {each}"
    learns = config.strategy in ("optuna", "optuna_pareto")
    at_a_time = config.max_concurrent_trials or ("see below" if learns else "as many as fit")
    return f"resources    {asked} for a trial; trials at a time for each benchmark: {at_a_time}"


def _rate(course: Course) -> float:
    """Operations a second of one trial's share."""
    config = course.config
    if config.gpus_per_trial:
        return gpu_peak().rate * config.gpus_per_trial * config.num_workers * GPU_MFU
    return cpu_peak(config.cpus_per_trial * config.num_workers, course.job.config.precision).rate * CPU_MFU


def _early(course: Course) -> str:
    config, schedule = course.config, course.schedule
    may_stop = config.strategy in ("asha", "hyperband") or (
        config.strategy in ("random", "optuna") and config.stop_hopeless
    )
    if not may_stop:
        return ""
    if not schedule.can_stop:
        shortest = counted(schedule.shortest, "epoch")
        return f"; none is stopped early, for the shortest has {shortest}, all within grace_epochs or warm-up"
    from_here = f"{schedule.grace / schedule.shortest:.0%}"
    return f", less where hopeless ones are stopped, {from_here} into their epochs or later"
