"""`pmlm predict` in this process: what it writes for each kind of model, and what it takes a folder for."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from predicting_data import HEADS, LABELS, make_finetuned, predict, records, write_texts

from pipelines.predict.config import PredictConfig
from pipelines.predict.finetuned import open_finetuned
from pipelines.predict.served import Served, options_of
from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.errors import ConfigError
from pmlm_core.model import PmlmForConditionalGeneration, PmlmForQuestionAnswering, PmlmForSequenceClassification


@pytest.fixture(scope="module")
def tokenizer(sample_tokenizer_dir: str) -> TextTokenizer:
    return TextTokenizer.load(sample_tokenizer_dir)


def ids_of(tokenizer: TextTokenizer, *texts: str, length: int = 40) -> torch.Tensor:
    """[SOS] A [EOS] (B [EOS]), one row, shortened as a single text is."""
    special, ids = tokenizer.special_ids, [tokenizer.special_ids.sos]
    for text in texts:
        ids += [*tokenizer.encode([text])[0].tolist()[: length - 2], special.eos]
    return torch.tensor([ids])


def test_classification_row_by_row_as_the_model_alone(
    tmp_path: Path, models: dict[str, str], texts: list[str], tokenizer: TextTokenizer
):
    path = write_texts(tmp_path / "in.jsonl", texts)
    found = predict(models["classification"], [path], tmp_path / "out", piece_rows=16, batch_size=5)
    model = PmlmForSequenceClassification.from_pretrained(models["classification"]).eval()
    for number, (text, line) in enumerate(zip(texts, found, strict=True), 1):
        with torch.inference_mode():
            shares = model(ids_of(tokenizer, text)).logits.softmax(-1)[0].tolist()
        assert (line["id"], line["row"], line["file"]) == (str(number), number, str(path))
        assert line["label"] == LABELS[int(np.argmax(shares))]
        assert list(line["probabilities"].values()) == pytest.approx(shares, abs=1e-5)
        assert list(line["probabilities"]) == LABELS
    parts = sorted((tmp_path / "out" / "predictions").iterdir())
    assert [len(records(part)) for part in parts] == [16, 16, 16, 2]
    assert b"".join(part.read_bytes() for part in parts) == (tmp_path / "out" / "predictions.jsonl").read_bytes()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["rows"], summary["predictions"], summary["rejects"]) == (50, 50, {})


def test_pairs_and_ids_from_named_columns_over_several_forms(tmp_path: Path, models: dict[str, str], texts: list[str]):
    folder = tmp_path / "in"
    folder.mkdir()
    names = {"text_column": "first", "text_pair_column": "second", "id_column": "key"}
    rows = [{"key": f"k{n}", "first": text[:20], "second": text[20:50]} for n, text in enumerate(texts[:6])]
    rows = [{name: value.replace("\n", " ") for name, value in row.items()} for row in rows]
    with gzip.open(folder / "a.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    table = ["key\tsecond\tfirst", *(f"{row['key']}\t{row['second']}\t{row['first']}" for row in rows)]
    (folder / "b.tsv").write_text("\n".join(table))
    (folder / "README").write_text("not data")
    found = predict(models["classification"], [folder], tmp_path / "out", piece_rows=4, **names)
    assert [line["id"] for line in found] == [f"k{n}" for n in range(6)] * 2
    assert [line["row"] for line in found] == [*range(1, 7), *range(2, 8)]
    labels = [line["label"] for line in found]
    assert labels[:6] == labels[6:]
    alone = predict(models["classification"], [folder / "b.tsv"], tmp_path / "alone", text_column="first")
    assert [line["probabilities"] for line in alone] != [line["probabilities"] for line in found[6:]]


def test_regression(tmp_path: Path, models: dict[str, str], texts: list[str], tokenizer: TextTokenizer):
    found = predict(models["regression"], [write_texts(tmp_path / "in.jsonl", texts)], tmp_path / "out")
    model = PmlmForSequenceClassification.from_pretrained(models["regression"]).eval()
    with torch.inference_mode():
        expected = [float(model(ids_of(tokenizer, text)).logits) for text in texts]
    assert [line["value"] for line in found] == pytest.approx(expected, abs=1e-4)


def test_questions_in_json_lines_and_in_squads_form(
    tmp_path: Path, models: dict[str, str], sample_texts: list[str], tokenizer: TextTokenizer
):
    contexts = [text[:60] for text in sample_texts[:3]] + [sample_texts[3]]  # the last takes several windows
    lines = [{"id": f"q{n}", "question": "Who was it?", "context": context} for n, context in enumerate(contexts)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    paragraphs = [
        {"context": line["context"], "qas": [{"id": line["id"], "question": line["question"]}]} for line in lines
    ]
    (tmp_path / "in.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    model = models["question_answering"]
    options = {"null_threshold": 1e9, "n_best": 2}
    found = predict(model, [tmp_path / "in.jsonl"], tmp_path / "a", **options)
    squad = predict(model, [tmp_path / "in.json"], tmp_path / "b", **options)
    assert [{**line, "file": ""} for line in squad] == [{**line, "file": ""} for line in found]
    head = PmlmForQuestionAnswering.from_pretrained(model).eval()
    for line, context in zip(found, contexts, strict=True):
        assert line["answer"]
        assert context[line["start"] :].startswith(line["answer"])
        assert len({each["text"] for each in line["n_best"]}) == 2
    # A span's probability does not hang on how many are asked for.
    few = predict(model, [tmp_path / "in.jsonl"], tmp_path / "few", **{**options, "n_best": 1})
    assert [line["n_best"] for line in few] == [line["n_best"][:1] for line in found]
    for line, context in zip(found[:3], contexts[:3], strict=True):  # of one window each
        question = tokenizer.encode(["Who was it?"])[0].tolist()
        passage, starts, ends = tokenizer.encode_with_offsets(context)
        ids = ids_of(tokenizer, "Who was it?", context)
        assert ids.shape[1] <= 40
        types = torch.tensor([[0] * (len(question) + 2) + [1] * (len(passage) + 1)])
        with torch.inference_mode():
            output = head(ids, token_type_ids=types)
        first, second = output.start_logits[0].numpy(), output.end_logits[0].numpy()
        assert line["null_score"] == pytest.approx(float(first[0] + second[0]), abs=1e-4)
        before = len(question) + 2
        scores = {
            (i, j): float(first[before + i] + second[before + j])
            for i in range(len(passage))
            for j in range(i, min(i + 30, len(passage)))
            if ends[j] > starts[i]
        }
        assert line["score"] == pytest.approx(max(scores.values()), abs=1e-4)
    never = predict(model, [tmp_path / "in.jsonl"], tmp_path / "c", null_threshold=-1e9)
    assert all((line["answer"], line["start"]) == ("", -1) for line in never)


def test_generation_as_the_folder_says_and_as_asked(
    tmp_path: Path, models: dict[str, str], texts: list[str], tokenizer: TextTokenizer
):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"src": text}) + "\n" for text in texts[:12]))
    model = models["generation"]
    head = PmlmForConditionalGeneration.from_pretrained(model).eval()

    def alone(**search: Any) -> list[str]:
        rows = (head.generate(ids_of(tokenizer, text), **search)[0].tolist() for text in texts[:12])
        eos = tokenizer.special_ids.eos
        return [tokenizer.decode(row[: row.index(eos)] if eos in row else row) for row in rows]

    beams = predict(model, [path], tmp_path / "beams", batch_size=4)
    assert [line["text"] for line in beams] == alone()
    greedy = predict(model, [path], tmp_path / "greedy", num_beams=1, max_target_length=4)
    assert [line["text"] for line in greedy] == alone(num_beams=1, max_new_tokens=4)
    assert [line["text"] for line in greedy] != [line["text"] for line in beams]
    sampling = {"do_sample": True, "num_beams": 1, "temperature": 2.0}
    drawn = [predict(model, [path], tmp_path / f"s{n}", seed=seed, **sampling) for n, seed in enumerate((1, 1, 2))]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def changed_task(folder: Path, **told: Any) -> None:
    path = folder / "pmlm_task.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **told}))


def test_beams_for_a_model_trained_without_have_its_recipe_s_length_penalty(
    tmp_path: Path, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    """Its generation config cannot hold one; transformers' own, 1, would be another search than the recipe's."""
    folder = Path(shutil.copytree(models["generation"], tmp_path / "model"))
    saved = json.loads((folder / "generation_config.json").read_text())
    lacking = {name: value for name, value in saved.items() if name not in ("num_beams", "length_penalty")}
    (folder / "generation_config.json").write_text(json.dumps(lacking))
    recipe = json.loads((folder / "pmlm_task.json").read_text())["recipe"]
    changed_task(folder, recipe={**recipe, "length_penalty": 0.6})
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"src": "a man"}) + "\n")
    really, searches = PmlmForConditionalGeneration.generate, []

    def spied(self: Any, *arguments: Any, **search: Any) -> Any:
        searches.append(search.get("length_penalty"))
        return really(self, *arguments, **search)

    monkeypatch.setattr(PmlmForConditionalGeneration, "generate", spied)
    served = Served(str(folder))
    for number, asked in enumerate(({}, {"num_beams": 3}, {"num_beams": 3, "length_penalty": 1.0})):
        predict(str(folder), [path], tmp_path / f"{number}", **asked)
        served.predict([{"source": "a man"}], asked)
    assert searches == [1.0, 1.0, 0.6, 0.6, 1.0, 1.0]


def test_a_threshold_is_for_questions_that_may_have_no_answer(tmp_path: Path, models: dict[str, str]):
    """Given where it would be passed over, even as 0, it is refused; the registered model does not offer it either."""
    folder = Path(shutil.copytree(models["question_answering"], tmp_path / "model"))
    changed_task(folder, can_be_unanswerable=False)
    path = write_texts(tmp_path / "in.jsonl", ["a man"])
    for threshold in (0.0, -1.0):
        with pytest.raises(ConfigError, match="null_threshold is for questions that may have no answer"):
            predict(str(folder), [path], tmp_path / "out", null_threshold=threshold)
    offered = [options_of(open_finetuned(PredictConfig(model=str(each)))) for each in (folder, *models.values())]
    assert ["null_threshold" in each for each in offered] == [False, False, False, True, False]
    assert offered[3]["null_threshold"] == 0.0


def test_what_is_left_out_decides_as_it_did_when_it_had_a_value():
    """A folder that was begun then goes on."""
    deciding = PredictConfig().deciding()
    assert (deciding["null_threshold"], deciding["seed"]) == (0.0, 0)


def test_a_model_of_question_generation_takes_passages_and_answers(
    tmp_path: Path, sample_tokenizer_dir: str, sample_texts: list[str]
):
    model = make_finetuned(tmp_path / "qg", sample_tokenizer_dir, "generation", task="squad_qg")
    context = sample_texts[0][:60]
    answer = context[10:16].strip()
    qas = [{"id": "1", "question": "?", "answers": [{"text": answer, "answer_start": context.index(answer)}]}]
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": context, "qas": qas}]}]}))
    (tmp_path / "b.jsonl").write_text(json.dumps({"answer": answer, "context": context}) + "\n")
    (tmp_path / "c.jsonl").write_text(json.dumps({"src": f"{answer} [SEP] {context}"}) + "\n")
    found = [predict(model, [tmp_path / name], tmp_path / name[0]) for name in ("a.json", "b.jsonl", "c.jsonl")]
    assert found[0][0]["text"] == found[1][0]["text"] == found[2][0]["text"] != ""


@pytest.mark.parametrize("kind", ["classification", "regression", "question_answering", "generation"])
def test_a_model_that_hugging_face_s_trainer_saved_predicts_as_its_configuration_says(
    tmp_path: Path, models: dict[str, str], kind: str, capsys: pytest.CaptureFixture[str]
):
    folder = Path(shutil.copytree(models[kind], tmp_path / "model"))
    (folder / "pmlm_task.json").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 40}))
    row = {"text": "the old man " * 9, "question": "Who?", "context": "The man went home. " * 9, "src": "a man"}
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(row) + "\n")
    asked = {"question_answering": {"null_threshold": 0.0, "doc_stride": 8}}.get(kind, {})
    (found,) = predict(str(folder), [path], tmp_path / "out", **asked)
    assert f"there is no pmlm_task.json: {HEADS[kind][0]}" in capsys.readouterr().out
    (expected,) = predict(models[kind], [path], tmp_path / "expected", **asked)
    assert found == expected
    if kind == "question_answering":  # a v1 model, unless it is asked for what only a v2 model has
        (found,) = predict(str(folder), [path], tmp_path / "v1")
        assert found["null_score"] is None
        with pytest.raises(ConfigError, match="whether null_threshold is given was False and is True"):
            predict(str(folder), [path], tmp_path / "v1", **asked)
    for out in (tmp_path / "out", tmp_path / "expected"):  # only where nobody told is it a matter of the options
        options = json.loads((out / "plan.json").read_text())["identity"]["options"]
        assert ("can_be_unanswerable" in options) is (kind == "question_answering" and out.name == "out")


def saved_by_others(folder: Path, told: dict[str, Any]) -> Path:
    """The folder with these entries in its configuration, None for leaving one out, and no description of a task."""
    (folder / "pmlm_task.json").unlink(missing_ok=True)
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **told}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    return folder


def test_two_labels_without_names_are_transformers_own(tmp_path: Path, models: dict[str, str]):
    folder = Path(shutil.copytree(models["classification"], tmp_path / "model"))
    saved_by_others(folder, {"id2label": None, "label2id": None, "problem_type": "single_label_classification"})
    assert open_finetuned(PredictConfig(model=str(folder))).task.labels == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_several_values_a_row_are_refused(tmp_path: Path, models: dict[str, str], problem: str):
    folder = saved_by_others(
        Path(shutil.copytree(models["classification"], tmp_path / "model")), {"problem_type": problem}
    )
    with pytest.raises(ConfigError, match=rf"3 values a row .*{problem}.*transformers' pipeline"):
        open_finetuned(PredictConfig(model=str(folder)))


def test_lengths_that_nobody_told_fit_the_model_s_positions(tmp_path: Path, models: dict[str, str]):
    folder = saved_by_others(Path(shutil.copytree(models["generation"], tmp_path / "model")), {})
    (folder / "generation_config.json").write_text("{}")
    finetuned = open_finetuned(PredictConfig(model=str(folder)))
    assert (finetuned.recipe.max_length, finetuned.recipe.max_target_length) == (48, 16)
    assert finetuned.search["max_new_tokens"] == 16
