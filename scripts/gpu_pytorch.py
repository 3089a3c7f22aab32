#!/usr/bin/env python3
"""Bi-Real Net-18 in PyTorch, for scripts/gpu_check.sh: images/s of a training step (forward, loss, backward, Adam) on a batch in
device memory, and peak memory, as lines "RESULT pytorch ...". The network is that of docs/networks.md, section 1A: binary
convolutions are computed in floating point, as every published PyTorch implementation does."""

import argparse
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F


class Sign(torch.autograd.Function):
    """-1 where x < 0, else 1; gradient max(0, 2 - 2|x|)."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x < 0, -1.0, 1.0).to(x.dtype)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (2 - 2 * x.abs()).clamp(min=0)


class BinaryWeight(torch.autograd.Function):
    """alpha sign(w), alpha the mean of |w| of each filter; gradient inside |w| <= 1 only, none through alpha."""

    @staticmethod
    def forward(ctx, w):
        ctx.save_for_backward(w)
        return w.abs().mean((1, 2, 3), keepdim=True) * torch.where(w < 0, -1.0, 1.0)

    @staticmethod
    def backward(ctx, g):
        (w,) = ctx.saved_tensors
        return g * (w.abs() <= 1)


class Block(nn.Module):
    """sign, binary 3x3 convolution, BN, shortcut from the real input."""

    def __init__(self, c, k, stride):
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(0.001 * torch.rand(k, c, 3, 3))
        self.bn = nn.BatchNorm2d(k)
        self.shortcut = nn.Identity()
        if stride != 1 or c != k:
            self.shortcut = nn.Sequential(nn.AvgPool2d(2, stride), nn.Conv2d(c, k, 1, bias=False), nn.BatchNorm2d(k))

    def forward(self, x):
        y = F.conv2d(Sign.apply(x), BinaryWeight.apply(self.weight), stride=self.stride, padding=1)
        return self.bn(y) + self.shortcut(x)


def network(width, classes):
    """Stem 7x7/2, BN, max-pool 3x3/2; four stages of four blocks; global average, linear."""
    layers = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.MaxPool2d(3, 2, 1)]
    c = width
    for stage in range(4):
        k = width << stage
        for i in range(4):
            layers.append(Block(c, k, 2 if i == 0 and stage > 0 else 1))
            c = k
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes))


def measure(name, device, args, amp, channels_last, compiled):
    side, width, classes = (32, 8, 4) if args.smoke else (224, 64, 1000)
    torch.manual_seed(0)
    model = network(width, classes).to(device)
    images = torch.randn(args.batch, 3, side, side, device=device)
    labels = torch.randint(classes, (args.batch,), device=device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    forward = torch.compile(model) if compiled else model
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    scaler = torch.cuda.amp.GradScaler(enabled=amp and device.type == "cuda")
    kind = torch.float16 if device.type == "cuda" else torch.bfloat16
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def step():
        adam.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=kind, enabled=amp):
            loss = F.cross_entropy(forward(images), labels, label_smoothing=0.1)
        scaler.scale(loss).backward()
        scaler.step(adam)
        scaler.update()
        return loss.detach()

    for _ in range(3):
        loss = step()
    wait()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(args.steps):
        start = time.perf_counter()
        loss = step()
        wait()
        seconds.append(time.perf_counter() - start)
    if not torch.isfinite(loss):
        raise SystemExit(f"gpu_pytorch: {name}: the loss is {loss.item()}")
    median = statistics.median(seconds)
    memory = torch.cuda.max_memory_allocated() >> 20 if device.type == "cuda" else 0
    print(f"RESULT pytorch {name:21s} {args.batch / median:10.1f} images/s {1e3 * median:9.2f} ms {memory:8d} MiB   "
          f"batch {args.batch}, torch {torch.__version__}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--smoke", action="store_true", help="a tiny network, on the CPU where there is no GPU")
    args = parser.parse_args()
    if not torch.cuda.is_available() and not args.smoke:
        raise SystemExit("gpu_pytorch: torch sees no GPU")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    for name, amp, channels_last, compiled in (
        ("fp32 eager", False, False, False),
        ("amp channels_last", True, True, False),
        ("amp ch_last compile", True, True, True),
    ):
        if compiled and not hasattr(torch, "compile"):
            print(f"PyTorch: {name}: torch {torch.__version__} has no torch.compile")
            continue
        try:
            measure(name, device, args, amp, channels_last, compiled)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            print(f"PyTorch: {name}: a batch of {args.batch} does not fit into the device's memory", flush=True)


if __name__ == "__main__":
    main()
