"""The recipes in numbers, as `pmlm finetune --help` shows them; read from the tasks, nothing heavy is imported."""

from pipelines.finetune.config import RECIPE

COLUMNS = {
    "GLUE": "rte",
    "SQuAD": "squad2.0",
    "cnn_dailymail": "cnn_dailymail",
    "xsum": "xsum",
    "squad_qg": "squad_qg",
    "seq2seq": "seq2seq",
}
"""Heading -> a task that has the recipe."""


def text() -> str:
    """A table: options that recipes set down the side, families of tasks across."""
    from pmlm_core.tasks.registry import get_task

    recipes = {heading: vars(get_task(task).recipe) for heading, task in COLUMNS.items()}
    rows = [["option", *recipes]]
    rows += [[name, *(f"{recipe[name]:g}" if recipe[name] else "-" for recipe in recipes.values())] for name in RECIPE]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(
        [
            "recipes, for options that are left out (- is 0 or without meaning; GLUE's is that of classification and",
            "regression too, SQuAD's that of qa, squad_qg's that of squad_qg_reversed):",
            *(line.rstrip() for line in lines),
        ]
    )
