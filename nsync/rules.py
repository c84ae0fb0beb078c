"""Gradient rules: what a step keeps of the positives' gradient, given the negatives' and anchors'.

A step has up to three gradients over the same parameters, each of a mean denoising loss:

* ``g_p`` on positives, pictures of the style;
* ``g_n`` on negatives, the same captions painted in a generic style and trained with the positive's
  own caption, style token included: where the token would have to go to mean the generic;
* ``g_a`` on anchors, other positives.

A rule makes one update ``u`` of them, which the optimizer then takes for the gradient. Nearly every
rule is built of projections, with all parameters read as one long vector (``scope="global"``) or
each tensor by itself (``scope="tensor"``)::

    P_b(g_p) = (g_p . b / b . b) b        and P_b(g_p) = 0 where b = 0

The rules are pure algebra: they know no model, no ``.grad`` and no optimizer.

>>> import torch
>>> g_p, g_n, g_a = [torch.tensor([3.0, 4.0])], [torch.tensor([2.0, 0.0])], [torch.ones(2)]
>>> refine("projection", g_p, g_n)                  # what g_p shares with g_n is gone
[tensor([0., 4.])]
>>> refine("nsync", g_p, g_n, g_a)                  # and what it shares with g_a counts twice
[tensor([3.5000, 7.5000])]
>>> refine("overlap", g_p, [-g_n[0]])               # no agreement with g_n: nothing to remove
[tensor([3., 4.])]
>>> read = statistics("projection", g_p, g_n)       # tensors on the device, read when you like
>>> {name: round(float(value), 3) for name, value in read.items()}
{'norm_positive': 5.0, 'norm_negative': 2.0, 'cos_negative': 0.6, 'coefficient_positive': 1.0, \
'coefficient_negative': -1.5, 'removed': 0.6}

Sources: NSYNC, arXiv 2511.01517 (Ozturk, Duygulu, Hicsonmez); its code, github.com/giddyyupp/NSYNC,
versions v4.1 to v5.1 of src/contrastive_training.py; PCGrad, arXiv 2001.06782, algorithm 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import InputError
from .gradients import Gradients, Mix, check_match, check_tensors, ratio

SCOPES = ("global", "tensor")


@torch.no_grad()
def refine(
    rule: str,
    positive: Sequence[Tensor],
    negative: Sequence[Tensor] | None = None,
    anchor: Sequence[Tensor] | None = None,
    *,
    scope: str = "global",
    weight: float = 0.5,
) -> list[Tensor]:
    """The update that `rule` makes of the branches' gradients.

    Everything is computed on the gradients' device without waiting for it (no host sync), in
    float64, and rounded once at the end; on MPS, which has no float64, in float32. Finite
    gradients of float16, bfloat16 or float32 never give NaN, at whatever scale.

    Args:
        rule: one of `RULES`.
        positive: g_p, one floating-point tensor per parameter, all on one device.
        negative: g_n in the same order and shapes; see `needs_negative`.
        anchor: g_a in the same order and shapes; see `needs_anchor`. `mean` takes it if given.
        scope: "global", all tensors as one vector, or "tensor", each by itself.
        weight: lambda of `contrast`, finite and at least 0; the other rules ignore it.

    Returns:
        New tensors with the shapes and dtypes of `positive`. A branch that the rule does not use
        is checked and then ignored.

    Raises:
        InputError: an unknown rule or scope, a branch missing, a count, shape or dtype wrong.
    """
    gradients = _checked(rule, positive, negative, anchor, scope, weight)
    return _update(gradients, _TABLE[rule].mix(gradients, weight))


@torch.no_grad()
def statistics(
    rule: str,
    positive: Sequence[Tensor],
    negative: Sequence[Tensor] | None = None,
    anchor: Sequence[Tensor] | None = None,
    *,
    scope: str = "global",
    weight: float = 0.5,
) -> dict[str, Tensor]:
    """What `refine` sees and does in a step, for the log.

    The arguments are those of `refine`. Nothing here waits for the device; to read all numbers at
    the price of one sync: `dict(zip(s, torch.stack(list(s.values())).tolist()))`.

    Returns:
        Tensors without dimensions, float64, on the device. What belongs to a branch that was not
        given is left out.

        * `norm_positive`, `norm_negative`, `norm_anchor`: lengths over all parameters.
        * `cos_negative`, `cos_anchor`: cosine of g_p with g_n and with g_a over all parameters,
          -1..1; 0 where one of them is zero.
        * `coefficient_positive`, `coefficient_negative`, `coefficient_anchor`: the update is their
          sum with g_p, g_n and g_a (`scope="tensor"`: their mean over the tensors).
        * `removed`: the share of g_p removed, 0..1: the length by which the rule, its anchor term
          left out, shortens g_p's component along g_n, relative to g_p's length. Pushing on past
          zero, or away from a g_n that already points away, removes nothing more. It is
          |P_n(g_p)| / |g_p| = |cos| for `projection` and `nsync`, max(0, cos) for `overlap`, and
          at most |cos| for all. Left out for rules that do not turn against the negatives.

    Raises:
        InputError: as `refine`.
    """
    gradients = _checked(rule, positive, negative, anchor, scope, weight)
    return _statistics(rule, gradients, _TABLE[rule].mix(gradients, weight))


@torch.no_grad()
def refine_and_read(
    rule: str,
    positive: Sequence[Tensor],
    negative: Sequence[Tensor] | None = None,
    anchor: Sequence[Tensor] | None = None,
    *,
    scope: str = "global",
    weight: float = 0.5,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """What `refine` and `statistics` return, for little more than the price of the first."""
    gradients = _checked(rule, positive, negative, anchor, scope, weight)
    mix = _TABLE[rule].mix(gradients, weight)
    return _update(gradients, mix), _statistics(rule, gradients, mix)


def needs_negative(rule: str) -> bool:
    """Whether the rule cannot do without gradients on negatives."""
    return _find(rule).needs_negative


def needs_anchor(rule: str) -> bool:
    """Whether the rule cannot do without gradients on anchors."""
    return _find(rule).needs_anchor


def denies_style(rule: str) -> bool:
    """Whether the negatives are captioned "not in the style of" instead of "in the style of"."""
    return _find(rule).denies_style


def turns_against_negatives(rule: str) -> bool:
    """Whether the update moves away from what the negatives ask for, and can be said to remove."""
    return needs_negative(rule) and not denies_style(rule)


def _nsync(g: Gradients, weight: float) -> Mix:
    """g_p - P_n(g_p) + P_a(g_p): arXiv 2511.01517, as an independent implementer reads it.

    That implementer is github.com/samurzl/diffusion-pipe, utils/nsync.py; the paper's own equation
    of the anchor was not at hand.
    """
    return Mix(p=1.0, n=-g.onto("n"), a=g.onto("a"))


def _projection(g: Gradients, weight: float) -> Mix:
    """g_p - P_n(g_p): the abstract of arXiv 2511.01517."""
    return Mix(p=1.0, n=-g.onto("n"))


def _released_42(g: Gradients, weight: float) -> Mix:
    """2 g_p - P_{p+n}(g_p): what v4.2 of the authors' code computes.

    Its backward calls add up in `.grad`, so its "negative" is g_p + g_n, and its anchor term
    projects g_p on itself. Unlike the code, 0 / 0 is not NaN here: g_n = -g_p gives 2 g_p.
    """
    return Mix(p=2.0, q=-g.onto("q"))


def _released_41(g: Gradients, weight: float) -> Mix:
    """g_p - P_{p+n}(g_p): the same code without anchor, v4.1.

    A push away from the negatives that limits itself: P_{p+n}(g_n) - g_n as well, (g_p - g_n) / 2
    where both are of one length, and never longer than either (|g_p| |g_n| sin / |g_p + g_n|). As
    g_p fades, the projection of g_p is left, where `contrast` would be left with -g_n.
    """
    return Mix(p=1.0, q=-g.onto("q"))


def _mean(g: Gradients, weight: float) -> Mix:
    """Mean of g_p, g_n (and g_a): v5.0 and v5.1 of the authors' code, as intended.

    As released, the same accumulation as in v4.2 distorts these means; that is not repeated here.
    """
    if g.anchor is None:
        return Mix(p=1 / 2, n=1 / 2)
    return Mix(p=1 / 3, n=1 / 3, a=1 / 3)


def _overlap(g: Gradients, weight: float) -> Mix:
    """g_p - max(0, g_p . g_n) / (g_n . g_n) g_n: ours.

    PCGrad (arXiv 2001.06782, algorithm 1) projects where two gradients conflict; this, where they
    agree, so that a direction away from the generic is never taken out.
    """
    return Mix(p=1.0, n=-g.onto("n").clamp(min=0))


def _contrast(g: Gradients, weight: float) -> Mix:
    """g_p - lambda g_n: plain push-away, a baseline."""
    return Mix(p=1.0, n=-weight)


def _plain(g: Gradients, weight: float) -> Mix:
    """g_p: training without negatives, the baseline."""
    return Mix(p=1.0)


@dataclass(frozen=True)
class _Rule:
    mix: Callable[[Gradients, float], Mix]
    needs_negative: bool = True
    needs_anchor: bool = False
    denies_style: bool = False


_TABLE = {
    "nsync": _Rule(_nsync, needs_anchor=True),
    "projection": _Rule(_projection),
    "released-4.2": _Rule(_released_42),
    "released-4.1": _Rule(_released_41),
    "mean": _Rule(_mean, denies_style=True),
    "overlap": _Rule(_overlap),
    "contrast": _Rule(_contrast),
    "plain": _Rule(_plain, needs_negative=False),
}

RULES = tuple(_TABLE)
"""Names of the rules, the default first."""


def _update(gradients: Gradients, mix: Mix) -> list[Tensor]:
    like = gradients.positive
    parts = gradients.blend(mix).split([tensor.numel() for tensor in like])
    pairs = zip(parts, like, strict=True)
    return [part.view(tensor.shape).to(tensor.dtype) for part, tensor in pairs]


def _statistics(rule: str, gradients: Gradients, mix: Mix) -> dict[str, Tensor]:
    given = {"positive": "p", "negative": "n", "anchor": "a"}
    branches = {name: b for name, b in given.items() if getattr(gradients, name) is not None}
    norms = {name: gradients.dot(b, b).sum().sqrt() for name, b in branches.items()}
    read = {f"norm_{name}": norm for name, norm in norms.items()}
    for name in list(branches)[1:]:
        dot = gradients.dot("p", branches[name]).sum()
        read[f"cos_{name}"] = ratio(dot, norms["positive"] * norms[name]).clamp(-1, 1)
    for name in branches:
        read[f"coefficient_{name}"] = mix.on(name, gradients.p).mean()
    if turns_against_negatives(rule):
        read["removed"] = _removed(gradients, mix)
    return read


def _removed(g: Gradients, mix: Mix) -> Tensor:
    """Share of g_p removed along g_n (defined in `statistics`), over all groups together."""
    length = g.dot("n", "n").sqrt()
    before = ratio(g.dot("p", "n"), length)
    after = mix.on("positive", g.p) * before + mix.on("negative", g.p) * length
    shortened = ((before - after) * before.sign()).clamp(min=0).minimum(before.abs())
    return ratio(shortened.square().sum().sqrt(), g.dot("p", "p").sum().sqrt())


def _find(rule: str) -> _Rule:
    if rule not in _TABLE:
        raise InputError("rule", f"one of {', '.join(RULES)}", repr(rule))
    return _TABLE[rule]


def _checked(
    rule: str,
    positive: Sequence[Tensor],
    negative: Sequence[Tensor] | None,
    anchor: Sequence[Tensor] | None,
    scope: str,
    weight: float,
) -> Gradients:
    """The branches, after everything about them that a host can know has been checked."""
    if scope not in SCOPES:
        raise InputError("scope", f"one of {', '.join(SCOPES)}", repr(scope))
    if not 0 <= weight < math.inf:
        raise InputError("weight", "a finite number, at least 0", repr(weight))
    needed = {"negative": needs_negative(rule), "anchor": needs_anchor(rule)}
    check_tensors("positive", positive)
    for name, tensors in (("negative", negative), ("anchor", anchor)):
        if tensors is not None:
            check_tensors(name, tensors)
            check_match(name, tensors, positive)
        elif needed[name]:
            remedy = f"Give the gradients of that branch, or choose a rule without {name}s."
            raise InputError(name, f"a list of tensors, which rule {rule!r} needs", "None", remedy)
    return Gradients(positive, negative, anchor, scope)
