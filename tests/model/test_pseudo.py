"""The visibility rule against the table of the method, slot by slot, and leaks through layers by exact-zero
gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.pseudo_mask import Token, may_attend

from pmlm_core.model.pseudo import CONTEXT, PADDING, PSEUDO, TRUE, codes, lay_out, visible

OBJECTIVES = ["AE", "PAR", "AR", "AE+AR", "AE+PAR"]
NAMES = {CONTEXT: "context", PSEUDO: "pseudo", TRUE: "true"}


def test_rule_is_the_table_for_every_pair_of_kinds_and_steps():
    slots = [(CONTEXT, 0)] + [(kind, step) for kind in (PSEUDO, TRUE) for step in range(1, 5)]
    for query in slots:
        for key in slots:
            got = visible(*(torch.tensor(x) for x in (*query, *key))).item()
            tokens = [Token(0, 0, 0, NAMES[kind], step) for kind, step in (query, key)]
            assert got == may_attend(*tokens), (query, key)


def test_padding_is_seen_by_nobody_and_sees_the_context_alone():
    kinds = torch.tensor([PADDING, CONTEXT, PSEUDO, TRUE])
    steps = torch.tensor([0, 0, 1, 1])
    seen = visible(kinds[:, None], steps[:, None], kinds, steps)
    assert not seen[:, 0].any()
    assert seen[0].tolist() == [False, True, False, False]


def _rule_and_codes_agree(kinds, steps):
    kind_1T, step_1T = torch.tensor([kinds]), torch.tensor([steps])
    rule = visible(kind_1T[:, :, None], step_1T[:, :, None], kind_1T[:, None], step_1T[:, None])
    return torch.equal(codes(kind_1T, step_1T).visible(), rule)


def test_codes_say_the_same_as_the_rule_for_every_pair_of_kinds_and_steps():
    slots = [(PADDING, 0), (CONTEXT, 0)] + [(kind, step) for kind in (PSEUDO, TRUE) for step in range(1, 9)]
    assert _rule_and_codes_agree(*zip(*slots, strict=True))


@given(st.lists(st.tuples(st.sampled_from([PADDING, CONTEXT, PSEUDO, TRUE]), st.integers(1, 2**20)), min_size=1))
def test_codes_say_the_same_as_the_rule_for_any_steps(slots):
    kinds = [kind for kind, _ in slots]
    assert _rule_and_codes_agree(kinds, [step if kind in (PSEUDO, TRUE) else 0 for kind, step in slots])


def test_codes_of_some_queries_and_keys_are_a_part_of_the_whole():
    layout = lay_out(torch.tensor([[1, 1, 1], [1, 1, 0]]), torch.tensor([[2, 1], [1, 0]]))
    made = codes(layout.kinds_BT, layout.steps_BT)
    assert torch.equal(made.of(slice(3, 7), slice(0, 7)).visible(), layout.visible_from(3, 7))
    assert torch.equal(made.of(slice(0, 3), slice(0, 3)).visible(), layout.visible_from(0, 3)[:, :, :3])


def test_layout_of_the_example_in_the_method():
    layout = lay_out(torch.ones(1, 6), torch.tensor([[1, 1, 2]]))
    assert layout.kinds_BT.tolist() == [[CONTEXT] * 6 + [PSEUDO] * 3 + [TRUE] * 3]
    assert layout.steps_BT.tolist() == [[0] * 6 + [1, 1, 2, 1, 1, 2]]
    appended = layout.visible_from(6, 12)[0, :, 6:].int().tolist()
    assert appended == [
        [1, 1, 0, 0, 0, 0],  # [P] of 4 sees the masks of its step
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 0],  # [P] of 2 sees x4 and x5
        [0, 0, 0, 1, 1, 0],  # x4 sees its step both ways
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 1],  # x2 sees all three
    ]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("kernel", ["plain", "sdpa"])
def test_no_leak_through_three_layers(objective, kernel, make_model, make_batch, monkeypatch):
    """The gradient of a slot's logits by the embedding of every slot: exactly zero where the rule forbids, else not."""
    from pmlm_core.model import layer
    from pmlm_core.model.attention.interface import kernels

    monkeypatch.setattr(layer, "attend", kernels()[kernel])
    model = make_model(objective).float()
    batch = make_batch(objective)
    embedded = []
    model.pmlm.embeddings.register_forward_hook(lambda module, inputs, output: embedded.append(output))
    has_par = objective != "AE"
    ae, par = model.pmlm.predicted_states(
        batch["input_ids"],
        batch["attention_mask"],
        batch["token_type_ids"],
        batch["pseudo_position_ids"],
        batch["pseudo_steps"],
        batch["labels"].clamp(min=0),
        ae=objective not in ("PAR", "AR"),
        par=has_par,
    )
    layout = lay_out(batch["attention_mask"], batch["pseudo_steps"] if has_par else None)
    n = layout.context
    checked = 0
    for states, first, what in ((ae, 0, "AE"), (par, n, "PAR")):
        if states is None:
            continue
        for b in range(len(states)):
            for k in range(states.shape[1]):
                if batch["pseudo_steps"][b, k] == 0:
                    continue
                logits = model.head(states[b, k], model.pmlm.embeddings.word.weight)
                (gradient,) = torch.autograd.grad(logits.square().sum(), embedded[0], retain_graph=True)
                reached = (gradient != 0).any(-1)
                assert not reached[torch.arange(len(states)) != b].any(), "another row of the batch leaks in"
                query = batch["pseudo_position_ids"][b, k].item() if what == "AE" else first + k
                # Chains add nothing: whatever a visible slot sees, the query sees itself.
                assert reached[b].tolist() == layout.visible_from(query, query + 1)[b, 0].tolist()
                checked += 1
    assert checked >= 15


def test_ae_logits_do_not_change_with_the_appended_part(make_model, make_batch):
    model, batch = make_model().float(), make_batch()
    before = model(**batch)
    shuffled = dict(batch)
    used = batch["pseudo_steps"] > 0
    shuffled["pseudo_steps"] = torch.where(used, batch["pseudo_steps"].flip(1).clamp(min=1), 0)
    arguments = [shuffled[k] for k in ("input_ids", "attention_mask", "token_type_ids", "pseudo_position_ids")]
    other_ids = torch.randint(6, 60, batch["labels"].shape)
    ae_1, par_1 = model.pmlm.predicted_states(
        *arguments, batch["pseudo_steps"], batch["labels"].clamp(min=0), ae=True, par=True
    )
    ae_2, par_2 = model.pmlm.predicted_states(*arguments, shuffled["pseudo_steps"], other_ids, ae=True, par=True)
    assert torch.equal(ae_1, ae_2)
    assert not torch.allclose(par_1, par_2)
    ae_alone, nothing = model.pmlm.predicted_states(*arguments, other_ids, other_ids, ae=True, par=False)
    assert nothing is None
    torch.testing.assert_close(ae_alone, ae_1, rtol=1e-5, atol=1e-5)
    assert before.ae_loss_sum.isfinite()
