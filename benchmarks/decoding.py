"""Beam search beside the scheme of the authors' kit and Hugging Face encoder-decoders, in one run on one core.

    python benchmarks/decoding.py [--preset mini] [--rows 32] [--source 512] [--target 64] [--beams 5] [--save]

All decode the same random sources through `transformers.generate`, always to the full target length, with random
weights. The kit's scheme keeps hidden states of source and target for every beam, and at each step projects keys and
values anew for the whole history; it must give the same tokens. BART has learned positions, like ours, once with as
many layers on each side as ours has in all, and once with half of that, which comes near to our number of parameters.
On a CPU, processor time of one thread; on a GPU, wall time.
"""

import time
from functools import partial
from typing import Any

import torch
from race import Ratio, medians, race
from report import Report, options
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration

from pmlm_core.model import PmlmConfig, PmlmForConditionalGeneration
from pmlm_core.model.attention.interface import Call
from pmlm_core.model.attention.reference import attend
from pmlm_core.model.generation.conditional import PmlmForConditionalGenerationOutput
from pmlm_core.model.generation.source import Source, SourceOutput
from pmlm_core.model.layer import Layer
from pmlm_core.model.presets import preset


class Histories:
    """Inputs of every layer, of source and true target tokens, [rows * beams, n + t, D]."""

    is_compileable = False

    def __init__(self) -> None:
        self.layers: list[Tensor] = []

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.layers = [history.index_select(0, beam_idx) for history in self.layers]


class KeepsHiddenStates(PmlmForConditionalGeneration):
    """Decoding as the authors' kit does it; for sources without padding."""

    def get_encoder(self, modality: str | None = None) -> Any:
        model = self

        class Encoder(torch.nn.Module):
            def forward(self, input_ids: Tensor, **_: Any) -> SourceOutput:
                lengths = torch.full((len(input_ids),), input_ids.shape[1], device=input_ids.device)
                self_source = Source((), (), lengths, None, model.source_states(input_ids))
                return SourceOutput(self_source)

        return Encoder()

    def bias(self, reach: int) -> Tensor:
        assert self.pmlm.rel_pos_bias is not None
        return self.pmlm.rel_pos_bias.square(reach)

    def source_states(self, input_ids: Tensor) -> Tensor:
        """Inputs of all layers, [layers, rows, n, D]."""
        n = input_ids.shape[1]
        positions = torch.arange(n, device=input_ids.device).expand_as(input_ids)
        hidden = self.pmlm.embeddings(input_ids, positions, torch.zeros_like(input_ids))
        calls = (Call(0, n, n, self.bias(n)[None]),)
        states = []
        for layer in self.pmlm.layers:
            states.append(hidden)
            hidden = layer(hidden, calls)
        return torch.stack(states)

    def _next(
        self, encoder_outputs: SourceOutput, decoder_input_ids: Tensor, past: Any, use_cache: bool
    ) -> PmlmForConditionalGenerationOutput:
        assert encoder_outputs.source is not None
        source = encoder_outputs.source.bias_HC
        n, rows, t = source.shape[2], len(decoder_input_ids), decoder_input_ids.shape[1] - 1
        if not isinstance(past, Histories):
            past = Histories()
            past.layers = [states.repeat_interleave(rows // source.shape[1], dim=0) for states in source]
        pseudo = decoder_input_ids.new_full((rows, 1), self.config.pseudo_token_id)
        ids = torch.cat([decoder_input_ids[:, t:], pseudo], 1)[:, -2 if t else -1 :]
        positions = torch.arange(n + t + 1, device=ids.device)[-ids.shape[1] :].expand_as(ids)
        hidden = self.pmlm.embeddings(ids, positions, torch.ones_like(ids))
        bias = self.bias(n + t + 1)[:, -ids.shape[1] :].clone()
        if t:
            bias[:, 0, -1] = torch.finfo(bias.dtype).min
        for index, layer in enumerate(self.pmlm.layers):
            assert isinstance(layer, Layer)
            whole = torch.cat([past.layers[index], hidden], 1)
            past.layers[index] = whole[:, :-1]
            k, v = layer.project(whole, 1, 3)
            (q,) = layer.project(hidden, 0, 1)
            hidden = layer.finish(attend(q, k, v, [Call(0, q.shape[1], k.shape[1], bias[None])], 0.0), hidden)
        logits = self.head(hidden[:, -1:], self.pmlm.embeddings.word.weight)
        return PmlmForConditionalGenerationOutput(logits=logits, past_key_values=past)


def bart(layers: int, config: PmlmConfig) -> BartForConditionalGeneration:
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=config.vocab_size,
            d_model=config.hidden_size,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=config.num_attention_heads,
            decoder_attention_heads=config.num_attention_heads,
            encoder_ffn_dim=config.intermediate_size,
            decoder_ffn_dim=config.intermediate_size,
            max_position_embeddings=config.max_position_embeddings,
            forced_eos_token_id=None,
        )
    ).eval()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--source", type=int, default=512)
    parser.add_argument("--target", type=int, default=64)
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = PmlmConfig(
        vocab_size=args.vocab, max_position_embeddings=args.source + args.target, **vars(preset(args.preset))
    )
    ours = PmlmForConditionalGeneration(config).eval()
    kit = KeepsHiddenStates(config).eval()
    kit.load_state_dict(ours.state_dict())
    ids = torch.randint(6, args.vocab, (args.rows, args.source))
    ids[:, 0], ids[:, -1] = config.sos_token_id, config.eos_token_id
    layers = config.num_hidden_layers
    models: dict[str, Any] = {
        "pmlm": ours,
        "the kit's scheme": kit,
        f"BART {layers} + {layers}": bart(layers, config),
        f"BART {layers // 2} + {layers // 2}": bart(layers // 2, config),
    }

    ids = ids.to(device)
    for model in models.values():
        model.to(device)

    def run(model: Any, length: int) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
            made = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                num_beams=args.beams,
                max_new_tokens=length,
                min_new_tokens=length,
                early_stopping="never",
            )
        return made.cpu()  # waits for a GPU

    on_gpu = device.type == "cuda"
    for model in models.values():
        run(model, min(args.target, 4))  # warms up
    made: dict[str, Tensor] = {}

    def decode(name: str) -> None:
        made[name] = run(models[name], args.target)

    clock = time.perf_counter if on_gpu else time.process_time
    samples = race({name: partial(decode, name) for name in models}, args.repeats, clock)
    same = (made["pmlm"] == made["the kit's scheme"]).all(1).float().mean().item()
    report = Report("decoding" + "-gpu" * on_gpu, "Beam search", " ".join((__doc__ or "").split("\n\n")[2].split()))
    shape = f"{args.rows} sources of {args.source} tokens, {args.target} generated, beam {args.beams}"
    report.table(
        f"{args.preset}, {shape}, {args.precision}, {device.type}",
        ("model", "million parameters", "s", "generated tokens/s", "time beside pmlm"),
        [
            (
                name,
                f"{models[name].num_parameters() / 1e6:.1f}",
                f"{seconds:.2f}",
                f"{args.rows * args.target / seconds:.0f}",
                Ratio.of(samples, name, "pmlm"),
            )
            for name, seconds in medians(samples).items()
        ],
    )
    report.note(f"Rows whose tokens are those of the kit's scheme, all of them: {same:.0%}")
    report.finish(args.save)


if __name__ == "__main__":
    main()
