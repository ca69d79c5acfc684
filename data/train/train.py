"""Train the tale model: a small LLaMA in plain torch, on the CPU, in about two hours on two cores.

    python data/train/train.py --tales tales.txt --valid tales-valid.txt --out data/tale-model

Needs the `oracle` extra (torch) and the tokenizer that tokenizer.py wrote into --out. Matrices are trained with
Muon (Jordan 2024: momentum, orthogonalized by a Newton-Schulz iteration), embeddings and norms with AdamW. The
learning rate is constant, then falls linearly to zero; the weights kept are those of the best held-out loss.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save_file
from sentencepiece import SentencePieceProcessor
from tokenizer import read_stories
from torch import Tensor, nn

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 1024,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-5,
    "use_cache": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "torch_dtype": "bfloat16",
}

LENGTHS = ((0.35, 256), (0.75, 512), (1.0, 1024))  # (until this fraction of the time, tokens a window): short is cheap


class Attention(nn.Module):
    def __init__(self, c: argparse.Namespace):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            c.num_attention_heads,
            c.num_key_value_heads,
            c.hidden_size // c.num_attention_heads,
        )
        self.q_proj = nn.Linear(c.hidden_size, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, c.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        B, T, _ = x.shape
        q = self.q_proj(x).view(B, T, self.heads, self.head_dim)
        k = self.k_proj(x).view(B, T, self.kv_heads, self.head_dim)
        v = self.v_proj(x).view(B, T, self.kv_heads, self.head_dim)
        q, k = rotate(q, cos, sin).transpose(1, 2), rotate(k, cos, sin).transpose(1, 2)
        groups = self.heads // self.kv_heads
        k, v = k.repeat_interleave(groups, 1), v.transpose(1, 2).repeat_interleave(groups, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    def __init__(self, c: argparse.Namespace):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c: argparse.Namespace):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = nn.RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = MLP(c)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Parameter names are the Hugging Face checkpoint's, so the state dict is the checkpoint."""

    def __init__(self, c: argparse.Namespace):
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = nn.RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, ids: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = self.embed_tokens(ids).to(cos.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(self.norm(x), self.embed_tokens.weight.to(x.dtype))


class Tales(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        c = argparse.Namespace(**config)
        self.model = Decoder(c)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                out = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(p, std=c.initializer_range / (math.sqrt(2 * c.num_hidden_layers) if out else 1))

    def forward(self, ids: Tensor, targets: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Sum of the cross entropy over targets that are not -100."""
        logits = self.model(ids, cos, sin)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


def rotary_tables(config: dict, length: int) -> tuple[Tensor, Tensor]:
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    inv_freq = config["rope_theta"] ** -(torch.arange(0, head_dim, 2).float() / head_dim)
    angles = torch.arange(length).float()[:, None] * inv_freq
    angles = torch.cat((angles, angles), -1)[None, :, None, :]  # (1, T, 1, K)
    return angles.cos().bfloat16(), angles.sin().bfloat16()


class Muon(torch.optim.Optimizer):
    """Momentum whose update is replaced by the nearest (semi-)orthogonal matrix."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                buf = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buf.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalize(p.grad.lerp(buf, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def orthogonalize(g: Tensor, steps: int = 5) -> Tensor:
    a, b, c = 3.4445, -4.7750, 2.0315  # Jordan's quintic: steep at zero, singular values end in about 0.7 .. 1.2
    x = g.bfloat16() / (g.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    for _ in range(steps):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return (x if wide else x.T).float()


class Stream:
    """Windows of `<s> story </s> <s> story </s> ...`, the stories shuffled anew every epoch."""

    def __init__(self, stories: list[np.ndarray], seed: int):
        self.stories, self.rng, self.rest, self.epochs = stories, np.random.default_rng(seed), np.zeros(0, np.int64), 0

    def batch(self, B: int, T: int) -> tuple[Tensor, Tensor]:
        while len(self.rest) < B * (T + 1):
            order = self.rng.permutation(len(self.stories))
            self.rest = np.concatenate([self.rest, *(self.stories[i] for i in order)])
            self.epochs += 1
        rows, self.rest = self.rest[: B * (T + 1)], self.rest[B * (T + 1) :]
        rows = torch.from_numpy(rows.reshape(B, T + 1))
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def windows(stories: list[np.ndarray], T: int, stride: int) -> tuple[Tensor, Tensor]:
    """Every story alone, cut into windows that overlap so that each token is predicted once, with at least
    T - stride tokens before it where the story has them."""
    ids, targets = [], []
    for story in stories:
        done = 1  # <s> is given, not predicted
        for start in range(0, max(1, len(story) - 1), stride):
            row = story[start : start + T + 1]
            target = row[1:].copy()
            target[: done - start - 1] = -100
            ids.append(np.pad(row[:-1], (0, T - len(row) + 1), constant_values=2))
            targets.append(np.pad(target, (0, T - len(target)), constant_values=-100))
            done = start + len(row)
            if done == len(story):
                break
    return torch.from_numpy(np.stack(ids)), torch.from_numpy(np.stack(targets))


@torch.no_grad()
def bits(model: nn.Module, ids: Tensor, targets: Tensor, cos: Tensor, sin: Tensor, batch: int = 16) -> float:
    total = 0.0
    for i in range(0, len(ids), batch):
        a, b = ids[i : i + batch], targets[i : i + batch]
        if len(a) < batch:  # one shape, one compilation
            pad = batch - len(a)
            a, b = F.pad(a, (0, 0, 0, pad), value=2), F.pad(b, (0, 0, 0, pad), value=-100)
        with torch.autocast("cpu", torch.bfloat16):
            total += model(a, b, cos, sin).item()
    return total / math.log(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tales", required=True, nargs="+", help="training corpus: <|story|> on a line before every story"
    )
    parser.add_argument("--final-tales", help="corpus for the last part of training (default: the first of --tales)")
    parser.add_argument("--valid", required=True, help="held-out corpus, the same format")
    parser.add_argument(
        "--out", required=True, type=Path, help="folder with tokenizer.model; config and weights go there"
    )
    parser.add_argument("--minutes", type=float, default=100, help="time to train for, compilation included")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=0.004)
    parser.add_argument("--decay", type=float, default=0.5, help="the fraction of the time in which the rate falls")
    parser.add_argument("--eval-every", type=float, default=6, help="minutes between held-out evaluations")
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()

    torch.manual_seed(0)
    sp = SentencePieceProcessor(str(args.out / "tokenizer.model"))

    def encode(path: str) -> list[np.ndarray]:
        return [np.array([1, *ids, 2]) for ids in sp.encode(read_stories(path))]

    corpora = [encode(path) for path in args.tales]
    stream = Stream([story for corpus in corpora for story in corpus], seed=1)
    final = Stream(encode(args.final_tales) if args.final_tales else corpora[0], seed=2)
    valid, chars = encode(args.valid), sum(map(len, read_stories(args.valid)))
    short, full = 512, CONFIG["max_position_embeddings"]
    quick, exact = windows(valid[::3], short, short // 2), windows(valid, full, full // 2)
    quick_chars = sum(map(len, read_stories(args.valid)[::3]))

    model = Tales(CONFIG)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim == 1 or "embed" in n]
    muon = Muon(matrices, lr=args.muon_lr, weight_decay=0.05)
    adam = torch.optim.AdamW(others, lr=args.adam_lr, betas=(0.9, 0.95), weight_decay=0.01)
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {sum(map(len, stream.stories)):,} tokens",
        flush=True,
    )
    run = model if args.no_compile else torch.compile(model)
    cos, sin = rotary_tables(CONFIG, full)

    begin, best, step, tokens, smooth, last_eval = time.time(), math.inf, 0, 0, None, time.time()
    while (done := (time.time() - begin) / (60 * args.minutes)) < 1:
        T = next(length for until, length in LENGTHS if done < until)
        B = args.batch_tokens // T
        rate = min(1.0, (step + 1) / 100, (1 - done) / args.decay)
        for optimizer, lr in ((muon, args.muon_lr), (adam, args.adam_lr)):
            optimizer.param_groups[0]["lr"] = lr * rate
        ids, targets = (final if done > 0.75 else stream).batch(B, T)
        with torch.autocast("cpu", torch.bfloat16):
            loss = run(ids, targets, cos[:, :T], sin[:, :T]) / targets.numel()
        loss.backward()
        muon.step()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        adam.step()
        model.zero_grad(set_to_none=True)
        step, tokens = step + 1, tokens + ids.numel()
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 20 == 0:
            speed = tokens / (time.time() - begin)
            print(
                f"step {step} {100 * done:.1f}% loss {smooth:.4f} rate {rate:.3f}",
                f"{speed:,.0f} tokens/s, {tokens / 1e6:.2f} M tokens",
                flush=True,
            )
        if (time.time() - last_eval) / 60 > args.eval_every:
            model.eval()
            bpc = bits(run, *quick, cos[:, :short], sin[:, :short]) / quick_chars
            model.train()
            last_eval = time.time()
            print(f"step {step} held-out sample, context {short}: {bpc:.4f} bits a character", flush=True)
            if bpc < best:
                best = bpc
                save(model, args.out)
    bpc = bits(run, *quick, cos[:, :short], sin[:, :short]) / quick_chars
    if bpc < best:
        save(model, args.out)
    print(f"held-out sample at the end {bpc:.4f}, best before {best:.4f}")
    print(f"all held-out text, context {full}: {bits(run, *exact, cos, sin, 8) / chars:.4f} bits a character")
    print(f"{tokens / 1e6:.1f} M tokens in {(time.time() - begin) / 60:.0f} minutes")


def save(model: Tales, out: Path) -> None:
    weights = {name: p.detach().bfloat16().contiguous() for name, p in model.named_parameters()}
    save_file(weights, out / "model.safetensors.part", metadata={"format": "pt"})
    (out / "model.safetensors.part").replace(out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    # Small models fall into loops, greedy ones above all: what has been said is made less likely
    generation = {"bos_token_id": 1, "eos_token_id": 2, "do_sample": True, "repetition_penalty": 1.2}
    generation |= {"temperature": 0.8, "top_p": 0.95}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


if __name__ == "__main__":
    main()
