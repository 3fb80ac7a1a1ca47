"""Losses against one cloze pass per factorization step, in float64; objectives; precision; learning at all."""

import math

import pytest
import torch
from oracles import pseudo_mask as oracle

from pmlm_core.errors import ConfigError
from pmlm_core.model import PmlmConfig

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "pseudo_position_ids", "pseudo_steps")


@pytest.mark.parametrize("rel_pos_bins", [8, 0])
@pytest.mark.parametrize("objective", ["AE+PAR", "AE+AR"])
def test_losses_are_those_of_one_cloze_pass_a_step(objective, rel_pos_bins, make_model, make_batch):
    model, batch = make_model(objective, rel_pos_bins=rel_pos_bins), make_batch(objective)
    output = model(**batch)
    with torch.no_grad():
        expected_ae, expected_par = oracle.ae_loss(model, batch), oracle.par_loss(model, batch)
    torch.testing.assert_close(output.ae_loss_sum, expected_ae, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(output.par_loss_sum, expected_par, rtol=1e-10, atol=1e-10)
    assert not math.isclose(expected_ae.item(), expected_par.item(), rel_tol=1e-3)
    assert output.num_predictions.item() == (batch["labels"] != -100).sum().item()
    mean = (expected_ae + expected_par) / output.num_predictions
    torch.testing.assert_close(output.loss, mean, rtol=1e-10, atol=1e-10)


def test_gradients_are_those_of_the_cloze_passes(make_model, make_batch):
    model, batch = make_model(num_hidden_layers=2), make_batch(lengths=(14, 11))
    output = model(**batch)
    (output.ae_loss_sum + 3 * output.par_loss_sum).backward()
    got = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    (oracle.ae_loss(model, batch) + 3 * oracle.par_loss(model, batch)).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(got[name], p.grad, rtol=1e-8, atol=1e-8)
        assert p.grad.abs().max() > 0, f"{name} is not trained"


@pytest.mark.parametrize(
    ("objective", "parts"), [("AE", "a"), ("PAR", "p"), ("AR", "p"), ("AE+AR", "ap"), ("AE+PAR", "ap")]
)
def test_objective_decides_which_losses_there_are(objective, parts, make_model, make_batch):
    both = make_model("AE+AR" if "AR" in objective.split("+") else "AE+PAR")(**make_batch(objective))
    output = make_model(objective)(**make_batch(objective))
    assert (output.ae_loss_sum is not None) == ("a" in parts)
    assert (output.par_loss_sum is not None) == ("p" in parts)
    total = 0
    if "a" in parts:
        torch.testing.assert_close(output.ae_loss_sum, both.ae_loss_sum)
        total += output.ae_loss_sum
    if "p" in parts:
        torch.testing.assert_close(output.par_loss_sum, both.par_loss_sum)
        total += output.par_loss_sum
    torch.testing.assert_close(output.loss, total / output.num_predictions)


def test_last_layer_short_cut_gives_the_states_of_the_full_pass(make_model, make_batch):
    model, batch = make_model(), make_batch()
    inputs = {name: batch[name] for name in MODEL_INPUTS}
    true_ids = batch["labels"].clamp(min=0)
    full = model.pmlm(**inputs, true_ids=true_ids)
    ae, par = model.pmlm.predicted_states(*inputs.values(), true_ids, ae=True, par=True)
    at_masks = batch["pseudo_position_ids"][..., None].expand(-1, -1, full.last_hidden_state.shape[-1])
    torch.testing.assert_close(ae, full.last_hidden_state.gather(1, at_masks), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(par, full.pseudo_hidden_state, rtol=1e-12, atol=1e-12)
    assert full.true_hidden_state.shape == par.shape


def test_explicit_positions_equal_the_default_and_shifting_them_changes_the_states(make_model, make_batch):
    model, batch = make_model().pmlm, make_batch()
    inputs = {name: batch[name] for name in MODEL_INPUTS}
    inputs["true_ids"] = batch["labels"].clamp(min=0)
    positions = torch.arange(24).expand(3, 24)
    default, explicit = model(**inputs), model(**inputs, position_ids=positions)
    for a, b in zip(default.to_tuple(), explicit.to_tuple(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    moved = model(**inputs, position_ids=positions.flip(1))
    assert not torch.allclose(moved.pseudo_hidden_state, default.pseudo_hidden_state)


def test_one_row_of_mask_segments_and_positions_serves_all_and_other_shapes_are_refused(make_model):
    model, ids = make_model().pmlm, torch.randint(6, 60, (3, 9))
    mask = torch.tensor([[1] * 7 + [0] * 2])
    inputs = [mask, (torch.arange(9) > 4).long()[None], torch.arange(9).flip(0)[None]]
    once = model(ids, *inputs).last_hidden_state
    torch.testing.assert_close(once, model(ids, *(x.repeat(3, 1) for x in inputs)).last_hidden_state)
    for at, name in enumerate(("attention_mask", "token_type_ids", "position_ids")):
        for wrong in (inputs[at][:, :8], inputs[at].repeat(2, 1), inputs[at][0]):
            given = [wrong if each == at else None for each in range(3)]
            with pytest.raises(ValueError, match=rf"{name} has the shape .* and input_ids \(3, 9\)"):
                model(ids, *given)


def test_padding_does_not_change_a_row(make_model, make_batch):
    model = make_model()
    alone = make_batch(lengths=(17,))
    cut = {k: v[:, :17] if k in ("input_ids", "attention_mask", "token_type_ids") else v for k, v in alone.items()}
    torch.testing.assert_close(model(**alone).loss, model(**cut).loss, rtol=1e-12, atol=1e-12)


def test_correct_counts_are_those_of_the_argmax(make_model, make_batch):
    model, batch = make_model(), make_batch()
    ae, par = model.pmlm.predicted_states(
        batch["input_ids"],
        batch["attention_mask"],
        batch["token_type_ids"],
        batch["pseudo_position_ids"],
        batch["pseudo_steps"],
        batch["labels"].clamp(min=0),
        ae=True,
        par=True,
    )
    best = [model.head(states, model.pmlm.embeddings.word.weight).argmax(-1) for states in (ae, par)]
    used = batch["labels"] != -100
    # Relabel with the model's own choice in every second slot: there, and almost nowhere else, it is right.
    half = used & (torch.arange(used.shape[1]) % 2 == 0)
    labels = torch.where(half, best[0], batch["labels"])
    model.config.objective = "AE"
    output = model(**(batch | {"labels": labels}))
    assert output.ae_correct.item() == ((best[0] == labels) & used).sum().item() >= half.sum().item() > 0


def test_bf16_autocast_is_close_to_fp32(make_model, make_batch):
    model, batch = make_model(initializer_range=0.05).float(), make_batch()
    model(**batch).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**batch)
    output.loss.backward()
    torch.testing.assert_close(output.loss, model(**batch).loss, rtol=0.01, atol=0.01)
    for name, p in model.named_parameters():
        assert p.grad.dtype == torch.float32
        cosine = torch.cosine_similarity(p.grad.flatten(), expected[name].flatten(), dim=0)
        assert cosine > 0.98, (name, cosine)


def test_the_whole_step_is_one_graph_for_torch_compile(make_model, make_batch):
    """Captured without a break and traced through backward; the code generator itself is torch's business."""
    model, batch = make_model(num_hidden_layers=2), make_batch()
    model(**batch).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    output = compiled(**batch)
    output.loss.backward()
    torch.testing.assert_close(output.loss, model(**batch).loss)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-9, atol=1e-12)


def test_dropout_follows_the_seed_and_is_off_in_evaluation(make_model, make_batch):
    model, batch = make_model(), make_batch()
    assert model(**batch).loss == model(**batch).loss
    model.train()
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(model(**batch).loss.item())
    assert losses[0] == losses[1] != losses[2]


def test_without_labels_it_gives_the_logits_of_the_whole_context(make_model, make_batch):
    model, batch = make_model(), make_batch()
    logits = model(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]).logits
    assert logits.shape == (3, 24, 60)
    with torch.no_grad():
        states = oracle.encode(model.pmlm, oracle.context_of(batch, 1))
        torch.testing.assert_close(logits[1, :17].log_softmax(-1), oracle.log_probabilities(model, states))


def test_a_batch_without_slots_is_refused(make_model, make_batch):
    batch = {name: x[:, :0] if x.shape[1] != 24 else x for name, x in make_batch().items()}
    with pytest.raises(ValueError, match="labels have no slot"):
        make_model()(**batch)


def test_it_learns_one_batch_by_heart(make_model, make_batch):
    model, batch = make_model(initializer_range=0.1).float(), make_batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = model(**batch).loss.item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first


def test_contradictory_configurations_are_refused():
    with pytest.raises(ConfigError, match="heads"):
        PmlmConfig(hidden_size=30, num_attention_heads=4)
    with pytest.raises(ConfigError, match=r"AE\+PAR"):
        PmlmConfig(objective="MLM")
    with pytest.raises(ConfigError, match="hidden_act"):
        PmlmConfig(hidden_act="swish")
    with pytest.raises(ConfigError, match=r"bos_token_id is 101 and sos_token_id 0.*set sos_token_id"):
        PmlmConfig(bos_token_id=101)
    assert PmlmConfig(sos_token_id=101).bos_token_id == PmlmConfig(bos_token_id=101, sos_token_id=101).sos_token_id
    with pytest.raises(ConfigError, match="max_rel_pos"):
        PmlmConfig(rel_pos_bins=32, max_rel_pos=8)
