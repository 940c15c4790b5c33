"""A plan in words: its tables, and how its models would be loaded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection

from scaleinv_ray.checkpoints import listed
from scaleinv_ray.config import RunConfig
from scaleinv_ray.inputs.wording import sized
from scaleinv_ray.plan.costs import (
    GPU_BYTES,
    available_memory,
    capture_bytes,
    choose_loading,
    forward_flops,
    model_bytes,
)
from scaleinv_ray.plan.units import Plan
from scaleinv_ray.plugins.loading import plugin_of


def describe(plan: Plan, done: set[str]) -> str:
    """The plan as a table by kind of capture and invariant, with totals."""
    protocol = plan.protocol
    captures: dict[str, dict[str, int]] = defaultdict(dict)
    passes: dict[tuple[str, ...], float] = {}
    rows: Counter[tuple[str, str]] = Counter()
    left: Counter[tuple[str, str]] = Counter()
    for m in plan.measurements:
        for unit, key in m.readings:  # of a pair both, of a run all its steps
            c = unit.checkpoint
            if c.captures:
                continue  # made elsewhere
            captures[m.kind][key] = capture_bytes(c, m.kind, protocol, plan.spectroscopy)
            if m.probe is not None:
                shuffled = str(unit.variant == "shuffled_tokens")
                passes[(*unit.content, m.probe, shuffled)] = forward_flops(c, protocol)
        rows[m.kind, m.invariant] += 1
        left[m.kind, m.invariant] += m.key not in done
    variants = Counter(u.variant for u in plan.units)
    lines = [
        f"series {plan.name}, protocol {protocol.digest()}",
        f"units: {len(plan.units)} ({', '.join(f'{n} {v}' for v, n in variants.items())})",
        f"forward passes: {len(passes)}, {sum(passes.values()):.3g} FLOP",
        f"{'capture':<14}{'files':>7}{'bytes':>10}  {'invariant':<36}{'planned':>8}{'missing':>8}",
    ]
    for (kind, name), count in rows.items():
        size = sum(captures[kind].values())
        lines.append(
            f"{kind:<14}{len(captures[kind]):>7}{size / 1e6:>8.1f}MB  {name:<36}{count:>8}"
            f"{left[kind, name]:>8}"
        )
    total = sum(sum(files.values()) for files in captures.values())
    lines.append(
        f"{'in all':<14}{sum(map(len, captures.values())):>7}{total / 1e6:>8.1f}MB  {'':<36}"
        f"{len(plan.measurements):>8}{sum(left.values()):>8}"
    )
    lines += [f"equal weights: {a} = {b}" for a, b in plan.equal_weights]
    kinds = {u.checkpoint.model: u.checkpoint.no_logits for u in plan.units}
    lines += [f"{m}: {k}; weights alone can be measured" for m, k in kinds.items() if k]
    encoders = {u.checkpoint.model: u.checkpoint for u in plan.units if u.checkpoint.encoder}
    lines += [
        f"{m}: an encoder: no next tokens, hence no losses of them, curvature, chains or circuits; "
        + ("no losses of hidden tokens" if c.mask_id is None else "losses of hidden tokens")
        for m, c in encoders.items()
    ]
    lines += _from_outside({name for _, name in rows})
    odd = {u.checkpoint.model: u.checkpoint.odd for u in plan.units}
    lines += [f"{model}: not measured: {listed(why, 3)}" for model, why in odd.items() if why]
    return "\n".join(lines)


def _from_outside(invariants: Collection[str]) -> list[str]:
    """Where the invariants come from that are not the package's."""
    plugins = {name: plugin_of(name) for name in sorted(invariants)}
    return [
        f"from outside: {name}, of {of.given}, source {of.digest}"
        for name, of in plugins.items()
        if of is not None
    ]


def loadings(plan: Plan, config: RunConfig) -> str:
    """How each model would be put into memory on machines like this; actors ask their own node."""
    gpus, load = config.cluster.gpus_per_model, config.cluster.load
    where = f"GPUs of one node ({gpus} x {sized(GPU_BYTES)})" if gpus else "this machine's CPU"
    room = {"memory": available_memory(), "gpu_memory": gpus * GPU_BYTES}
    lines = {}
    for checkpoint in (u.checkpoint for u in plan.units if not u.checkpoint.captures):
        size = model_bytes(checkpoint)
        chosen = choose_loading(size, load, **room)
        lines[checkpoint.model] = (
            f"{checkpoint.model}: {sized(size)}, {chosen.how} ({chosen.reason})"
        )
    return "\n".join([f"loading on {where}:", *lines.values()]) if lines else ""
