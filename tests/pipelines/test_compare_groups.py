"""What is compared with what: configurations over seeds, groups of them, what did not finish, which test was used."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from comparing_shelf import SOME, Shelf, only, results, run

from pipelines.compare import table
from pipelines.compare.comparison import Comparison, compare, headline, how, single_seed_note
from pipelines.compare.page.build import page
from pipelines.compare.runs import Run
from pmlm_core.errors import ConfigError


def test_seeds_of_one_configuration_are_one_group():
    found = only(Shelf([run("a", 60.0, 1), run("b", 62.0, 2), run("c", 55.0, options={"learning_rate": 1e-3})]))
    first, second = found.groups
    assert (first.best.mean, first.median, first.best.stdev) == (61.0, 61.0, pytest.approx(2**0.5))
    assert second.label == "lr 0.001"
    assert second.best.stdev is None


def test_an_option_left_out_is_the_same_as_its_default():
    named = {"options": {"metric_for_best_model": "accuracy"}}
    found = only(Shelf([run("a", 60.0, 1, options={"metric_for_best_model": None}), run("b", 62.0, 2, **named)]))
    assert len(found.groups) == 1
    assert "metric_for_best_model" not in found.section.searched
    columns = [{"text_column": None, "label_column": None}, {"text_column": "text", "label_column": "label"}]
    assert len(only(Shelf([run(key, 60.0, i, options=columns[i]) for i, key in enumerate("ab")])).groups) == 1
    unfinished = run("c", None, 3, status="RUNNING", options={"metric_for_best_model": None})
    unfinished = replace(unfinished, tags={k: v for k, v in unfinished.tags.items() if k != "metric"})
    assert len(only(Shelf([run("a", 60.0, 1), unfinished])).groups) == 1


def test_a_seed_that_was_run_twice_counts_once():
    again = run("again", 60.0, 1, tags={"phase": "finalist"})
    found = only(Shelf([run("search", 60.0, 1), again, run("b", 62.0, 2, tags={"phase": "finalist"})]))
    assert [trial.run.id for trial in found.groups[0].best.scored] == ["again", "b"]
    assert len(found.groups[0].trials) == 3


def test_a_lucky_single_run_does_not_win_over_the_finalists():
    lucky = run("lucky", 66.0, options={"learning_rate": 5e-4})
    finalists = [run(f"f{seed}", 60.0 + seed, seed, tags={"phase": "finalist"}) for seed in (1, 2, 3)]
    found = only(Shelf([lucky, *finalists]))
    assert found.groups[0].best.mean == 62.0
    assert not found.groups[1].best.confirmed
    assert single_seed_note(found.groups, 1).startswith("1 configuration scored better with one seed only")
    # By hand, without a sweep that chose, it does.
    plain = [replace(each, tags={"stage": "finetune", "task": "rte"}) for each in (lucky, *finalists)]
    assert only(Shelf(plain)).groups[0].best.mean == 66.0


def test_of_equal_scores_more_seeds_win_then_less_cost():
    slow = replace(run("slow", 60.0), metrics={"final/dev/accuracy": 60.0, "cost/seconds": 90.0})
    quick = run("quick", 60.0, options={"batch_size": 16})
    both = [run(f"b{seed}", 60.0, seed, options={"batch_size": 8}, tags={"sweep": "day"}) for seed in (1, 2)]
    assert [group.label for group in only(Shelf([slow, quick, *both])).groups] == ["batch 8", "batch 16", "batch 32"]


def test_seeds_that_differ_as_much_as_the_groups_are_said_to():
    right = {"a1": 20, "a2": 12, "b1": 10, "b2": 12}
    files = {key: results(*[1] * count, *[0] * (20 - count)) for key, count in right.items()}
    runs = [run(key, 5.0 * count, int(key[1]), options={"batch_size": ord(key[0])}) for key, count in right.items()]
    difference = only(Shelf(runs, files)).differences[1]
    assert difference is not None
    assert difference.holm is not None
    assert difference.holm < 0.05
    assert difference.verdict == "depends on seeds"
    assert "over seeds, it may be noise" in headline(only(Shelf(runs, files)))


def test_what_did_not_finish_is_counted_and_says_why():
    stopped = run("s", None, tags={"outcome": "stopped"}, options={"learning_rate": 1e-3})
    stopped = replace(stopped, history={"accuracy": ((1, 50.0), (2, 70.0), (3, 65.0))})
    failed = run("f", None, tags={"outcome": "failed", "failure": "out of memory"}, status="FAILED")
    lost = run("l", None, status="RUNNING", options={"batch_size": 16})
    found = only(Shelf([run("a", 60.0, 2), stopped, failed, lost]))
    assert found.counts() == {"finished": 1, "running": 1, "stopped": 1, "failed": 1}
    assert [(trial.run.id, trial.run.reason) for trial in found.unfinished()] == [
        ("l", "still running, or lost without a word"),
        ("s", "stopped by the sweep as hopeless"),
        ("f", "out of memory"),
    ]
    best = next(trial for trial in found.section.trials if trial.run.id == "s")
    assert best.score == 70.0
    # It leads nothing, however good it was so far.
    assert found.groups[0].best.outcome == "finished"
    assert [each is None for each in found.differences] == [True, True, True]


def test_nothing_finished_is_said():
    found = only(Shelf([run("f", None, status="FAILED")]))
    assert found.best is None
    assert headline(found) == "RTE: nothing has finished yet (1 failed)."


def test_the_paired_test_is_taken_where_the_examples_are_the_same():
    one, other = [1] * 30 + [0] * 10, [1] * 18 + [0] * 22
    files = {"a": results(*one), "b": results(*other)}
    found = only(Shelf([run("a", 75.0), run("b", 45.0, options={"batch_size": 16})], files))
    difference = found.differences[1]
    assert difference is not None
    assert (difference.test, difference.points, difference.examples) == ("paired", 30.0, 40)
    assert difference.low is not None
    assert 0 < difference.low < 30 < (difference.high or 0)
    assert difference.verdict == "other seeds unknown"
    assert headline(found).endswith(": more than noise on these examples; one seed each, other seeds unknown.")
    assert "It is 30.0 points ahead of batch 16, 95 % interval " in headline(found)


@pytest.mark.parametrize(
    ("file", "note"),
    [
        (None, "there are no results by example"),
        ({"ids": [], "figures": {"f1": {}}}, "the results by example have no accuracy"),
        ({**results(*[1, 0] * 10), "figures": {"accuracy": {"kind": "new"}}}, "the results by example cannot be used"),
    ],
)
def test_otherwise_seeds_are_tested_and_why_is_said(file: dict[str, Any] | None, note: str):
    a = [run(f"a{s}", 75.0 + 5 * s, s) for s in (0, 1, 2)]
    b = [run(f"b{s}", 50.0, s, options={"batch_size": 16}) for s in (0, 1, 2)]
    good = {f"a{s}": results(*[1] * (15 + s), *[0] * (5 - s)) for s in (0, 1, 2)}
    bad = {} if file is None else {f"b{s}": file for s in (0, 1, 2)}
    difference = only(Shelf([*a, *b], good | bad)).differences[1]
    assert difference is not None
    assert difference.test == "welch"
    assert note in how(difference)
    # With one seed there is nothing left to test by.
    difference = only(Shelf([a[0], b[0]], good | bad)).differences[1]
    assert difference is not None
    assert (difference.test, difference.verdict) == ("none", "not tested")
    assert "not several seeds of both" in how(difference)


@pytest.mark.parametrize(
    ("file", "verdict", "note"),
    [
        (results(*[1, 1, 1, 0] * 5, examples="others"), "other examples", "the examples are not the same"),
        (
            results(*[1, 1, 1, 1] * 5), "scored otherwise",
            "the results by example give 100.00, not the score 75.00",
        ),
    ],
)  # fmt: skip
def test_scores_of_something_else_are_neither_tested_nor_ranked_among_the_others(
    file: dict[str, Any], verdict: str, note: str
):
    """Not over seeds, either: seeds differ little, and the easier examples would win."""
    a = [run(f"a{s}", 85.0, s) for s in (0, 1)]
    b = [run(f"b{s}", 75.0, s, options={"batch_size": 16}) for s in (0, 1)]
    c = [run(f"c{s}", 50.0, s, options={"batch_size": 8}) for s in (0, 1)]
    files = {f"a{s}": results(*[1] * 17, *[0] * 3) for s in (0, 1)} | {f"b{s}": file for s in (0, 1)}
    files |= {f"c{s}": results(*[1, 0] * 10) for s in (0, 1)}
    found = only(Shelf([*a, *b, *c], files))
    assert [group.label for group in found.groups] == ["batch 32", "batch 8", "batch 16"]
    near, far = found.differences[1:]
    assert near is not None
    assert (near.test, near.points, near.pairs) == ("paired", 35.0, 1)
    assert far is not None
    assert (far.test, far.points, far.p, far.verdict, far.note) == ("none", None, None, verdict, note)
    assert f"It is 35.0 points ahead of {found.groups[1].label}" in headline(found)
    assert verdict in page([found], SOME)
    two = only(Shelf([*a, *b], files))
    assert (
        headline(two)
        == f"RTE: batch 32: accuracy 85.00 ± 0.00 (2 seeds) on dev; no other group can be held against it: {note}."
    )


def test_what_is_of_other_examples_than_the_best_may_be_the_best_itself():
    """The best by an odd file leads nothing."""
    runs = [run(f"{key}{s}", score, s, options={"batch_size": size}) for key, score, size in (
        ("a", 95.0, 32), ("b", 75.0, 16), ("c", 50.0, 8)
    ) for s in (0, 1)]  # fmt: skip
    files = {each.id: results(*[1, 0] * 10) for each in runs}
    found = only(Shelf(runs, files), replace(SOME, tested=1))
    assert [each and each.verdict for each in found.differences] == [None, "scored otherwise", "scored otherwise"]
    assert "points ahead" not in headline(found)
    assert "of the best, the results by example give 50.00, not the score 95.00" in headline(found)


def test_runs_on_other_dev_examples_have_a_section_of_their_own():
    def on(key: str, score: float, data: str, seed: int = 1, **more: Any) -> Run:
        return run(key, score, seed, tags={"data.dev": data}, **more)

    may, june = "e1f0c2ab39 500", "77aa0b1c2d 500"
    runs = [on(f"a{s}", 90.0 + s / 10, may, s, options={"batch_size": 16}) for s in (1, 2, 3)]
    runs += [on(f"b{s}", 80.0 + s / 10, june, s) for s in (1, 2, 3, 4)]
    runs += [on("chosen by fewer", 79.0, "77aa0b1c2d 100", 5), run("says nothing", 78.0, 6)]
    runs += [on("scored on fewer", 99.0, june, options={"max_predict_rows": 10})]
    usual, other, few = compare(Shelf(runs), SOME)
    assert usual.section.name == "rte"
    assert len(usual.section.trials) == 6
    assert usual.published
    assert other.section.name == "rte, other dev examples (e1f0c2ab)"
    assert headline(other).startswith("RTE, other dev examples (e1f0c2ab): the best is ")
    assert len(other.section.trials) == 3
    assert not other.published
    assert few.section.name == "rte, other dev examples (77aa0b1c, at most 10)"


def test_runs_that_were_scored_otherwise_have_a_section_of_their_own():
    def by(key: str, scorers: dict[str, str] | None, task: str = "rte", metric: str = "accuracy") -> Run:
        tags = {"task": task, "benchmark": task, "metric": metric}
        tags |= {} if scorers is None else {"scorers": json.dumps(scorers)}
        return replace(run(key, None, tags=tags), metrics={f"final/dev/{metric}": 60.0})

    def sections(*runs: Run) -> dict[str, int]:
        return {found.section.name: len(found.section.trials) for found in compare(Shelf([*runs]), SOME)}

    new, newer = (f"accuracy; scikit-learn {version}; percent" for version in ("1.5.0", "1.6.1.post1"))
    assert sections(by("a", {"accuracy": new}), by("b", {"accuracy": newer}), by("c", None)) == {"rte": 3}
    assert sections(by("a", {"accuracy": new, "f1": "F1"}), by("b", {"accuracy": new, "f1": "micro"})) == {"rte": 2}
    told = sections(by("a", {"accuracy": new}), by("b", {"accuracy": newer}), by("c", {"accuracy": "of words"}))
    assert sorted(told.values()) == [1, 2]
    assert told["rte"] == 2
    # Questions were once scored one by one, which older runs do not say.
    questions = {"bleu": "BLEU-4; sacrebleu 2.6.0 with tokenize=none; by source", "meteor": "METEOR 1.5: left out"}
    old = [by(f"old {number}", None, "squad_qg", "bleu4") for number in (1, 2)]
    assert sections(*old) == {"squad_qg": 2}
    newly = {**questions, "meteor": "METEOR 1.5"}, {**questions, "bleu": questions["bleu"].replace("2.6.0", "2.4.3")}
    assert sections(*old, *(by(f"new {number}", each, "squad_qg", "bleu4") for number, each in enumerate(newly))) == {
        "squad_qg": 2, "squad_qg, scored otherwise (by what is not recorded)": 2,
    }  # fmt: skip


def test_results_of_the_best_that_are_missing_are_said_to_be_its_own():
    files = {"b": results(1, 0)}
    found = only(Shelf([run("a", 75.0), run("b", 50.0, options={"batch_size": 16})], files))
    assert "of the best, there are no results by example" in how(found.differences[1])


def test_several_comparisons_are_adjusted():
    runs = [run("a", 75.0)] + [run(f"b{i}", 45.0, options={"batch_size": 16 + i}) for i in range(3)]
    files = {
        each.id: results(*[1] * (30 if each.id == "a" else 18), *[0] * (10 if each.id == "a" else 22)) for each in runs
    }
    found = only(Shelf(runs, files))
    ps = [(each.p, each.holm, each.pairs) for each in found.differences if each is not None]
    # Three are held against the best, but any of the six pairs might have been: the best is so by the same scores.
    assert all(holm == pytest.approx(6 * p) and pairs == 6 for p, holm, pairs in ps)
    assert "p is adjusted (Holm) for all 6 pairs" in " ".join(table.tests_used(found))


def test_only_so_many_are_tested():
    runs = [run(f"r{i}", 70.0 - i, options={"batch_size": 16 + i}) for i in range(4)]
    found = only(Shelf(runs), replace(SOME, tested=1))
    assert [each and each.note for each in found.differences][2:] == [
        "not among the groups that are tested (--tested)"
    ] * 2


def test_less_is_better_where_the_sweep_says_so():
    tags = {"mode": "min"}
    runs = [run("a", 3.0, tags=tags), run("b", 5.0, tags=tags, options={"batch_size": 16})]
    found = only(Shelf(runs))
    assert found.groups[0].best.mean == 3.0
    assert "It is 2.0 points ahead of batch 16" in headline(found)


@pytest.mark.parametrize(
    ("group_by", "labels"),
    [
        ("model", ["mini, fresh weights", "mini", "base"]),
        ("objective", ["AE+PAR", "not recorded", "AE"]),
        ("sweep", ["day", "night", "pmlm finetune"]),
        ("strategy", ["asha", "random", "pmlm finetune"]),
        ("batch_size", ["batch 16", "batch 32"]),
    ],
)
def test_groups_stand_for_their_best_configuration(group_by: str, labels: list[str]):
    mini = {"pretrained.path": "outputs/mini/pretrain/final"}
    day = {**mini, "sweep": "day", "strategy": "asha", "pretrained.objective": "AE+PAR"}
    base = {"pretrained.path": "outputs/base/pretrain/final", "pretrained.sha256": "b" * 64}
    by_hand = {"stage": "finetune", "sweep": "", "strategy": "", "pretrained.objective": "AE"}
    runs = [
        run("a", 60.0, tags=day),
        run("b", 70.0, tags=day, options={"batch_size": 16}),
        run("c", 65.0, tags=mini),
        run("d", 50.0, tags={**base, **by_hand}),
    ]
    runs[1] = replace(runs[1], params={**runs[1].params, "from_scratch": "True"})
    found = only(Shelf(runs), replace(SOME, group_by=group_by))
    assert [group.label for group in found.groups] == labels
    assert found.groups[0].best.mean == 70.0


def test_a_group_has_the_median_of_its_configurations():
    runs = [run(f"r{i}", 60.0 + i, options={"learning_rate": (i + 1) * 1e-4}) for i in range(5)]
    (group,) = only(Shelf(runs), replace(SOME, group_by="batch_size")).groups
    assert (group.median, len(group.configurations)) == (62.0, 5)


def test_an_unknown_way_to_group_is_refused():
    with pytest.raises(ConfigError, match="group_by 'colour' is neither one of configuration, model"):
        compare(Shelf([run("a", 60.0)]), replace(SOME, group_by="colour"))


def test_members_of_a_population_are_not_seeds_of_each_other():
    tags = {"strategy": "pbt"}
    runs = [run("a", 60.0, tags={**tags, "configuration": "1"}), run("b", 62.0, tags={**tags, "configuration": "2"})]
    assert len(only(Shelf(runs)).groups) == 2


def test_own_data_are_compared_where_their_examples_are_the_same():
    tags = {"stage": "finetune", "task": "seq2seq", "benchmark": "", "metric": "rougeLsum"}
    plain = [
        replace(run(key, None, tags={**tags, "data.dev": data}), metrics={"final/dev/rougeLsum": 20.0})
        for key, data in (("a", "x 10"), ("b", "x 10"), ("c", "y 10"))
    ]
    plain = [
        replace(
            each,
            tags={name: value for name, value in each.tags.items() if value},
            params={**each.params, "data_dir": f"data/{each.tags['data.dev'][0]}"},
        )
        for each in plain
    ]
    swept = replace(plain[0], id="s", tags={**plain[0].tags, "stage": "sweep-trial", "benchmark": "scitldr"})
    names = {found.section.name: len(found.section.trials) for found in compare(Shelf([*plain, swept]), SOME)}
    assert names == {"scitldr": 3, "seq2seq-y": 1}


def test_a_figure_that_no_run_has_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="no run has the figure 'f2'; figures are final/dev/accuracy"):
        compare(Shelf([run("a", 60.0)]), replace(SOME, metric="f2"))


def test_another_figure_and_split_may_be_asked_for():
    more = {"final/dev/f1": 40.0, "final/test/accuracy": 30.0}
    runs = [replace(each, metrics={**each.metrics, **more}) for each in [run("a", 60.0)]]
    assert only(Shelf(runs), replace(SOME, metric="f1")).groups[0].best.mean == 40.0
    assert only(Shelf(runs), replace(SOME, split="test")).groups[0].best.mean == 30.0


def test_one_of_a_thing_is_said_as_one(capsys: pytest.CaptureFixture[str]):
    """Wherever `compare` counts: seeds, runs, comparisons, finished configurations."""
    files = {"a": results(*[1] * 30, *[0] * 10), "b": results(*[1] * 18, *[0] * 22)}
    failed = run("f", None, tags={"outcome": "failed"}, options={"batch_size": 16})
    found = only(Shelf([run("a", 75.0), run("b", 45.0, options={"batch_size": 16}), failed], files))
    table.show(found, "configuration")
    for shown in (capsys.readouterr().out, page([found], SOME)):
        assert not re.findall(r"\b1 (?:seeds|runs|comparisons|configurations|pairs)\b", shown)
    alone = page([only(Shelf([run("a", 75.0)]))], SOME)
    assert "it takes 6 finished configurations, and there is 1" in alone
    assert "1 run compared" in alone


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        (50.0, "accuracy 60.00 (1 seed) on dev; there is nothing"),
        (60.0, "accuracy 60.00 (1 seed) on dev, no better than the trivial baseline's 60.00; there is nothing"),
        (66.67, "accuracy 60.00 (1 seed) on dev, worse than the trivial baseline's 66.67; there is nothing"),
    ],
)
def test_a_winner_that_has_learned_nothing_is_called_so(baseline: float, said: str):
    assert said in headline(beside_baseline(60.0, baseline))


@pytest.mark.parametrize(
    ("score", "baseline", "said"),
    [
        (60.006, 60.004, "accuracy 60.01 (1 seed) on dev; there"),
        (60.004, 60.006, "accuracy 60.00 (1 seed) on dev, worse than the trivial baseline's 60.01; there"),
        (60.004, 59.996, "accuracy 60.00 (1 seed) on dev, no better than the trivial baseline's 60.00; there"),
    ],
)
def test_what_is_said_of_the_baseline_is_of_the_figures_that_are_shown(score: float, baseline: float, said: str):
    assert said in headline(beside_baseline(score, baseline))


def beside_baseline(score: float, baseline: float) -> Comparison:
    alone = run("a", score)
    return only(Shelf([replace(alone, metrics={**alone.metrics, "baseline/dev/accuracy": baseline})]))
